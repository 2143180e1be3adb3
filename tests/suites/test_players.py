"""The simulated players: equations, hidden state, chance, measures, logs, and playing again."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from baselines.contract import Needs, Phase, Spec
from baselines.random_policy import Random, RandomConfig
from results.record import read_episodes, scan
from suites.catalog import PLAYERS, TASKS, reference
from suites.cli import main
from suites.datasets import local, store
from suites.datasets.history import History
from suites.datasets.store import Dataset
from suites.datasets.transforms import Transform
from suites.envs import make_vector, players
from suites.envs import players_constants as constants
from suites.envs import players_model as model
from suites.envs import players_reference as judged
from suites.envs.mujoco import make_one
from suites.envs.players_days import NAMES
from suites.envs.players_policies import assigned, column, home
from suites.evaluate import Evaluation, Evaluator
from suites.job import Job
from suites.spaces import facts_of
from suites.studies import rollouts
from suites.studies.context import Context, run_study

ENV_ID = "fastq_bench/players-2-v0"
SIZE = 12_000


@pytest.fixture(scope="module")
def data(data_cache: Path) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
        return store.load(local.ensure("players-2-overlap-25", SIZE, 3))


def vector(count: int, first_seed: int = 0) -> Any:
    env = make_vector(ENV_ID, count)
    for slot in range(count):
        env.reset(slot, first_seed + slot)
    return env


def test_gymnasium_accepts_it() -> None:
    env = make_one(ENV_ID)
    check_env(env.unwrapped, skip_render_check=True)
    space: Any = env.observation_space
    assert (space["static"].shape, space["temporal"].shape) == ((10,), (30, 78))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 180
    shown: Any = make_one("fastq_bench/players-0-v0").unwrapped
    shown.reset(seed=1)
    shown.step(np.ones(3))
    assert shown.render().shape == (100, 240, 3)


def test_the_vectorised_equals_gymnasiums() -> None:
    """To the last bit, beside neighbours that are busy or wait; windows are made of the rows."""
    many, env = make_vector(ENV_ID, 3), make_one(ENV_ID)
    assert isinstance(many, players.VectorPlayers)
    assert (many.history, many.static, many.observation_space.shape) == (30, 10, (88,))
    generator = np.random.default_rng(0)
    lengths = []
    for episode in range(3):
        shown, _ = env.reset(seed=2**32 + episode)
        rows = [many.reset(1, 2**32 + episode)]
        many.reset(0, episode)
        busy, over, sums = True, False, np.zeros(5)
        while not over:
            np.testing.assert_array_equal(rows[-1][:10].astype(np.float32), shown["static"])
            window = np.zeros((30, 78), np.float32)
            last = np.array(rows[-30:], np.float32)[:, 10:]
            window[30 - len(last) :] = last
            np.testing.assert_array_equal(window, shown["temporal"])
            actions = generator.uniform(-1.2, 1.2, (3, 3)).astype(np.float32)
            step = many.step(actions, np.array([busy and len(rows) % 3 > 0, True, False]))
            busy &= not (step.terminations[0] or step.truncations[0])
            shown, reward, terminated, truncated, info = env.step(actions[1])
            assert step.rewards[1] == reward
            assert step.parts[1].tolist() == [info[f"reward_{name}"] for name in players.PARTS]
            assert step.measures is not None
            added = step.measures[1].tolist()
            assert added == [info[f"measure_{name}"] for name in players.MEASURES]
            assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
            assert not step.measures[2].any() and not step.parts[2].any()
            over = terminated or truncated
            rows.append(step.observations[1])
            sums += added
        lengths.append(len(rows) - 1)
        with pytest.raises(ValueError, match="player 1's episode is over; reset the slot first"):
            many.step(np.zeros((3, 3)), np.array([False, True, False]))
    assert len(set(lengths)) > 1


def by_hand(state: dict[str, float], draws: dict[str, float], action: np.ndarray, c: Any) -> Any:
    """The equations of docs/players.md for one player and day, without its chains."""
    k = SimpleDict(state)
    z, q, u = int(k.intent), int(k.regime), (action[2] + 1) / 2
    liked = np.array(
        [[c.unwind_stake, c.unwind_format], [c.compete_stake, c.compete_format],
         [c.chase_stake, c.chase_format]]
    )[z]  # fmt: skip
    shift = np.array([[0, 0], [c.season_stake, c.season_format],
                      [c.volatile_stake, c.volatile_format]])[q]  # fmt: skip
    funds = np.log((k.bankroll + k.wealth) / (31 * k.wealth))
    good = np.clip(
        [
            liked[0] + shift[0] + 0.2 * np.tanh(funds) + 0.1 * np.clip(k.skill, -2, 2),
            liked[1] + shift[1] - 0.3 * k.fatigue,
        ],
        -1,
        1,
    )
    craving = np.array([c.craving_stake + 0.3 * k.tilt, c.craving_format])
    wanted = np.clip(good + craving, -1, 1)
    m = np.exp(-((action[:2] - wanted) ** 2).sum() / (2 * c.width**2))
    merit = np.exp(-((action[:2] - good) ** 2).sum() / (2 * c.width**2))
    b = (0.35, 0.2, 1.0)[z]
    n = k.gap
    logit = (
        c.patience_pull * (k.patience - 0.5)
        + c.match_pull * (m - 0.5)
        + c.bonus_pull * (k.taste * b + 0.1 * min(n - 1, 5)) * u
        - c.regret_pull * k.regret
        - c.expectation_pull * max(k.expectation - u, 0)
        - 0.5 * k.fatigue
        + (0.0, 0.3, -0.2)[q]
        + 0.4 * ((k.weekday + k.day) % 7 >= 5)
        - 0.12 * min(n - 1, 10)
    )
    visit = float(draws["visit"] < 1 / (1 + np.exp(-logit)))
    accept = visit * float(draws["accept"] < 0.05 + 0.8 * m + 0.15 * b * u)
    noise = np.array([draws["own_stake"], draws["own_format"]])
    x = visit * (action[:2] if accept else np.clip(wanted + 0.15 * noise, -1, 1))
    x = np.clip(x, -1, 1)
    hours = visit * np.exp(
        -0.5 + 0.6 * accept * m + c.thrill * x[0] + 0.25 * x[1] + 0.3 * k.tilt
        - 0.4 * k.fatigue + 0.25 * draws["dwell"]
    )  # fmt: skip
    wagered = min(7 * k.wealth * np.exp(0.9 * x[0]) * hours, k.bankroll)
    swing = 0.25 * (1.0, 1.0, 1.8)[q]
    result = max(wagered * (0.04 * k.skill + swing * draws["luck"]), -wagered)
    rake = 0.06 * wagered
    left = max(k.bankroll + result - rake, 0)
    pays = visit and left < 10 * k.wealth and draws["deposit"] < 0.1 + 0.5 * k.patience
    bankroll = left + 20 * k.wealth * bool(pays)
    ruin = visit * (bankroll < 4 * k.wealth)
    loss = max(rake - result, 0) / (k.bankroll + k.wealth)
    tilt = min(c.tilt_kept * k.tilt + c.tilt_gain * k.temper * loss, 2)
    short = max(k.expectation - u, 0)
    patience = np.clip(
        k.patience + 0.05 * (0.6 - k.patience) + visit * c.wear * (merit - 0.6)
        - visit * 0.08 * short - 0.1 * ruin - 0.02 * tilt,
        0, 1,
    )  # fmt: skip
    gap = 1.0 if visit else n + 1
    leaves = (
        c.churn + c.churn_patience * (0.5 - patience) + c.churn_tilt * tilt + ruin
        + 0.1 * min(gap - 1, 14)
    )  # fmt: skip
    engagement = accept * (0.4 + 0.6 * m)
    return {
        "state": {
            "bankroll": bankroll,
            "tilt": tilt,
            "patience": patience,
            "expectation": k.expectation + c.expectation_rate * (u - k.expectation),
            "fatigue": 0.7 * k.fatigue + 0.15 * min(hours, 4),
            "regret": 1 - merit if visit else 0.5 * k.regret,
            "gap": gap,
        },
        "churned": float(draws["churn"] < 1 / (1 + np.exp(-leaves))),
        "parts": 0.25
        * np.array([hours / (1 + hours), engagement, -visit * u**2, visit / n if visit else 0.0]),
        "measures": [visit, rake - 0.4 * visit * u**2, engagement, hours, 0.4 * visit * u**2],
        "happened": (visit, accept, float(ruin), float(bool(pays))),
    }


class SimpleDict:
    """A dictionary's entries as attributes."""

    def __init__(self, values: dict[str, float]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> float:
        raise AttributeError(name)


def test_the_equations_one_by_one() -> None:
    c, generator = constants.constants_of(1), np.random.default_rng(5)
    seen = np.zeros(4)
    for player in range(60):
        population = model.Population(1, c)
        population.begin(0, model.draw_chance(generator, c.tails))
        if player % 2:  # a poor and tilted one
            population.state[model.STATE.index("bankroll")] *= 0.1
            population.state[model.STATE.index("tilt")] = 1.0
        for _ in range(25):
            before = dict(zip(model.STATE, population.state[:, 0].tolist(), strict=True))
            action = generator.uniform(-1.0, 1.0, 3)
            happened = population.step(np.zeros(1, np.int64), action[None])
            after = dict(zip(model.STATE, population.state[:, 0].tolist(), strict=True))
            # The chains, tested below, have moved before all else.
            before |= {name: after[name] for name in ("intent", "regime")}
            draws = {name: float(getattr(happened.draws, name)[0]) for name in model.DRAWS}
            expected = by_hand(before, draws, action, c)
            for name, value in expected["state"].items():
                assert after[name] == pytest.approx(value, abs=1e-10), name
            assert happened.churned[0] == expected["churned"]
            np.testing.assert_allclose(model.reward_parts(happened)[0], expected["parts"])
            np.testing.assert_allclose(model.measures(happened)[0], expected["measures"])
            seen += expected["happened"]
            if happened.churned[0]:
                break
    assert (seen > 0).all()  # visits, acceptance, ruin and deposits all came about


def test_constants_lie_in_their_ranges_and_differ_between_platforms() -> None:
    drawn = [vars(constants.constants_of(platform)) for platform in range(200)]
    for name, (low, high) in constants.RANGES.items():
        values = np.array([one[name] for one in drawn])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    assert vars(constants.constants_of(3)) == drawn[3]
    for name, platform in PLAYERS.items():
        env: Any = make_one(f"fastq_bench/{name}-v0").unwrapped
        assert env.population.constants == constants.constants_of(platform)
        assert {f"{name}-overlap-{percent}" for percent in (0, 25, 50, 100)} <= set(TASKS)


def test_intents_and_regimes_change_at_the_stated_rates() -> None:
    c = constants.constants_of(0)
    count, days = 400, 40
    population, generator = model.Population(count, c), np.random.default_rng(2)
    for index in range(count):
        population.begin(index, model.draw_chance(generator, c.tails))
    switches = {"intent": 0, "regime": 0}
    homewards, chances = 0, 0
    before = copy.deepcopy(population.see())
    assert (before.intent == before.segment).mean() == pytest.approx(0.6, abs=0.1)
    total, here = 0, np.arange(count)
    for _ in range(days):
        happened = population.step(here, np.zeros((len(here), 3)))
        now = population.see(here)
        was = {name: getattr(before, name)[here] for name in switches}
        for name in switches:
            switches[name] += int((getattr(now, name) != was[name]).sum())
        left = (was["intent"] != now.segment) & (now.intent != was["intent"])
        homewards, chances = (
            homewards + (now.intent == now.segment)[left].sum(),
            chances + left.sum(),
        )
        total += len(here)
        before = copy.deepcopy(population.see())
        here = here[happened.churned == 0]
    for name, rate in (("intent", c.intent_rate), ("regime", c.regime_rate)):
        error = np.sqrt(rate * (1 - rate) / total)
        assert abs(switches[name] / total - rate) < 4 * error, name
    assert homewards / chances == pytest.approx(0.6, abs=4 * 0.5 / np.sqrt(chances))


def test_tails_are_as_heavy_as_stated() -> None:
    """Hill's estimate of the tail index, which is Student's degrees of freedom."""
    c = constants.constants_of(0)
    generator = np.random.default_rng(0)
    luck = np.concatenate([model.draw_chance(generator, c.tails).days[:, -1] for _ in range(150)])
    largest = np.sort(np.abs(luck))[::-1][:400]
    hill = 1.0 / np.mean(np.log(largest[:-1] / largest[-1]))
    assert hill == pytest.approx(c.tails, rel=0.2)
    normal = np.sort(np.abs(generator.standard_normal(len(luck))))[::-1][:400]
    assert 1.0 / np.mean(np.log(normal[:-1] / normal[-1])) > 2 * hill


def test_who_left_counts_nothing_and_180_days_are_the_limit() -> None:
    spec_env: Any = make_vector(ENV_ID, 1)
    spec = Spec(
        spec_env.observation_space, spec_env.action_space, phases=(Phase("offline", 1),),
        dtype="float64",
    )  # fmt: skip
    transform = Transform(np.zeros(88), np.ones(88), 1.0)
    evaluator = Evaluator(ENV_ID, spec, [1, 2], transform, 6, first_reset_seed=10)
    found = evaluator.run(Random(spec, RandomConfig(), (1, 2)), 0)
    assert evaluator.measures == players.MEASURES
    assert found.measures.shape == (2, 6, 5)
    assert 1 <= found.lengths.min() < found.lengths.max() <= 180
    visits = found.measures[..., 0]
    assert (visits <= found.lengths).all()  # of days that were lived, no more
    back = Evaluation.from_tensors(found.to_tensors())
    np.testing.assert_array_equal(back.measures, found.measures)
    old = found.to_tensors()
    del old["measures"]
    assert Evaluation.from_tensors(old).measures.size == 0  # an older checkpoint

    env = vector(8)
    stays, here = np.zeros(8, int), np.ones(8, bool)
    kind = judged.Informed(judged.Informed.START)
    while here.any():
        acts = kind.act(env.population, np.arange(8), np.zeros((8, 88)))
        step = env.step(acts, here)
        assert not step.measures[~here].any() and not step.rewards[~here].any()
        stays += here
        np.testing.assert_array_equal(step.truncations, here & (stays == 180))
        here &= ~(step.terminations | step.truncations)
    assert stays.max() == 180
    assert stays.min() < 180


def test_the_logs(data: Dataset) -> None:
    assert data.table.shape[1] * 4 == 768  # bytes of a transition, below 1 KB
    assert (data.card["history"], data.card["static"]) == (30, 10)
    observations, following = data.column("observations"), data.column("next_observations")
    ends = (data.column("terminations") > 0) | (data.column("truncations") > 0)
    np.testing.assert_array_equal(observations[1:][~ends[:-1]], following[:-1][~ends[:-1]])
    np.testing.assert_allclose(
        data.column("reward_parts").sum(axis=1), data.column("rewards"), atol=1e-6
    )
    parts = following[:, 10:][:, [NAMES.index(f"part_{name}") for name in players.PARTS]]
    np.testing.assert_array_equal(parts, data.column("reward_parts"))
    # Measures by hand, over complete episodes.
    _, lengths = data.episodes()
    measured = data.column("measures").astype(np.float64)
    sums = [
        measured[stop - length : stop].sum(axis=0)
        for stop, length in zip(data.last_rows() + 1, lengths, strict=True)
    ]
    assert data.card["measure_names"] == list(players.MEASURES)
    for k, name in enumerate(players.MEASURES):
        assert data.card["measures"][name] == pytest.approx(np.mean(np.array(sums)[:, k]))
    assert np.isfinite(data.table).all()
    assert 50 < lengths.mean() < 170


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_the_dial_assigns_the_policies(percent: int) -> None:
    env = make_vector(ENV_ID, 1)
    rows = np.stack([env.reset(0, seed) for seed in range(900)])
    own = home(rows)
    shares = np.bincount(own, minlength=3) / len(own)
    assert shares.min() > 0.2
    draws = np.random.default_rng(percent).random((900, 2))
    policies = assigned(rows, percent / 100, draws)
    kept = 1 - percent / 100 * 2 / 3
    error = 4 * np.sqrt(0.25 / 900) if percent else 0.0
    assert (policies == own).mean() == pytest.approx(kept, abs=error)
    for policy in range(3) if percent == 100 else ():
        for segment in range(3):
            share = (policies[own == segment] == policy).mean()
            assert share == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / (900 * shares.min())))
    # What assigns is known on the first day, and nothing else.
    later = rows.copy()
    later[:, 10:] = 1.0
    np.testing.assert_array_equal(home(later), own)


def test_the_logged_assignment_is_the_dials(data: Dataset) -> None:
    starts = data.episode_starts
    first, policies = data.column("observations")[starts], data.column("policy_ids")
    own = home(first.astype(np.float64))
    agreed = (policies[starts] == own).mean()
    assert agreed == pytest.approx(1 - 0.25 * 2 / 3, abs=4 * np.sqrt(0.14 / len(starts)))
    lengths = np.diff(np.append(starts, len(policies)))
    np.testing.assert_array_equal(np.repeat(policies[starts], lengths), policies)
    # Their styles: who pushes asks for more than who is careful, who is generous gives most.
    actions = data.column("actions")
    means = np.stack([actions[policies == policy].mean(axis=0) for policy in range(3)])
    assert means[1, 0] > means[0, 0] > means[2, 0]
    assert means[0, 2] > means[2, 2] > means[1, 2]


def test_an_episode_can_be_played_again_up_to_any_day(data: Dataset) -> None:
    """Exactly; then the logged action does what it did, and another meets the same chance."""
    starts, seeds = data.episode_starts, local.reset_seeds(data)
    assert len(seeds) == len(starts) == len(set(seeds.tolist()))
    chosen = np.array([0, 3, len(starts) // 2, len(starts) - 2])
    lengths = np.diff(np.append(starts, len(data.table)))[chosen]
    days = np.minimum(lengths - 1, [0, 20, 45, 10])
    logged = np.zeros((4, days.max(), 3), np.float32)
    for slot, (start, day) in enumerate(zip(starts[chosen], days, strict=True)):
        logged[slot, :day] = data.column("actions")[start : start + day]
    env: Any = make_vector(ENV_ID, 5)
    twin: Any = make_vector(ENV_ID, 4)
    rows = env.replay(seeds[chosen], logged, days)
    twin.replay(seeds[chosen], logged, days)
    here = starts[chosen] + days
    for slot, (start, day) in enumerate(zip(starts[chosen], days, strict=True)):
        expected = data.column("observations")[start : start + day + 1]
        np.testing.assert_array_equal(rows[slot, : day + 1].astype(np.float32), expected)
        assert not rows[slot, day + 1 :].any()
    np.testing.assert_array_equal(env.population.state[:, :4], twin.population.state)
    actions = data.column("actions")[here]
    step = env.step(np.concatenate((actions, actions[:1])), np.array([True] * 4 + [False]))
    following = data.column("next_observations")[here]
    np.testing.assert_array_equal(step.observations[:4].astype(np.float32), following)
    np.testing.assert_allclose(step.rewards[:4], data.column("rewards")[here], atol=1e-6)
    other = twin.step(np.clip(-actions, -1, 1))
    for name in ("friends", "latency", "weekday_0"):  # nobody's doing
        np.testing.assert_array_equal(
            column(other.observations, name), column(step.observations[:4], name)
        )
    assert not np.array_equal(other.rewards, step.rewards[:4])


def test_playing_again_what_did_not_happen_is_named() -> None:
    env: Any = make_vector(ENV_ID, 20)
    seeds, actions, days = np.arange(20), np.full((20, 180, 3), -1.0), np.full(20, 180)
    with pytest.raises(ValueError, match=r"left on day \d+, before day 180; give the actions that"):
        env.replay(seeds, actions, days)


class Plan:
    """Acts by a fixed matrix on all that is seen; its Q and its experts are made up."""

    def __init__(self, size: int, seeds: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(seeds, size, 3, generator=generator, dtype=torch.float64) / 20
        self.discount = torch.full((seeds,), 0.8)

    def act(self, step: Any, memory: Any = None) -> tuple[torch.Tensor, Any]:
        return torch.tanh(step["observations"] @ self.weights), memory

    def value(self, observations: torch.Tensor, actions: Any, groups: Any) -> torch.Tensor:
        return observations[..., -1]

    def discounts(self) -> torch.Tensor:
        return self.discount

    def counterfactual_actions(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*observations.shape[:2], 3, 3)


def context_of(data: Dataset, seeds: tuple[int, ...] = (0, 1)) -> Context:
    task = {"env_id": ENV_ID}
    facts = facts_of(task) | {"phases": (Phase("offline", 1),), "dtype": "float64"}
    spec = Spec(**facts, policies=3, policy_groups=3)
    job = Job(
        kind="train", name="", out="", task=task, data={}, cell={}, agent={}, phases=[], budget={},
        seeds=list(seeds), paths=[],
    )  # fmt: skip
    return Context(
        agent=Plan(10 + 30 * 78, len(seeds)),
        spec=spec,
        job=job,
        dataset=data,
        transform=Transform.fit(data, Needs(("observations",), observations="standardized")),
        policy_groups=np.arange(3),
        curves=[[] for _ in seeds],
        listen=lambda: None,
    )


def test_rollouts_go_on_as_gymnasiums_environment_does(data: Dataset) -> None:
    """From logged days, the forced action first; the policy sees the days before it as well."""
    studied = context_of(data)
    lot = rollouts.Rollouts(studied)
    rows, passed = lot.choose_rows("exploration", rollouts.SLOTS)
    assert passed == [0, 0]
    actions = np.random.default_rng(1).uniform(-1.2, 1.2, (*rows.shape, 3))
    discount = np.array([0.8, 0.6])
    totals, firsts = lot.returns(rows, actions, discount)
    own = lot.first_actions(rows)
    lot.close()

    history = History.of(studied.spec.observation_space)
    assert history is not None
    shift, scale = (torch.from_numpy(getattr(studied.transform, k)) for k in ("shift", "scale"))
    seeds = local.reset_seeds(data)
    assert seeds is not None
    starts, logged = data.episode_starts, data.column("actions")
    env = make_one(ENV_ID)
    for i in range(2):
        for n in range(6):
            row = rows[i, n]
            episode = np.searchsorted(starts, row, side="right") - 1

            def act(shown: Any, i: int = i) -> Any:
                windows = (
                    torch.from_numpy(shown[k])[None].double() for k in ("static", "temporal")
                )
                seen = history.seen(*windows, shift, scale)
                return torch.tanh(seen @ studied.agent.weights[i])[0].numpy().astype(np.float32)

            shown, _ = env.reset(seed=int(seeds[episode]))
            for before in range(starts[episode], row):
                shown, *_ = env.step(logged[before])
            np.testing.assert_allclose(own[i, n], act(shown), atol=1e-5)
            action = np.clip(actions[i, n], -1, 1).astype(np.float32)
            expected, weight, over = 0.0, 1.0, False
            while weight >= rollouts.NEGLIGIBLE and not over:
                shown, reward, left, cut, _ = env.step(action)
                over = left or cut
                if weight == 1.0:
                    assert firsts[i, n] == pytest.approx(reward, abs=1e-12)
                expected += weight * float(reward)
                weight *= discount[i]
                action = act(shown)
            assert totals[i, n] == pytest.approx(expected, abs=1e-5)


def test_the_study_of_exploration_plays_logged_days_again(data: Dataset) -> None:
    studied = context_of(data)
    studied.agent.discount = torch.zeros(2)  # returns are then the first rewards
    found = run_study("exploration", studied)
    for outcome in found:
        assert outcome.numbers["applies"]
        assert outcome.numbers["restored_reward_error"] < 1e-6
        assert outcome.arrays["kinds"].tolist() == [
            "logged",
            "agent",
            "group 0",
            "group 1",
            "group 2",
        ]
        rewards = data.column("rewards")[outcome.arrays["rows"]]
        np.testing.assert_allclose(outcome.arrays["returned"][0], rewards, atol=1e-6)
        lifts = outcome.arrays["returned"][1] - rewards
        assert outcome.numbers["lift"]["agent"]["true"]["mean"] == pytest.approx(lifts.mean())
        assert lifts.any()

    elsewhere = Dataset(None, data.card | {"source": "file"}, data.table)
    (outcome, _) = run_study("exploration", dataclasses.replace(studied, dataset=elsewhere))
    assert outcome.numbers["why"] == (
        "the data does not tell its resets, so it cannot be played again"
    )


def test_what_suits_one_player_is_wrong_for_another() -> None:
    c = constants.constants_of(0)
    population = model.Population(3, c)
    for index in range(3):
        population.begin(index, model.draw_chance(np.random.default_rng(index), c.tails))
        population.state[model.STATE.index("intent"), index] = index
    stake, form = population.ideal(population.see())
    actions = np.stack((stake, form, np.zeros(3)), axis=1)
    merits = np.stack([population.match(actions[k : k + 1], (stake, form)) for k in range(3)])
    np.testing.assert_allclose(np.diag(merits), 1.0)
    assert (merits[~np.eye(3, dtype=bool)] < 0.6).all()


def test_the_scale_of_scores() -> None:
    for name, platform in PLAYERS.items():
        low, high, source = reference(name)
        assert "players_reference.py" in source
        assert high > 3 * low
        if platform:
            continue
        found = judged.play(platform, judged.Random, 300, seed=9)
        value, error = found.mean()
        assert abs(value - low) < 4 * error + 0.3
        logged = judged.play(platform, judged.Logged, 150, seed=9).mean()[0]
        assert low < logged < low + 0.3 * (high - low)


@pytest.mark.usefixtures("hastened")
def test_records_tell_the_measures(tmp_path: Path) -> None:
    """Of an agent and of random by the final episodes, of the behaviour by its data's."""
    suite = tmp_path / "few.yaml"
    suite.write_text(
        "tasks: [players-2-overlap-25]\nagents: [bc]\nbudget: tiny\nbudgets:\n  tiny: "
        "{updates: 2, seeds: 1, evaluations: 1, evaluation_episodes: 2, final_episodes: 3, "
        "transitions: 2000}"
    )
    assert main([str(suite), "--out", str(tmp_path / "runs")]) == 0
    found = dict(scan(tmp_path / "runs"))
    records = {record.agent["name"]: folder for folder, record in found.items()}
    assert set(records) == {"bc", "random", "behaviour"}
    for name, folder in records.items():
        told, episodes = found[folder].final["measures"], read_episodes(folder)
        assert set(told) == set(episodes.measures) == set(players.MEASURES)
        for measure, value in told.items():
            assert value == pytest.approx(episodes.measures[measure].mean())
        assert name == "behaviour" or len(episodes.measures["dwell_time"]) == 3
    behaviour = found[records["behaviour"]]
    assert behaviour.final["measures"] == pytest.approx(behaviour.dataset["measures"])
