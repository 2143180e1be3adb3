"""Are the estimates right, and do their intervals hold the truth as often as they say?

In the simulated sepsis ward every policy's value is known exactly. Logs of its clinician are drawn
again and again; from each, every target policy's return is estimated as it would be from one real
log, and compared with the value that dynamic programming gives for the very policy that was judged
(a deterministic one softened), and for the deterministic one itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from baselines.config import UsageError
from suites.datasets.recipes.sepsis import STEPS as HORIZON
from suites.envs.mujoco import SEPSIS
from suites.envs.sepsis import Patients, pick
from suites.envs.sepsis_values import Ward, clinician, logging_policy, ward_of
from suites.ope.estimators import Floats, Settings, estimate

Ints = npt.NDArray[np.int64]
MIXTURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # share of the best policy, the rest is the behaviour
QUALITY = "clinician"


@dataclass(frozen=True)
class Logs:
    """Whole episodes of the behaviour, row after row.

    Attributes:
        states: ``[N, 4]``, crisis, diabetes, vitals, treatments before.
        actions: ``[N]``, 0 to 7.
        rewards: ``[N]``.
        log_probs: ``[N]``, of the logged actions.
        starts: ``[E]``, first rows.
    """

    states: Ints
    actions: Ints
    rewards: Floats
    log_probs: Floats
    starts: Ints


def draw_logs(ward: Ward, behaviour: Floats, episodes: int, rng: np.random.Generator) -> Logs:
    """Plays a tabular policy.

    Args:
        ward: the setting.
        behaviour: ``[C, 2, 90, 8, 8]``.
        episodes: how many.
        rng: all that is random.
    """
    patients = Patients(episodes, ward.crises)
    patients.begin(np.arange(episodes), rng.random((episodes, 2)))
    active, parts = np.arange(episodes), []
    for _ in range(HORIZON):
        state = tuple(
            part[active]
            for part in (patients.crisis, patients.diabetes, patients.vitals, patients.treatments)
        )
        chances = behaviour[state]
        actions = pick(np.cumsum(chances, axis=1), rng.random(len(active)))
        rewards, ends = patients.step(active, actions, rng.random((len(active), 2)))
        likely = np.log(chances[np.arange(len(active)), actions])
        parts.append((active, np.stack(state, 1), actions, rewards, likely))
        active = active[~ends]
        if not len(active):
            break
    owners, states, actions, rewards, likely = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(owners, kind="stable")  # steps stay in their order
    starts = np.searchsorted(owners[order], np.arange(episodes))
    return Logs(states[order], actions[order], rewards[order], likely[order], starts)


@dataclass(frozen=True)
class Target:
    """A policy to judge: its table, and the one that is judged in its place."""

    name: str
    table: Floats
    judged: Floats


@dataclass(frozen=True)
class Result:
    """What many logs said of one policy.

    Attributes:
        policy: its name.
        true: value of the policy that was judged.
        true_unsoftened: value of the policy itself.
        estimate: mean over logs.
        estimate_std: standard deviation over logs.
        estimate_low: 5 % quantile over logs.
        estimate_high: 95 % quantile.
        effective_episodes: mean over logs.
        clipped: mean share of clipped weights.
        coverage: share of logs whose interval holds ``true``; one without an end holds nothing.
        coverage_unsoftened: the same for ``true_unsoftened``.
        width: median over logs.
        without_interval: share of logs.
        logs: how many.
    """

    policy: str
    true: float
    true_unsoftened: float
    estimate: float
    estimate_std: float
    estimate_low: float
    estimate_high: float
    effective_episodes: float
    clipped: float
    coverage: float
    coverage_unsoftened: float
    width: float
    without_interval: float
    logs: int


def targets(
    ward: Ward, behaviour: Floats, settings: Settings, trained: Sequence[Path] = ()
) -> list[Target]:
    """The behaviour, mixtures of it with the best policy, the clinician, and trained agents.

    Raises:
        UsageError: if a folder holds no policy for the ward.
    """
    best = ward.learned()[1]

    def soft(table: Floats) -> Floats:
        return np.asarray((1.0 - settings.soften) * table + settings.soften * behaviour)

    found = []
    for share in MIXTURES:
        table = (1.0 - share) * behaviour + share * best
        names = {0.0: "behaviour", 1.0: "best"}
        judged = soft(table) if share == 1.0 else table
        found.append(Target(names.get(share, f"{share:.0%} best"), table, judged))
    rule = clinician(ward)
    found.append(Target("clinician", rule, soft(rule)))
    for folder in trained:
        from suites.policy import read_policy

        policy = read_policy(folder)
        if policy.task["env_id"] != SEPSIS:
            raise UsageError(
                f"{folder}: a policy of {policy.task['env_id']}; calibration takes those of "
                f"{SEPSIS}"
            )
        table = ward.table(policy.act)
        name = f"{policy.agent['label']}, {policy.task['quality']}, seed {policy.seed}"
        found.append(Target(name, table, soft(table)))
    return found


def calibrate(
    settings: Settings,
    logs: int = 200,
    episodes: int = 1000,
    trained: Sequence[Path] = (),
    listen: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> list[Result]:
    """Judges many policies by many logs.

    Args:
        settings: of the estimates.
        logs: drawn from the behaviour, independently.
        episodes: of each log.
        trained: folders of trained policies, judged beside the others.
        listen: hears of (logs done, logs in all).
        seed: of the logs.

    Raises:
        UsageError: if a folder holds no policy of the simulated ward.
    """
    ward = ward_of(SEPSIS)
    behaviour = logging_policy(ward, QUALITY)
    judged = targets(ward, behaviour, settings, trained)
    found = np.full((len(judged), logs, 5), np.nan)
    for i in range(logs):
        drawn = draw_logs(ward, behaviour, episodes, np.random.default_rng([seed, i]))
        where = (*drawn.states.T, drawn.actions)
        for k, target in enumerate(judged):
            with np.errstate(divide="ignore"):
                ratios = np.log(target.judged[where]) - drawn.log_probs
            made = estimate(drawn.rewards, ratios, drawn.starts, settings)
            found[k, i] = (
                *(made.value, made.low, made.high),
                *(made.effective_episodes, made.clipped),
            )
        if listen is not None:
            listen(i + 1, logs)
    return [
        _result(target.name, ward.value(target.judged), ward.value(target.table), numbers)
        for target, numbers in zip(judged, found, strict=True)
    ]


def _result(name: str, true: float, unsoftened: float, numbers: Floats) -> Result:
    value, low, high, effective, clipped = numbers.T
    with_ends = np.isfinite(low) & np.isfinite(high)
    spread = np.quantile(value, (0.05, 0.95))
    return Result(
        policy=name,
        true=true,
        true_unsoftened=unsoftened,
        estimate=float(value.mean()),
        estimate_std=float(value.std(ddof=1)) if len(value) > 1 else 0.0,
        estimate_low=float(spread[0]),
        estimate_high=float(spread[1]),
        effective_episodes=float(effective.mean()),
        clipped=float(clipped.mean()),
        coverage=float((with_ends & (low <= true) & (true <= high)).mean()),
        coverage_unsoftened=float((with_ends & (low <= unsoftened) & (unsoftened <= high)).mean()),
        width=float(np.median((high - low)[with_ends])) if with_ends.any() else float("nan"),
        without_interval=float(1.0 - with_ends.mean()),
        logs=len(value),
    )


def write(results: Sequence[Result], settings: Settings, episodes: int, folder: Path) -> list[Path]:
    """Writes ``calibration.csv``, ``.png`` and ``.svg``; returns their paths.

    Raises:
        UsageError: if the folder cannot be written.
    """
    from analysis import calibration
    from results.record import write_atomically

    rows = [asdict(result) for result in results]
    drawing = calibration.draw(rows, settings.level, episodes)
    contents = {
        "calibration.csv": calibration.csv(rows).encode(),
        "calibration.png": drawing.png,
        "calibration.svg": drawing.svg,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); try --to") from None
    return [folder / name for name in contents]
