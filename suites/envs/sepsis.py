"""A simulated sepsis ward: four vital signs, three treatments, an optimum that is known exactly.

After the simulator of Oberst & Sontag (2019, arXiv:1905.05824), whose probabilities are taken from
its code, ``sepsisSimDiabetes/MDP.py`` of clinicalml/gumbel-max-scm@7aa8ce4; what differs is marked
[ours]. ``docs/sepsis.md`` tells it as tables.

**State.** Heart rate and systolic blood pressure (low, normal, high), oxygen (low, normal), glucose
(very low, low, normal, high, very high), diabetes (no, yes; it stays), and which of the three
treatments were on in the last step: 3 x 3 x 2 x 5 x 2 x 8 = 1440 states.

**Action.** ``MultiDiscrete([2, 2, 2])``: antibiotics, vasopressors, ventilation, off or on.

**One step.** Given diabetes, the treatments before and now, the vitals move independently:

* heart rate. Antibiotics on: high -> normal 0.5. Just stopped: normal -> high 0.1. Else it
  fluctuates.
* blood pressure. First antibiotics, as for the heart rate. Then vasopressors: on, without diabetes,
  low -> normal 0.7 and normal -> high 0.7; on, with diabetes, low -> normal 0.5, low -> high 0.4,
  normal -> high 0.9; just stopped: one level down 0.1, with diabetes 0.05. If neither is on or just
  stopped, it fluctuates.
* oxygen. Ventilation on: low -> normal 0.7. Just stopped: normal -> low 0.1. Else it fluctuates.
* glucose. Vasopressors on: with diabetes one level up 0.5, else unchanged. Off: it fluctuates.

To fluctuate is one level down 0.1, one level up 0.1 (glucose with diabetes 0.3 each), where there
is such a level. (In the code that the numbers come from, glucose without diabetes never rises above
low; here it is symmetric [ours].)

**End.** Three or more abnormal vitals: death, reward -1. None abnormal and no treatment on:
discharge, reward +1. Otherwise 0. After 20 steps the episode is cut (a time limit, reward 0).

**Start.** Diabetes 0.2; heart rate and pressure 0.25, 0.5, 0.25; oxygen low 0.2; glucose 0.05,
0.15, 0.6, 0.15, 0.05, with diabetes 0.01, 0.05, 0.15, 0.6, 0.19; no treatment; all drawn again
while that is an end.

**Crises** [ours] are in the variant ``crises=True`` alone, for the study of an unobserved
confounder: before every step, independently of everything, a crisis is on with probability 0.3. In
one, after the step above, each vital that is normal turns abnormal with probability 0.2, whatever
the treatment: heart rate high, pressure low, oxygen low, glucose high. ``show_crisis`` appends it
to the observation.

**Observation.** 17 numbers, 0 or 1: heart rate (3), pressure (3), oxygen (2), glucose (5) one-hot,
diabetes, the three treatments of the last step; an 18th, the crisis, where it is shown.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from suites.datasets.recipes.sepsis import STEPS as HORIZON
from suites.envs.mujoco import Flags, Floats, VectorStep, _Slots

Ints = npt.NDArray[np.int64]

LEVELS = (3, 3, 2, 5)  # of heart rate, blood pressure, oxygen, glucose
NORMAL = (1, 1, 1, 2)
VITALS = 90  # combinations of the four
TREATMENTS = 8  # combinations of antibiotics, vasopressors, ventilation, in this order
DIABETES = 0.2
CRISIS, WORSENS = 0.3, 0.2
STARTS = (
    ((0.25, 0.5, 0.25), (0.25, 0.5, 0.25), (0.2, 0.8), (0.05, 0.15, 0.6, 0.15, 0.05)),
    ((0.25, 0.5, 0.25), (0.25, 0.5, 0.25), (0.2, 0.8), (0.01, 0.05, 0.15, 0.6, 0.19)),
)  # without and with diabetes
SHOWN = sum(LEVELS) + 1 + 3  # numbers of an observation

VITAL_LEVELS = np.array(list(product(*map(range, LEVELS))), np.int64)  # [90, 4]
TREATMENT_BITS = np.array(list(product(range(2), repeat=3)), np.int64)  # [8, 3]
ABNORMAL = (VITAL_LEVELS != NORMAL).sum(1)  # [90]
# Reward and end by the vitals and the treatments that are on, [90, 8].
DEATH = np.repeat((ABNORMAL >= 3)[:, None], TREATMENTS, 1)
DISCHARGE = (ABNORMAL == 0)[:, None] & (TREATMENT_BITS.sum(1) == 0)
ENDS = DEATH | DISCHARGE
REWARDS = DISCHARGE.astype(np.float64) - DEATH


def _moves(levels: int, *moves: tuple[int, int, float]) -> Floats:
    """A kernel ``[levels, levels]`` of moves (from, to, probability); the rest stays."""
    kernel = np.zeros((levels, levels))
    for start, end, probability in moves:
        kernel[start, end] += probability
    return np.asarray(kernel + np.diag(1.0 - kernel.sum(1)))


def _shifts(levels: int, down: float, up: float) -> Floats:
    """One level down or up, where there is one."""
    falls = [(level, level - 1, down) for level in range(1, levels)]
    rises = [(level, level + 1, up) for level in range(levels - 1)]
    return _moves(levels, *falls, *rises)


def _infection(before: int, now: int) -> Floats:
    """What antibiotics do to heart rate and blood pressure; nothing if neither on nor stopped."""
    if now:
        return _moves(3, (2, 1, 0.5))
    return _moves(3, (1, 2, 0.1)) if before else np.eye(3)


def _pressure(diabetes: int, before: int, now: int) -> Floats:
    """What vasopressors do to blood pressure; nothing if neither on nor stopped."""
    if now and diabetes:
        return _moves(3, (0, 1, 0.5), (0, 2, 0.4), (1, 2, 0.9))
    if now:
        return _shifts(3, 0.0, 0.7)
    return _shifts(3, 0.05 if diabetes else 0.1, 0.0) if before else np.eye(3)


def _kernels(diabetes: int, before: Ints, now: Ints) -> list[Floats]:
    """By vital, ``[levels, levels]``; ``before`` and ``now`` are treatments ``[3]``."""
    (biotic0, vaso0, vent0), (biotic, vaso, vent) = before.tolist(), now.tolist()
    heart = _infection(biotic0, biotic) if biotic0 or biotic else _shifts(3, 0.1, 0.1)
    pressure = _infection(biotic0, biotic) @ _pressure(diabetes, vaso0, vaso)
    if not (biotic0 or biotic or vaso0 or vaso):
        pressure = _shifts(3, 0.1, 0.1)
    if vent:
        oxygen = _moves(2, (0, 1, 0.7))
    else:
        oxygen = _moves(2, (1, 0, 0.1)) if vent0 else _shifts(2, 0.1, 0.1)
    wild = 0.3 if diabetes else 0.1
    glucose = _shifts(5, 0.0, 0.5 * diabetes) if vaso else _shifts(5, wild, wild)
    return [heart, pressure, oxygen, glucose]


_WORSENING = [
    _moves(3, (1, 2, WORSENS)),
    _moves(3, (1, 0, WORSENS)),
    _moves(2, (1, 0, WORSENS)),
    _moves(5, (2, 3, WORSENS)),
]


def _joint(kernels: list[Floats]) -> Floats:
    """The kernel of all vitals, ``[90, 90]``."""
    whole: Floats = np.ones((1, 1))
    for kernel in kernels:
        whole = np.asarray(np.kron(whole, kernel), np.float64)
    return whole


@cache
def transitions(crises: bool = False) -> Floats:
    """P(vitals' | crisis, diabetes, vitals, treatments before, treatments now).

    Returns:
        ``[C, 2, 90, 8, 8, 90]``, C = 2 with crises (0: none is on), else 1; read-only.
    """
    made = np.empty((2 if crises else 1, 2, VITALS, TREATMENTS, TREATMENTS, VITALS))
    for diabetes, before, now in product(range(2), range(TREATMENTS), range(TREATMENTS)):
        kernels = _kernels(diabetes, TREATMENT_BITS[before], TREATMENT_BITS[now])
        made[0, diabetes, :, before, now] = _joint(kernels)
        if crises:
            worse = [a @ b for a, b in zip(kernels, _WORSENING, strict=True)]
            made[1, diabetes, :, before, now] = _joint(worse)
    made.flags.writeable = False
    return made


@cache
def start() -> Floats:
    """P(diabetes, vitals) of an episode's first step, ``[2, 90]``, without treatment; read-only."""
    shares = (1.0 - DIABETES, DIABETES)
    drawn = [
        share * np.array([float(np.prod(p)) for p in product(*levels)])
        for share, levels in zip(shares, STARTS, strict=True)
    ]
    first: Floats = np.stack(drawn) * ~ENDS[:, 0]
    first /= first.sum()
    first.flags.writeable = False
    return first


@cache
def _cumulative(crises: bool) -> Floats:
    """Of :func:`transitions`, to draw from."""
    return np.asarray(np.cumsum(transitions(crises), axis=-1))


@cache
def _cumulative_start() -> Floats:
    return np.asarray(np.cumsum(start().ravel()))


def pick(cumulative: Floats, draws: npt.NDArray[Any]) -> Ints:
    """Indices ``[N]`` by draws ``[N]`` in [0, 1) from cumulative probabilities ``[N, K]``."""
    found = (cumulative <= draws[:, None]).sum(1)
    return np.asarray(np.minimum(found, cumulative.shape[1] - 1), np.int64)


def treatment_index(actions: npt.NDArray[Any]) -> Ints:
    """Combinations of treatments ``[...]``, 0 to 7, of actions ``[..., 3]``."""
    return np.asarray(np.asarray(actions, np.int64) @ np.array([4, 2, 1]))


def observe(
    diabetes: npt.NDArray[Any],
    vitals: npt.NDArray[Any],
    treatments: npt.NDArray[Any],
    crisis: npt.NDArray[Any] | None = None,
) -> Floats:
    """Observations ``[N, 17]``, or ``[N, 18]`` with a crisis, of states given by index ``[N]``."""
    levels = VITAL_LEVELS[vitals]
    parts = [np.eye(count)[levels[:, k]] for k, count in enumerate(LEVELS)]
    parts += [np.asarray(diabetes, float)[:, None], TREATMENT_BITS[treatments].astype(float)]
    parts += [] if crisis is None else [np.asarray(crisis, float)[:, None]]
    return np.asarray(np.concatenate(parts, axis=1))


class Patients:
    """N patients side by side; what the environments and the simulation of logs share.

    Attributes:
        diabetes: ``[N]``, 0 or 1.
        vitals: ``[N]``, 0 to 89.
        treatments: ``[N]``, 0 to 7, those of the last step.
        crisis: ``[N]``, 1 where a crisis is on; of the coming step.
    """

    def __init__(self, count: int, crises: bool = False, show_crisis: bool = False) -> None:
        self.crises, self.show_crisis = crises, show_crisis
        _cumulative(crises)  # now, so that no step takes as long as making the tables
        self.diabetes, self.vitals, self.treatments, self.crisis = np.zeros((4, count), np.int64)

    def begin(self, where: npt.NDArray[Any], draws: Floats) -> None:
        """Admits patients at ``where``, by draws ``[M, 2]`` in [0, 1)."""
        first = pick(np.broadcast_to(_cumulative_start(), (len(draws), 2 * VITALS)), draws[:, 0])
        self.diabetes[where], self.vitals[where] = np.divmod(first, VITALS)
        self.treatments[where] = 0
        self.crisis[where] = self._crisis(draws[:, 1])

    def step(
        self, where: npt.NDArray[Any], treatments: Ints, draws: Floats
    ) -> tuple[Floats, Flags]:
        """Treats the patients at ``where`` by combinations ``[M]``: rewards and ends ``[M]``."""
        rows = _cumulative(self.crises)[
            self.crisis[where], self.diabetes[where], self.vitals[where], self.treatments[where],
            treatments,
        ]  # fmt: skip
        vitals = pick(rows, draws[:, 0])
        self.vitals[where], self.treatments[where] = vitals, treatments
        self.crisis[where] = self._crisis(draws[:, 1])
        return REWARDS[vitals, treatments], ENDS[vitals, treatments]

    def _crisis(self, draws: npt.NDArray[Any]) -> Flags:
        return np.asarray((draws < CRISIS) & self.crises)

    def observations(self, where: slice | Ints = slice(None)) -> Floats:
        """``[N, 17]``, or ``[N, 18]`` where crises are shown; of some patients or of all."""
        crisis = self.crisis[where] if self.show_crisis else None
        return observe(self.diabetes[where], self.vitals[where], self.treatments[where], crisis)


class Sepsis(gymnasium.Env[Floats, npt.NDArray[np.int64]]):
    """The ward for gymnasium, which knows it as ``fastq_bench/sepsis-v0`` with its time limit.

    Attributes:
        noop: no treatment.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (gymnasium's type)
    noop: tuple[int, ...] = (0, 0, 0)

    def __init__(
        self, crises: bool = False, show_crisis: bool = False, render_mode: str | None = None
    ) -> None:
        self.render_mode = render_mode
        self.patient = Patients(1, crises, show_crisis)
        self.observation_space = spaces.Box(0.0, 1.0, (SHOWN + show_crisis,), np.float64)
        self.action_space = spaces.MultiDiscrete([2, 2, 2])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Admits a patient; all of the stay's chance is drawn here."""
        super().reset(seed=seed)
        self._draws = self.np_random.random((HORIZON + 1, 2))
        self._time = 0
        self.patient.begin(np.zeros(1, np.int64), self._draws[:1])
        return self.patient.observations()[0], {}

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """One step of treatment."""
        self._time += 1
        if self._time >= len(self._draws):  # a stay without time limit
            self._draws = np.concatenate((self._draws, self.np_random.random((HORIZON, 2))))
        rewards, ends = self.patient.step(
            np.zeros(1, np.int64),
            treatment_index(np.asarray(action)[None]),
            self._draws[self._time : self._time + 1],
        )
        return self.patient.observations()[0], float(rewards[0]), bool(ends[0]), False, {}

    def render(self) -> Any:
        """A strip ``[120, 240, 3]`` uint8 of seven columns: vitals (grey normal), treatments."""
        picture = np.full((120, 240, 3), 255, np.uint8)
        levels = VITAL_LEVELS[self.patient.vitals[0]]
        for k, (level, count) in enumerate(zip(levels.tolist(), LEVELS, strict=True)):
            color = (150, 150, 150) if level == NORMAL[k] else (200, 0, 0)
            top = 100 - round(90 * level / (count - 1))
            picture[top : top + 14, 8 + 34 * k : 30 + 34 * k] = color
        for k, on in enumerate(TREATMENT_BITS[self.patient.treatments[0]].tolist()):
            picture[50:70, 144 + 32 * k : 166 + 32 * k] = (0, 90, 200) if on else (225, 225, 225)
        return picture


class VectorSepsis(_Slots):
    """Many patients, treated at once; see :class:`suites.envs.VectorEnv`."""

    reward_parts: tuple[str, ...] = ()

    def __init__(self, env_id: str, count: int) -> None:
        env = gymnasium.make(env_id)
        super().__init__(env_id, count, env)
        one = env.unwrapped.patient  # type: ignore[attr-defined]
        self.patients = Patients(count, one.crises, one.show_crisis)
        self._draws = np.zeros((count, HORIZON + 1, 2))
        self._time = np.zeros(count, np.int64)

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot."""
        generator, _ = seeding.np_random(seed)
        self._draws[index] = generator.random((HORIZON + 1, 2))
        where = np.array([index])
        self.patients.begin(where, self._draws[index, :1])
        self._time[index], self._reset[index] = 0, True
        return np.array(self.patients.observations(where)[0])

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots."""
        active = self._check(actions, active)
        slots = np.flatnonzero(active)
        self._time += active
        rewards, ends = np.zeros(self.count), np.zeros(self.count, bool)
        rewards[slots], ends[slots] = self.patients.step(
            slots,
            treatment_index(actions[slots]),
            self._draws[slots, np.minimum(self._time[slots], HORIZON)],
        )
        return VectorStep(
            observations=self.patients.observations(),
            rewards=rewards,
            terminations=ends,
            truncations=active & (self._time >= HORIZON),
            parts=np.zeros((self.count, 0)),
        )

    def close(self) -> None:
        """There is nothing to release."""
