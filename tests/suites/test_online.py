"""Online phases: what is collected, what is sampled, and that nothing else changes either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_data import logs, save
from test_resume import digests

from baselines.config import UsageError
from baselines.contract import Batch, Needs, Phase, Spec
from results.record import read_episodes, read_record
from suites.checkpoint import ResumeError
from suites.datasets import store
from suites.datasets.play import FIRST_RESET_SEED
from suites.datasets.sampler import Sampler
from suites.datasets.transforms import Transform
from suites.envs import make_vector, mujoco
from suites.estimate import estimate
from suites.evaluate import CURVE_RESET_SEED, FINAL_RESET_SEED
from suites.job import Job, env_steps_due
from suites.manifest import read_phases
from suites.measure import Speed, _env_step, made_up_dataset
from suites.online import Collector, Replay, reset_seed
from suites.plan import SuitePlan, make_plan
from suites.policy import BLOCK, FRESH_RESET_SEED, read_policy
from suites.resolve import Options
from suites.spaces import facts_of
from suites.train import Training, make_random, prepare, train

HERE = Path(__file__).parent
LIMIT = 6  # of the toy's time
GOAL = 4.0


class Line(gymnasium.Env[Any, Any]):
    """A point on a line: shows [steps, position, last action]; ends beyond ``GOAL``.

    Its start is drawn from the reset seed, so that a first observation tells the seed.
    """

    def __init__(self, integers: bool = False, forgetful: bool = False) -> None:
        self.integers, self.forgetful = integers, forgetful
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        if integers:
            self.action_space = spaces.MultiDiscrete([3, 2], start=[0, 5])
            self.noop, self.effects = (1, 5), ((1,), (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.last = 0, 0.0
        start = np.random.default_rng() if self.forgetful else self.np_random
        self.position = float(start.uniform(0.0, 1.0))
        return self.show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        self.last = float(action[0])
        self.position += self.last + 0.01 * self.np_random.standard_normal()
        return self.show(), 10.0 + self.position, self.position > GOAL, False, {}

    def show(self) -> Any:
        return np.array([self.time, self.position, self.last])


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    names = {"Line-v0": {}, "LineInt-v0": {"integers": True}, "LineRandom-v0": {"forgetful": True}}
    for name, settings in names.items():
        gymnasium.register(
            f"test_online/{name}", lambda **k: Line(**k), max_episode_steps=LIMIT, kwargs=settings
        )
    yield
    for name in names:
        del gymnasium.registry[f"test_online/{name}"]


class Pusher:
    """Acts as it is told, outside the box if need be; remembers how often it was asked."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.seen = values, []  # type: ignore[var-annotated]

    def act(self, step: Any, memory: Any, *, explore: bool) -> Any:
        assert explore
        assert step["active"].all()
        count = torch.zeros(step["first"].shape) if memory is None else memory["count"] + 1
        count = count * ~step["first"]
        self.seen.append((count[:, 0].tolist(), step["rewards"][:, 0].tolist()))
        push = torch.tensor(self.values).reshape(-1, 1, 1).expand(-1, 1, 2)
        return push, {"count": count}


def make_spec(env_id: str) -> Spec:
    phases = (Phase("online", 100, "replay", 1.0, 10, 1000),)
    return Spec(**facts_of({"env_id": env_id}), phases=phases)


def make_dataset(env_id: str) -> store.Dataset:
    """Made-up local data, whose only part of the reward is the reward."""
    dataset = made_up_dataset({"env_id": env_id})
    fields = {name: dataset.column(name) for name in store.REQUIRED}
    table, places = store.pack({**fields, "reward_parts": dataset.column("rewards")})
    card = {**dataset.card, "columns": places, "reward_parts": ["reward"]}
    return store.Dataset(None, card, table)


def make_collector(env_id: str, seeds: tuple[int, ...]) -> Collector:
    dataset, spec = make_dataset(env_id), make_spec(env_id)
    size = dataset.card["columns"]["observations"][1]
    transform = Transform(np.zeros(size), np.ones(size), 0.5)
    return Collector(env_id, spec, seeds, transform, dataset, Needs(("reward_parts",)))


def columns(collector: Collector) -> dict[str, Any]:
    """What every seed has in its replay, ``[S, N, ...]`` by field."""
    rows = collector.replay.table[:, : len(collector.replay)].numpy()
    start = collector.row.__array_interface__["data"][0]
    places = {
        name: (view.__array_interface__["data"][0] - start) // 4
        for name, view in collector.put.items()
    }
    return {
        name: rows[..., place : place + collector.put[name].shape[1]]
        for name, place in places.items()
    }


# ---- when to collect, and from which reset seeds


@pytest.mark.parametrize(
    ("rate", "warmup", "expected"),
    [
        (1.0, 3, [4, 5, 6, 7]),
        (2.0, 0, [2, 4, 6, 8]),
        (0.5, 3, [3, 4, 4, 5]),
        (0.0, 3, [3, 3, 3, 3]),
        (1.5, 0, [1, 3, 4, 6]),
    ],
)
def test_steps_before_each_update(rate: float, warmup: int, expected: list[int]) -> None:
    phase = Phase("online", 4, "replay", rate, warmup)
    assert [env_steps_due([phase], update) for update in range(1, 5)] == expected
    both = [Phase("offline", 2), phase, Phase("rest", 2), Phase("again", 1, "replay", 1.0, 7)]
    total = expected[-1]
    counts = [env_steps_due(both, update) for update in range(1, 10)]
    assert counts == [0, 0, *expected, total, total, total + 8]


def test_no_step_is_lost_to_rounding() -> None:
    for rate in (0.1, 0.2, 0.3, 0.7, 1 / 3, 1.1):
        phase = Phase("online", 3000, "replay", rate)
        assert env_steps_due([phase], 3000) == round(3000 * rate), rate


def test_training_is_reset_with_seeds_of_its_own() -> None:
    found = [reset_seed(seed, episode) for seed in range(20) for episode in range(100)]
    assert len(set(found)) == len(found)
    # Evaluations of 1000 blocks lie below, data lies above.
    assert min(found) > FRESH_RESET_SEED + 1000 * BLOCK > FINAL_RESET_SEED > CURVE_RESET_SEED
    assert max(found) < FIRST_RESET_SEED


# ---- what is collected


def test_final_observations_ends_and_executed_actions() -> None:
    """Seed 3 is pushed beyond the goal, seed 4 waits for the time limit."""
    collector = make_collector("test_online/Line-v0", (3, 4))
    pusher: Any = Pusher([3.0, -0.25])
    for _ in range(14):
        collector.step(pusher)
    found = columns(collector)
    assert (found["actions"][0] == 1.0).all()  # as executed, not as chosen
    assert (found["actions"][1] == -0.25).all()
    np.testing.assert_array_equal(found["next_observations"][..., 2], found["actions"][..., 0])

    ends = found["terminations"][..., 0] + found["truncations"][..., 0]
    beyond = found["next_observations"][0, :, 1] > GOAL
    np.testing.assert_array_equal(found["terminations"][0, :, 0], beyond)
    assert 2 <= beyond.sum() <= 4
    assert not found["truncations"][0].any()
    assert not found["terminations"][1].any()
    np.testing.assert_array_equal(np.flatnonzero(found["truncations"][1]), [5, 11])
    # The final observation is the episode's own; the next row begins with the reset's.
    assert (found["next_observations"][1, [5, 11], 0] == LIMIT).all()
    for i, seed in enumerate((3, 4)):
        begins = np.concatenate(([True], ends[i, :-1] > 0))
        shown, following = found["observations"][i], found["next_observations"][i]
        np.testing.assert_array_equal(shown[1:][~begins[1:]], following[:-1][~begins[1:]])
        env = make_vector("test_online/Line-v0", 1)
        resets = [env.reset(0, reset_seed(seed, k)) for k in range(begins.sum())]
        np.testing.assert_array_equal(shown[begins], np.array(resets, np.float32))
    np.testing.assert_allclose(
        found["rewards"][..., 0], 10 + found["next_observations"][..., 1], rtol=1e-6
    )
    np.testing.assert_array_equal(found["reward_parts"], found["rewards"])

    # The agent is shown the reward of the step before, 0 where an episode begins, and its memory.
    counts, rewards = (np.array(values) for values in zip(*pusher.seen, strict=True))
    np.testing.assert_array_equal(counts[:, 1], [0, 1, 2, 3, 4, 5] * 2 + [0, 1])
    np.testing.assert_array_equal(counts[:, 0], found["observations"][0, :, 0])
    expected = np.where(
        found["observations"][..., 0] == 0, 0, np.roll(found["rewards"][..., 0], 1, 1)
    )
    np.testing.assert_allclose(rewards.T, 0.5 * expected, rtol=1e-6)  # as the transform scales


def test_termination_on_the_last_step_is_a_termination() -> None:
    collector = make_collector("test_online/Line-v0", (0,))
    start = collector.observations[0, 1]
    pusher: Any = Pusher([(GOAL - start) / LIMIT + 0.05])
    for _ in range(LIMIT):
        collector.step(pusher)
    found = columns(collector)
    assert found["terminations"][0, :, 0].tolist() == [0] * (LIMIT - 1) + [1]


def test_integer_actions_noop_and_effects() -> None:
    collector = make_collector("test_online/LineInt-v0", (0, 1))
    assert collector.spec.noop == (1, 5)
    assert collector.spec.effects == ((1,), (2,))
    anybody = make_random(collector.spec, (0, 1))
    for _ in range(60):
        collector.step(anybody)
    found = columns(collector)["actions"]
    assert {tuple(action) for action in found.reshape(-1, 2)} == {
        (a, b) for a in (0.0, 1.0, 2.0) for b in (5.0, 6.0)
    }
    assert not np.array_equal(found[0], found[1])
    space, needs = collector.spec.action_space, Needs(("actions",), batch_size=8)
    dataset = make_dataset(collector.env.env_id)
    sampler = Sampler(dataset, needs, collector.transform, (0, 1), collector.spec, collector.replay)
    actions = sampler.sample("replay")["actions"]
    assert all(space.contains(action) for action in actions.flatten(0, 1).numpy())


def test_hopper_equals_gymnasium_step_by_step() -> None:
    """The rows of one seed against gymnasium's own environment, ends included."""
    collector = make_collector("Hopper-v5", (7,))
    anybody = make_random(collector.spec, (7,))
    for _ in range(60):
        collector.step(anybody)
    found = columns(collector)
    env, episode = gymnasium.make("Hopper-v5"), 0
    shown, _ = env.reset(seed=reset_seed(7, 0))
    for t in range(60):
        np.testing.assert_array_equal(found["observations"][0, t], shown.astype(np.float32))
        shown, reward, terminated, truncated, _ = env.step(found["actions"][0, t])
        np.testing.assert_array_equal(found["next_observations"][0, t], shown.astype(np.float32))
        flags = [found[name][0, t, 0] for name in ("rewards", "terminations", "truncations")]
        assert flags == [np.float32(reward), terminated, truncated]
        if terminated or truncated:
            episode += 1
            shown, _ = env.reset(seed=reset_seed(7, episode))
    assert episode >= 1


# ---- the replay and its batches


def test_a_full_replay_forgets_the_oldest() -> None:
    replay = Replay(2, 3, 5)
    rows = torch.arange(7 * 6.0).reshape(7, 2, 3)
    for t, row in enumerate(rows):
        assert len(replay) == min(t, 5)
        replay.add(row)
    assert len(replay) == 5
    kept = replay.table[:, [2, 3, 4, 0, 1]]
    assert torch.equal(kept, rows[2:].transpose(0, 1))
    other = Replay(2, 3, 5)
    other.load_state_dict(replay.state_dict())
    other.add(rows[0])
    assert torch.equal(other.table[:, 2], rows[0])
    assert torch.equal(other.table[:, [3, 4, 0, 1]], kept[:, 1:])
    part = Replay(2, 3, 1000)
    part.add(rows[0])
    assert part.state_dict()["rows"].numel() == 6  # a checkpoint holds no empty rows


def union(rows: int, collected: int, size: int) -> tuple[Sampler, Replay]:
    """A dataset of the numbers 0, 1, ...; the replay of seed s holds 1000 (s + 1) + 0, 1, ..."""
    numbers = np.arange(float(rows))
    zeros = np.zeros(rows)
    table, places = store.pack(
        {**dict.fromkeys(store.REQUIRED, zeros), "rewards": numbers, "observations": numbers}
    )
    dataset = store.Dataset(None, {"columns": places, "return_best": 1, "return_worst": 0}, table)
    needs = Needs(("observations", "rewards"), batch_size=size)
    box = spaces.Box(-1.0, 1.0, (1,))
    replay = Replay(2, table.shape[1], collected)
    for t in range(collected):
        values = torch.zeros(2, table.shape[1])
        for name in needs.fields:
            values[:, places[name][0]] = torch.tensor([1000.0 + t, 2000.0 + t])
        replay.add(values)
    transform = Transform(np.array([5.0]), np.array([2.0]), 3.0)
    return Sampler(dataset, needs, transform, [0, 1], Spec(box, box), replay), replay


def test_the_union_is_sampled_uniformly() -> None:
    sampler, _ = union(60, 20, 4000)
    batch = sampler.sample("dataset+replay")
    for i in range(2):
        drawn = (batch["rewards"][i] / 3).round()
        np.testing.assert_allclose(batch["observations"][i, :, 0], (drawn - 5) * 2)
        logged = drawn < 60
        assert abs(logged.double().mean() - 0.75) < 0.03  # 4.4 standard errors
        counts = torch.bincount(torch.where(logged, drawn, drawn - 1000 * (i + 1) + 60).long())
        assert len(counts) == 80
        # Each count is binomial around 50.
        assert ((counts - 50) / 50**0.5).square().mean() < 1.6
    alone = (sampler.sample("replay")["rewards"] / 3).round()
    for i in range(2):
        assert set(alone[i].tolist()) == {1000.0 * (i + 1) + t for t in range(20)}
    assert sampler.sample()["rewards"].max() < 3 * 60


def test_an_offline_batch_is_as_without_a_replay() -> None:
    sampler, replay = union(60, 20, 16)
    other, _ = union(60, 1, 16)
    assert torch.equal(sampler.sample()["rewards"], other.sample()["rewards"])
    assert len(replay) == 20


# ---- the whole training

MANIFEST = """
tasks: [hopper-random]
agents:
  wanderer:
    phases:
      - {name: offline, updates: 0.3}
      - {name: online, updates: 0.7, source: replay, env_steps_per_update: 1.5,
         warmup_env_steps: 12, replay_size: 25}
  alone:
    phases:
      - {name: offline, updates: 0.3}
      - {name: online, updates: 0.7, source: dataset+replay, env_steps_per_update: 15}
  iql:
    config: {hidden: [16, 16], batch_size: 32, cosine: false}
    phases: [{name: online, source: replay, env_steps_per_update: 0.5, warmup_env_steps: 9}]
budget: tiny
budgets:
  tiny: {updates: 20, seeds: 2, evaluations: 2, evaluation_episodes: 2, final_episodes: 2,
         transitions: 1000}
"""


def options(tmp_path: Path, manifest: str = MANIFEST, **more: Any) -> Options:
    (tmp_path / "online.yaml").write_text(manifest)
    plugins = [str(HERE / "online_agents.py")]
    return Options(
        str(tmp_path / "online.yaml"), out=tmp_path / "runs", stack=2, plugins=plugins, **more
    )


def job_of(tmp_path: Path, label: str, manifest: str = MANIFEST, **more: Any) -> Job:
    data, *jobs = make_plan(options(tmp_path, manifest, agents=[label], **more)).jobs()
    prepare(data, lambda *_: None)
    return next(job for job in jobs if job.agent["label"] == label)


def run(job: Job) -> None:
    train(job, lambda *_: None, lambda _: None)


def trained(job: Job) -> Training:
    training = Training(job, lambda *_: None, lambda _: None)
    training.run()
    return training


def test_what_a_run_says_of_its_phases(tmp_path: Path) -> None:
    job = job_of(tmp_path, "wanderer")
    run(job)
    for path in job.paths:
        folder = Path(job.out) / path
        record = read_record(folder)
        points = [(p["update"], p["phase"], p["env_steps"]) for p in record.curve]
        # Evenly spaced, and at the end of every phase; 1.5 steps per update after 12 of warm-up.
        assert points == [(6, "offline", 0), (10, "online", 18), (20, "online", 33)]
        assert [p["metrics"]["online"] for p in record.curve] == [0, 1, 1]
        assert record.timing["collection_s"] > 0
        policy = read_policy(folder)
        assert policy.spec.phases[1] == Phase("online", 14, "replay", 1.5, 12, 25)
        recorded = read_episodes(folder)
        assert policy.replay(record, recorded).equals(recorded)
    assert digests(job)[0] != digests(job)[1]


def test_who_acts_before_the_first_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has learnt anything before a first phase's warm-up; later ones are the agent's."""
    acted: list[str] = []
    original = Collector.step

    def step(self: Collector, actor: Any) -> None:
        acted.append(type(actor).__name__)
        original(self, actor)

    monkeypatch.setattr(Collector, "step", step)
    trained(job_of(tmp_path, "iql"))
    assert acted == ["Random"] * 9 + ["IQL"] * 10
    acted.clear()
    trained(job_of(tmp_path, "wanderer"))
    assert acted == ["Wanderer"] * 33


def state_of(training: Training) -> dict[str, Any]:
    assert training.collector is not None
    return {
        "replay": training.collector.replay.state_dict()["rows"],
        **{f"agent {k}": v for k, v in flatten(training.agent.state_dict()).items()},
    }


def flatten(state: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        found: dict[str, Any] = {}
        for key, value in state.items():
            found |= flatten(value, f"{prefix}.{key}")
        return found
    return {prefix: state}


@pytest.mark.parametrize("label", ["wanderer", "iql"])
def test_a_seed_in_a_stack_equals_the_seed_alone(label: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, label, precision="float64")
    stacked = state_of(trained(job))
    for i, seed in enumerate(job.seeds):
        alone = state_of(trained(replace(job, seeds=[seed], paths=[job.paths[i]])))
        assert alone.keys() == stacked.keys()
        for name, value in alone.items():
            if isinstance(value, torch.Tensor) and value.dim() and "steps" not in name:
                assert value.shape[1:] == stacked[name].shape[1:]
                # The replay keeps float32: a rounding apart at most.
                bound = 1e-6 if name == "replay" else 1e-10
                difference = (value[0].double() - stacked[name][i].double()).abs().max()
                assert difference <= bound, name


def test_evaluations_in_between_change_nothing(tmp_path: Path) -> None:
    job = job_of(tmp_path, "wanderer")
    few = state_of(trained(job))
    many = state_of(trained(replace(job, budget={**job.budget, "evaluations": 10})))
    for name, value in few.items():
        assert torch.equal(value, many[name]) if torch.is_tensor(value) else value == many[name]


class _Killed(BaseException):
    """The process dies."""


def interrupt(monkeypatch: pytest.MonkeyPatch, job: Job, call: int) -> None:
    """Trains until the sampler is asked for its ``call``-th batch."""
    calls = 0
    original = Sampler.sample

    def sample(self: Sampler, source: str = "dataset") -> Batch:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _Killed
        return original(self, source)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "sample", sample)
        with pytest.raises(_Killed):
            run(job)


@pytest.mark.parametrize(
    ("label", "simulator"),
    [
        ("wanderer", "mujoco"),
        ("wanderer", "gymnasium"),
        ("alone", "gymnasium"),
        ("iql", "mujoco"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    label: str, simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the warm-up, in the middle of episodes, after the replay is full, again and again."""
    if simulator == "gymnasium":
        monkeypatch.setattr(mujoco, "DIRECT", frozenset())
    job = job_of(tmp_path, label, checkpoint_seconds=0)
    assert hasattr(make_vector(job.task["env_id"], 1), "save") is (simulator == "mujoco")
    run(job)
    expected = digests(job)
    killed = replace(job, out=str(tmp_path / "killed"))
    for call in (7, 3, 8):  # before updates 7, 9 and 16
        interrupt(monkeypatch, killed, call)
    run(killed)
    assert digests(killed) == expected
    record = read_record(Path(killed.out) / killed.paths[0])
    assert [resume["update"] for resume in record.resumes] == [6, 8, 15]
    assert all(resume["exact"] for resume in record.resumes)


def test_a_simulator_goes_on_to_the_same_bits() -> None:
    """The warm start and the time limit too, which no observation shows."""
    whole, other = make_vector("Walker2d-v5", 2), make_vector("Walker2d-v5", 1)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (60, 2, 6)).astype(np.float32)
    assert isinstance(whole, mujoco.DirectMujoco)
    assert isinstance(other, mujoco.DirectMujoco)
    for i in range(2):
        whole.reset(i, i)
    for action in actions[:20]:
        whole.step(action)
    other.load(0, whole.save(1))
    for action in actions[20:]:
        expected, found = whole.step(action), other.step(action[1:])
        np.testing.assert_array_equal(found.observations[0], expected.observations[1])
        assert found.rewards[0] == expected.rewards[1]
    last = whole.save(1)
    assert last[-1] == 60
    last[-1] = 999
    other.load(0, last)
    assert other.step(actions[0, :1]).truncations[0]


def test_an_environment_that_does_not_repeat_itself_is_told_of() -> None:
    collector = make_collector("test_online/LineRandom-v0", (0, 1))
    pusher: Any = Pusher([0.0, 0.5])
    for _ in range(3):
        collector.step(pusher)
    state = collector.state_dict()
    with pytest.raises(
        ResumeError, match=r"LineRandom-v0 does not repeat .* delete the checkpoint"
    ):
        make_collector("test_online/LineRandom-v0", (0, 1)).load_state_dict(state)


def test_a_collector_goes_on_where_one_seed_has_just_begun() -> None:
    """Of two seeds one stands at the start of an episode, without an action to play again."""
    whole, other = (make_collector("test_online/Line-v0", (0, 1)) for _ in range(2))
    pusher: Any = Pusher([0.9, 0.0])
    while not (whole.first[0] and not whole.first[1]):
        whole.step(pusher)
    other.load_state_dict(whole.state_dict())
    for _ in range(10):
        whole.step(pusher)
        other.step(pusher)
    assert torch.equal(
        whole.replay.table[:, : len(whole.replay)], other.replay.table[:, : len(other.replay)]
    )


# ---- refusals and estimates


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{env_steps_per_update: 1}", ["never be learnt from", '"replay"']),
        ("{source: replay}", ["without environment steps", "env_steps_per_update"]),
        ("{source: replay, env_steps_per_update: 1}", ["nothing to sample", "warmup_env_steps"]),
        ("{source: dataset+replay, env_steps_per_update: -1}", ["at least 0, not -1"]),
        ("{source: dataset+replay, env_steps_per_update: .nan}", ["at least 0, not nan"]),
        ("{source: replay, env_steps_per_update: 1, warmup_env_steps: -5}", ["not -5"]),
        ("{source: dataset+replay, env_steps_per_update: 1, replay_size: 0}", ["not 0"]),
        ("{source: dataset+replay, env_steps_per_update: 1, replay_size: 99}", ["99", "256"]),
        ("{source: elsewhere}", ["source", "elsewhere"]),
    ],
)
def test_phases_that_make_no_sense(settings: str, words: list[str], tmp_path: Path) -> None:
    manifest = (
        "tasks: [hopper-random]\nagents:\n  iql: {phases: [{name: warm}, {name: later, "
        + settings[1:-1]
        + "}]}\n"
    )
    with pytest.raises(UsageError) as caught:
        make_plan(options(tmp_path, manifest))
    for word in ["iql", *words]:
        assert word in str(caught.value)


def test_one_replay_has_one_size() -> None:
    phase = {"name": "a", "source": "dataset+replay", "env_steps_per_update": 1.0}
    other = {**phase, "name": "b", "replay_size": 5000}
    with pytest.raises(UsageError, match=r'phase "b": replay_size 5000 is not 1000000'):
        read_phases([phase, other], 10, "here")


ONLINE = "{name: later, source: dataset+replay, env_steps_per_update: 1}"
PLUGIN = """
from baselines.contract import Needs
from online_agents import Wanderer


class Other(Wanderer):
    @staticmethod
    def needs(config):
        return Needs(**{needs})


AGENTS = {"other": Other}
"""


def plan_with(needs: dict[str, Any], folder: Path, **more: Any) -> SuitePlan:
    """A plan of an agent that needs this and goes online."""
    asked = {"fields": ("observations",), "batch_size": 8, **needs}
    # A name of its own: Python takes a file of the same second and size for unchanged.
    plugin = folder / f"other{len(list(folder.glob('other*.py')))}.py"
    plugin.write_text(PLUGIN.replace("{needs}", repr(asked)))
    (folder / "other.yaml").write_text(
        f"tasks: [hopper-random]\nagents:\n  other: {{phases: [{ONLINE}]}}\n"
    )
    chosen = Options(str(folder / "other.yaml"), out=folder / "runs", plugins=[str(plugin)], **more)
    return make_plan(chosen)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"window": 3}, ["windows of 3 steps", 'source is "dataset"']),
        ({"dataset": True}, ["whole dataset", 'source is "dataset"']),
        ({"fields": ("observations", "policy_ids")}, ['"policy_ids"', 'source is "dataset"']),
        ({"fields": ("observations", "policy_groups")}, ['"policy_groups"']),
    ],
)
def test_agents_that_cannot_go_online(
    needs: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_with(needs, tmp_path)
    for word in ['agent "other", phase "later"', *words]:
        assert word in str(caught.value)


def test_data_that_nobody_can_collect(tmp_path: Path) -> None:
    """The user's own data: without a simulator, or with parts that the simulator does not tell."""
    toy = "test_online/Line-v0"
    alone = save(tmp_path / "alone.npz", logs())
    with pytest.raises(UsageError, match=r'"other", phase "later": task alone has no simulator'):
        plan_with({}, tmp_path, tasks=[str(alone)])
    parted = save(tmp_path / "parted.npz", logs(env_id=toy, reward_parts=logs()["rewards"]))
    plan_with({}, tmp_path, tasks=[str(parted)])
    with pytest.raises(UsageError, match=r'"reward_parts", which the simulator of task parted'):
        plan_with({"fields": ("reward_parts",)}, tmp_path, tasks=[str(parted)])

    dataset = make_dataset("Hopper-v5")
    dataset.card["reward_parts"] = ["speed"]
    needs = Needs(("reward_parts",))
    transform = Transform(np.zeros(11), np.ones(11), 1.0)
    with pytest.raises(store.DatasetError, match=r"\(speed\) .*\(forward, survive, control\)"):
        Collector("Hopper-v5", make_spec("Hopper-v5"), (0,), transform, dataset, needs)


def test_the_estimate_counts_environment_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "suites.estimate.measure", lambda jobs: [Speed(0.0, 1e-3, 1e-3) for _ in jobs]
    )
    job = job_of(tmp_path, "wanderer")
    source = make_plan(options(tmp_path)).source
    (online,) = estimate([job], source)
    without = replace(job, phases=[{**job.phases[0], "updates": 20}])
    (offline,) = estimate([without], source)
    # 33 steps of two seeds, and an act for both.
    assert online.training - offline.training == pytest.approx(33 * (2 + 1) * 1e-3, rel=0.5)
    assert online.evaluation > offline.evaluation  # the end of the first phase


def test_the_estimate_knows_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, source = job_of(tmp_path, "wanderer"), make_plan(options(tmp_path)).source

    def evaluation(horizon: int | None) -> float:
        speed = Speed(0.0, 1e-3, 1e-3, horizon)
        monkeypatch.setattr("suites.estimate.measure", lambda jobs: [speed for _ in jobs])
        return estimate([job], source)[0].evaluation

    assert evaluation(None) == evaluation(1000) > 20 * evaluation(20) > 0
    assert _env_step("fastq_bench/pointmass-9-v0")[1] == 50
