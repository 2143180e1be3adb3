"""The conformance test for agents: ``python -m baselines.check td3_bc``, or any agent of yours.

Every check is a function ``check_<what>(cls, config=None)`` that returns nothing or raises a
:class:`CheckError` of one sentence; :func:`checks` lists them, so that a test suite can run them::

    @pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyAgent)

Agents are trained on a tiny task (:mod:`baselines.check_task`), from the fields they need. Its
actions are a box, or with ``space="multidiscrete"`` (``--space multidiscrete``) integers; with
``space="history"`` its observations are histories of days. An agent that has a preset called
"check" is built with it, so that large models can be checked at a small size. Unless said otherwise
a check runs in float64, where rounding is too small to hide an error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from baselines import registry
from baselines.check_task import (
    SEEDS,
    TASKS,
    CheckError,
    Probe,
    Run,
    on_spaces,
    require,
    rollout,
    the_task,
)
from baselines.common import copy_state
from baselines.config import UsageError
from baselines.contract import Agent, Batch, Needs
from baselines.registry import Registry, fault_place, load_target, make_config, needs_of

LEARNING_UPDATES = 200
TOLERANCE = 1e-10  # between the same seed alone and in a stack, float64, relative to 1 + |value|

Check = Callable[..., None]
_CHECKS: list[Check] = []


def checks() -> list[Check]:
    """All checks, in the order in which the command line runs them."""
    return list(_CHECKS)


def _check(function: Check) -> Check:
    """Lists a check, builds the default config, and turns any exception into a CheckError."""

    @functools.wraps(function)
    def checked(cls: type[Agent], config: Any = None, space: str = "box") -> None:
        try:
            with on_spaces(space):
                function(cls, default_config(cls) if config is None else config)
        except CheckError:
            raise
        except Exception as error:
            raise CheckError(
                f"{cls.__name__} raised {type(error).__name__}: {error}{fault_place(error)}"
            ) from error

    _CHECKS.append(checked)
    return checked


def default_config(cls: type[Agent]) -> Any:
    """The agent's preset "check" if it has one, else its defaults."""
    return make_config(
        cls, {}, cls.__name__, "check" if "check" in getattr(cls, "presets", {}) else None
    )


# Comparing -----------------------------------------------------------------------------------


def differs(a: Tensor, b: Tensor, tolerance: float = 0.0) -> bool:
    """Whether two tensors differ by more than ``tolerance`` x (1 + |b|), or in shape."""
    if a.shape != b.shape:
        return True
    return not bool(((a - b).abs() <= tolerance * (1 + b.abs())).all())


def require_same(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], when: str, tolerance: float = 0.0
) -> None:
    """Compares two records.

    Raises:
        CheckError: naming the first thing that differs, ``when``, and by how much.
    """
    require(found.keys() == wanted.keys(), f"the names of the metrics change {when}")
    for name, value in wanted.items():
        if differs(found[name], value, tolerance):
            same_shape = found[name].shape == value.shape
            extent = f"by {(found[name] - value).abs().max():.1e}" if same_shape else "in shape"
            raise CheckError(f"{name} changes {when} ({extent})")


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Sets torch's and numpy's global generators, and puts them back at the end."""
    before, before_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(before)
        np.random.set_state(before_numpy)  # noqa: NPY002


# The checks ----------------------------------------------------------------------------------


@_check
def check_members(cls: type[Agent], config: Any) -> None:
    """The class has the contract's members, and its Config is frozen and complete."""
    registry.check_members(cls, cls.__name__)
    parameters = cls.Config.__dataclass_params__
    require(parameters.frozen, "Config must be frozen: @dataclass(frozen=True)")
    bare = [
        f.name for f in fields(cls.Config) if f.default is MISSING and f.default_factory is MISSING
    ]
    require(not bare, f"Config fields need defaults: {', '.join(bare)}")
    require(cls.version >= 1, f"version must be at least 1, not {cls.version}")


@_check
def check_needs(cls: type[Agent], config: Any) -> None:
    """Needs name fields of the contract and a positive batch size and window."""
    needs = needs_of(cls, config, cls.__name__)
    require(isinstance(needs, Needs), f"needs must return Needs, not {type(needs).__name__}")
    require(needs.batch_size > 0, f"Needs.batch_size must be positive, not {needs.batch_size}")
    require(
        needs.window is None or needs.window > 0,
        f"Needs.window must be positive, not {needs.window}",
    )
    require(len(set(needs.fields)) == len(needs.fields), "Needs.fields names a field twice")


@_check
def check_metrics(cls: type[Agent], config: Any) -> None:
    """Every update returns the same names, each a finite tensor [S] without gradient."""
    run = Run.new(cls, config).train(6)
    for metrics in run.metrics:
        require(
            isinstance(metrics, dict), f"update must return a dict, not {type(metrics).__name__}"
        )
        for name, value in metrics.items():
            require(
                isinstance(value, Tensor), f'metric "{name}" must be a tensor [S], not {value!r}'
            )
            shape = tuple(value.shape)
            require(shape == (len(SEEDS),), f'metric "{name}" must have shape [S], not {shape}')
            require(bool(value.isfinite().all()), f'metric "{name}" is not finite')
            require(not value.requires_grad, f'metric "{name}" carries a gradient; detach it')
    names = {tuple(sorted(metrics)) for metrics in run.metrics}
    require(len(names) == 1, f"update must return the same names every time, not {sorted(names)}")


@_check
def check_repeatable(cls: type[Agent], config: Any) -> None:
    """Two runs of the same seeds are equal, whatever the global generators hold."""
    with global_seed(1):
        first = Run.new(cls, config).train(6).record()
    with global_seed(2):
        second = Run.new(cls, config).train(6).record()
    require_same(second, first, "between two runs of the same seeds")


@_check
def check_seeds_differ(cls: type[Agent], config: Any) -> None:
    """Seeds fed the same batches become different policies: each has noise of its own."""
    run = Run.new(cls, config).train(6, keys=[SEEDS[0]] * len(SEEDS))
    for actions in run.answers():
        for other in range(1, len(SEEDS)):
            if differs(actions[other], actions[0]):
                return
    raise CheckError("all seeds act alike: they share their noise; draw from common.Noise per seed")


@_check
def check_stacked_equals_alone(cls: type[Agent], config: Any) -> None:
    """A seed trained in a stack equals the same seed trained alone."""
    stacked = Run.new(cls, config).train().record()
    for i, seed in enumerate(SEEDS):
        alone = Run.new(cls, config, [seed]).train().record()
        mine = {name: value[i : i + 1] for name, value in stacked.items()}
        require_same(mine, alone, f"when seed {seed} is trained in a stack", TOLERANCE)


@_check
def check_order_of_seeds(cls: type[Agent], config: Any) -> None:
    """The order of the seeds in the stack does not matter."""
    stacked = Run.new(cls, config).train(6).record()
    turned = Run.new(cls, config, SEEDS[::-1]).train(6).record()
    mine = {name: value.flip(0) for name, value in turned.items()}
    require_same(mine, stacked, "with the order of the seeds", TOLERANCE)


@_check
def check_one_seed_in_trouble(cls: type[Agent], config: Any) -> None:
    """Huge observations and rewards of one seed leave the others as they are."""

    def trouble(batch: Batch) -> Batch:
        for field in ("observations", "next_observations", "rewards", "returns_to_go"):
            if field in batch:
                batch[field][0] *= 1e4
        return batch

    calm = Run.new(cls, config).train(6).record()
    shaken = Run.new(cls, config).train(6, trouble).record()
    require_same(
        {name: value[1:] for name, value in shaken.items()},
        {name: value[1:] for name, value in calm.items()},
        "for the other seeds when one seed's data are huge; clip and normalise per seed",
        TOLERANCE,
    )


@_check
def check_batch_untouched(cls: type[Agent], config: Any) -> None:
    """An update does not write into its batch."""
    run = Run.new(cls, config)
    for number in range(3):
        batch = run.batch(number)
        before = copy_state(batch)
        run.agent.update(batch, "offline")
        require(batch.keys() == before.keys(), "update changes which fields its batch has")
        changed = [field for field, value in before.items() if not torch.equal(batch[field], value)]
        require(not changed, f"update writes into its batch: {', '.join(changed)}")


@_check
def check_save_and_load(cls: type[Agent], config: Any) -> None:
    """Saving to a file, loading into a fresh agent and going on equals never having stopped."""
    run = Run.new(cls, config).train(7)  # odd, so that every second update is caught out of step
    file = io.BytesIO()
    torch.save(run.agent.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise CheckError(
            "state_dict holds something that torch.load(weights_only=True) refuses; keep to "
            "tensors, numbers, strings, bytes, and dicts, lists and tuples of these"
        ) from error
    resumed = Run.new(cls, config)
    resumed.train(2)  # moments and generators that loading must overwrite
    resumed.agent.load_state_dict(state)
    require_same(
        {"the actions": torch.stack(resumed.answers())},
        {"the actions": torch.stack(run.answers())},
        "by saving and loading",
    )
    if run.needs.dataset:
        finished = replace(run.spec, dataset=None)
        when = "when a finished policy is loaded, where Spec.dataset is None"
        try:
            loaded = replace(run, spec=finished, agent=cls(finished, config, SEEDS))
            loaded.agent.load_state_dict(state)
        except Exception as error:
            raise CheckError(
                f"{type(error).__name__} {when}: {error}{fault_place(error)}"
            ) from error
        require_same(
            {"the actions": torch.stack(loaded.answers())},
            {"the actions": torch.stack(run.answers())},
            when,
        )
    resumed.metrics = list(run.metrics)
    with global_seed(5):
        run.train(6)
    with global_seed(6):
        resumed.train(6)
    require_same(
        resumed.record(),
        run.record(),
        "when training goes on after saving and loading; is all of weights, targets, optimisers, "
        "generators and counters in state_dict?",
    )


@_check
def check_state_is_a_copy(cls: type[Agent], config: Any) -> None:
    """Training on changes no saved state, and loading one keeps no reference to it."""
    run = Run.new(cls, config).train(2)
    saved = run.agent.state_dict()
    kept = copy_state(saved)
    run.train(2)
    require(_same_state(saved, kept), "a saved state changes as training goes on; copy its tensors")
    run.agent.load_state_dict(saved)
    run.train(2)
    require(
        _same_state(saved, kept), "a loaded state changes as training goes on; copy its tensors"
    )


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same_state(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same_state, a, b))
    return bool(a == b)


@_check
def check_evaluation_leaves_training_alone(cls: type[Agent], config: Any) -> None:
    """Acting in between, evaluating or exploring, changes nothing about training."""
    silent, asked = Run.new(cls, config).train(6), Run.new(cls, config)
    for _ in range(6):
        asked.train(1)
        asked.answers()
    require_same(asked.record(), silent.record(), "when the agent acts between updates")


@_check
def check_actions(cls: type[Agent], config: Any) -> None:
    """Actions have the space's shape and type, are finite and inside, whatever space and input."""
    for space in the_task().others():
        run = Run.new(cls, config, dtype="float32", actions=space)
        low, high = (space.low, space.high) if isinstance(space, spaces.Box) else _bounds(space)
        dtype = torch.int64 if the_task().integer else torch.float32
        for scale in (1.0, 1e6):
            for actions in run.answers(scale=scale):
                shape = (len(SEEDS), 4, 2)
                require(
                    isinstance(actions, Tensor) and tuple(actions.shape) == shape,
                    f"act must return actions [S, E, *action] = {shape}, not "
                    f"{tuple(getattr(actions, 'shape', ()))}",
                )
                require(
                    actions.dtype == dtype,
                    f"actions must be {str(dtype).removeprefix('torch.')}, not {actions.dtype}",
                )
                require(
                    bool(actions.isfinite().all()), f"actions are not finite (inputs x {scale:g})"
                )
                # Of rounding to float32; integers have none.
                slack = 0 if the_task().integer else 1e-6 * np.maximum(np.abs(low), np.abs(high))
                values = actions.numpy()
                require(
                    bool((values >= low - slack).all() and (values <= high + slack).all()),
                    f"actions leave the space {low} to {high} (inputs x {scale:g}): "
                    f"from {values.min((0, 1))} to {values.max((0, 1))}",
                )


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    assert isinstance(space, spaces.MultiDiscrete)
    return space.start, space.start + space.nvec - 1


@_check
def check_acting_is_repeatable(cls: type[Agent], config: Any) -> None:
    """The same steps and noise give the same actions, and acting changes no state."""
    run = Run.new(cls, config).train(2)
    before = copy_state(run.agent.state_dict())
    with global_seed(1):
        once = torch.stack(run.answers())
    with global_seed(2):
        again = torch.stack(run.answers())
    require_same({"the actions": again}, {"the actions": once}, "between two equal rollouts")
    require(_same_state(run.agent.state_dict(), before), "acting changes the agent's state")


@_check
def check_first_resets_memory(cls: type[Agent], config: Any) -> None:
    """Where ``first`` is True nothing of the past remains, and elsewhere all of it does."""
    run = Run.new(cls, config).train(2)
    past, memory = rollout(run, Probe())
    anew = Probe(offset=7)
    joined, _ = rollout(run, anew, memory=memory)
    fresh, _ = rollout(run, anew)
    require_same(
        {"the actions": torch.stack(joined)},
        {"the actions": torch.stack(fresh)},
        "with what happened before an episode begins; reset memory where first is True",
    )
    some = Probe(begins=((2, 1), (2, 3)))
    partly, _ = rollout(run, some)
    require_same(
        {"the actions": torch.stack(partly)[:, :, [0, 2]]},
        {"the actions": torch.stack(past)[:, :, [0, 2]]},
        "in an episode when another one begins; reset memory only where first is True",
        TOLERANCE,
    )
    restarted, _ = rollout(run, some, fresh_noise_at=2)
    late, _ = rollout(run, Probe(length=2, offset=2))
    require_same(
        {"the actions": torch.stack(restarted[2:])[:, :, [1, 3]]},
        {"the actions": torch.stack(late)[:, :, [1, 3]]},
        "with what was before, when only some episodes begin; reset memory where first is True",
        TOLERANCE,
    )


@_check
def check_episodes_are_independent(cls: type[Agent], config: Any) -> None:
    """An episode's actions do not depend on its place, its neighbours, or their having ended."""
    run = Run.new(cls, config).train(2)
    for explore in (False, True):

        def play(probe: Probe, explore: bool = explore) -> Tensor:
            return torch.stack(rollout(run, probe, explore=explore)[0])

        together = play(Probe())
        cases = {
            "with the order of the episodes": (play(Probe((2, 0, 3, 1))), [2, 0, 3, 1]),
            "when it is alone": (play(Probe((2,))), [2]),
            "with other episodes beside it": (play(Probe((0, 7, 2, 8)))[:, :, [0, 2]], [0, 2]),
            "when others have ended": (play(Probe(ended=(1, 3)))[:, :, [0, 2]], [0, 2]),
        }
        for when, (found, episodes) in cases.items():
            wanted = {"an episode's action": together[:, :, episodes]}
            require_same({"an episode's action": found}, wanted, when, TOLERANCE)


@_check
def check_learns(cls: type[Agent], config: Any) -> None:
    """Trained on the tiny task, the policy gains at least half of what there is to gain.

    The mean over the seeds must pass the middle between the data's mean return and the best one.
    An agent that asks for no actions, such as a random policy, is not expected to learn.
    """
    needs = needs_of(cls, config, cls.__name__)
    if "actions" not in needs.fields and not needs.dataset:
        return
    run = Run.new(cls, config, updates=LEARNING_UPDATES, dtype="float32").train(LEARNING_UPDATES)
    reached = float(the_task().play(run.agent, run.spec, run.seeds, 50).mean())
    data, best = run.spec.statistics["return_mean"], float(the_task().length)
    require(
        reached >= (data + best) / 2,
        f"after {LEARNING_UPDATES} updates the policy returns {reached:.2f} on the tiny task, "
        f"where the data's mean is {data:.2f}, the best {best:.2f} and half way is asked for",
    )


# The command line ----------------------------------------------------------------------------


def find(targets: Sequence[str], plugins: Sequence[str]) -> dict[str, type[Agent]]:
    """The agents to check by name: names, ``module:Class``, or all of the plugins' agents.

    Raises:
        UsageError: unknown names, or nothing asked for.
    """
    registry = Registry(plugins)
    if not targets:
        targets = [n for n, source in registry.sources.items() if source.startswith("plugin ")]
    if not targets:
        raise UsageError(
            f"name an agent ({', '.join(registry.names())}), module:Class, or --plugin FILE"
        )
    found: dict[str, type[Agent]] = {}
    for target in targets:
        found[target] = (
            load_target(target, "command line") if ":" in target else registry.get(target)
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks agents and prints a line per check.

    Returns:
        0 if all passed, 1 if a check failed, 2 for wrong input.
    """
    parser = argparse.ArgumentParser(
        "python -m baselines.check", description="Checks agents against the contract."
    )
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="a name, or module:Class")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="a plugin file; repeatable"
    )
    parser.add_argument(
        "--space", choices=list(TASKS), default="box", help="the tiny task's spaces"
    )
    options = parser.parse_args(arguments)
    try:
        agents = find(options.agents, options.plugin)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = sum(_run_checks(name, cls, options.space) for name, cls in agents.items())
    plural = "s" * (failed != 1)
    print(f"{failed} check{plural} failed" if failed else "all checks passed")
    return 1 if failed else 0


def _run_checks(name: str, cls: type[Agent], space: str) -> int:
    """Prints a line per check of an agent; returns how many failed."""
    print(name)
    failed: dict[str, str] = {}  # what was said, and by which check
    count = 0
    for check in checks():
        title = check.__name__.removeprefix("check_")
        started, message = time.perf_counter(), ""
        try:
            check(cls, space=space)
        except CheckError as error:
            message = str(error)
            count += 1
        seconds = time.perf_counter() - started
        first = failed.setdefault(message, title) if message else title
        said = f": {message}" if first == title else f": as {first} says"
        verdict = "FAIL" if message else "pass"
        print(f"  {verdict}  {title} ({seconds:.1f} s){said if message else ''}", flush=True)
        if message and check in (check_members, check_needs, check_metrics):
            print("  the other checks rest on this one; they are left out until it passes")
            break
    return count


if __name__ == "__main__":
    sys.exit(main())
