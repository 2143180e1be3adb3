"""Two visits to the clinic, two drugs, and a look at the patient that nobody writes down.

A problem for one question: what does an agent learn from logs in which a hidden cause moves both
treatment and outcome? ``docs/confounder.md`` says why it is as it is.

A patient has a kind x = 0, 1, 2, each as likely, which stays, and a health h, 0 at first. At each
of T = 2 visits the day is good or bad, each with probability 1/2, independently of everything. The
action is ``MultiDiscrete([3, 3])``, the doses a of drug A and b of drug B. Then::

    h  <-  h + a / 10 - |b - x| / 10 + (0.6 on a good day, -0.6 on a bad one)

The reward is h after the second visit, which ends the episode, and 0 before. So drug A helps every
patient on every day, by a tenth for every dose; of drug B the dose x is right; and the day matters
more than either but changes nothing about what to do.

The observation is x one-hot (3), h, and the number of visits that are over; with ``show_day`` also
1 on a bad day, else 0. Doing nothing is ``(0, 0)``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from suites.datasets.recipes.bedside import STEPS as HORIZON
from suites.envs.mujoco import Flags, Floats, VectorStep, _Slots

Ints = npt.NDArray[np.int64]

KINDS, DOSES = 3, 3
POINTS = 10  # of health in 1; inside, health is a whole number of points
DAY = 6  # points that a good day gives and a bad one takes
GAIN = np.arange(DOSES)[:, None] - np.abs(
    np.arange(DOSES) - np.arange(KINDS)[:, None, None]
)  # [x, a, b]: points that the drugs give


class Patients:
    """N patients side by side; what the environments and the doctor of the logs share.

    Attributes:
        kind: ``[N]``, x.
        points: ``[N]``, health in points.
        visits: ``[N]``, how many are over.
        bad: ``[N]``, 1 where today is a bad day.
    """

    def __init__(self, count: int, show_day: bool = False) -> None:
        self.show_day = show_day
        self.kind, self.points, self.visits, self.bad = np.zeros((4, count), np.int64)
        self._bad = np.zeros((count, HORIZON + 1), np.int64)  # by visit; the last day has none

    def begin(self, index: int, generator: np.random.Generator) -> None:
        """Admits a patient; all of the episode's chance is drawn here."""
        kind, *days = generator.random(HORIZON + 2).tolist()
        self.kind[index] = int(KINDS * kind)
        self._bad[index] = [day < 0.5 for day in days]
        self.points[index] = self.visits[index] = 0
        self.bad[index] = self._bad[index, 0]

    def step(self, where: Ints, actions: npt.NDArray[Any]) -> tuple[Floats, Flags]:
        """Treats patients ``where`` ``[M]`` by doses ``[M, 2]``: rewards and ends ``[M]``."""
        a, b = np.asarray(actions, np.int64).T
        self.points[where] += GAIN[self.kind[where], a, b] + DAY * (1 - 2 * self.bad[where])
        self.visits[where] += 1
        visits = self.visits[where]
        self.bad[where] = self._bad[where, np.minimum(visits, HORIZON)]
        ends = visits >= HORIZON
        return np.where(ends, self.points[where] / POINTS, 0.0), ends

    def observations(self, where: slice | Ints = slice(None)) -> Floats:
        """``[N, 5]``, or ``[N, 6]`` where the day is shown; of some patients or of all."""
        bad = self.bad[where] if self.show_day else None
        return observe(self.kind[where], self.points[where], self.visits[where], bad)


def observe(kind: Ints, points: Ints, visits: Ints, bad: Ints | None = None) -> Floats:
    """Observations ``[N, 5]``, or ``[N, 6]`` with the day, of states ``[N]``."""
    parts = [np.eye(KINDS)[kind], np.stack((points / POINTS, visits), 1)]
    parts += [] if bad is None else [np.asarray(bad, float)[:, None]]
    return np.asarray(np.concatenate(parts, axis=1), np.float64)


class Bedside(gymnasium.Env[Floats, npt.NDArray[np.int64]]):
    """The clinic for gymnasium, which knows it as ``fastq_bench/bedside-hidden-v0``.

    Attributes:
        noop: neither drug.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012 (gymnasium's type)
    noop: tuple[int, ...] = (0, 0)

    def __init__(self, show_day: bool = False, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.patient = Patients(1, show_day)
        most = HORIZON * (DAY + DOSES - 1) / POINTS
        high = np.array([1.0] * KINDS + [most, HORIZON] + [1.0] * show_day)
        low = np.where(np.arange(len(high)) == KINDS, -most, 0.0)
        self.observation_space = spaces.Box(low, high, dtype=np.float64)
        self.action_space = spaces.MultiDiscrete([DOSES, DOSES])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Admits a patient."""
        super().reset(seed=seed)
        self.patient.begin(0, self.np_random)
        return self.patient.observations()[0], {}

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """A visit."""
        rewards, ends = self.patient.step(np.zeros(1, np.int64), np.asarray(action)[None])
        return self.patient.observations()[0], float(rewards[0]), bool(ends[0]), False, {}

    def render(self) -> Any:
        """Health as a bar from the middle, ``[60, 200, 3]`` uint8: green above 0, red below."""
        picture = np.full((60, 200, 3), 255, np.uint8)
        end = 100 + 6 * int(self.patient.points[0])
        color = (0, 150, 0) if end > 100 else (200, 0, 0)
        picture[20:40, min(100, end) : max(100, end)] = color
        picture[10:50, 100] = 0
        return picture


class VectorBedside(_Slots):
    """Many patients, treated at once; see :class:`suites.envs.VectorEnv`."""

    reward_parts: tuple[str, ...] = ()

    def __init__(self, env_id: str, count: int) -> None:
        env = gymnasium.make(env_id)
        super().__init__(env_id, count, env)
        one: Any = env.unwrapped
        self.patients = Patients(count, one.patient.show_day)

    def reset(self, index: int, seed: int) -> Floats:
        """Begins an episode in one slot."""
        self.patients.begin(index, seeding.np_random(seed)[0])
        self._reset[index] = True
        return np.array(self.patients.observations(np.array([index]))[0])

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """Steps the active slots."""
        active = self._check(actions, active)
        slots = np.flatnonzero(active)
        rewards, ends = np.zeros(self.count), np.zeros(self.count, bool)
        rewards[slots], ends[slots] = self.patients.step(slots, actions[slots])
        return VectorStep(
            observations=self.patients.observations(),
            rewards=rewards,
            terminations=ends,
            truncations=ends.copy(),  # the time limit, as gymnasium's wrapper tells it
            parts=np.zeros((self.count, 0)),
        )

    def close(self) -> None:
        """There is nothing to release."""
