"""The point mass: its equations, its reference controller, and the data of random choices."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from analysis.efficiency import Cell
from suites.catalog import TASKS, reference
from suites.datasets import describe, export, local, store
from suites.datasets.play import play
from suites.datasets.recipes import pointmass as recipe
from suites.datasets.store import Dataset
from suites.datasets.verify import verify
from suites.envs import make_vector, pointmass
from suites.envs.mujoco import make_one
from suites.envs.registered import with_settings
from suites.plan import SuitePlan, make_plan
from suites.resolve import Options

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pointmass.py"
LEVELS = (9, 17, 33)
NINE = "fastq_bench/pointmass-9-v0"
VARIANTS: list[dict[str, float]] = [{}, {"coupling": 1.0}, {"noise": 0.5, "coupling": 0.3}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path))


def made(task: str, size: int | None = None, seed: int = 0) -> Dataset:
    return store.load(local.ensure(task, size, seed), verify=True)


@pytest.mark.parametrize("levels", LEVELS)
def test_gymnasium_accepts_it(levels: int) -> None:
    env = make_one(f"fastq_bench/pointmass-{levels}-v0")
    check_env(env.unwrapped)
    assert env.spec is not None
    assert env.spec.max_episode_steps == recipe.STEPS == 50
    assert env.action_space == spaces.MultiDiscrete([levels, levels])
    assert TASKS[f"pointmass-{levels}"].env_id("local") == env.spec.id
    noop = env.get_wrapper_attr("noop")
    assert pointmass.forces(np.array(noop), levels).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("settings", [{}, {"coupling": 0.3}])
def test_the_equations_one_by_one(settings: dict[str, float]) -> None:
    env = make_one(with_settings(NINE, settings))
    observation, _ = env.reset(seed=3)
    assert np.abs(observation[:2]).max() <= 1.0
    assert not observation[2:].any()
    c, generator = settings.get("coupling", 0.0), np.random.default_rng(0)
    walls = 0
    for t in range(50):
        # Mostly to one side, so that the edge is met.
        action = generator.integers(5, 9, 2) if t < 30 else generator.integers(0, 9, 2)
        force = [action[k] / 4 - 1 for k in (0, 1)]
        pushes = [force[0] * (1 - c + c * force[1]), force[1]]
        expected = np.zeros(4)
        for k in (0, 1):
            speed = 0.9 * observation[2 + k] + 0.3 * pushes[k]
            place = observation[k] + 0.1 * speed
            walls += abs(place) > 1
            expected[2 + k] = 0.0 if abs(place) > 1 else speed
            expected[k] = min(max(place, -1.0), 1.0)
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(observation, expected, atol=1e-12)
        distance = np.hypot(*observation[:2])
        assert reward == pytest.approx(1 / (1 + (distance / 0.2) ** 2), abs=1e-12)
        assert not terminated
        assert truncated == (t == 49)
    assert walls


def test_noise_pushes_both_coordinates() -> None:
    env = pointmass.VectorPointMass(with_settings(NINE, {"noise": 0.5}), 1)
    pushes = []
    for seed in range(200):
        env.reset(0, seed)
        before = env.set_state(0, np.array([seed / 1e6, 0.0, 0.2, -0.2]))
        after = env.step(np.array([[4, 4]])).observations[0]
        pushes.append((after[2:] - 0.9 * before[2:]) / 0.3)
    assert np.std(pushes, axis=0) == pytest.approx(0.5, abs=0.08)
    assert np.mean(pushes, axis=0) == pytest.approx(0.0, abs=0.12)


def test_forces_do_not_interact_unless_they_are_coupled() -> None:
    """Which coordinates change when one choice does, from many states: the effects, exactly."""
    generator = np.random.default_rng(0)
    states = generator.uniform(-0.5, 0.5, (300, 4))
    for settings in VARIANTS:
        if "noise" in settings:
            continue
        env = pointmass.VectorPointMass(with_settings(NINE, settings), 300)

        def after(
            actions: np.ndarray, env: pointmass.VectorPointMass = env
        ) -> npt.NDArray[np.float64]:
            for slot, state in enumerate(states):
                env.set_state(slot, state)
            return env.step(actions).observations

        actions = generator.integers(0, 9, (300, 2))
        moved = []
        for k in (0, 1):
            other = actions.copy()
            other[:, k] = (other[:, k] + 1 + generator.integers(0, 7, 300)) % 9
            moved.append((after(actions) != after(other)).any(axis=0))
        only = [np.flatnonzero(moved[k] & ~moved[1 - k]).tolist() for k in (0, 1)]
        effects = make_one(with_settings(NINE, settings)).get_wrapper_attr("effects")
        assert only == [list(found) for found in effects]
        assert getattr(env, "effects", effects) == effects


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_vectorised_equals_gymnasiums(settings: dict[str, float]) -> None:
    """To the last bit, in the middle of neighbours that are busy, and with waiting slots."""
    name = with_settings(NINE, settings)
    vector, env = make_vector(name, 3), make_one(name)
    assert isinstance(vector, pointmass.VectorPointMass)
    assert (vector.observation_space, vector.action_space, vector.horizon) == (
        env.observation_space,
        env.action_space,
        50,
    )
    generator = np.random.default_rng(0)
    for neighbour in (0, 2):
        vector.reset(neighbour, seed=neighbour)
    for episode in range(3):
        expected, _ = env.reset(seed=2**32 + episode)
        np.testing.assert_array_equal(vector.reset(1, seed=2**32 + episode), expected)
        for t in range(50):
            actions = generator.integers(0, 9, (3, 2))
            step = vector.step(actions, np.array([t % 3 > 0, True, False]))
            expected, reward, terminated, truncated, _ = env.step(actions[1])
            np.testing.assert_array_equal(step.observations[1], expected)
            assert step.rewards[1] == reward
            assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
            assert step.rewards[2] == 0.0


def test_an_episode_can_begin_where_an_observation_was_seen() -> None:
    vector = make_vector(with_settings(NINE, {"noise": 0.2}), 2)
    assert isinstance(vector, pointmass.VectorPointMass)
    seen = np.array([0.5, -0.25, 0.3, -0.4])
    for slot in (0, 1):
        np.testing.assert_array_equal(vector.set_state(slot, seen), seen)
    step = vector.step(np.array([[4, 4], [4, 4]]))
    np.testing.assert_array_equal(step.observations[0], step.observations[1])
    assert vector.restorable(np.stack((seen, seen))).tolist() == [True, True]


def test_numbers_out_of_range_are_refused() -> None:
    for settings, what in (
        ({"levels": 8}, "levels is 8; choose an odd number"),
        ({"coupling": 1.5}, "coupling is 1.5; choose"),
        ({"noise": -1.0}, "noise is -1.0; choose"),
    ):
        with pytest.raises(ValueError, match=what):
            make_one(with_settings(NINE, settings))


def test_it_shows_itself() -> None:
    env: Any = make_one(NINE).unwrapped
    env.reset(seed=0)
    env.set_state(np.array([-0.9, 0.9, 0.0, 0.0]))
    picture = env.render()
    assert picture.shape == (200, 200, 3)
    assert picture[14, 14].tolist() == [0, 0, 0]  # the upper left corner
    assert picture[100, 100].tolist() == [170, 220, 170]


@pytest.fixture(scope="module")
def controller() -> pointmass.Controller:
    return pointmass.Controller(9)


def test_the_controller_is_ahead_of_every_other_policy(controller: pointmass.Controller) -> None:
    """In the environment itself, and nobody exceeds the bound from any start."""
    episodes = 200
    env = pointmass.VectorPointMass(NINE, episodes)
    generator = np.random.default_rng(0)
    starts = np.stack([env.reset(slot, slot) for slot in range(episodes)])

    def springs(stiff: float, damp: float) -> Callable[[np.ndarray, int], np.ndarray]:
        def act(state: np.ndarray, time: int) -> np.ndarray:
            force = np.clip(-stiff * state[:, :2] - damp * state[:, 2:], -1, 1)
            return np.rint(4 * force + 4).astype(int)

        return act

    policies = {
        "controller": controller.act,
        "random": lambda state, time: generator.integers(0, 9, (episodes, 2)),
        "rest": lambda state, time: np.full((episodes, 2), 4),
        "full force": lambda state, time: np.where(state[:, :2] > 0, 0, 8),
        **{f"{k} {d}": springs(k, d) for k in (2.0, 5.0, 10.0) for d in (0.5, 1.0, 2.0)},
    }
    returns = {}
    for name, act in policies.items():
        state, total = starts, np.zeros(episodes)
        for slot in range(episodes):
            env.set_state(slot, starts[slot])
        for time in range(50):
            step = env.step(np.asarray(act(state, time)))
            state, total = step.observations, total + step.rewards
        returns[name] = total
    ceiling = pointmass.bound(starts[:, :2])
    best = returns.pop("controller")
    assert (best <= ceiling).all()
    assert (ceiling - best).mean() < 0.2
    for name, found in returns.items():
        assert (found <= ceiling).all()
        assert found.mean() < best.mean(), name
    assert max(found.mean() for found in returns.values()) > 0.9 * best.mean()  # no straw men


def test_the_scale_of_scores_is_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, controller: pointmass.Controller
) -> None:
    monkeypatch.setattr(pointmass, "Controller", lambda levels: controller)
    found = pointmass.measure(pointmass.PointMass(9), 4000)
    low, high, source = reference("pointmass-9")
    for name, published in (("random", low), ("controller", high)):
        value, error = found[name]
        assert abs(value - published) < 4 * error
    assert 0 < found["bound"][0] - found["controller"][0] < 0.2
    assert "python -m suites.envs.pointmass" in source
    for levels in LEVELS:
        assert reference(f"pointmass-{levels}")[1] == pytest.approx(45.46, abs=0.02)
    coupled = pointmass.PointMass(17, coupling=1.0)
    found = pointmass.measure(coupled, 4000)
    for name, published in zip(
        ("random", "bound"), reference("pointmass-17-coupled"), strict=False
    ):
        value, error = found[name]
        assert abs(value - float(published)) < 4 * error


def test_rows_are_uniformly_random_choices() -> None:
    data = made("pointmass-9")
    assert len(data.table) == recipe.default_size(TASKS["pointmass-9"]) == 20_000
    actions = data.column("actions").astype(int)
    counts = np.bincount(9 * actions[:, 0] + actions[:, 1], minlength=81)
    expected = 20_000 / 81
    assert len(counts) == 81
    assert ((counts - expected) ** 2 / expected).sum() < 130  # chi-square of 80, p < 0.001
    ends = np.flatnonzero(data.column("truncations"))
    np.testing.assert_array_equal(ends, np.arange(49, 20_000, 50))
    assert not data.column("terminations").any()
    assert data.card["score_mean"] == pytest.approx(0.0, abs=2.5)


def test_a_dataset_is_a_function_of_its_seed_and_size() -> None:
    one = made("pointmass-17", 1000).card
    assert one["sha256"] != made("pointmass-17", 1000, seed=1).card["sha256"]
    assert one["sha256"] != made("pointmass-33", 1000).card["sha256"]
    wanted = local.identity("pointmass-17", 100_020)
    cuts = [shard.stop for shard in recipe.shards(wanted)]
    assert len(cuts) > 2
    assert cuts[-1] == 100_020
    assert all(cut % 50 == 0 for cut in cuts[:-1])
    short = play(NINE, recipe._Random, rows=100, entropy=(1,)).table
    np.testing.assert_array_equal(short, play(NINE, recipe._Random, rows=1500, entropy=(1,)).table
                                  [:100])  # fmt: skip


def test_describe_and_verify() -> None:
    data = made("pointmass-17", 2000)
    assert not verify(data).faults
    text = describe.describe(data)
    assert "different choices of the actions: 17 17" in text
    for change, what in ((-1, "next observation"), (30, "the action space is MultiDiscrete")):
        table = data.table.copy()
        start, stop = data.card["columns"]["actions"]
        table[:, start:stop] = (16 - table[:, start:stop]) if change < 0 else change
        faults = verify(Dataset(None, data.card, table)).faults
        assert any(what in fault for fault in faults), faults


def test_integer_choices_survive_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made("pointmass-9", 1000)
    file = export.export(data, "d4rl", tmp_path)
    import h5py

    with h5py.File(file) as written:
        np.testing.assert_array_equal(written["actions"][()], data.column("actions"))
    pytest.importorskip("minari")
    from suites.datasets import minari_source

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    export.export(data, "minari", Path("minari"))  # a relative place, too
    task = minari_source.own_task(export.minari_id(data))
    assert task is not None and task.spaces is not None
    assert task.spaces["action"]["nvec"] == [9, 9]
    back = store.load(minari_source.ensure(export.minari_id(data)))
    for name in data.fields:
        np.testing.assert_array_equal(back.column(name), data.column(name))


def planned(suite: str, out: Path, budget: str | None = None) -> SuitePlan:
    return make_plan(Options(suite, budget, out=out))


def test_the_suite_is_what_its_page_says(tmp_path: Path) -> None:
    plan = planned("pointmass", tmp_path)
    assert [task["id"] for task in plan.tasks] == [f"pointmass-{n}" for n in LEVELS]
    assert [task["joint_actions"] for task in plan.tasks] == [81, 289, 1089]
    rows = {row.label: row for row in plan.rows if not row.reference and row.label != "bc"}
    assert list(rows) == ["dqn", "decqn", "ad_dqn"]
    tuned = {"lr", "tau"}
    for row in rows.values():
        assert row.seeds == tuple(range(10, 20))
        (phase,) = row.phases
        assert (phase.source, phase.updates, phase.warmup_env_steps) == ("replay", 5000, 500)
        assert phase.env_steps_per_update == 1
        same = {key: value for key, value in row.config.items() if key not in tuned}
        shared = {key: value for key, value in rows["dqn"].config.items() if key not in tuned}
        assert shared.items() <= same.items()
    smoke = planned("pointmass", tmp_path, budget="smoke")
    assert smoke.budget.meaningless


def test_tuning_is_equal_and_on_seeds_of_its_own(tmp_path: Path) -> None:
    main, plan = planned("pointmass", tmp_path), planned("pointmass_tuning", tmp_path)
    assert [task["id"] for task in plan.tasks] == ["pointmass-9"]
    grids: dict[str, list[tuple[float, float]]] = {}
    for row in plan.rows:
        if row.reference or row.label == "bc":
            continue
        assert not {*row.seeds} & {seed for found in main.rows for seed in found.seeds}
        grids.setdefault(row.arm.agent, []).append((row.config["lr"], row.config["tau"]))
        (whole,) = [found for found in main.rows if found.label == row.arm.agent]
        untuned = {k: v for k, v in row.config.items() if k not in ("lr", "tau")}
        assert untuned == {k: v for k, v in whole.config.items() if k not in ("lr", "tau")}
        assert row.phases == whole.phases
    assert list(grids) == ["dqn", "decqn", "ad_dqn"]
    assert grids["dqn"] == grids["decqn"] == grids["ad_dqn"]
    for row in main.rows:
        if row.label in grids:
            assert (row.config["lr"], row.config["tau"]) in grids[row.label]
            assert row.arm.configs_tried == len(grids[row.label]) == 6


@pytest.mark.parametrize("suite", ["pointmass_mixers", "pointmass_noise"])
def test_studies_change_what_they_are_about_alone(suite: str, tmp_path: Path) -> None:
    main, plan = planned("pointmass", tmp_path), planned(suite, tmp_path)
    (whole,) = [row for row in main.rows if row.label == "ad_dqn"]
    rows = [row for row in plan.rows if not row.reference and row.label != "bc"]
    about = {"mixer", "augmentation"} if suite.endswith("mixers") else {"model_noise"}
    settings = []
    for row in rows:
        assert (row.arm.agent, row.seeds, row.phases) == ("ad_dqn", whole.seeds, whole.phases)
        changed = {key for key in row.config if row.config[key] != whole.config[key]}
        assert changed <= about | ({"augmentation"} if row.label == "no_model" else set())
        settings.append({key: row.config[key] for key in (*sorted(about), "augmentation")})
    assert [task["id"] for task in plan.tasks] == ["pointmass-17"]
    assert len(settings) == len({str(setting) for setting in settings})
    script = runpy.run_path(str(SCRIPT))
    wanted = [script["WITHOUT"], *script["NOISES"]]
    if suite.endswith("mixers"):
        mixers = (*script["SIMPLE"], script["COMPLEX"])
        wanted = [mixer + end for mixer in mixers for end in ("", script["REAL"])]
    assert [row.label for row in rows] == wanted


def test_the_coupled_suite_differs_in_its_tasks_alone(tmp_path: Path) -> None:
    main, plan = planned("pointmass", tmp_path), planned("pointmass_coupled", tmp_path)
    assert [task["id"] for task in plan.tasks] == ["pointmass-17", "pointmass-17-coupled"]
    one, other = ({row.label: (row.config, row.seeds, row.phases) for row in found.rows}
                  for found in (main, plan))  # fmt: skip
    assert one == other
    shared = {cell.path for cell in main.cells if cell.task == "pointmass-17"}
    assert len(shared & {cell.path for cell in plan.cells}) >= 30  # trained once for both


def cell(task: str, agent: str, joint: int, areas: np.ndarray) -> Cell:
    count = len(areas)
    return Cell(
        task, agent, joint, [(0, seed) for seed in range(count)], np.ones(1), np.ones((count, 1)),
        areas, np.ones((count, 3)),
    )  # fmt: skip


def made_up(shift: dict[str, float], seeds: int = 10) -> list[Cell]:
    """Areas around 50, and ``shift`` more for each doubling of the levels."""
    generator = np.random.default_rng(0)
    return [
        cell(f"pointmass-{n}", agent, n**2,
             50 + shift.get(agent, 0.0) * np.log2(n / 4) + generator.normal(size=seeds))
        for n in LEVELS
        for agent in ("dqn", "decqn", "ad_dqn")
    ]  # fmt: skip


def test_verdicts_on_the_hypotheses() -> None:
    script = runpy.run_path(str(SCRIPT))
    lines = list(script["verdicts"](made_up({"ad_dqn": 5.0, "decqn": 5.0})))
    assert [line.split()[0] for line in lines] == ["H1"] * 6 + ["H2"] * 2
    assert all(line.endswith("holds") for line in lines[:3])  # over dqn
    assert all(line.endswith("fails") for line in lines[3:6])  # over decqn
    assert lines[6].startswith("H2 growth of ad_dqn / dqn: 1.17")
    assert lines[6].endswith("holds")
    assert lines[7].endswith("fails")
    with pytest.raises(ValueError, match="9 runs; the hypotheses ask for 10"):
        list(script["verdicts"](made_up({}, seeds=9)))

    generator = np.random.default_rng(0)
    mixers = {"average": 5.0, "linear": 5.0, "two_layer": 0.0, "relu": 0.0, "average_real": 5.0}
    mixers |= {"linear_real": 0.0, "two_layer_real": 5.0, "relu_real": 0.0}
    rows = [cell("pointmass-17", name, 289, 50 + up + generator.normal(size=10))
            for name, up in mixers.items()]  # fmt: skip
    answers = [line.split()[-1] for line in script["verdicts"](rows)]
    assert answers == ["holds", "holds", "fails", "fails", "holds", "fails", "fails"]

    noises = {"no_model": 3.0} | dict(zip(script["NOISES"], (6.0, 6.0, 3.0, 3.0, 0.0), strict=True))
    rows = [cell("pointmass-17", name, 289, 50 + up + generator.normal(size=10))
            for name, up in noises.items()]  # fmt: skip
    first, *others = script["verdicts"](rows)
    assert first.endswith("holds")
    assert [line.split("  ")[-1] for line in others] == [
        *["ahead"] * 2,
        *["not separated"] * 2,
        "behind",
    ]


def test_verdicts_on_coupling() -> None:
    script = runpy.run_path(str(SCRIPT))
    generator = np.random.default_rng(0)
    means = {
        "pointmass-17": {"dqn": 40.0, "decqn": 60.0, "ad_dqn": 70.0},
        "pointmass-17-coupled": {"dqn": 35.0, "decqn": 30.0, "ad_dqn": 20.0},
    }
    cells = [
        cell(task, agent, 289, value + generator.normal(size=10))
        for task, row in means.items()
        for agent, value in row.items()
    ]
    lines = list(script["verdicts"](cells))
    assert [line.split("  ")[-1] for line in lines] == ["behind", "holds"] * 2
    assert "coupled over apart: 0.3" in lines[1]  # (20 / 35) / (70 / 40)


def test_the_largest_mean_area_is_chosen() -> None:
    script = runpy.run_path(str(SCRIPT))
    cells = [
        cell("pointmass-9", label, 81, np.full(5, value))
        for label, value in (("a_1", 10.0), ("a_2", 30.0), ("a_3", 30.0), ("b_1", 20.0))
    ]
    names = {"a_1": "a", "a_2": "a", "a_3": "a", "b_1": "b"}
    lines = list(script["choose"](cells, names))
    assert lines[0] == "a_1: 10.0 [10.0, 10.0] over 5 seeds"
    assert lines[-2:] == ["chosen for a: a_2", "chosen for b: b_1"]
