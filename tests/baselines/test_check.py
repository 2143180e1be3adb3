"""Every check passes for every agent, and catches the fault it is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from baselines import check
from baselines.bc import BC, BCConfig
from baselines.check import CheckError, checks
from baselines.common import Adam, Noise, clip_per_seed, copy_parameters
from baselines.contract import Agent, Batch, Memory, Metrics, Needs, Spec, Step
from baselines.iql import IQL
from baselines.nets import ActionBox
from baselines.registry import BUILT_IN, Registry
from baselines.single import stack
from baselines.td3_bc import TD3BC, TD3BCConfig

EXAMPLES = [
    Path(__file__).parents[2] / "examples" / name
    for name in ("stacked_plugin.py", "single_seed_plugin.py", "whole_dataset_plugin.py")
]
REGISTRY = Registry(EXAMPLES)


# What holds to the last bits holds at any size; learning takes the default networks.
SMALL: dict[str, Any] = {"hidden": (32, 32), "batch_size": 32}
LEARNING: dict[str, Any] = {"batch_size": 64}


def sized(cls: type[Any], sizes: Mapping[str, Any]) -> Any:
    """An agent's own small configuration, or its defaults at other sizes."""
    config = check.default_config(cls)
    if "check" in getattr(cls, "presets", {}):
        return config
    has = [k for k, v in sizes.items() if isinstance(getattr(config, k, None), type(v))]
    return replace(config, **{k: sizes[k] for k in has})


@pytest.mark.parametrize("function", checks(), ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*BUILT_IN, "awr", "dropout_bc"])
def test_agent_passes(name: str, function: check.Check) -> None:
    cls = REGISTRY.get(name)
    function(cls, sized(cls, LEARNING if function.__name__ == "check_learns" else SMALL))


@pytest.mark.parametrize("function", checks(), ids=lambda f: f.__name__)
def test_agent_passes_on_integers(function: check.Check) -> None:
    function(REGISTRY.get("ad_dqn"), space="multidiscrete")


@pytest.mark.parametrize("name", ["dqn", "decqn"])
def test_its_relatives_play_and_learn_integers(name: str) -> None:
    check.check_actions(REGISTRY.get(name), space="multidiscrete")
    check.check_learns(REGISTRY.get(name), space="multidiscrete")


def test_integers_must_be_integers_of_the_space() -> None:
    class Halves(REGISTRY.get("decqn")):  # type: ignore[misc]
        def act(self, *args: Any, **options: Any) -> Any:
            actions, memory = super().act(*args, **options)
            return actions.float(), memory

    class Shifted(Halves):
        def act(self, *args: Any, **options: Any) -> Any:
            actions, memory = super().act(*args, **options)
            return actions.long() + 1, memory

    with pytest.raises(CheckError, match=r"actions must be int64, not torch\.float32"):
        check.check_actions(Halves, space="multidiscrete")
    with pytest.raises(CheckError, match="actions leave the space"):
        check.check_actions(Shifted, space="multidiscrete")
    with pytest.raises(CheckError, match=r"needs a bounded one-dimensional Box"):
        check.check_actions(IQL, space="multidiscrete")


# Planted faults ------------------------------------------------------------------------------
# Each is an agent with one mistake, beside the name of the check that must catch it.

FAULTS: list[tuple[str, Callable[[], Any]]] = []


def caught_by(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Lists a function that makes a faulty class."""

    def decorate(function: Callable[[], Any]) -> Callable[[], Any]:
        FAULTS.append((name, function))
        return function

    return decorate


@dataclass(frozen=True)
class SmallBC(BCConfig):
    hidden: tuple[int, ...] = (16, 16)
    batch_size: int = 32
    lr: float = 3e-3


@dataclass(frozen=True)
class SmallTD3BC(TD3BCConfig):
    hidden: tuple[int, ...] = (16, 16)
    batch_size: int = 32


class Cloner(BC):
    """A sound agent to spoil."""

    Config: ClassVar = SmallBC


class Learner(TD3BC):
    """A sound agent to spoil, with noise, targets and delayed updates."""

    Config: ClassVar = SmallTD3BC


class Rememberer(Cloner):
    """A sound agent with memory: it acts on the running mean of what it has seen."""

    def act(
        self, step: Step, memory: Memory | None = None, *, explore: bool = False
    ) -> tuple[Tensor, Memory | None]:
        seen = step["observations"]
        if memory is not None:
            seen = torch.where(step["first"].unsqueeze(-1), seen, (seen + memory["mean"]) / 2)
        actions, _ = super().act({**step, "observations": seen})
        return actions, {"mean": seen}


@pytest.mark.parametrize("sound", [Cloner, Learner, Rememberer])
@pytest.mark.parametrize("function", checks(), ids=lambda f: f.__name__)
def test_agents_about_to_be_spoilt_are_sound(sound: type[Agent], function: check.Check) -> None:
    if function.__name__ != "check_learns":  # memory of unrelated states is no help there
        function(sound)


class Spoilt(Adam):
    """An optimiser that another optimiser's attributes are moved into."""

    @classmethod
    def replace(cls, agent: Any, name: str) -> None:
        old = getattr(agent, name)
        parameters = dict(zip(old.means, old.parameters, strict=True))
        setattr(agent, name, cls(parameters, old.lr))
        agent.parts[name] = getattr(agent, name)


@caught_by("check_members")
def config_that_can_be_changed() -> Any:
    @dataclass
    class Loose:
        lr: float = 1e-3

    class Fault(Cloner):
        Config: ClassVar = Loose

    return Fault


@caught_by("check_members")
def config_without_a_default() -> Any:
    @dataclass(frozen=True)
    class Bare:
        lr: float

    class Fault(Cloner):
        Config: ClassVar = Bare

    Fault.default = Bare(1.0)  # type: ignore[attr-defined]
    return Fault


@caught_by("check_members")
def no_act() -> Any:
    class Fault(Cloner):
        act = property()  # type: ignore[assignment]

    return type("Fault", (), {k: v for k, v in vars(Cloner).items() if k != "act"})


@caught_by("check_needs")
def needs_an_unknown_field() -> Any:
    class Fault(Cloner):
        @staticmethod
        def needs(config: Any) -> Needs:
            return Needs(("observations", "acitons"))

    return Fault


@caught_by("check_needs")
def needs_a_window_field_without_a_window() -> Any:
    class Fault(Cloner):
        @staticmethod
        def needs(config: Any) -> Needs:
            return Needs(("observations", "returns_to_go"))

    return Fault


def with_metrics(change: Callable[[Metrics, int], Any]) -> Any:
    class Fault(Cloner):
        def update(self, batch: Batch, phase: str) -> Metrics:
            return change(super().update(batch, phase), self.updates)  # type: ignore[no-any-return]

    return Fault


@caught_by("check_metrics")
def scalar_metrics() -> Any:
    return with_metrics(lambda m, _: {k: v.mean() for k, v in m.items()})


@caught_by("check_metrics")
def metrics_of_python_numbers() -> Any:
    return with_metrics(lambda m, _: {k: float(v.mean()) for k, v in m.items()})


@caught_by("check_metrics")
def metrics_that_are_not_finite() -> Any:
    return with_metrics(lambda m, _: {k: v / 0 for k, v in m.items()})


@caught_by("check_metrics")
def metrics_with_a_graph() -> Any:
    return with_metrics(lambda m, _: {k: v.clone().requires_grad_() for k, v in m.items()})


@caught_by("check_metrics")
def metrics_that_come_and_go() -> Any:
    return with_metrics(lambda m, updates: m if updates % 2 else {})


@caught_by("check_repeatable")
def weights_from_the_global_generator() -> Any:
    class Fault(Cloner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            with torch.no_grad():
                for value in self.actor.values():
                    value.add_(0.1 * torch.randn_like(value))

    return Fault


@caught_by("check_seeds_differ")
def all_seeds_start_alike() -> Any:
    class Fault(Cloner):
        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            super().__init__(spec, config, [0] * len(seeds))

    return Fault


@caught_by("check_stacked_equals_alone")
def weights_drawn_from_the_first_seed() -> Any:
    class Fault(Cloner):
        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            super().__init__(spec, config, [seeds[0] + i for i in range(len(seeds))])

    return Fault


@caught_by("check_stacked_equals_alone")
def update_noise_shared_by_the_seeds() -> Any:
    class Fault(Learner):
        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            super().__init__(spec, config, seeds)
            self.noise = Noise.for_seeds([seeds[0]] * len(seeds), "update", dtype=torch.float64)

    return Fault


@caught_by("check_stacked_equals_alone")
def loss_averaged_over_seeds() -> Any:
    class Averaged(Spoilt):
        def step(self, losses: Tensor) -> None:
            super().step(losses / len(losses))

    class Fault(Cloner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            Averaged.replace(self, "optimizer")

    return Fault


@caught_by("check_stacked_equals_alone")
def normaliser_of_all_seeds_together() -> Any:
    class Fault(Learner):
        def actor_losses(self, batch: Batch, actions: Tensor) -> tuple[Tensor, Tensor]:
            losses, cloning = super().actor_losses(batch, actions)
            return losses / losses.detach().abs().mean(), cloning

    return Fault


@caught_by("check_order_of_seeds")
def noise_by_place_in_the_stack() -> Any:
    class Fault(Learner):
        def __init__(self, spec: Spec, config: Any, seeds: Sequence[int]) -> None:
            super().__init__(spec, config, seeds)
            places = list(range(len(seeds)))
            self.noise = Noise.for_seeds(places, "update", dtype=torch.float64)

    return Fault


@caught_by("check_one_seed_in_trouble")
def gradient_clipped_over_all_seeds() -> Any:
    class Clipped(Spoilt):
        def step(self, losses: Tensor) -> None:
            gradients = torch.autograd.grad(losses.sum(), self.parameters, retain_graph=True)
            together = [g.unsqueeze(0) for g in gradients]
            scale = clip_per_seed(together, 1e-3)[0].sum() / together[0].sum()
            super().step(losses * scale)

    class Fault(Cloner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            Clipped.replace(self, "optimizer")

    return Fault


@caught_by("check_one_seed_in_trouble")
def batch_statistics_of_all_seeds_together() -> Any:
    class Fault(Cloner):
        def update(self, batch: Batch, phase: str) -> Metrics:
            seen = batch["observations"]
            return super().update({**batch, "observations": seen / seen.std()}, phase)

    return Fault


@caught_by("check_batch_untouched")
def normalises_its_batch_in_place() -> Any:
    class Fault(Cloner):
        def update(self, batch: Batch, phase: str) -> Metrics:
            batch["observations"] /= 2
            return super().update(batch, phase)

    return Fault


def without(part: str, agent: type[Any]) -> Any:
    class Fault(agent):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            del self.parts[part]

    return Fault


@caught_by("check_save_and_load")
def optimiser_not_saved() -> Any:
    return without("optimizer", Cloner)


@caught_by("check_save_and_load")
def asks_for_the_data_when_it_only_acts() -> Any:
    class Fault(Cloner):
        @staticmethod
        def needs(config: Any) -> Needs:
            return replace(Cloner.needs(config), dataset=True)

        def __init__(self, spec: Spec, *args: Any) -> None:
            super().__init__(spec, *args)
            self.count = len(spec.dataset["actions"])  # type: ignore[index]

    return Fault


@caught_by("check_save_and_load")
def generator_not_saved() -> Any:
    return without("noise", Learner)


@caught_by("check_save_and_load")
def critic_optimiser_not_saved() -> Any:
    return without("critic_optimizer", Learner)


@caught_by("check_save_and_load")
def counter_not_saved() -> Any:
    class Fault(Learner):
        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            super().load_state_dict({**state, "updates": 0})

    return Fault


@caught_by("check_save_and_load")
def targets_copied_afresh_on_loading() -> Any:
    class Fault(Learner):
        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            super().load_state_dict(state)
            self.critic_target = copy_parameters(self.critic)

    return Fault


@caught_by("check_save_and_load")
def state_with_an_object_of_its_own() -> Any:
    class Fault(Cloner):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "config": self.actor_net}

    return Fault


@caught_by("check_state_is_a_copy")
def checkpoint_by_reference() -> Any:
    class Fault(Cloner):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "actor": self.actor}

    return Fault


@caught_by("check_state_is_a_copy")
def loads_by_reference() -> Any:
    class Fault(Learner):
        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            super().load_state_dict(state)
            self.parts["critic_target"] = self.critic_target = state["critic_target"]

    return Fault


@caught_by("check_evaluation_leaves_training_alone")
def acting_draws_from_the_training_noise() -> Any:
    class Fault(Learner):
        def act(self, *args: Any, explore: bool = False) -> tuple[Tensor, Memory | None]:
            if explore:
                self.noise.normal(1)
            return super().act(*args, explore=explore)

    return Fault


def acting(change: Callable[[Tensor, Step], Tensor], agent: type[Any] = Cloner) -> Any:
    class Fault(agent):  # type: ignore[misc]
        def act(
            self, step: Step, memory: Memory | None = None, *, explore: bool = False
        ) -> tuple[Tensor, Memory | None]:
            actions, memory = super().act(step, memory, explore=explore)
            return change(actions, step), memory

    return Fault


@caught_by("check_actions")
def actions_without_the_box() -> Any:
    class Fault(Cloner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.box = ActionBox(-torch.ones(2).numpy(), torch.ones(2).numpy())

    return Fault


@caught_by("check_actions")
def actions_with_unclipped_noise() -> Any:
    return acting(lambda actions, step: actions + 0.3 * step["noise"].normal(2))


@caught_by("check_actions")
def actions_that_overflow() -> Any:
    return acting(lambda actions, step: actions + 0 * step["observations"][..., :2].cosh())


@caught_by("check_actions")
def actions_of_a_wrong_shape() -> Any:
    return acting(lambda actions, step: actions[:, :1])


@caught_by("check_actions")
def actions_of_a_wrong_type() -> Any:
    return acting(lambda actions, step: actions.double())


@caught_by("check_acting_is_repeatable")
def acting_draws_from_the_global_generator() -> Any:
    return acting(lambda actions, step: actions * torch.rand(()))


@caught_by("check_acting_is_repeatable")
def acting_counts_observations() -> Any:
    class Fault(Cloner):
        def act(self, *args: Any, explore: bool = False) -> tuple[Tensor, Memory | None]:
            self.updates += 1
            return super().act(*args, explore=explore)

    return Fault


@caught_by("check_first_resets_memory")
def memory_never_reset() -> Any:
    class Fault(Rememberer):
        def act(self, step: Step, *args: Any, **options: Any) -> tuple[Tensor, Memory | None]:
            return super().act({**step, "first": torch.zeros_like(step["first"])}, *args, **options)

    return Fault


@caught_by("check_first_resets_memory")
def memory_of_all_reset_when_one_begins() -> Any:
    class Fault(Rememberer):
        def act(self, step: Step, *args: Any, **options: Any) -> tuple[Tensor, Memory | None]:
            first = step["first"].any().expand(step["first"].shape)
            return super().act({**step, "first": first}, *args, **options)

    return Fault


@caught_by("check_first_resets_memory")
def memory_kept_by_the_agent() -> Any:
    class Fault(Cloner):
        seen: Any = 0.0

        def act(self, step: Step, *args: Any, **options: Any) -> tuple[Tensor, Memory | None]:
            if step["observations"].shape[1] == 4:
                self.seen = (step["observations"] + self.seen) / 2
            return super().act({**step, "observations": self.seen}, *args, **options)

    return Fault


@caught_by("check_episodes_are_independent")
def episodes_share_statistics() -> Any:
    return acting(lambda actions, step: actions.clamp(max=actions.mean(1, keepdim=True)))


@caught_by("check_episodes_are_independent")
def noise_by_place_in_the_evaluation() -> Any:
    def change(actions: Tensor, step: Step) -> Tensor:
        place = torch.arange(actions.shape[1], dtype=actions.dtype)
        return actions - 0.01 * (actions - actions.amin()) * place.reshape(1, -1, 1)

    return acting(change)


@caught_by("check_episodes_are_independent")
def ended_episodes_count() -> Any:
    return acting(lambda actions, step: actions / step["active"].sum(1).reshape(-1, 1, 1))


@caught_by("check_learns")
def descends_uphill() -> Any:
    class Uphill(Spoilt):
        def step(self, losses: Tensor) -> None:
            super().step(-losses)

    class Fault(Cloner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            Uphill.replace(self, "optimizer")

    return Fault


@caught_by("check_learns")
def forgets_to_map_actions_to_the_unit_box() -> Any:
    class Fault(Cloner):
        def update(self, batch: Batch, phase: str) -> Metrics:
            return super().update({**batch, "actions": self.box.scale(batch["actions"])}, phase)

    return Fault


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=lambda v: getattr(v, "__name__", v))
def test_fault_is_caught(name: str, fault: Callable[[], Any]) -> None:
    cls = fault()
    config = getattr(cls, "default", None)
    with pytest.raises(CheckError) as caught:
        getattr(check, name)(cls, config)
    message = str(caught.value)
    if name not in ("check_members", "check_needs"):
        assert " raised " not in message, f"caught for another reason: {message}"


def test_every_check_has_a_fault_to_catch() -> None:
    assert {function.__name__ for function in checks()} == {name for name, _ in FAULTS}


# A learner of one seed, and exceptions -------------------------------------------------------


class Plain:
    """A single-seed agent that breaks its promise about saving."""

    Config: ClassVar = SmallBC
    version: ClassVar[int] = 1
    needs = staticmethod(BC.needs)

    def __init__(self, spec: Spec, config: Any, seed: int) -> None:
        (features,) = spec.observation_space.shape or ()
        self.box = ActionBox.of(spec.action_space)
        self.net = torch.nn.Linear(features, self.box.size, dtype=spec.torch_dtype())
        self.optimizer = torch.optim.Adam(self.net.parameters())

    def update(self, batch: Batch, phase: str) -> Mapping[str, float]:
        error = self.net(batch["observations"]).tanh() - self.box.unscale(batch["actions"])
        self.optimizer.zero_grad()
        error.square().mean().backward()
        self.optimizer.step()
        return {"loss": error.square().mean().item()}

    def act(self, observations: Tensor, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        return self.box.scale(self.net(observations).tanh().detach()), None

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])


def test_a_wrapped_learner_is_checked_too() -> None:
    check.check_stacked_equals_alone(stack(Plain))
    with pytest.raises(CheckError, match="optimisers"):
        check.check_save_and_load(stack(Plain))


def test_an_exception_becomes_a_sentence() -> None:
    class Fault(Cloner):
        def update(self, batch: Batch, phase: str) -> Metrics:
            raise KeyError("lost")

    place = r"\(test_check.py:\d+, in update\)"
    with pytest.raises(CheckError, match=f"Fault raised KeyError: 'lost' {place}"):
        check.check_metrics(Fault)


def test_one_fault_is_told_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plugin = tmp_path / "forgetful.py"
    plugin.write_text(
        "from baselines.bc import BC\n"
        "class Forgetful(BC):\n"
        "    def act(self, step, memory=None, *, explore=False):\n"
        "        return super().act(step, memory)[0]\n"
        "class Lost(BC):\n"
        "    def update(self, batch, phase):\n"
        "        return {'loss': super().update(batch, phase)['bc_loss'] * float('nan')}\n"
        "AGENTS = {'forgetful': Forgetful, 'lost': Lost}\n"
    )
    assert check.main(["--plugin", str(plugin)]) == 1
    told, lost = capsys.readouterr().out.split("\nlost\n")
    assert told.count("act must return two things") == 1
    assert told.count(": as repeatable says") > 5
    assert 'metric "loss" is not finite' in lost
    assert "they are left out until it passes" in lost
    assert "repeatable" not in lost


def test_a_learner_of_one_seed_must_be_wrapped() -> None:
    with pytest.raises(CheckError, match=r"wrap the class with baselines.single.stack"):
        check.check_members(Plain)  # type: ignore[arg-type]


def test_a_preset_called_check_is_used() -> None:
    class Preset(IQL):
        presets: ClassVar = {"check": {"hidden": [8]}}

    assert check.default_config(Preset).hidden == (8,)
    assert check.default_config(IQL).hidden == (256, 256)


# The command line ----------------------------------------------------------------------------


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert check.main(["random"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("pass") == len(checks()) + 1
    assert "all checks passed" in printed

    assert check.main(["random", "--space", "multidiscrete"]) == 0
    capsys.readouterr()

    assert check.main(["tb3_bc"]) == 2
    assert 'unknown agent "tb3_bc" (did you mean "td3_bc"?)' in capsys.readouterr().err
    assert check.main([]) == 2
    assert "name an agent" in capsys.readouterr().err

    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from baselines.random_policy import Random\n"
        "class Broken(Random):\n"
        "    def act(self, step, memory=None, *, explore=False):\n"
        "        return super().act(step, memory)[0] + 9, None\n"
        "AGENTS = {'broken': Broken}\n"
    )
    assert check.main(["--plugin", str(plugin)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  actions" in printed
    assert "actions leave the space" in printed
    assert (
        printed.count("actions leave the space") == 1
    )  # and "learns" fails for a reason of its own
    assert check.main(["baselines.random_policy:Random"]) == 0
