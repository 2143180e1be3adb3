"""What the command line does with finished runs: evaluate, film, export."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines.config import UsageError
from results.record import read_episodes, scan
from suites import load_episodes, load_policy, load_results
from suites.cli import main
from suites.film import Film, Gif, Mp4, make_rendered


@pytest.fixture(scope="session")
def runs(finished: Path) -> dict[str, Path]:
    """The hopper's runs of seed 0, by agent."""
    found: dict[str, Path] = {}
    for path, record in scan(finished / "runs"):
        assert not isinstance(record, Exception)
        if record.seed == 0 and record.task["id"] == "hopper-random":
            found[record.agent["label"]] = path
    return found


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("agent", ["bc", "td3_bc", "iql", "random"])
def test_the_same_episodes_are_the_records_to_the_last_bit(
    agent: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "episodes.json"
    assert main(["evaluate", str(runs[agent]), "--same-episodes", "--to", str(to)]) == 0
    assert "equal to the record's final episodes, to the last bit" in capsys.readouterr().out
    written = json.loads(to.read_bytes())
    assert written["agent"] == agent
    recorded = read_episodes(runs[agent])
    assert [row["return"] for row in written["episodes"]] == recorded.returns.tolist()


def test_another_record_is_not_equal(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(runs["bc"], tmp_path / "copy"))
    shutil.copy(runs["td3_bc"] / "policy.pt", folder / "policy.pt")
    assert main(["evaluate", str(folder), "--same-episodes"]) == 1
    assert "returns differ by up to" in capsys.readouterr().out


def test_fresh_episodes_are_printed_and_written(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(runs["bc"].iterdir())
    command = ["evaluate", str(runs["bc"] / "policy.pt"), "--episodes", "2", "--seed", "3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "bc on hopper-random, seed 0: 2 episodes, reset seeds 33,000,000 to 33,000,001" in shown
    assert sorted(runs["bc"].iterdir()) == before
    to = tmp_path / "episodes.csv"
    assert main([*command, "--to", str(to)]) == 0
    assert capsys.readouterr().out.startswith(shown)
    with to.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["reset_seed"] for row in rows] == ["33000000", "33000001"]
    mean = np.mean([float(row["return"]) for row in rows])
    assert f"     mean{mean:>11.1f}" in shown
    low, high = (load_policy(runs["bc"]).task[f"reference_{end}"] for end in ("min", "max"))
    for row in rows:
        expected = 100 * (float(row["return"]) - low) / (high - low)
        assert float(row["score"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere"], "nowhere is not there"),
        (["evaluate", "BEHAVIOUR"], "give the folder of a run that has trained"),
        (["evaluate", "BC", "--episodes", "0"], "episodes must be between 1 and"),
        (["evaluate", "BC", "--same-episodes", "--seed", "1"], "leave --episodes and --seed out"),
        (["evaluate", "BC", "--to", "a.txt"], "name the file .csv or .json"),
        (["evaluate", "BC", "--video", "a.avi"], "name it .mp4 or .gif"),
        (["evaluate", "BC", "--video", "nowhere/a.gif"], "the folder nowhere is not there"),
        (["evaluate", "BC", "--plugin", "gone.py"], "plugin file gone.py is not there"),
        (["evaluate", "ALONE", "--same-episodes"], "no such file"),
        (["export", "BC", "policy.onnx"], "name the file .pt2 or .csv or .zip"),
        (["export", "BC", "runs.zip", "--episodes"], "--episodes is for tables"),
        (["export", "EMPTY", "runs.zip"], "has no finished runs"),
        (["export", "BC", "FILE/runs.zip"], "cannot be written"),
        (["export", "BC", "policy.pt2", "--episodes"], "--episodes is for tables"),
        (["export", "RANDOM", "policy.pt2"], "it draws noise when it acts"),
        (["export", "EMPTY", "runs.csv"], "has no finished runs"),
        (["export", "nowhere", "runs.csv"], "nowhere is not there"),
        (["export", "BC", "FILE/runs.csv"], "cannot be written"),
    ],
)
def test_wrong_input_gets_a_sentence(
    arguments: list[str],
    words: str,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ALONE", "EMPTY"):
        Path(name).mkdir()
    Path("FILE").touch()
    shutil.copy(runs["bc"] / "policy.pt", "ALONE")
    places = {label.upper(): str(path) for label, path in runs.items()}
    before = sorted(tmp_path.iterdir())
    assert main([places.get(word, word) for word in arguments]) == 2
    said = errors(capsys)
    assert said.startswith("error: ")
    assert words in said
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_an_agent_against_the_contract_is_named(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("baselines.bc.BC.act", lambda self, step, memory=None: (None, None))
    assert main(["evaluate", str(runs["bc"])]) == 2
    assert "act returned actions of shape NoneType" in errors(capsys)


def test_verbs_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (
            ["--help"],
            ("\n  evaluate ", "\n  export ", "\n  import ", "\n  compare "),
        ),
        (["evaluate", "--help"], ("--same-episodes", "--video")),
    ):
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)


def test_tables_of_a_folder_a_report_and_a_cell(
    finished: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    everything = load_results(finished / "runs")
    (report,) = (finished / "runs" / "reports").iterdir()
    pd.testing.assert_frame_equal(
        load_results(report).sort_values("path", ignore_index=True),
        everything.sort_values("path", ignore_index=True),
    )
    one = load_results(runs["td3_bc"])
    expected = everything[everything["path"] == one["path"].iloc[0]]
    pd.testing.assert_frame_equal(one, expected.reset_index(drop=True), check_dtype=False)
    copied = load_results(shutil.copytree(runs["td3_bc"], tmp_path / "copy"))
    assert copied["score"].tolist() == one["score"].tolist()
    episodes = load_episodes(runs["td3_bc"])
    assert episodes["return"].tolist() == read_episodes(runs["td3_bc"]).returns.tolist()

    for name, options, table in (
        ("runs.csv", [], everything),
        ("episodes.csv", ["--episodes"], load_episodes(finished / "runs")),
    ):
        file = tmp_path / name
        assert main(["export", str(finished / "runs"), str(file), *options]) == 0
        read = pd.read_csv(file, float_precision="round_trip")
        pd.testing.assert_frame_equal(read, table, check_dtype=False)


def test_export_and_act(runs: dict[str, Path], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "policy.pt2"
    for agent in ("td3_bc", "iql"):
        assert main(["export", str(runs[agent]), str(file)]) == 0
        program = torch.export.load(file).module()
        observations = np.random.default_rng(0).standard_normal((3, 11))
        found = program(torch.from_numpy(observations)).detach().numpy()
        np.testing.assert_allclose(found, load_policy(runs[agent]).act(observations), atol=1e-5)


@pytest.fixture(scope="session")
def rendering() -> None:
    """Skips where nothing can be rendered, and says why."""
    try:
        make_rendered("Hopper-v5").close()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
@pytest.mark.usefixtures("rendering")
def test_filming_shows_the_first_episode_and_changes_nothing(
    suffix: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    policy, file = load_policy(runs["iql"]), tmp_path / f"episode{suffix}"
    plain, filmed = policy.evaluate(2), policy.evaluate(2, video=file)
    np.testing.assert_array_equal(filmed.returns, plain.returns)
    pictures, rate = film_of(file)
    # The hopper runs at 125 steps per second: a picture at the start and every fifth step.
    assert len(pictures) == 1 + plain.lengths[0] // 5
    assert rate == 25
    assert pictures[0].shape == ((240, 240, 3) if suffix == ".gif" else (480, 480, 3))
    assert pictures[0].std() > 10  # not an empty scene
    assert np.abs(pictures[0].astype(int) - pictures[-1]).max() > 50  # something moved
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def film_of(file: Path) -> tuple[list[np.ndarray], Fraction]:
    """A video's pictures ``[H, W, 3]`` and pictures per second."""
    if file.suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(file) as film:
            pictures = [np.asarray(p.convert("RGB")) for p in ImageSequence.Iterator(film)]
            return pictures, Fraction(1000, film.info["duration"])
    av: Any = pytest.importorskip("av")
    with av.open(str(file)) as container:
        pictures = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
        return pictures, container.streams.video[0].average_rate


@pytest.mark.parametrize("maker", [Gif, Mp4])
def test_pictures_come_back_from_the_file(maker: Any, tmp_path: Path) -> None:
    """The encoders alone, on any machine."""
    file = tmp_path / f"film.{maker.__name__.lower()}"
    writer = maker(file, Fraction(20))
    grey = [40, 120, 200]
    for level in grey:
        writer.write(np.full((64, 48, 3), level, np.uint8))
    writer.close()
    pictures, rate = film_of(file)
    assert rate == 20
    np.testing.assert_allclose([p.mean() for p in pictures], grey, atol=3)
    assert pictures[0].shape[0] / pictures[0].shape[1] == 64 / 48


def test_where_nothing_can_be_rendered_a_sentence_says_so(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "magic_lantern")
    file = tmp_path / "episode.gif"
    assert main(["evaluate", str(runs["bc"]), "--video", str(file)]) == 2
    assert "cannot be rendered with MUJOCO_GL=magic_lantern" in errors(capsys)
    assert not list(tmp_path.iterdir())


def test_without_pyav_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        UsageError, match=r"an .mp4 needs PyAV \(pip install -e '.\[video\]'\); a .gif works"
    ):
        Mp4(tmp_path / "film.mp4", Fraction(25))


@pytest.mark.usefixtures("rendering")
def test_a_film_that_breaks_off_leaves_nothing(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("the projector is on fire")

    monkeypatch.setattr(Film, "step", breaks)
    with pytest.raises(RuntimeError, match="on fire"):
        load_policy(runs["bc"]).evaluate(1, video=tmp_path / "episode.mp4")
    assert not list(tmp_path.iterdir())
