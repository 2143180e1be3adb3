"""Minari's datasets in, ours out, and nothing lost on the way."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from suites.cli import main
from suites.datasets import __main__ as command
from suites.datasets import d4rl, export, local, minari_source, recorded, store
from suites.datasets.store import DatasetError
from suites.envs import manipulation
from suites.plan import make_plan
from suites.resolve import Options

POINT = "D4RL/pointmaze/tiny-v2"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's folder and an own cache."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "minari"


def make(
    root: Path,
    name: str,
    observation: Any,
    action: Any,
    episodes: list[dict[str, Any]],
    **metadata: Any,
) -> Path:
    """A dataset as Minari writes it."""
    minari_source.need_minari(name)
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = root / name
    folder.mkdir(parents=True)
    storage = MinariStorage.new(folder / "data", observation, action)
    storage.update_metadata({"dataset_id": name, "minari_version": "0.5.3", **metadata})
    storage.update_episodes([EpisodeBuffer(id=i, **e) for i, e in enumerate(episodes)])
    return folder / "data"


def episode(observation: Any, action: Any, steps: int, **ends: bool) -> dict[str, Any]:
    flags = {name: np.zeros(steps, bool) for name in ("terminations", "truncations")}
    for name, value in ends.items():
        flags[name][-1] = value
    seen = [observation.sample() for _ in range(steps + 1)]

    def stacked(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: stacked([value[key] for value in values]) for key in values[0]}
        return np.stack(values)

    return {
        "observations": stacked(seen),
        "actions": np.stack([action.sample() for _ in range(steps)]),
        "rewards": np.arange(steps, dtype=np.float64) / 7,
        **flags,
        "seen": seen,
    }


def point_maze(root: Path, **metadata: Any) -> list[Any]:
    """Three episodes of PointMaze, whose observations are a Dict, as they were seen."""
    manipulation.register_robotics()
    env: Any = gymnasium.make("PointMaze_UMaze-v3")
    spec = copy.deepcopy(gymnasium.spec("PointMaze_UMaze-v3"))
    spec.kwargs = {**spec.kwargs, "reset_target": False, "continuing_task": False}
    episodes = [
        episode(env.observation_space, env.action_space, 5, terminations=True),
        episode(env.observation_space, env.action_space, 4, truncations=True),
        episode(env.observation_space, env.action_space, 3),
    ]
    seen = [e.pop("seen") for e in episodes]
    known = {"env_spec": spec.to_json(), "ref_min_score": 2.0, "ref_max_score": 12.0}
    make(root, POINT, env.observation_space, env.action_space, episodes, **(known | metadata))
    flat = [[spaces.flatten(env.observation_space, o) for o in one] for one in seen]
    env.close()
    return flat


def test_dict_observations_ends_and_scale(root: Path) -> None:
    seen = point_maze(root)
    task = minari_source.own_task(POINT)
    assert task is not None
    assert (task.id, task.key, task.quality) == ("D4RL-pointmaze-tiny-v2", POINT, "tiny-v2")
    assert task.reference is not None and task.reference[:2] == (2.0, 12.0)
    data = store.load(minari_source.ensure(POINT))
    expected = np.concatenate([np.stack(one[:-1]) for one in seen]).astype(np.float32)
    assert np.array_equal(data.column("observations"), expected)
    following = np.concatenate([np.stack(one[1:]) for one in seen]).astype(np.float32)
    assert np.array_equal(data.column("next_observations"), following)
    assert np.flatnonzero(data.column("terminations")).tolist() == [4]
    assert np.flatnonzero(data.column("truncations")).tolist() == [8]
    assert data.episode_starts.tolist() == [0, 5, 9]
    # The environment with the dataset's settings, which differ from the registered ones.
    name = 'PointMaze_UMaze-v3?{"continuing_task": false, "reset_target": false}'
    assert data.card["env_id"] == name and data.card["horizon"] == 300
    assert data.episodes()[0].tolist() == [pytest.approx(10 / 7)]  # the others were cut short


def test_planned_beside_no_catalogue(root: Path, tmp_path: Path) -> None:
    point_maze(root)
    plan = make_plan(Options("", source="minari", tasks=[POINT], agents=["bc"], out=tmp_path))
    (task,) = plan.tasks
    assert task["missing"] is None and task["key"] == POINT
    assert task["env_id"].startswith("PointMaze_UMaze-v3?")
    assert (task["reference_min"], task["reference_max"]) == (2.0, 12.0)
    assert plan.jobs()[0].key == POINT


def test_an_unknown_environment_leaves_training(root: Path) -> None:
    spec = json.dumps({"id": "os:system-v0", "entry_point": "os:system", "kwargs": {"x": 1}})
    point_maze(root, env_spec=spec)
    task = minari_source.own_task(POINT)
    assert task is not None and task.spaces is not None
    assert task.spaces["observation"]["shape"] == [8]
    assert "os:system-v0 is not installed; it is trained without a simulator" in task.notes[0]
    assert minari_source.identity(POINT)["env_id"] is None


def small(root: Path, **changes: Any) -> Path:
    box, action = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    one = episode(box, action, 4, terminations=True)
    one.pop("seen")
    one |= changes
    return make(root, "own/small-v0", box, action, [one])


def _use(name: str) -> None:
    minari_source.own_task(name)
    minari_source.ensure(name)


def test_broken_datasets_are_one_sentence(root: Path, tmp_path: Path) -> None:
    def told(name: str = "own/small-v0") -> str:
        with pytest.raises(DatasetError) as caught:
            _use(name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "not a Minari dataset's id" in told("../../etc-v0")
    assert "not a Minari dataset's id" in told("hopper")
    assert "not in Minari's folder" in told() and "--download" in told()
    data = small(root, rewards=np.zeros(3))
    assert "episode 0: 5 observations for 3 steps" in told()
    (data / "main_data.hdf5").write_bytes(b"no")
    assert "cannot be read" in told()
    metadata = json.loads((data / "metadata.json").read_bytes())
    del metadata["action_space"]
    metadata["env_spec"] = json.dumps({"id": "x-v0", "entry_point": "os:system"})
    (data / "metadata.json").write_text(json.dumps(metadata))
    assert "not a Minari dataset's metadata, or without observation_space, action_space" in told()
    (data / "metadata.json").write_text("{")
    assert "not a Minari dataset's metadata" in told()
    text, box = spaces.Text(3), spaces.Box(-1, 1, (1,))
    make(root, "own/text-v0", spaces.Dict({"a": text}), box, [])
    assert "observations are a Dict; only Box, and Dict of Box" in told("own/text-v0")
    make(root, "own/act-v0", box, spaces.Tuple((box, box)), [])
    assert "actions are a Tuple; only Box, Discrete and MultiDiscrete" in told("own/act-v0")
    make(root, "own/none-v0", box, box, [])
    assert "no episodes" in told("own/none-v0")
    plan = make_plan(Options("core3", source="minari", agents=["bc"], out=tmp_path))
    assert "takes Minari's own names" in plan.tasks[0]["missing"]


def test_downloads_only_if_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    minari_source.need_minari("x")

    def fake(name: str) -> None:
        asked.append(name)
        raise ConnectionError("no\nway out")

    monkeypatch.setattr(sys.modules["minari"], "download_dataset", fake)
    assert minari_source.missing("own/small-v0") is not None and asked == []
    assert main(["--source", "minari", "--tasks", "own/small-v0", "--download"]) == 2
    assert asked == ["own/small-v0"]
    with pytest.raises(DatasetError, match=r"cannot download it \(no way out\); check the name"):
        minari_source.fetch("own/small-v0")
    small(root)
    assert minari_source.fetch("own/small-v0") == root / "own" / "small-v0"


def same(ours: store.Dataset, back: store.Dataset) -> None:
    assert sorted(ours.fields) == sorted(back.fields)
    for name in ours.fields:
        assert np.array_equal(ours.column(name), back.column(name)), name
    for mine, theirs in zip(ours.episodes(), back.episodes(), strict=True):
        assert np.array_equal(mine, theirs)
    assert ours.last_rows().tolist() == back.last_rows().tolist()
    for key in ("env_id", "reward_parts", "return_mean", "return_best", "episodes", "horizon"):
        assert ours.card[key] == back.card[key]
    assert ours.card.get("policies") == back.card.get("policies")


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> store.Dataset:
    """A local dataset with every field, whose last episode is unfinished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(tmp_path_factory.mktemp("data")))
        return store.load(local.ensure("hopper-medium-replay", 4000))


def test_our_data_comes_back_from_a_d4rl_file(hopper: store.Dataset, tmp_path: Path) -> None:
    file = export.export(hopper, "d4rl", tmp_path)
    assert file == tmp_path / "hopper-medium-replay.hdf5"
    key = d4rl.key("hopper-medium-replay", file)
    back = store.load(d4rl.ensure(key))
    same(hopper, back)
    assert set(d4rl.fields(key)) == {*hopper.fields, "policy_groups"}
    # It is not D4RL's, so nothing published may stand beside it.
    assert back.card["dataset_version"] == "exported" and back.card["env_id"] == "Hopper-v5"
    with pytest.raises(DatasetError, match="is there already"):
        export.export(hopper, "d4rl", file)


def test_d4rl_tools_read_our_file(hopper: store.Dataset, tmp_path: Path) -> None:
    import h5py

    with h5py.File(export.export(hopper, "d4rl", tmp_path / "x.hdf5")) as file:
        assert file["terminals"].dtype == bool and file["timeouts"].dtype == bool
        for name in ("observations", "actions", "rewards", "next_observations"):
            assert np.array_equal(file[name][()], hopper.column(name))
        assert np.array_equal(file["infos/policy_ids"][()], hopper.column("policy_ids"))


def test_our_data_comes_back_from_minari(hopper: store.Dataset, root: Path) -> None:
    folder = export.export(hopper, "minari", root)
    name = export.minari_id(hopper)
    assert folder == root / name
    task = minari_source.own_task(name)
    assert task is not None and task.fields is not None
    assert set(task.fields) == {*hopper.fields, "policy_groups"}
    assert task.reference is not None and task.reference[1] == 3234.3
    same(hopper, store.load(minari_source.ensure(name)))
    import minari

    theirs = minari.load_dataset(name)
    assert theirs.total_steps == 4000
    assert theirs.action_space == spaces.Box(-1.0, 1.0, (3,), np.float32)
    with pytest.raises(DatasetError, match="is there already"):
        export.export(hopper, "minari", root)


def test_episodes_of_a_log_with_more_rows_come_back(root: Path, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), 30
    chain = rng.standard_normal((rows + 1, 11)).astype(np.float32)
    ends = np.arange(rows) % 10 == 9
    fields = {
        "observations": chain[:-1][~ends],
        "actions": rng.uniform(-1, 1, (27, 3)).astype(np.float32),
        "rewards": np.ones(27, np.float32),
        "next_observations": chain[1:][~ends],
        "terminations": np.zeros(27, bool),
        "truncations": np.arange(27) % 9 == 8,
    }
    card = {"task": "hopper-medium", "env_id": "Hopper-v4", "horizon": 1000, "reward_parts": []}
    card |= {"return_mean": 10.1, "return_best": 10.1, "episodes": 3}
    logged = np.array([[10.1, 10, 8], [10.1, 10, 17], [10.1, 10, 26]])
    ours = store.write(tmp_path / "ours", fields, card, logged)
    file = export.export(ours, "d4rl", tmp_path / "x.hdf5")
    same(ours, store.load(d4rl.ensure(d4rl.key("hopper-medium", file))))
    export.export(ours, "minari", root)
    same(ours, store.load(minari_source.ensure(export.minari_id(ours))))


def test_what_is_held_out_and_what_was_measured_come_back(root: Path) -> None:
    ours = store.load(local.ensure("sepsis-clinician-small", 2000))
    export.export(ours, "minari", root)
    name = export.minari_id(ours)
    back = store.load(minari_source.ensure(name))
    same(ours, back)
    for mine, theirs in zip(ours.split(), back.split(), strict=True):
        assert mine is not None and theirs is not None
        assert np.array_equal(mine.column("rewards"), theirs.column("rewards"))
    fewer = store.load(minari_source.ensure(name, 1000)).split()
    assert fewer[1] is not None
    assert sum(len(part.table) for part in fewer if part) == 1000
    known = {row.tobytes() for row in ours.split()[0].column("observations")}
    held_out = {row.tobytes() for row in ours.split()[1].column("observations")}  # type: ignore[union-attr]
    for part, whole in zip(fewer, (known, held_out), strict=True):
        assert part is not None
        assert {row.tobytes() for row in part.column("observations")} <= whole

    players = store.load(local.ensure("players-0-overlap-50", 2000))
    export.export(players, "minari", root)
    again = store.load(minari_source.ensure(export.minari_id(players))).episode_measures()
    assert again
    for measure, values in players.episode_measures().items():
        np.testing.assert_array_equal(values, again[measure])


def test_what_minari_has_no_place_for_is_refused(hopper: store.Dataset, root: Path) -> None:
    table = hopper.table.copy()
    start, _ = hopper.card["columns"]["next_observations"]
    table[3, start] += 1
    wrong = store.Dataset(None, hopper.card, table)
    with pytest.raises(DatasetError, match="row 3's is not the observation of row 4"):
        export.export(wrong, "minari", root)
    assert not root.exists() or not list(root.iterdir())


def test_the_command_line(
    hopper: store.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hopper.folder is not None
    arguments = ["export", str(hopper.folder), "--format", "d4rl", "--to", str(tmp_path / "x.h5")]
    assert command.main(arguments) == 0
    assert str(tmp_path / "x.h5") in capsys.readouterr().out
    assert command.main(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    for wrong, words in (
        (["fetch", "local", "hopper-medium"], "source local downloads nothing"),
        (["fetch", "d4r", "hopper-medium"], 'unknown source "d4r" (did you mean "d4rl"?)'),
        (["fetch", "minari", "hopper-medium"], "not a Minari dataset's id"),
        (["export", "x-v0", "--source", "minari", "--format", "d4rl", "--to", "x"], "not in Min"),
    ):
        assert command.main(wrong) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_hashes_are_remembered_while_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"one")
    first = recorded.sha256(path)
    memory = tmp_path / "cache" / "hashes.json"
    assert list(json.loads(memory.read_bytes()).values()) == [first]
    path.write_bytes(b"other")
    assert recorded.sha256(path) != first
    memory.write_text("[")  # damaged: found out again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recorded.sha256(path) != first
