"""Local datasets of locomotion: reproducible bytes, honest cards, a cache that heals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.catalog import TASKS
from suites.datasets import behaviour, local, recipes, store
from suites.datasets.behaviour import GaussianPolicy, Policy, SquashedPolicy
from suites.datasets.play import task_entropy
from suites.datasets.recipes import locomotion
from suites.datasets.recipes.locomotion import play_policy
from suites.datasets.store import DatasetError
from suites.envs.mujoco import make_one

LOCOMOTION = [task for task in local.tasks() if TASKS[task].domain == "locomotion"]
MAKEABLE = [task for task in LOCOMOTION if local.missing(task) is None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path))
    return tmp_path


def made(task: str, size: int, seed: int = 0) -> store.Dataset:
    return store.load(local.ensure(task, size, seed), verify=True)


def test_there_are_fifteen_tasks_of_d4rls_sizes() -> None:
    assert len(LOCOMOTION) == 15
    assert local.default_size("hopper-medium") == 1_000_000
    assert local.default_size("walker2d-medium-expert") == 2_000_000
    assert 200_000 <= local.default_size("halfcheetah-medium-replay") <= 402_000


@pytest.mark.parametrize(
    "task", ["hopper-medium-replay", "walker2d-medium-expert", "halfcheetah-medium"]
)
def test_the_core_tasks_can_be_made(task: str) -> None:
    assert task in MAKEABLE


@pytest.mark.parametrize("environment", locomotion.ENVIRONMENTS)
def test_shipped_policies(environment: str) -> None:
    index = behaviour.index(environment)
    assert index is not None
    folder = behaviour.folder(environment)
    for entry in index["checkpoints"]:
        assert store.file_sha256(folder / entry["file"]) == entry["sha256"]
        for name, array in np.load(folder / entry["file"], allow_pickle=False).items():
            exact = np.float32 if name in ("mean", "std") else np.float16
            assert name == "kind" or array.dtype == exact
    steps = [entry["steps"] for entry in index["checkpoints"]]
    medium = index["levels"]["medium"]["checkpoint"]
    assert steps == sorted(steps)
    assert [entry["name"] for entry in index["checkpoints"]].index(medium) >= 20


def test_all_shipped_policies_together_are_small() -> None:
    files = [path for env in locomotion.ENVIRONMENTS for path in behaviour.folder(env).iterdir()]
    assert sum(path.stat().st_size for path in files) < 10e6


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng([seed, *shape])
    return generator.normal(size=shape).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    "policy",
    [
        GaussianPolicy(
            weights=(numbers(3, 4), numbers(4, 2)),
            biases=(numbers(4), numbers(2)),
            log_std=numbers(2, seed=1),
            mean=numbers(3),
            std=np.abs(numbers(3, seed=1)),
        ),
        SquashedPolicy((numbers(3, 4), numbers(4, 4)), (numbers(4), numbers(4, seed=1))),
    ],
    ids=lambda policy: policy.kind,
)
def test_policy_survives_its_file(tmp_path: Path, policy: Policy) -> None:
    policy.save(tmp_path / "policy.npz")
    observations = np.random.default_rng(0).normal(size=(5, 3))
    again = Policy.load(tmp_path / "policy.npz")
    assert type(again) is type(policy)
    actions = again.act(observations, 3.0)
    np.testing.assert_array_equal(policy.act(observations, 3.0), actions)
    assert actions.dtype == np.float32
    assert actions.shape == (5, 2)
    assert np.abs(actions).max() <= 1.0
    assert not np.array_equal(policy.act(observations), actions)


def test_actions_do_not_depend_on_numpys_threads() -> None:
    """A product that OpenBLAS divides among threads is rounded differently."""
    program = (
        "import hashlib, numpy as np; from suites.datasets.behaviour import SquashedPolicy;"
        "draw = lambda *shape: np.random.default_rng(shape).normal(size=shape).astype('f') / 9;"
        "sizes = [(17, 256), (256, 256), (256, 12)];"
        "policy = SquashedPolicy(tuple(draw(*s) for s in sizes), tuple(draw(s[1]) for s in sizes));"
        "actions = [policy.act(draw(rows, 17)) for rows in (1, 3, 31, 32)];"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in actions)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("task", MAKEABLE)
def test_every_task_can_be_made(task: str) -> None:
    size = 1500 if "replay" in task else 2000  # a cheetah's episode for each of two policies
    data = made(task, size)
    card = data.card
    assert data.table.shape[0] == card["transitions"] == size
    assert card["task"] == task
    assert card["id"] == local.identity(task, size)["id"]
    parts, rewards = data.column("reward_parts"), data.column("rewards")
    assert len(card["reward_parts"]) == parts.shape[1]
    np.testing.assert_array_equal(np.add.accumulate(parts, axis=1)[:, -1], rewards)
    assert np.abs(data.column("actions")).max() <= 1.0
    ids = data.column("policy_ids")
    assert (np.diff(ids) >= 0).all()
    assert np.unique(ids).tolist() == [policy["id"] for policy in card["policies"]]
    assert sum(policy["share"] for policy in card["policies"]) == pytest.approx(1)
    returns, lengths = data.episodes()
    assert card["episodes"] == len(returns)
    if len(returns):
        assert card["return_mean"] == pytest.approx(returns.mean())
        assert card["length_mean"] == pytest.approx(lengths.mean())
    starts = data.episode_starts
    inside = np.setdiff1d(np.arange(size - 1), starts - 1)
    np.testing.assert_array_equal(
        data.column("next_observations")[inside], data.column("observations")[inside + 1]
    )
    assert data.column("truncations")[-1] + data.column("terminations")[-1] >= 1


def test_medium_replay_shares_follow_the_learner() -> None:
    segments = local.identity("hopper-medium-replay")["recipe"]["segments"]
    index = behaviour.index("hopper")
    assert index is not None
    steps = [entry["steps"] for entry in index["checkpoints"]]
    assert len(segments) >= 20
    assert [s["share"] for s in segments] == np.diff(steps)[: len(segments)].tolist()
    assert {s["noise"] for s in segments} == {1.0}


def test_replays_in_gymnasium() -> None:
    """The stored actions, replayed in gymnasium from the episode's seed, give the stored rows."""
    data = made("hopper-random", 600)
    env = make_one("Hopper-v5")
    generator = np.random.default_rng(
        np.random.SeedSequence([0, task_entropy("hopper-random"), 0, 0])
    )
    observation, _ = env.reset(seed=2**32 + int(generator.integers(2**31)))
    for row in range(int(data.episode_starts[1])):
        stored = data.column("observations")[row]
        np.testing.assert_array_equal(stored, observation.astype(np.float32))
        observation, reward, terminated, _, _ = env.step(data.column("actions")[row])
        assert data.column("rewards")[row] == pytest.approx(reward, abs=1e-6)
        assert data.column("terminations")[row] == terminated


def test_bytes_do_not_depend_on_jobs(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    task = "hopper-medium-expert"
    alone = made(task, 1500)
    assert alone.card["sha256"] == made(task, 1500).card["sha256"]
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(cache / "other"))
    calls: list[tuple[int, int]] = []
    folder = local.ensure(task, 1500, jobs=2, progress=lambda *call: calls.append(call))
    assert store.load(folder).card["sha256"] == alone.card["sha256"]
    assert calls == [(750, 1500), (1500, 1500)]


@pytest.mark.parametrize("task", ["hopper-random", "walker2d-medium-replay"])
def test_another_seed_is_another_draw_of_the_same_recipe(task: str) -> None:
    one, two = made(task, 1000), made(task, 1000, seed=1)
    assert (one.card["seed"], two.card["seed"]) == (0, 1)
    assert one.card["recipe"] == two.card["recipe"]
    assert one.card["id"] != two.card["id"]
    assert one.card["sha256"] != two.card["sha256"]
    np.testing.assert_array_equal(one.column("policy_ids"), two.column("policy_ids"))
    resets = [data.column("observations")[data.episode_starts] for data in (one, two)]
    assert not set(resets[0][:, 0].tolist()) & set(resets[1][:, 0].tolist())
    # The first action differs by the noise: in a table of random actions it is nothing else.
    assert not (one.column("actions")[0] == two.column("actions")[0]).any()


def test_seeds_and_sizes_are_other_datasets() -> None:
    ids = {
        local.identity("hopper-random", size, seed)["id"] for size in (300, 301) for seed in (0, 1)
    }
    assert len(ids) == 4


def test_short_episodes_are_not_preferred() -> None:
    """Episodes are stored in the order they began: a longer table begins with the shorter one."""
    short = play_policy("Hopper-v5", None, noise=1.0, rows=200, entropy=(5,)).table
    long = play_policy("Hopper-v5", None, noise=1.0, rows=3000, entropy=(5,)).table
    np.testing.assert_array_equal(short[:-1], long[:199])


def test_full_length_episodes_end_by_the_time_limit() -> None:
    data = play_policy("HalfCheetah-v5", None, noise=1.0, rows=1500, entropy=(1,))
    assert np.flatnonzero(data.column("truncations")).tolist() == [999, 1499]
    _, lengths = data.episodes()
    assert lengths.tolist() == [1000]


def test_a_reward_without_known_parts_is_one_part() -> None:
    data = play_policy("fastq_bench/maze2d-umaze-v1", None, noise=1.0, rows=650, entropy=(2,))
    parts, rewards = data.column("reward_parts"), data.column("rewards")
    np.testing.assert_array_equal(parts[:, 0], rewards)
    assert np.flatnonzero(data.column("truncations")).tolist() == [299, 599, 649]
    assert 0 < rewards.sum() < 650


def test_cache_heals() -> None:
    assert not local.is_cached("hopper-random", 300)
    folder = local.ensure("hopper-random", 300)
    assert local.is_cached("hopper-random", 300)
    before = (folder / store.TABLE_FILE).read_bytes()

    damaged = bytearray(before)
    damaged[-1] ^= 1
    (folder / store.TABLE_FILE).write_bytes(damaged)
    local.ensure("hopper-random", 300)
    assert (folder / store.TABLE_FILE).read_bytes() == before

    (folder / store.CARD_FILE).unlink()
    abandoned = folder.with_name(f".{folder.name}.abandoned")
    abandoned.mkdir()
    assert not local.is_cached("hopper-random", 300)
    local.ensure("hopper-random", 300)
    assert not abandoned.exists()
    assert local.is_cached("hopper-random", 300)

    stamp = (folder / store.TABLE_FILE).stat().st_mtime_ns
    local.ensure("hopper-random", 300)
    assert (folder / store.TABLE_FILE).stat().st_mtime_ns == stamp


def test_a_stopped_generation_leaves_nothing_that_is_taken_for_data(cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.ensure("hopper-random", 300, progress=stop)
    assert not local.is_cached("hopper-random", 300)
    assert not list(cache.rglob(store.TABLE_FILE))
    made("hopper-random", 300)

    # A process that is killed cannot clean up: half a table, and no card.
    folder = local.folder("hopper-random", 300)
    (folder / store.CARD_FILE).unlink()
    table = folder / store.TABLE_FILE
    before = table.read_bytes()
    table.write_bytes(before[: len(before) // 2])
    made("hopper-random", 300)
    assert table.read_bytes() == before


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert local.cache_root() == tmp_path
    monkeypatch.delenv("FASTQ_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local.cache_root() == tmp_path / "xdg" / "fastq-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert local.cache_root() == Path.home() / ".cache" / "fastq-bench"


def test_wrong_names_and_sizes() -> None:
    with pytest.raises(DatasetError, match=r"did you mean hopper-medium-replay\?"):
        local.identity("hopper-medium-reply")
    with pytest.raises(DatasetError, match="size is 0; ask for at least one transition"):
        local.ensure("hopper-random", 0)
    with pytest.raises(DatasetError, match="seed is -1; it cannot be negative"):
        local.identity("hopper-random", seed=-1)
    with pytest.raises(DatasetError, match="jobs is 0; ask for at least one process"):
        local.ensure("hopper-random", 300, jobs=0)


def test_an_expert_that_is_none_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    index = json.loads(json.dumps(behaviour.index("hopper")))
    index["levels"]["expert"]["score"] = 60.0
    monkeypatch.setattr(behaviour, "index", lambda environment: index)
    for task in ("hopper-expert", "hopper-medium-expert"):
        why = (
            f"{task}: the best shipped policy, best-60, is no expert; an expert scores at least 95"
        )
        assert local.missing(task) == why
    assert local.missing("hopper-medium-replay") is None
    with pytest.raises(DatasetError, match="best-60"):
        local.ensure("hopper-expert", 100)
    monkeypatch.setattr(behaviour, "index", lambda environment: None)
    assert "no behaviour policies are shipped" in str(local.missing("hopper-medium"))
    assert local.missing("hopper-random") is None


def test_identity_needs_neither_torch_nor_mujoco() -> None:
    program = (
        "import sys; from suites.datasets import local; [local.missing(t) for t in local.tasks()];"
        "local.identity('hopper-random'); local.is_cached('hopper-random');"
        "print([name for name in ('torch', 'mujoco', 'gymnasium') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_identities_of_released_datasets_stay() -> None:
    """Records name these ids: another one would make every older result stale."""
    kept = {
        "halfcheetah-random": "c06677eed3dd1953",
        "hopper-random": "0ebaafdcbc894bf2",
        "walker2d-random": "a4f2d3bd04d0eb75",
    }
    if version("mujoco") != "3.11.0":
        pytest.skip("the ids name the version of MuJoCo that made them")
    assert {task: local.identity(task)["id"][:16] for task in kept} == kept


def test_a_task_without_a_recipe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "DOMAINS", {})
    assert local.tasks() == ()
    with pytest.raises(DatasetError, match="no local recipe; give another source"):
        local.identity("hopper-random")
    with pytest.raises(DatasetError, match="no local recipe"):
        local.default_size("hopper-random")


@pytest.mark.parametrize("unit", [1, 20])
@given(units=st.lists(st.integers(1, 400), min_size=1, max_size=4), rest=st.integers(0, 19))
def test_shards_cover_every_row_once(unit: int, units: list[int], rest: int) -> None:
    edges = [0, *(unit * np.cumsum(units)).tolist()]
    edges[-1] += rest % unit
    shards = recipes.divide(edges, most=100, unit=unit)
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == edges[-1]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert 0 < shard.stop - shard.start <= 100
        assert shard.start % unit == 0
        assert edges[shard.segment] <= shard.start < shard.stop <= edges[shard.segment + 1]
