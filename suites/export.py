"""A policy for use without this suite: a program that needs nothing but PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from baselines.common import Noise
from baselines.config import UsageError
from baselines.contract import Step
from results.record import to_json, write_atomically
from suites.datasets.history import History
from suites.policy import Policy

ROWS = 64  # random observations on which program and policy are compared
SPREAD = 3.0  # their standard deviation, as the agent sees them
TOLERANCE = 1e-5  # of an action, in units of the largest one
ABOUT_FILE = "about.json"

Raw = torch.Tensor | dict[str, torch.Tensor]  # observations as an environment shows them


class ExportError(UsageError):
    """A policy that cannot leave the suite; the message says why."""


def export_policy(policy: Policy, file: Path) -> float:
    """Writes a policy as a ``torch.export`` program: raw observations in, actions out.

    The file holds the weights, the observation transform and the clipping to the action space, and
    runs wherever PyTorch does. It is read back and compared with the policy before it is named.

    Returns:
        The largest difference from the policy's own actions, in units of the largest action.

    Raises:
        ExportError: if the policy remembers or draws noise, if PyTorch cannot trace it, or if the
            program does not act as the policy does.
        OSError: if the file cannot be written.
    """
    observations = _observations(policy, ROWS)
    content = _program(policy, observations)
    program = torch.export.load(io.BytesIO(content)).module()
    difference = 0.0
    for rows in (observations, _mapped(observations, lambda values: values[:1])):
        policy.reset()
        expected = policy.act(_mapped(rows, lambda values: values.numpy()))
        with torch.no_grad():
            found = program(rows).numpy()
        scale = max(1e-12, float(np.abs(expected).max()))
        difference = max(difference, float(np.abs(found - expected).max()) / scale)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the exported program of {policy} differs from the policy by {difference:.1e} of the "
            "largest action; nothing was written"
        )
    write_atomically(file, content)
    return difference


def _program(policy: Policy, observations: Raw) -> bytes:
    episodes = torch.export.Dim("episodes")
    shapes = (_mapped(observations, lambda values: {0: episodes}),)
    try:
        with torch.no_grad(), _plain_products():
            program = torch.export.export(Acting(policy), (observations,), dynamic_shapes=shapes)
    except ExportError:
        raise
    except Exception as error:
        reason = shorten(str(error), 120, placeholder=" ...")
        raise ExportError(
            f"{policy} cannot be exported: torch.export cannot trace how it acts, as is so of all "
            "agents made with baselines.single.stack; use load_policy "
            f"({type(error).__name__}: {reason})"
        ) from None
    for constant in program.constants.values():
        constant.requires_grad_(False)
    about = {"task": policy.task, "agent": policy.agent, "seed": policy.seed}
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={ABOUT_FILE: to_json(about).decode()})
    return stream.getvalue()


class Acting(torch.nn.Module):
    """A policy's way from raw observations ``[E, *observation]`` to actions ``[E, *action]``.

    Where observations are histories these are a dict, as the environment shows it.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.shift = torch.from_numpy(policy.transform.shift)
        self.scale = torch.from_numpy(policy.transform.scale)
        self.history = History.of(policy.observation_space)
        space = policy.action_space
        self.bounds = None
        if isinstance(space, spaces.Box):
            self.bounds = (torch.from_numpy(space.low), torch.from_numpy(space.high))

    def forward(self, observations: Raw) -> torch.Tensor:
        """The steps of :meth:`suites.policy.Policy.act`, in PyTorch."""
        if isinstance(observations, torch.Tensor):
            seen = (observations - self.shift) * self.scale
        else:
            assert self.history is not None
            static, temporal = (observations[key].double() for key in ("static", "temporal"))
            seen = self.history.seen(static, temporal, self.shift, self.scale)
        policy, episodes = self.policy, seen.shape[0]
        step: Step = {
            "observations": seen.to(policy.dtype)[None],
            "rewards": torch.zeros(1, episodes, dtype=policy.dtype),
            "first": torch.ones(1, episodes, dtype=torch.bool),
            "active": torch.ones(1, episodes, dtype=torch.bool),
            "noise": NoNoise(str(policy)),
        }
        actions, memory = policy.actor.act(step)
        if memory is not None:
            raise ExportError(f"{policy} cannot be exported: it remembers earlier steps")
        chosen = actions[0]
        if self.bounds is not None:
            chosen = chosen.clamp(*self.bounds).to(self.bounds[0].dtype)
        return chosen


class NoNoise(Noise):
    """Refuses to be drawn from."""

    def __init__(self, who: str) -> None:
        super().__init__([], (1, 1))
        self.who = who

    def _draw(self, shape: Sequence[int], fill: Any) -> torch.Tensor:
        raise ExportError(f"{self.who} cannot be exported: it draws noise when it acts")

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """See :class:`baselines.common.Noise`."""
        return self._draw(shape, None)


def _observations(policy: Policy, rows: int) -> Raw:
    """Random raw observations ``[rows, *observation]``, as wide as those the agent was trained on.

    In the space's own type, which is what the environment gives and the program will ask for.
    """
    rng = np.random.default_rng(0)
    shift, scale = policy.transform.shift, policy.transform.scale

    def draw(space: Any, columns: slice) -> torch.Tensor:
        seen = SPREAD * rng.standard_normal((rows, *space.shape))
        return torch.from_numpy((seen / scale[columns] + shift[columns]).astype(space.dtype))

    space: Any = policy.observation_space
    history = History.of(space)
    if history is None:
        return draw(space, slice(None))
    found = {
        "static": draw(space["static"], slice(history.static)),
        "temporal": draw(space["temporal"], slice(history.static, None)),
    }
    found["temporal"][: rows // 2, : history.days // 2] = 0.0  # episodes that have just begun
    return found


def _mapped(observations: Raw, change: Callable[[torch.Tensor], Any]) -> Any:
    """The change of an array of observations, or of each array of a dict of them."""
    if isinstance(observations, torch.Tensor):
        return change(observations)
    return {key: change(values) for key, values in observations.items()}


@contextmanager
def _plain_products() -> Iterator[None]:
    """Without oneDNN's private operators, which another version of PyTorch may not have."""
    set_flags: Any = torch.backends.mkldnn.set_flags
    (enabled, *_) = set_flags(_enabled=False)
    try:
        yield
    finally:
        set_flags(_enabled=enabled)
