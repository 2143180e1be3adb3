"""Studies: what they measure on known cases, what they leave alone, and where they stand."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.config import UsageError
from baselines.contract import Needs, Phase, Spec
from results.record import RecordError, read_record, read_study
from suites.datasets import store
from suites.datasets.transforms import Transform
from suites.diagnosis import new_findings
from suites.envs import make_vector
from suites.envs.mujoco import DIRECT, make_one
from suites.job import Job, unfinished_stacks
from suites.launch import record_failure
from suites.manifest import load_suite
from suites.plan import SuitePlan, make_plan
from suites.resolve import Options
from suites.studies import STUDIES, balance, context, decomposition, exploration, rollouts
from suites.studies.context import Context, DoesNotApply, StudyError, run_study
from suites.studies.measures import agreement, mean_interval, rank_correlation
from suites.train import prepare, train

HERE = Path(__file__).parent
MANIFEST = """
tasks: [hopper-random]
agents: {bc: , known: }
budget: tiny
budgets:
  tiny: {updates: 4, seeds: 1, evaluations: 4, evaluation_episodes: 1, final_episodes: 1,
         transitions: 1000}
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of seconds instead of a minute."""
    for module in (rollouts, exploration, decomposition):
        monkeypatch.setattr(module, "SLOTS", 10)
    monkeypatch.setattr(exploration, "FEWEST_PAIRS", 100)
    monkeypatch.setattr(exploration, "FEWEST_STATES", 20)
    monkeypatch.setattr(decomposition, "PAIRS", 20)
    monkeypatch.setattr(balance, "PICTURED", 40)
    monkeypatch.setattr(balance, "ROWS", 600)


def make_dataset(env_id: str = "Hopper-v5", episodes: int = 30, length: int = 25) -> store.Dataset:
    """Episodes of an environment under random actions of two policies, of two sizes."""
    env, rng = make_vector(env_id, 1), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in (*store.REQUIRED, "policy_ids")}
    rows["reward_parts"] = []
    for episode in range(episodes):
        seen = env.reset(0, episode)
        for step in range(length):
            action = rng.uniform(-0.1, 0.1, (1, *env.action_space.shape)) * (1 + episode % 2)
            played = env.step(action.astype(np.float32))
            over = bool(played.terminations[0]) or step == length - 1
            values = (seen, action[0], played.rewards[0], played.observations[0])
            for name, value in zip(store.REQUIRED[:4], values, strict=True):
                rows[name].append(value)
            rows["terminations"].append(played.terminations[0])
            rows["truncations"].append(over and not played.terminations[0])
            rows["policy_ids"].append(episode % 2)
            rows["reward_parts"].append(played.parts[0])
            seen = played.observations[0]
            if over:
                break
    table, columns = store.pack({name: np.array(values) for name, values in rows.items()})
    card = {
        "id": "made-up",
        "columns": columns,
        "policies": [{"return_mean": 1.0}, {"return_mean": 2.0}],
        "reward_parts": list(env.reward_parts),
        "return_best": 50.0,
        "return_worst": 10.0,
        "horizon": length,
    }
    return store.Dataset(None, card, table)


@pytest.fixture(scope="module")
def dataset() -> store.Dataset:
    return make_dataset()


def make_context(
    dataset: store.Dataset, name: str = "known", seeds: tuple[int, ...] = (0,), scale: float = 1.0
) -> Context:
    from study_agents import AGENTS

    env = make_vector("Hopper-v5", 1)
    spec = Spec(
        env.observation_space,
        env.action_space,
        phases=(Phase("offline", 1),),
        horizon=env.horizon,
        reward_parts=tuple(dataset.card["reward_parts"]),
        policies=2,
        policy_groups=2,
    )
    cls = AGENTS[name]
    agent = cls(spec, cls.Config(), seeds)
    job = Job(
        kind="train", name="", out="", task={"env_id": "Hopper-v5"}, data={}, cell={}, agent={},
        phases=[], budget={}, seeds=list(seeds), paths=[],
    )  # fmt: skip
    transform = replace(Transform.fit(dataset, Needs(("observations",))), reward_scale=scale)
    return Context(
        agent=agent,
        spec=spec,
        job=job,
        dataset=dataset,
        transform=transform,
        policy_groups=np.array([0, 1]),
        curves=[[] for _ in seeds],
        listen=lambda: None,
    )


@pytest.fixture(autouse=True)
def _agents_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


# The simulator's state -------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", sorted(DIRECT))
def test_stepping_from_a_restored_state_equals_gymnasium_to_the_last_bit(env_id: str) -> None:
    vector, env = make_vector(env_id, 3), make_one(env_id)
    rng = np.random.default_rng(1)
    vector.reset(0, seed=5)
    env.reset(seed=0)
    base: Any = env.unwrapped
    restored = 0
    for _ in range(12):
        step = vector.step(
            rng.uniform(-0.1, 0.1, (3, *vector.action_space.shape)), np.arange(3) == 0
        )
        seen = step.observations[0]
        if not vector.restorable(seen):
            continue
        restored += 1
        np.testing.assert_array_equal(vector.set_state(1, seen), seen)
        env.reset(seed=0)
        positions = base.model.nq - 1
        base.set_state(np.append(0.0, seen[:positions]), seen[positions:])
        actions = rng.uniform(-0.1, 0.1, (3, *vector.action_space.shape)).astype(np.float32)
        actions[0] = actions[1]
        there = vector.step(actions, np.arange(3) == 1)
        observation, reward, terminated, *_ = env.step(actions[1])
        np.testing.assert_array_equal(there.observations[1], observation)
        assert (there.rewards[1], there.terminations[1]) == (reward, terminated)
        # And, but for rounding and the solver's warm start, the step that the original takes.
        on = vector.step(actions, np.arange(3) == 0)
        np.testing.assert_allclose(there.observations[1], on.observations[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(there.rewards[1], on.rewards[0], rtol=0, atol=1e-6)
    assert restored >= 6
    vector.close()


def test_states_that_an_observation_does_not_tell_are_refused() -> None:
    vector = make_vector("Hopper-v5", 1)
    seen = vector.reset(0, seed=0)
    clipped = seen.copy()
    clipped[-1] = -10.0
    assert vector.restorable(np.stack([seen, clipped])).tolist() == [True, False]
    with pytest.raises(ValueError, match="a velocity of the observation is clipped to 10"):
        vector.set_state(0, clipped)
    with pytest.raises(ValueError, match=r"an observation is \(11,\), not \(3,\)"):
        vector.set_state(0, seen[:3])
    cheetah = make_vector("HalfCheetah-v5", 1)
    fast = cheetah.reset(0, seed=0)
    fast[-1] = 30.0  # shown as it is
    assert cheetah.restorable(fast)
    np.testing.assert_array_equal(cheetah.set_state(0, fast), fast)


def test_the_time_limit_counts_from_the_restored_state() -> None:
    vector = make_vector("HalfCheetah-v5", 1)
    vector.set_state(0, vector.reset(0, seed=0))
    still = np.zeros((1, 6), np.float32)
    ends = [vector.step(still).truncations[0] for _ in range(1000)]
    assert ends == [False] * 999 + [True]


# Measures --------------------------------------------------------------------------------------


def test_measures() -> None:
    from scipy.stats import spearmanr, ttest_1samp

    rng = np.random.default_rng(0)
    x = rng.standard_normal(50).round(1)
    y = x + rng.standard_normal(50).round(1)
    found, expected = mean_interval(x), ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(rank_correlation(x, np.ones(50)))
    assert np.isnan(mean_interval(x[:1])["low"])
    shared = agreement(x, y, units=np.array([1.0, 3.0]))
    assert shared["bias"]["mean"] == 2.0
    assert shared["pairs"] == 50


# Balance ---------------------------------------------------------------------------------------


def test_a_known_representation_is_judged_rightly(dataset: store.Dataset) -> None:
    found = run_study("balance", make_context(dataset))[0]
    numbers = found.numbers
    assert numbers["applies"]
    assert numbers["chance"] == 0.5
    before, after = numbers["views"]["before"], numbers["views"]["after"]
    assert before["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "episodes": 8}
    assert after["accuracy"]["value"] == 0.5
    assert before["distance"]["floor"] == 0.0
    assert before["distance"]["between"] > 1.0
    assert after["distance"] == {"between": 0.0, "floor": 0.0}
    assert found.arrays["before"].shape == found.arrays["after"].shape == (40, 2)
    assert np.bincount(found.arrays["groups"]).tolist() == [20, 20]


def test_episodes_are_held_out_whole(dataset: store.Dataset) -> None:
    studied = make_context(dataset)
    sample = balance.draw(studied, studied.rng("balance", 0))
    sides = [set(sample.episodes[sample.sides == side].tolist()) for side in range(3)]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    for side in range(3):
        assert set(sample.groups[sample.sides == side].tolist()) == {0, 1}
    counts = np.bincount(sample.groups)
    assert counts[0] == counts[1]


def test_what_only_the_episode_tells_is_not_recognised(dataset: store.Dataset) -> None:
    """Each episode has a mark of its own: rows on both sides would give the group away."""
    studied = make_context(dataset)
    sample = balance.draw(studied, studied.rng("balance", 0))
    marks = np.random.default_rng(0).standard_normal((1 + sample.episodes.max(), 16))
    view = balance.standardised(marks[sample.episodes])

    def judged(of: balance.Sample) -> dict[str, Any]:
        predicted = balance.classify(view, of, 0)
        return balance.balanced_accuracy(predicted, of, np.random.default_rng(0))

    assert judged(sample)["low"] < 0.5 < judged(sample)["high"]
    leaking = np.random.default_rng(0).integers(0, 3, len(sample.rows))
    assert judged(replace(sample, sides=leaking))["value"] == 1.0
    # The floor is as high as the distance: what tells episodes apart is no difference of groups.
    distance = balance.distances(view, sample, np.random.default_rng(0))
    assert distance["between"] < 1.5 * distance["floor"]


def test_rare_groups_count_as_much_as_common_ones() -> None:
    """A guess that is always the common group is right half the time, not nine times in ten."""
    groups = np.repeat([0, 1], [900, 100])
    sample = balance.Sample(
        np.arange(1000), groups, np.arange(1000) // 20, np.full(1000, 2), count=2
    )
    found = balance.balanced_accuracy(np.zeros(1000, int), sample, np.random.default_rng(0))
    assert found["value"] == 0.5


def test_distance_of_shifted_normals_is_the_shift() -> None:
    """In one dimension W1 of a shift is the shift, here in pooled standard deviations."""
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 4000)
    view = rng.standard_normal((8000, 1)) + 2.0 * groups[:, None]
    sample = balance.Sample(np.arange(8000), groups, np.arange(8000) // 10, groups * 0, count=2)
    found = balance.distances(balance.standardised(view), sample, rng)
    assert found["between"] == pytest.approx(2.0 / np.sqrt(2.0), rel=0.06)
    assert found["floor"] < 0.1


def test_nothing_to_balance_is_said(dataset: store.Dataset) -> None:
    shuffled = dataset.table.copy()
    start, stop = dataset.card["columns"]["observations"]
    shuffled[:, start:stop] = np.random.default_rng(0).standard_normal((len(shuffled), 11))
    studied = make_context(store.Dataset(None, dataset.card, shuffled))
    assert run_study("balance", studied)[0].numbers["nothing_to_balance"]


def test_too_few_episodes_or_policies_are_no_case_for_balance(dataset: store.Dataset) -> None:
    few = make_dataset(episodes=10)
    why = run_study("balance", make_context(few))[0].numbers["why"]
    assert why == "group 0 of the policies has 5 episodes; holding episodes out takes 8"
    studied = make_context(dataset)
    one = replace(studied, policy_groups=np.array([0, 0]))
    assert "one group" in run_study("balance", one)[0].numbers["why"]
    unknown = replace(studied, policy_groups=None)
    assert "does not say which policies" in run_study("balance", unknown)[0].numbers["why"]


# Exploration -----------------------------------------------------------------------------------


def test_returns_are_those_of_an_own_loop(dataset: store.Dataset) -> None:
    """Discounted, from the restored state, with the forced action, then the policy's."""
    studied = make_context(dataset)
    lot = rollouts.Rollouts(studied)
    rows, _ = lot.choose_rows("exploration", 10)
    observations, actions = studied.raw("observations", rows), studied.raw("actions", rows)
    totals, firsts = lot.returns(rows, actions, np.array([0.5]))
    env = make_vector("Hopper-v5", 1)
    for n in range(3):
        env.set_state(0, observations[0, n])
        action, expected, weight = actions[0, n], 0.0, 1.0
        while weight >= rollouts.NEGLIGIBLE:
            played = env.step(action[None].astype(np.float32))
            expected += weight * played.rewards[0]
            weight *= 0.5
            if played.terminations[0]:
                break
            step = {"observations": torch.from_numpy(played.observations[None]).float()}
            action = studied.agent.act(step)[0][0, 0].detach().numpy()
        # Batches of other sizes round differently.
        assert totals[0, n] == pytest.approx(expected, abs=1e-5)
    logged = studied.raw("rewards", rows)
    np.testing.assert_allclose(firsts, logged, atol=1e-5)
    lot.close()


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_known_bias_is_found(dataset: store.Dataset, scale: float) -> None:
    found = run_study("exploration", make_context(dataset, scale=scale))[0]
    numbers = found.numbers
    kinds = found.arrays["kinds"].tolist()
    assert kinds == ["logged", "agent", "group 0", "group 1"]
    assert numbers["pairs"] == 4 * numbers["states"] >= 100
    assert numbers["restored_reward_error"] < 1e-5
    # Predicted: 7 - |a|^2 in units of the training reward, so 7 / scale where a is 0.
    predicted, returned = found.arrays["predicted"], found.arrays["returned"]
    np.testing.assert_allclose(predicted[2:], 7.0 / scale, rtol=1e-6)
    bias = numbers["kinds"]["group 0"]["bias"]["mean"]
    assert bias == pytest.approx(7.0 / scale - returned[2].mean(), rel=1e-5)
    # All counterfactual actions are 0 here, so their lift is that of standing still.
    lift = numbers["lift"]["counterfactual"]
    assert lift["true"]["mean"] == pytest.approx((returned[2] - returned[0]).mean(), rel=1e-4)
    assert lift["predicted"]["mean"] > 0
    assert lift["true"]["low"] < lift["true"]["mean"] < lift["true"]["high"]
    assert numbers["kinds"]["counterfactual"]["pairs"] == numbers["states"]
    assert numbers["kinds"]["group 0"]["rank_correlation"] is None  # all predicted alike


def test_a_groups_own_states_are_not_counterfactual() -> None:
    kinds = ["logged", "agent", "group 0", "group 1"]
    predicted = np.array([[0.0, 0], [0, 0], [100, 5], [3, 100]])
    returned = np.array([[1.0, 1], [1, 1], [100, 2], [4, 100]])
    numbers = exploration.summarise(kinds, predicted, returned, np.array([0, 1])).numbers
    assert numbers["kinds"]["counterfactual"]["predicted"] == 4.0
    assert numbers["lift"]["counterfactual"]["true"]["mean"] == 2.0
    assert numbers["lift"]["chosen"]["predicted"]["mean"] == 4.0
    without = exploration.summarise(kinds[:2], predicted[:2], returned[:2], None).numbers
    assert list(without["lift"]) == ["agent"]


def test_an_agent_without_counterfactuals_is_studied_without(dataset: store.Dataset) -> None:
    studied = make_context(dataset)

    def refuse(observations: Any) -> Any:
        raise ValueError("this configuration trains no experts")

    studied.agent.counterfactual_actions = refuse
    (found,) = run_study("exploration", studied)
    assert found.arrays["kinds"].tolist() == ["logged", "agent"]
    assert list(found.numbers["lift"]) == ["agent"]
    assert found.numbers["pairs"] >= 100


def test_no_simulator_or_one_without_states_does_not_apply(dataset: store.Dataset) -> None:
    studied = make_context(dataset)
    nowhere = replace(studied, job=replace(studied.job, task={"env_id": None}))
    assert run_study("exploration", nowhere)[0].numbers == {
        "applies": False,
        "why": "the task has no simulator",
    }
    pendulum = replace(studied, job=replace(studied.job, task={"env_id": "Pendulum-v1"}))
    assert "cannot be put into the state" in run_study("exploration", pendulum)[0].numbers["why"]
    weights = run_study("decomposition", nowhere)[0].numbers
    assert weights["applies"]
    assert not weights["returns"]["applies"]


# Decomposition ---------------------------------------------------------------------------------


def test_known_weights_are_compared_with_their_part(dataset: store.Dataset) -> None:
    found = run_study("decomposition", make_context(dataset))[0]
    numbers = found.numbers
    assert numbers["weights"] == {"forward": 0.25, "overflow": 0.75}
    assert numbers["saturated"] == 0.0
    fit, arrays = numbers["fit"]["forward"], found.arrays
    error = np.sqrt(np.square(0.25 * arrays["values"] - arrays["targets"][:, 0]).mean())
    assert fit["rmse"] == pytest.approx(error, rel=1e-5)
    assert fit["target"] == pytest.approx(arrays["targets"].mean(), rel=1e-5)
    assert (arrays["targets"] >= 0).all()
    assert numbers["returns"]["pairs"] == 20
    perfect = decomposition.summarise(
        ["forward"], np.array([[0.5, 0.5], [0.99, 0.01]]), np.array([2.0, -1.0]),
        np.array([[1.0], [-0.99]]),
    ).numbers  # fmt: skip
    assert perfect["fit"]["forward"]["rmse"] == 0.0
    assert perfect["fit"]["forward"]["r2"] == 1.0
    assert (perfect["saturated"], perfect["negative_values"]) == (0.5, 0.5)


# All of them -----------------------------------------------------------------------------------


def state_of(agent: Any) -> dict[str, Any]:
    state: dict[str, Any] = copy.deepcopy(agent.state_dict())
    return state


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@pytest.mark.parametrize("study", STUDIES)
def test_studies_repeat_and_leave_the_agent_alone(
    study: str, dataset: store.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suites.studies.coefficients.AHEAD", 1)  # the episodes here are short
    studied = make_context(dataset, seeds=(0, 3))
    before = state_of(studied.agent)
    once, again = run_study(study, studied), run_study(study, studied)
    assert same(state_of(studied.agent), before)
    for first, second in zip(once, again, strict=True):
        assert first.numbers == second.numbers
        for name in first.arrays:
            np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
    shown = {"decomposition": "values", "coefficients": "coefficients"}.get(study, "rows")
    assert not np.array_equal(*(outcome.arrays[shown] for outcome in once))


def test_a_seed_is_studied_on_the_same_states_in_any_stack(dataset: store.Dataset) -> None:
    alone = run_study("exploration", make_context(dataset, seeds=(3,)))[0]
    stacked = run_study("exploration", make_context(dataset, seeds=(0, 3)))[1]
    np.testing.assert_array_equal(alone.arrays["rows"], stacked.arrays["rows"])
    np.testing.assert_allclose(alone.arrays["returned"], stacked.arrays["returned"], atol=1e-3)


@pytest.mark.parametrize("study", STUDIES)
def test_agents_without_the_methods_cost_nothing(study: str, dataset: store.Dataset) -> None:
    studied = replace(make_context(dataset, "silent"), dataset=store.Dataset(None, {}, None))  # type: ignore[arg-type]
    method = STUDIES[study].methods[0]
    assert run_study(study, studied)[0].numbers == {
        "applies": False,
        "why": f'the agent has no method "{method}"',
    }


def test_methods_that_break_their_word_are_named(dataset: store.Dataset) -> None:
    with pytest.raises(StudyError, match="value returned"):
        run_study("exploration", make_context(dataset, "broken"))
    studied = make_context(dataset)
    studied.agent.represent = lambda observations, groups: {"before": observations}
    with pytest.raises(StudyError, match=r'represent returns "before" and "after"'):
        run_study("balance", studied)
    studied.agent.represent = lambda *_: {"before": torch.full((1, 1, 1), float("nan"))}
    with pytest.raises(StudyError, match="are seeds and rows, here"):
        run_study("balance", studied)


def test_numbers_of_a_study_are_json() -> None:
    found = context.plain({"a": np.float64(np.nan), "b": [np.int64(2), float("inf")], "c": (1,)})
    assert found == {"a": None, "b": [2, None], "c": [1]}
    assert issubclass(DoesNotApply, Exception)


# The seam --------------------------------------------------------------------------------------


def plan(folder: Path, studies: str = "", text: str = MANIFEST) -> SuitePlan:
    path = folder / "tiny.yaml"
    path.write_text(text + studies)
    plugins = [str(HERE / "study_agents.py")]
    return make_plan(Options(str(path), out=folder / "runs", device="cpu", plugins=plugins))


def paths(made: SuitePlan) -> dict[str, str]:
    return {cell.label: cell.path for cell in made.cells}


def test_studies_are_part_of_what_a_cell_is_only_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, one = plan(tmp_path), plan(tmp_path, "studies: [exploration]\n")
    assert all("studies" not in cell.identity for cell in plain.cells)
    # What has been run before studies existed is found where it lies.
    without = next(cell for cell in plain.cells if cell.label == "random")
    assert paths(one)["random"] == paths(plain)["random"] == without.path
    assert paths(one)["behaviour"] == paths(plain)["behaviour"]
    assert paths(one)["known"] != paths(plain)["known"]
    assert [job.studies for job in one.jobs() if job.agent["label"] == "known"] == [["exploration"]]
    two = plan(tmp_path, "studies: [balance, exploration]\n")
    assert paths(two)["known"] not in (paths(one)["known"], paths(plain)["known"])
    (job,) = [job for job in one.jobs() if job.agent["label"] == "known"]
    record_failure(job, {"type": "E", "message": "m", "traceback": "t"}, 1.0)
    assert not plan(tmp_path).stale
    newer = replace(STUDIES["exploration"], version=99)
    monkeypatch.setitem(STUDIES, "exploration", newer)
    again = plan(tmp_path, "studies: [exploration]\n")
    assert paths(again)["known"] != paths(one)["known"]
    (stale,) = again.stale
    assert "studies {'exploration': 1}, now {'exploration': 99}" in stale["why"]


@pytest.mark.parametrize(
    ("studies", "sentence"),
    [
        ("[balanced]", r'studies\[0\]: .*"balanced".*balance'),
        ("[balance, balance]", r'studies\[1\]: "balance" stands there twice'),
    ],
)
def test_wrong_names_of_studies(tmp_path: Path, studies: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan(tmp_path, f"studies: {studies}\n")


def test_shipped_suites_name_their_studies() -> None:
    for name in STUDIES:
        suite = "mujoco_o2o" if name == "coefficients" else f"fastq_{name}"
        assert name in load_suite(suite).studies


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """A folder in which the known agent has been trained and studied."""
    folder = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
        for module in (rollouts, exploration, decomposition):
            patch.setattr(module, "SLOTS", 10)
        patch.setattr(exploration, "FEWEST_PAIRS", 40)
        patch.setattr(exploration, "FEWEST_STATES", 20)
        made = plan(folder, "studies: [balance, exploration]\n")
        notes: list[str] = []
        for job in made.jobs():
            if job.kind == "data":
                prepare(job, lambda *_: None)
            elif job.agent["label"] in ("known", "bc"):
                train(job, lambda *_: None, notes.append)
        (folder / "notes").write_text("\n".join(notes))
    return folder


def test_records_keep_studies_and_arrays_lie_beside(trained: Path) -> None:
    cells = paths(plan(trained, "studies: [balance, exploration]\n"))
    folder = trained / "runs" / cells["known"]
    record = read_record(folder)
    assert record.studies["balance"]["applies"] is False  # all of the data is one policy's
    assert record.studies["exploration"]["applies"]
    assert read_study(folder, "exploration")["predicted"].shape == (2, 20)
    with pytest.raises(RecordError, match="no such file"):
        read_study(folder, "balance")
    (folder / "study-balance.npz").write_bytes(b"PK no archive")
    with pytest.raises(RecordError, match="damaged"):
        read_study(folder, "balance")
    assert record.timing["studies_s"] > 0
    other = read_record(trained / "runs" / cells["bc"])
    assert {name: block["applies"] for name, block in other.studies.items()} == {
        "balance": False,
        "exploration": False,
    }


def test_findings_are_told_once_and_kept(trained: Path) -> None:
    cells = paths(plan(trained, "studies: [balance, exploration]\n"))
    record = read_record(trained / "runs" / cells["known"])
    assert record.warnings == [{"name": "gamma_stalled", "update": 2, "text": "it did not rise"}]
    assert (trained / "notes").read_text() == "gamma_stalled by update 2: it did not rise"
    assert read_record(trained / "runs" / cells["bc"]).warnings == []


def test_findings_of_a_wrong_shape_are_refused() -> None:
    from study_agents import AGENTS

    point = {"update": 1, "metrics": {"loss": 1.0}}
    with pytest.raises(ValueError, match=r"'everything'; a finding is \{name, update, text\}"):
        new_findings(AGENTS["silent"], [point], [])
    assert new_findings(AGENTS["known"], [point], []) == []
    assert new_findings(object(), [point], []) == []


def test_a_study_that_fails_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(tmp_path, "studies: [exploration]\n")
    data, *jobs = made.jobs()
    prepare(data, lambda *_: None)
    (job,) = [job for job in jobs if job.agent["label"] == "known"]
    real = exploration.run
    monkeypatch.setattr(exploration, "run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(job, lambda *_: None, lambda _: None)
    folder = Path(job.out) / job.paths[0]
    assert unfinished_stacks(folder) == [[0]]
    monkeypatch.setattr(exploration, "run", real)
    notes: list[str] = []
    train(job, lambda *_: None, notes.append)
    assert notes[0] == "goes on from its checkpoint after update 4"
    record = read_record(folder)
    assert record.studies["exploration"]["applies"]
    assert record.warnings  # what was found before the interruption is kept
    assert unfinished_stacks(folder) == []
