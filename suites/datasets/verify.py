"""Does a dataset hold what its card says? Stored transitions, replayed in the simulator.

An observation of Hopper, HalfCheetah and Walker2d is the simulator's state but for the horizontal
position, which influences nothing. So every stored transition can be made again: put the simulator
into the stored observation, apply the stored action, and compare what comes out with what is
stored (of the regions problem, all but the numbers that are pure noise). Data of another version of
the environment, of another environment, or with its rows mixed up comes out differently; the right
data comes out equal but for the float32 rounding that the dynamics amplify.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from suites.catalog import ENVIRONMENTS
from suites.datasets.store import REQUIRED, Dataset, DatasetError, episodes
from suites.spaces import is_integer

SAMPLED = 2000  # transitions replayed, and as many again of those that end an episode
TOLERANCE = 1e-3  # of one number; the rounding alone gives 1e-6, rarely 1e-4 (docs/local-data.md)
EXCEPTIONS = 0.01  # share of transitions that may exceed it
QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass
class Verdict:
    """What was compared, and what is wrong.

    Attributes:
        env_id: the environment the card declares.
        faults: one sentence for each thing that is wrong; none if the data is what it says.
        errors: what was compared -> absolute errors at ``QUANTILES``, largest of each transition.
        fits: environments whose transitions these are, if not those of ``env_id``.
        replayed: number of transitions replayed.
        hidden: share of transitions whose state cannot be seen in their observation.
    """

    env_id: str
    faults: list[str] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    fits: list[str] = field(default_factory=list)
    replayed: int = 0
    hidden: float = 0.0


def verify(data: Dataset, sampled: int = SAMPLED, seed: int = 0) -> Verdict:
    """Checks a dataset's structure, and replays a sample of its transitions.

    Args:
        data: the dataset.
        sampled: transitions drawn at random, and at most as many of those that end an episode.
        seed: of the draw.

    Raises:
        DatasetError: if the card names no environment that can be replayed.
    """
    env_id, replayable = data.card.get("env_id"), _replayable()
    if env_id not in replayable:
        known = ", ".join(sorted(replayable))
        raise DatasetError(
            f"the card's env_id is {env_id}; transitions can be replayed in {known} alone"
        )
    verdict = _compare(data, env_id, sampled, seed)
    if verdict.faults:
        others = sorted(replayable - {env_id})
        verdict.fits = [i for i in others if not _compare(data, i, sampled // 4, seed).faults]
    verdict.faults = [*_structure(data), *verdict.faults]
    return verdict


def _replayable() -> set[str]:
    """The environments whose observations show their state."""
    from suites.envs.mujoco import DIRECT

    local = (
        environment.env_ids.get("local")
        for environment in ENVIRONMENTS.values()
        # What follows a state is drawn at random with patients; that of a player is hidden.
        if environment.domain not in ("sepsis", "bedside", "players")
    )
    return {*DIRECT, *filter(None, local)}


def _simulator(env_id: str) -> _Simulator:
    from suites.envs.mujoco import DIRECT, POINT_MASS_IDS, REGIONS

    if env_id in DIRECT:
        return _Robot(env_id)
    if env_id in POINT_MASS_IDS:
        return _PointMass(env_id)
    return _RegionsSimulator(env_id) if env_id == REGIONS else _Point(env_id)


def _compare(data: Dataset, env_id: str, sampled: int, seed: int) -> Verdict:
    """Replays transitions in one environment."""
    verdict, simulator = Verdict(env_id), _simulator(env_id)
    try:
        if fault := simulator.misfit(data):
            verdict.faults.append(fault)
        else:
            _replay(data, simulator, verdict, sampled, np.random.default_rng(seed))
    finally:
        simulator.close()
    return verdict


def _structure(data: Dataset) -> Iterator[str]:
    """What is wrong with the table as such."""
    for name in data.fields:
        if not np.isfinite(data.column(name)).all():
            yield f"{name}: holds NaN or infinity"
    ends = (data.column("terminations") > 0) | (data.column("truncations") > 0)
    inside = np.flatnonzero(~ends[:-1])
    following, observed = data.column("next_observations"), data.column("observations")
    broken = float(np.mean((following[inside] != observed[inside + 1]).any(axis=1)))
    if broken > 0:
        yield (
            f"order: after {broken:.1%} of the transitions that end no episode the next row does "
            "not go on where they stop; the rows are not in the order of time"
        )
    horizon = data.card.get("horizon")
    _, lengths = episodes(
        data.column("rewards"), data.column("terminations"), data.column("truncations"), None
    )
    if horizon and len(lengths) and lengths.max() > horizon:
        yield f"episodes: one has {lengths.max()} steps; the time limit is {horizon}"
    if "reward_parts" in data.fields:
        wrong = float(np.mean(unsummed(data.column("reward_parts"), data.column("rewards"))))
        if wrong > 0:
            yield f"reward_parts: they do not sum to the reward in {wrong:.1%} of the transitions"


def unsummed(parts: npt.NDArray[Any], rewards: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where parts ``[N, C]`` do not sum to the reward ``[N]``, up to float32's rounding."""
    left = np.abs(np.add.accumulate(parts, axis=1)[:, -1] - rewards)
    largest = np.maximum(np.abs(parts).max(axis=1), np.abs(rewards))
    return np.asarray(left > 4 * np.finfo(np.float32).eps * largest)


class _Simulator:
    """A gymnasium environment that can be put into an observed state."""

    foreseen: Any = slice(None)  # the numbers of the next observation that are no noise

    def __init__(self, env_id: str) -> None:
        from suites.envs.mujoco import make_one

        self.env: Any = make_one(env_id).unwrapped
        self.env.reset(seed=0)
        self.env_id = env_id

    def misfit(self, data: Dataset) -> str | None:
        """The sentence that says why the data cannot be this environment's, or None."""
        for name, space in (
            ("observations", self.env.observation_space),
            ("actions", self.env.action_space),
        ):
            width = data.column(name).shape[1]
            if width != space.shape[0]:
                return f"{name}: have {width} numbers where those of {self.env_id} have " + str(
                    space.shape[0]
                )
        space, actions = self.env.action_space, data.column("actions")
        if is_integer(space):
            wrong = next((row for row in actions.astype(int) if not space.contains(row)), None)
            if wrong is not None or (actions != actions.round()).any():
                return f"actions: one is {wrong}; the action space is {space}"
            return None
        largest = float(np.abs(actions).max())
        if largest > space.high.max():
            return f"actions: one is {largest:.3g}; the action space ends at 1"
        return None

    def visible(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which observations ``[N, O]`` show the whole state."""
        return np.ones(len(observations), bool)

    def put(self, observation: npt.NDArray[np.float64]) -> None:
        """Puts the environment into an observed state."""
        raise NotImplementedError

    def step(
        self, observation: npt.NDArray[Any], action: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], float, bool]:
        """Next observation, reward and termination from an observed state."""
        self.put(np.asarray(observation, np.float64))
        following, reward, terminated, _, _ = self.env.step(action)
        return following, float(reward), bool(terminated)

    def close(self) -> None:
        self.env.close()


class _Robot(_Simulator):
    """A locomotion task, whose observations lack the horizontal position."""

    def __init__(self, env_id: str) -> None:
        from suites.envs.mujoco import SHOWN_VELOCITY

        super().__init__(env_id)
        self.positions = self.env.model.nq - 1
        falls = hasattr(self.env, "_healthy_z_range")
        self.shown_velocity = SHOWN_VELOCITY if falls else np.inf

    def visible(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Those that clip no velocity."""
        velocities = np.abs(observations[:, self.positions :])
        return np.asarray((velocities < self.shown_velocity).all(axis=1))

    def put(self, observation: npt.NDArray[np.float64]) -> None:
        self.env.data.qacc_warmstart[:] = 0.0  # else the solver would begin at the last transition
        self.env.set_state(
            np.concatenate(([0.0], observation[: self.positions])), observation[self.positions :]
        )


class _Point(_Simulator):
    """A point in a maze, whose observations are its state."""

    def put(self, observation: npt.NDArray[np.float64]) -> None:
        self.env._begin(observation[:2], observation[2:])


class _PointMass(_Simulator):
    """The point mass without noise, whose observations are its state."""

    def put(self, observation: npt.NDArray[np.float64]) -> None:
        self.env.set_state(observation)


class _RegionsSimulator(_Simulator):
    """The regions problem, of whose next observation only region and fatigue can be foreseen."""

    foreseen = np.array([0, 5])

    def put(self, observation: npt.NDArray[np.float64]) -> None:
        self.env.reset(seed=0)
        self.env.set_state(observation)


def _replay(
    data: Dataset,
    simulator: _Simulator,
    verdict: Verdict,
    sampled: int,
    generator: np.random.Generator,
) -> None:
    observations, actions, rewards, following, terminations, _ = (
        data.column(name) for name in REQUIRED
    )
    visible = simulator.visible(observations)
    verdict.hidden = float(1.0 - visible.mean())

    def draw(where: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero(where)
        return np.sort(generator.choice(rows, min(sampled, len(rows)), replace=False))

    for kind, rows in (
        ("transitions", draw(visible)),
        ("terminations", draw(visible & (terminations > 0))),
    ):
        if not len(rows):
            continue
        results = [simulator.step(observations[row], actions[row]) for row in rows]
        difference = np.abs(np.stack([r[0] for r in results]) - following[rows])
        errors = {
            "next observation": difference[:, simulator.foreseen].max(1),
            "reward": np.abs(np.array([r[1] for r in results]) - rewards[rows]),
        }
        ended = np.array([r[2] for r in results]) != (terminations[rows] > 0)
        for name, error in errors.items():
            verdict.errors[f"{name} of {kind}"] = np.quantile(error, QUANTILES).tolist()
            _judge(verdict, f"{name} of {kind}", error > TOLERANCE)
        _judge(verdict, f"termination of {kind}", ended)
        verdict.replayed += len(rows)


def _judge(verdict: Verdict, name: str, wrong: npt.NDArray[np.bool_]) -> None:
    if wrong.mean() > EXCEPTIONS:
        verdict.faults.append(
            f"{name}: {wrong.mean():.1%} differ from what {verdict.env_id} does; the data is of "
            "another environment or version, or mixed up"
        )
