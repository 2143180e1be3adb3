"""The source d4rl on small files in D4RL's exact layout."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from baselines.config import UsageError
from results.record import read_record
from suites import catalog
from suites.cli import main
from suites.datasets import d4rl, d4rl_format, download, store
from suites.datasets.store import DatasetError
from suites.envs import make_vector
from suites.job import Job
from suites.plan import make_plan
from suites.resolve import Options
from suites.train import prepare, train

NAMES = {"medium": "hopper_medium-v2.hdf5", "expert": "hopper_expert-v2.hdf5"}
MIXED = "hopper_medium_expert-v2.hdf5"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache, and D4RL's folder, empty."""
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    (tmp_path / "d4rl").mkdir()
    return tmp_path


def arrays(rows: int = 40, seed: int = 0, width: int = 11, actions: int = 3) -> dict[str, Any]:
    """What a v2 file holds; terminals after 7 and 20 rows, time limits after 15 and 30."""
    rng = np.random.default_rng(seed)
    chain = rng.standard_normal((rows + 1, width)).astype(np.float32)
    terminals, timeouts = np.zeros((2, rows), bool)
    terminals[[6, 19]] = True
    timeouts[[14, 29]] = True
    return {
        "observations": chain[:-1],
        "actions": rng.uniform(-1, 1, (rows, actions)).astype(np.float32),
        "rewards": rng.standard_normal(rows).astype(np.float32),
        "next_observations": chain[1:],
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/action_log_probs": rng.standard_normal(rows),
        "infos/qpos": rng.standard_normal((rows, 6)),
        "metadata/algorithm": "SAC",
        "metadata/policy/fc0/weight": np.zeros((3, 3)),
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    return path


def qlearning_rows(content: dict[str, Any], limit: int) -> list[int]:
    """The rows that D4RL's ``qlearning_dataset`` keeps, by its own description of the rule."""
    kept, step = [], 0
    for row in range(len(content["rewards"]) - 1):
        final = content["timeouts"][row] if "timeouts" in content else step == limit - 1
        if final:
            step = 0
            continue
        if content["terminals"][row]:
            step = 0
        kept.append(row)
        step += 1
    return kept


def load(task: str, path: Path | None = None, **options: Any) -> store.Dataset:
    return store.load(d4rl.ensure(d4rl.key(task, path), **options))


def test_every_task_has_a_file_a_scale_and_an_environment() -> None:
    found = [task for task in catalog.TASKS.values() if task.env_id("d4rl") is not None]
    assert sorted(d4rl.tasks()) == sorted(task.id for task in found)
    for task in found:
        entry = d4rl.published()[task.id]
        assert entry.url.startswith("http") and entry.url.endswith(".hdf5")
        version = {"locomotion": "v2", "antmaze": "v2", "kitchen": "v0"}.get(task.domain, "v1")
        assert entry.version == version
        low, high, source = catalog.reference(task.environment)
        assert low < high and "D4RL@89141a6" in source


@pytest.mark.parametrize("given", ["next_observations", None])
@pytest.mark.parametrize("limits", ["timeouts", None])
def test_rows_are_those_of_qlearning_dataset(
    tmp_path: Path, given: str | None, limits: str | None
) -> None:
    content = arrays()
    if given is None:
        del content["next_observations"]
    if limits is None:
        del content["timeouts"]
    log = d4rl_format.read(write(tmp_path / "x.hdf5", content), limit=9)
    rows = qlearning_rows(content, limit=9)
    assert 30 < len(rows) < 39
    for name in ("observations", "actions", "rewards"):
        assert np.array_equal(log.fields[name], content[name][rows])
    assert np.array_equal(log.fields["terminations"], content["terminals"][rows])
    following = content["observations"][np.array(rows) + 1]
    assert np.array_equal(log.fields["next_observations"], following)
    # Episodes are cut where rows were left out, and nowhere else.
    truncated = [r for r in rows if r + 1 not in rows and not content["terminals"][r]]
    assert np.flatnonzero(log.fields["truncations"]).tolist() == [rows.index(r) for r in truncated]


def test_a_time_limit_is_never_a_termination(tmp_path: Path) -> None:
    content = arrays()
    content["terminals"][29] = True  # on the row where the time limit strikes
    log = d4rl_format.read(write(tmp_path / "x.hdf5", content), None)
    assert log.fields["terminations"].sum() == 2
    assert len(log.fields["rewards"]) == 37


def test_the_behaviour_is_measured_on_all_rows(tmp_path: Path) -> None:
    content = arrays()
    data = load("hopper-medium", write(tmp_path / "x.hdf5", content))
    returns, lengths = data.episodes()
    cuts = np.split(content["rewards"].astype(np.float64), [7, 15, 20, 30])[:4]
    assert np.allclose(returns, [cut.sum() for cut in cuts], atol=0, rtol=1e-12)
    assert lengths.tolist() == [7, 8, 5, 10]
    assert data.card["return_mean"] == pytest.approx(np.mean([cut.sum() for cut in cuts]))
    assert data.last_rows().tolist() == [6, 13, 18, 27]
    assert data.card["dataset_version"] == "v2"
    assert data.card["env_id"] == "Hopper-v4"


def test_reward_parts_sum_to_the_reward_and_are_the_simulators(tmp_path: Path) -> None:
    env = make_vector("Hopper-v4", 1)
    env.action_space.seed(0)
    rows: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards")}
    ends, parts = [], []
    observation = env.reset(0, 0)
    for number in range(200):
        action = env.action_space.sample()
        played = env.step(action[None])
        values = (observation, action, played.rewards[0])
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
        ends.append(played.terminations[0])
        parts.append(played.parts[0])
        observation = env.reset(0, number) if ends[-1] else played.observations[0]
    env.close()
    content = {name: np.array(values, np.float32) for name, values in rows.items()}
    content |= {"terminals": np.array(ends), "timeouts": np.zeros(200, bool)}
    data = load("hopper-medium", write(tmp_path / "x.hdf5", content))
    assert data.card["reward_parts"] == ["forward", "survive", "control"]
    found = data.column("reward_parts")
    assert np.abs(np.add.accumulate(found, axis=1)[:, -1] - data.column("rewards")).max() < 1e-6
    assert np.allclose(found, np.array(parts, np.float32)[:199], atol=1e-5)


def joined(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    medium, expert = arrays(seed=1), arrays(rows=33, seed=2)
    both = {
        name: np.concatenate((medium[name], expert[name]))
        for name in ("observations", "actions", "rewards", "terminals", "timeouts")
    }
    write(tmp_path / "d4rl" / MIXED, both)
    return medium, expert


def test_policies_are_known_only_where_proved(tmp_path: Path) -> None:
    medium, expert = joined(tmp_path)
    assert "policy_ids" not in d4rl.fields("hopper-medium-expert")
    assert "policies" not in load("hopper-medium-expert").card
    write(tmp_path / "d4rl" / NAMES["medium"], medium)
    other = {**expert, "actions": -expert["actions"]}
    write(tmp_path / "d4rl" / NAMES["expert"], other)
    assert "policy_ids" not in d4rl.fields("hopper-medium-expert")
    write(tmp_path / "d4rl" / NAMES["expert"], expert)
    assert {"policy_ids", "policy_groups"} <= set(d4rl.fields("hopper-medium-expert"))
    data = load("hopper-medium-expert")
    assert [policy["name"] for policy in data.card["policies"]] == ["medium", "expert"]
    assert data.column("policy_ids").tolist() == [0.0] * 38 + [1.0] * (len(data.table) - 38)
    assert np.array_equal(data.column("actions")[38], expert["actions"][0])
    # What was proved once is known, also where only the joined file is left.
    (tmp_path / "d4rl" / NAMES["expert"]).unlink()
    assert "policy_ids" in d4rl.fields("hopper-medium-expert")


def test_where_files_are_looked_for(tmp_path: Path) -> None:
    own, cached = tmp_path / "own", tmp_path / "cache" / "d4rl" / "files"
    for folder in (own, cached):
        folder.mkdir(parents=True)
    assert d4rl.find("hopper-medium") is None
    why = str(d4rl.missing(d4rl.key("hopper-medium", own)))
    assert "hopper_medium-v2.hdf5 is not in" in why and why.endswith("or add --download")
    assert all(str(place) in why for place in (own, tmp_path / "d4rl", cached))
    for folder in (cached, tmp_path / "d4rl", own):
        path = write(folder / NAMES["medium"], arrays())
        assert d4rl.find(d4rl.key("hopper-medium", own)) == path
    (own / NAMES["medium"]).rename(own / "hopper-medium-v2.hdf5")
    assert d4rl.find(d4rl.key("hopper-medium", own)) == own / "hopper-medium-v2.hdf5"
    assert "is not there" in str(d4rl.missing(d4rl.key("hopper-medium", tmp_path / "no")))


def test_the_same_file_is_the_same_dataset_wherever_it_lies(tmp_path: Path) -> None:
    first = write(tmp_path / "a.hdf5", arrays())
    second = tmp_path / "d4rl" / NAMES["medium"]
    second.write_bytes(first.read_bytes())
    named = d4rl.key("hopper-medium", first)
    assert d4rl.identity(named) == d4rl.identity("hopper-medium")
    assert d4rl.ensure(named) == d4rl.ensure("hopper-medium")
    assert d4rl.is_cached("hopper-medium")
    assert d4rl.identity(named, size=10)["id"] != d4rl.identity(named)["id"]
    assert d4rl.identity(named, size=40)["id"] == d4rl.identity(named)["id"]
    write(second, arrays(seed=5))
    assert not d4rl.is_cached("hopper-medium")


def test_fewer_rows_are_whole_episodes_from_all_over(tmp_path: Path) -> None:
    content = arrays(rows=2000)
    content["terminals"][:] = False
    content["timeouts"][:] = np.arange(2000) % 20 == 19
    data = load("hopper-medium", write(tmp_path / "x.hdf5", content), size=200)
    assert len(data.table) == 200
    assert data.column("truncations")[-1] == 1
    index = {tuple(row): i for i, row in enumerate(content["observations"].tolist())}
    rows = [index[tuple(row)] for row in data.column("observations").tolist()]
    assert rows == sorted(rows)
    assert rows[0] == 0 and rows[-1] > 1500
    starts = data.episode_starts
    assert all(rows[start] % 20 == 0 for start in starts)
    returns, lengths = data.episodes()
    assert len(returns) == len(starts) - 1 and set(lengths.tolist()) == {20}


BROKEN: dict[str, tuple[Any, str]] = {
    "text": (b"not at all", "not an HDF5 file"),
    "half": (None, "not an HDF5 file, or only a part"),
    "no rewards": ({"rewards": None}, "rewards: no such array; the file has actions, infos"),
    "a group": ({"actions": None, "actions/x": np.zeros(3)}, "actions: no such array"),
    "text array": ({"terminals": np.array([b"no"] * 40)}, "terminals: holds |S2, not numbers"),
    "a number": ({"rewards": 1.0}, "rewards: a single value"),
    "short": ({"actions": np.zeros((39, 3))}, "actions: 39 rows, and the others have 40"),
    "flat": ({"observations": np.zeros(40)}, "observations: shape (40,); there must be one row"),
    "nan": ({"rewards": np.full(40, np.nan)}, "rewards: row 0 is NaN"),
    "large": ({"observations": np.full((40, 11), 1e300)}, "observations: row 0 is NaN, infinite"),
    "width": ({"observations": np.zeros((40, 17))}, "next_observations: shape (40, 11), and"),
    "robot": ({"actions": np.zeros((40, 6))}, "actions: 6 numbers where hopper-medium has 3"),
    "no end": ({"terminals": np.zeros(40), "timeouts": np.zeros(40)}, "no episode ends within 39"),
    "all cut": ({"timeouts": np.ones(40)}, "timeouts: every episode ends after one step"),
    "empty": (dict.fromkeys(arrays(), None), "rewards: no such array; the file has nothing"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_sentence(tmp_path: Path, kind: str) -> None:
    changes, words = BROKEN[kind]
    path = tmp_path / "x.hdf5"
    if kind == "text":
        path.write_bytes(changes)
    elif kind == "half":
        write(path, arrays())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        content = {**arrays(), **changes}
        write(path, {name: value for name, value in content.items() if value is not None})
    with pytest.raises(DatasetError) as caught:
        load("hopper-medium", path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value) or kind == "no end"
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_wrong_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", arrays())
    good, rng = path.read_bytes(), np.random.default_rng(0)
    said: list[str] = []
    for attempt in range(120):
        content = np.frombuffer(good, np.uint8).copy()
        within = 8000 if attempt % 3 else len(good)  # mostly where the structure lies
        content[rng.integers(0, within, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(content[: within if attempt % 10 == 0 else None].tobytes())
        try:
            d4rl_format.read(path, 9)
        except DatasetError as error:
            said.append(str(error))
    assert len(said) > 15
    assert all(text.startswith(str(path)) and "\n" not in text for text in said)


def test_a_claim_of_any_size_is_refused_before_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "x.hdf5", {k: v for k, v in arrays().items() if k != "actions"})
    with h5py.File(path, "a") as file:
        file.create_dataset("actions", (40, 2**33), "f4", chunks=(1, 1024))
    with pytest.raises(DatasetError, match="actions: claims 1,374,389,534,720 bytes"):
        d4rl_format.read(path, None)


def test_downloads_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(url: str, target: Path, **_: Any) -> str:
        asked.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, arrays())
        return ""

    monkeypatch.setattr(download, "download", fake)
    options = Options("mujoco_9", source="d4rl", tasks=["hopper-medium"], agents=["bc"])
    plan = make_plan(options)
    assert "add --download" in plan.tasks[0]["missing"] and asked == []
    plan = make_plan(Options(**{**vars(options), "download": True}))
    assert asked == [d4rl.published()["hopper-medium"].url]
    assert plan.tasks[0]["missing"] is None and plan.tasks[0]["env_id"] == "Hopper-v4"
    make_plan(Options(**{**vars(options), "download": True}))
    assert len(asked) == 1  # it is here


def test_misuse_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.hdf5", arrays())
    base = ["mujoco_9", "--source", "d4rl", "--agents", "bc", "--out", str(tmp_path / "out")]
    for arguments, words in (
        ([*base, "--data-dir", str(path)], "is one file for 9 tasks"),
        (["core3", "--data-dir", str(path), "--tasks", "h*medium"], "only source d4rl takes one"),
        (["core3", "--source", "local", "--download"], "source local downloads nothing"),
        (
            [*base, "--data-dir", str(path), "--tasks", "hopper-medium", "--dataset-seeds", "2"],
            "recorded data has one draw",
        ),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(UsageError, match='did you mean "hopper-medium"'):
        d4rl.identity("hopper-mediun")


def test_a_worker_finds_the_file_that_the_planner_was_told(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.hdf5", arrays(rows=600))
    manifest = tmp_path / "one.yaml"
    manifest.write_text(
        "tasks: [hopper-medium]\nagents: [bc]\nbudget: tiny\nbudgets: {tiny: {updates: 2, seeds: 1,"
        " evaluations: 1, evaluation_episodes: 1, final_episodes: 1}}\n"
    )
    plan = make_plan(Options(str(manifest), source="d4rl", data_dir=path, out=tmp_path / "out"))
    data, *training = [Job(**json.loads(json.dumps(asdict(job)))) for job in plan.jobs()]
    assert [job.kind for job in training] == ["train"] * 2
    prepare(data, lambda *_: None)
    train(training[1], lambda *_: None, lambda _: None)
    record = read_record(tmp_path / "out" / training[1].paths[0])
    assert record.status == "done" and record.task["env_id"] == "Hopper-v4"
    assert record.dataset["dataset_version"] == "v2" and record.dataset["file"] == "mine.hdf5"
    behaviour = read_record(tmp_path / "out" / data.paths[0])
    assert behaviour.final["return_mean"] == pytest.approx(record.dataset["return_mean"])
