"""The agent contract: everything the suites know about an algorithm, and nothing else.

An agent trains S seeds at once. Every weight carries a leading seed axis, batches are
``[S, B, ...]`` (windows ``[S, B, K, ...]``) and acting is ``[S, E, ...]``; S = 1 is not a special
case. Observations of a Dict space come flat, in gymnasium's order. An agent is any class with the
members of :class:`Agent`; there is no base class to inherit. Authors who would rather write for one
seed use :func:`baselines.single.stack`.

This module imports neither torch nor gymnasium, so that plans can be made and listed without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    import gymnasium
    import torch

    from baselines.common import Noise

Batch = dict[str, "torch.Tensor"]
Metrics = dict[str, "torch.Tensor"]
Memory = dict[str, "torch.Tensor"]

TRANSITION_FIELDS = (
    "observations",  # [S, B, *observation]
    "actions",  # [S, B, *action]
    "rewards",  # [S, B], after the reward transform
    "next_observations",  # [S, B, *observation]
    "terminations",  # [S, B] float 0/1: the environment ended, the bootstrap is cut
    "truncations",  # [S, B] float 0/1: a limit ended the episode, the bootstrap goes on
    "policy_ids",  # [S, B] integer: which logging policy acted
    "reward_parts",  # [S, B, C], after the reward transform; they sum to the reward
)
DERIVED_FIELDS = (
    "policy_groups",  # [S, B] integer: which group of logging policies acted, 0 of lowest returns
)
WINDOW_FIELDS = (
    "returns_to_go",  # [S, B, K], after the reward transform
    "timesteps",  # [S, B, K] integer: steps since the episode began
    "mask",  # [S, B, K] float 0/1: 1 where the step is real, 0 where it is padding
)


@dataclass(frozen=True)
class Needs:
    """What an agent asks of the training loop; matched with the dataset while planning.

    Attributes:
        fields: names from ``TRANSITION_FIELDS`` and ``DERIVED_FIELDS``, and from ``WINDOW_FIELDS``
            if ``window`` is set.
        batch_size: B, transitions (or windows) per seed and update.
        window: K, steps per window; None for single transitions.
        observations: "raw", or "standardized": (o - mean) / (std + ``epsilon``) over the dataset,
            the same for batches and for acting.
        epsilon: added to the standard deviation when standardizing.
        rewards: "raw", or "return_range": r * 1000 / (best - worst return of the data's episodes).
        dataset: True to receive the whole (transformed) dataset in ``Spec.dataset`` for training.
        policy_groups: how many groups the logging policies are put into, by their returns, at most.
    """

    fields: tuple[str, ...]
    batch_size: int = 256
    window: int | None = None
    observations: Literal["raw", "standardized"] = "raw"
    epsilon: float = 1e-3
    rewards: Literal["raw", "return_range"] = "raw"
    dataset: bool = False
    policy_groups: int = 3


@dataclass(frozen=True)
class Phase:
    """One stretch of training, as data.

    Attributes:
        name: for example "offline", "online", "represent".
        updates: gradient updates in this phase.
        source: where batches come from.
        env_steps_per_update: environment steps collected per update and seed.
        warmup_env_steps: environment steps collected before the first update, per seed.
        replay_size: capacity of the per-seed replay, in transitions.
    """

    name: str
    updates: int
    source: Literal["dataset", "replay", "dataset+replay"] = "dataset"
    env_steps_per_update: float = 0.0
    warmup_env_steps: int = 0
    replay_size: int = 1_000_000


@dataclass(frozen=True)
class Spec:
    """What an agent may know of its task when it is built.

    Attributes:
        observation_space: one observation's gymnasium space; a Dict of "static" ``[n]`` and
            "temporal" ``[days, features]``, the oldest first, where observations are histories.
        action_space: one action's gymnasium space.
        phases: the phases this agent will train through, in order.
        horizon: the time limit of an episode in steps, None if there is none.
        reward_parts: names of the C additive parts of the reward, () if they are not logged.
        policies: P, number of logging policies, 0 if they are not logged.
        policy_groups: number of their groups, 0 if they are not logged.
        statistics: plain numbers about the data: ``transitions``, ``episodes``, ``return_mean``,
            ``return_best``, ``return_worst`` (raw units), ``reward_scale``.
        dataset: all N transitions to train on, episodes one after the other, if ``Needs.dataset``:
            tensors ``[N, ...]`` by field, as batches have them: ``Needs.fields`` without ``mask``,
            and in any case ``returns_to_go`` and ``timesteps``. None when a finished policy is
            loaded, which has nothing to learn from.
        noop: by factor of an integer action space the choice that does nothing; None for boxes,
            and where the environment names none.
        effects: by factor k of the action the observation's coordinates that only factor k's
            choice can influence within one step; None where this is not known.
        device: torch device the agent lives on.
        dtype: "float32" or "float64".
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    phases: tuple[Phase, ...] = (Phase("offline", 1),)
    horizon: int | None = None
    reward_parts: tuple[str, ...] = ()
    policies: int = 0
    policy_groups: int = 0
    statistics: Mapping[str, float] = field(default_factory=dict)
    dataset: Mapping[str, torch.Tensor] | None = None
    noop: tuple[int, ...] | None = None
    effects: tuple[tuple[int, ...], ...] | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"

    def torch_dtype(self) -> torch.dtype:
        """The floating-point type of weights and batches."""
        import torch

        return torch.float64 if self.dtype == "float64" else torch.float32


class Step(TypedDict):
    """What an agent sees when it acts; S seeds x E episodes in lockstep.

    ``noise`` draws ``[S, E, ...]`` tensors whose values depend only on the seed, the evaluation's
    number and the episode, so that acting never disturbs training.
    """

    observations: torch.Tensor  # [S, E, *observation], after the observation transform
    rewards: (
        torch.Tensor
    )  # [S, E], reward of the previous step after the reward transform, 0 at first
    first: torch.Tensor  # [S, E] bool, True where an episode begins: memory must be reset there
    active: torch.Tensor  # [S, E] bool, False where the episode has ended
    noise: Noise


@runtime_checkable
class Agent(Protocol):
    """The five members of an agent, and two class attributes that describe it.

    Attributes:
        Config: a frozen dataclass; every field has a default.
        version: raised whenever the agent's results change; part of a cell's identity.
    """

    Config: ClassVar[type[Any]]
    version: ClassVar[int]

    @staticmethod
    def needs(config: Any) -> Needs:
        """What this configuration needs; a function, because a window's length is configuration."""
        ...

    def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None: ...

    def update(self, batch: Batch, phase: str) -> Metrics:
        """Makes one gradient step for all S seeds; every metric is a tensor ``[S]``."""
        ...

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[torch.Tensor, Memory | None]:
        """Returns actions ``[S, E, *action]`` inside the action space, and the memory to pass next.

        ``memory`` is a dict of tensors ``[S, E, ...]`` or None. Episodes do not influence one
        another.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that training continues from: weights, optimisers, noise, counters.

        Tensors, numbers, strings, bytes, and dicts, lists and tuples of these.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        ...
