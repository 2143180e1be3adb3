"""Training speed on one core: our agents, and the same algorithms as they are commonly written.

    python benchmarks/agents.py [AGENT ...] [--seconds 3] [--stacks 1 5] [--space players]

Prints, for each agent and stack size, seed-updates per second of processor time, the arithmetic of
an update, and how near that comes to the core's limit: 256 x 256 products by ``torch.mm``, and by
the product our networks use. The plain versions (``nn.Module``, ``loss.backward()``,
``torch.optim``) run in turn with ours, in the same process and with the same memory settings, so
that the ratio is a fair one. Batches are prepared beforehand and left out. Rates are those of the
best round; what two agents cost beside each other is compared round by round, since machines are
not equally fast all the time.

Agents run at their defaults, the published sizes, on hopper's spaces. A new one is a line in
``AGENTS``: the multiplications and additions of an update, counted from its docs page. With
``--space players`` those that see histories run on 30 days of 78 numbers beside 10 static ones, and
speed alone is printed, as their arithmetic is mostly the encoder's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from plain import (
    ACTION,
    BATCH,
    HIDDEN,
    HORIZON,
    OBSERVATION,
    PlainCQL,
    PlainDiffusionQL,
    PlainIQL,
    PlainQT,
    PlainTD3BC,
)
from torch import Tensor

from baselines import nets
from baselines.config import UsageError, check_name
from baselines.contract import Batch, Needs, Phase, Spec
from baselines.registry import Registry, make_config
from suites.launch import WORKER_ENVIRONMENT
from suites.resolve import default_phases

BEST_RETURN = 3200.0  # of hopper's data
PARTS, GROUPS = ("forward", "survive", "control"), 3  # of its rewards; of logging policies
PLAYERS = spaces.Dict(
    static=spaces.Box(-np.inf, np.inf, (10,)), temporal=spaces.Box(-np.inf, np.inf, (30, 78))
)
SPACES = {"hopper": spaces.Box(-np.inf, np.inf, (OBSERVATION,)), "players": PLAYERS}
SEERS = ("bc", "td3_bc", "iql", "cql", "diffusion_ql", "fastq", "fastq:paper")  # of histories
ROUNDS = 12  # every contestant runs this often, in turn; its best round counts


# Arithmetic ----------------------------------------------------------------------------------


def forward(inputs: int, outputs: int, layers: int = 2, rows: int = BATCH) -> float:
    """Multiplications and additions of one network's forward pass; ``layers`` hidden ones."""
    return 2.0 * rows * HIDDEN * (inputs + (layers - 1) * HIDDEN + outputs)


def train(inputs: int, outputs: int, layers: int = 2, rows: int = BATCH) -> float:
    """Forward, gradients of all weights, and of all inputs but the network's own."""
    return 3 * forward(inputs, outputs, layers, rows) - 2.0 * rows * inputs * HIDDEN


def reach(inputs: int, outputs: int, layers: int = 2, rows: int = BATCH) -> float:
    """Forward, and gradients of the inputs alone."""
    return 2 * forward(inputs, outputs, layers, rows)


@dataclass(frozen=True)
class Contestant:
    """An agent of the registry.

    Attributes:
        flop: what the algorithm needs per update and seed.
        plain: the same algorithm as it is commonly written, if it is here.
        plain_flop: what that needs; it also makes gradients that nobody uses, not counted.
    """

    flop: float
    plain: Callable[[], Any] | None = None
    plain_flop: float | None = None


JOINED = OBSERVATION + ACTION
TD3_BC = (
    forward(OBSERVATION, ACTION)  # the next action
    + 2 * forward(JOINED, 1)  # its values
    + 2 * train(JOINED, 1)  # both critics
    + (train(OBSERVATION, ACTION) + reach(JOINED, 1)) / 2  # every second time: the policy,
)  # and one critic there and back to its inputs
IQL = (
    2 * forward(JOINED, 1)  # target values
    + train(OBSERVATION, 1)  # the state value
    + 2 * forward(OBSERVATION, 1)  # again, after its step, at s and s'
    + train(OBSERVATION, ACTION)  # the policy
    + 2 * train(JOINED, 1)  # both critics
)
CODE = 6  # numbers that tell the policy of a family its coefficient
BALANCE = (  # FamO2O's model there and back, through the policy and both critics
    train(OBSERVATION, 1) + reach(OBSERVATION + CODE, ACTION) + 2 * reach(JOINED, 1)
)
FAMO2O = IQL - train(OBSERVATION, ACTION) + train(OBSERVATION + CODE, ACTION) + BALANCE
EVERY = 31 * BATCH  # the logged action and thirty sampled ones
CQL = (
    train(OBSERVATION, 2 * ACTION)  # the policy
    + forward(OBSERVATION, 2 * ACTION)  # and at s'
    + 2 * forward(JOINED, 1)  # the next action's values
    + 2 * reach(JOINED, 1)  # the policy's action, through both critics
    # Both critics; the states' share of the first layer is computed once per state.
    + 2 * (train(ACTION, 1, 2, EVERY) + 4.0 * BATCH * OBSERVATION * HIDDEN)
)
FAMO2O_CQL = (
    CQL
    + BALANCE
    + forward(OBSERVATION, 1) * 2  # the coefficient at s', and when online at s
    # Layer normalisation in the critics: every action is judged with its state beside it.
    + 2
    * (train(JOINED, 1, 2, EVERY) - train(ACTION, 1, 2, EVERY) - 4.0 * BATCH * OBSERVATION * HIDDEN)
)
CHOICES, TOLD = 5 * ACTION, OBSERVATION + 5 * ACTION  # five bins; what the models are told
FACTORED_BCQ = (
    3 * forward(OBSERVATION, CHOICES)  # values, target values and behaviour at s'
    + 2 * train(OBSERVATION, CHOICES)  # values and behaviour
)
AD_BCQ = (
    FACTORED_BCQ
    + train(TOLD, OBSERVATION)  # the model of changes, and of reward and end;
    + train(TOLD + OBSERVATION, 2)
    + forward(TOLD, OBSERVATION)  # both asked about the interventions,
    + forward(TOLD + OBSERVATION, 2)
    + 2 * forward(OBSERVATION, CHOICES)  # target values and behaviour there
)
DQN = 2 * forward(OBSERVATION, 5**ACTION) + train(OBSERVATION, 5**ACTION)
DECQN = 2 * forward(OBSERVATION, CHOICES) + train(OBSERVATION, CHOICES)
EACH = ACTION * BATCH  # an intervention on every factor of every row
AD_DQN = (
    DECQN
    + train(TOLD, OBSERVATION)  # as in AD_BCQ
    + train(TOLD + OBSERVATION, 2)
    + forward(TOLD, OBSERVATION, rows=EACH)
    + forward(TOLD + OBSERVATION, 2, rows=EACH)
    + forward(OBSERVATION, CHOICES, rows=EACH)
)
REBRAC = (
    forward(OBSERVATION, ACTION, 3, 1024)  # as TD3_BC, deeper, in larger batches,
    + 2 * forward(JOINED, 1, 3, 1024)
    + 2 * train(JOINED, 1, 3, 1024)
    + (train(OBSERVATION, ACTION, 3, 1024) + 2 * reach(JOINED, 1, 3, 1024)) / 2  # both critics
)
BALANCED = 2 * OBSERVATION  # features of FAST-Q's z
FASTQ = (
    forward(BALANCED, ACTION)  # as TD3_BC, on z, with the logits of the decomposition
    + 2 * forward(BALANCED + ACTION, 1)
    + 2 * train(BALANCED + ACTION, 4)
    + 2 * 2.0 * BATCH * BALANCED * HIDDEN  # back to z
    + (train(BALANCED, ACTION) + reach(BALANCED + ACTION, 1)) / 2
    # BR at s and s', the classifier there and back, and the experts where the actor moves
    + 2.0 * BATCH * BALANCED * OBSERVATION * 4
    + 2.0 * BATCH * (BALANCED * 128 + 128 * 64 + 64 * GROUPS) * 3
    + 2.0 * BATCH * GROUPS * (OBSERVATION * 128 + 128 * 128 + 128 * ACTION) / 2
)
NOISY = JOINED + 16  # inputs of the noise model
DIFFUSION_QL = (
    5 * forward(NOISY, ACTION, 3)  # the next action, in five steps
    + 2 * forward(JOINED, 1, 3)  # its values
    + 2 * train(JOINED, 1, 3)  # both critics
    + train(NOISY, ACTION, 3)  # the noise model on the data
    + 5 * train(NOISY, ACTION, 3)  # the policy's action there and back,
    + reach(JOINED, 1, 3)  # through one critic
    + forward(JOINED, 1, 3)  # and the other's size
)


def transformer(width: int, layers: int, steps: int, asked: int | None = None) -> float:
    """A pass over one window of ``steps`` steps.

    The last block is that of the tokens ``asked`` for alone, by default one a step; all read all.
    """
    tokens, asked = 3 * steps - 1, asked or steps
    block = tokens * (12 * width**2 + 2 * tokens * width)
    last = 2 * tokens * width**2 + asked * (10 * width**2 + 2 * tokens * width)
    return 2.0 * ((layers - 1) * block + last)


STEPS = 20  # of QT's windows
QT_CRITICS = (
    2 * forward(JOINED, 1, 3)  # the values of the last step's next action
    + 2 * train(JOINED, 1, 3, STEPS * BATCH)  # both critics, at every step
    + reach(JOINED, 1, 3, STEPS * BATCH)  # the policy's actions through one critic
    + forward(JOINED, 1, 3, STEPS * BATCH)  # and the other's size
)
QT = (
    3 * BATCH * transformer(256, 4, STEPS)  # the policy there and back
    + BATCH * transformer(256, 4, STEPS, 1)  # its average, at the last step
    + QT_CRITICS
)
# Written plainly, both see all tokens through all blocks.
PLAIN_QT = (3 + 1) * BATCH * transformer(256, 4, STEPS, 3 * STEPS - 1) + QT_CRITICS


AGENTS = {
    "bc": Contestant(train(OBSERVATION, ACTION)),
    "td3_bc": Contestant(TD3_BC, PlainTD3BC, TD3_BC),
    # Plain IQL takes advantages before the value's step, which saves a pass.
    "iql": Contestant(IQL, PlainIQL, IQL - forward(OBSERVATION, 1)),
    "cql": Contestant(CQL, PlainCQL),
    "famo2o": Contestant(FAMO2O),
    "famo2o_cql": Contestant(FAMO2O_CQL),
    "rebrac": Contestant(REBRAC),
    "dqn": Contestant(DQN),
    "decqn": Contestant(DECQN),
    "ad_dqn": Contestant(AD_DQN),
    "factored_bcq": Contestant(FACTORED_BCQ),
    "ad_bcq": Contestant(AD_BCQ),
    "fastq": Contestant(FASTQ),
    "diffusion_ql": Contestant(DIFFUSION_QL, PlainDiffusionQL, DIFFUSION_QL),
    "dt": Contestant(3 * 64 * transformer(128, 3, 20)),
    "qt": Contestant(QT, PlainQT, PLAIN_QT),
}


# Measuring -----------------------------------------------------------------------------------


def rate(function: Callable[[int], Any], seconds: float) -> float:
    """Calls per second of processor time, over about ``seconds``.

    Processor time, because a core that others use, too, would else seem slow.
    """
    count, started = 0, time.process_time()
    while (elapsed := time.process_time() - started) < seconds or not count:
        function(count)
        count += 1
    return count / elapsed


def make_batches(
    needs: Needs, stack: int, count: int = 4, observation: int = OBSERVATION
) -> list[Batch]:
    """A few batches of made-up transitions ``[S, B, ...]`` or windows ``[S, B, K, ...]``."""
    generator = torch.Generator().manual_seed(0)
    lead = (stack, needs.batch_size) + (() if needs.window is None else (needs.window,))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*lead, *shape, generator=generator)

    def field(name: str) -> Tensor:
        if name == "actions":
            return normal(ACTION).tanh()
        if name in ("observations", "next_observations"):
            return normal(observation)
        if name in ("terminations", "truncations"):
            ends = (normal() > 2).float()
            if needs.window is not None:
                ends[..., :-1] = 0  # a window ends with its episode
            return ends
        if name == "mask":
            return torch.ones(lead)
        if name == "policy_groups":
            return torch.randint(GROUPS, lead, generator=generator)
        if name == "reward_parts":
            return normal(len(PARTS))
        if name == "timesteps":
            return torch.arange(needs.window or 1).expand(lead).contiguous()
        return normal()  # rewards and returns

    return [{name: field(name) for name in needs.fields} for _ in range(count)]


def ours(name: str, stack: int, space: str = "hopper") -> Callable[[int], Any]:
    """An update of one of our agents, or of "agent:preset"."""
    name, _, preset = name.partition(":")
    cls = Registry().get(name)
    config = make_config(cls, {}, name, preset or None)
    spec = Spec(
        SPACES[space],
        spaces.Box(-1, 1, (ACTION,)),
        (Phase("offline", 1_000_000),),
        horizon=HORIZON,
        reward_parts=PARTS,
        policies=GROUPS,
        policy_groups=GROUPS,
        statistics={
            "transitions": 1e6,
            "episodes": 1e3,
            "return_mean": BEST_RETURN / 2,
            "return_best": BEST_RETURN,
            "return_worst": 0.0,
            "reward_scale": 1.0,
        },
    )
    agent = cls(spec, config, range(stack))
    size = spaces.flatdim(SPACES[space])
    batches = make_batches(cls.needs(config), stack, observation=size)
    # Of an agent with phases the last one counts, which is most of its training.
    phases = default_phases(cls, config) or [{"name": "offline"}]
    return lambda i: agent.update(batches[i % len(batches)], phases[-1]["name"])


def plain(agent: Any, needs: Needs) -> Callable[[int], Any]:
    """An update of a plain version."""
    batches = [{f: value[0] for f, value in b.items()} for b in make_batches(needs, 1)]
    return lambda i: agent.update(batches[i % len(batches)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Training speed of the agents on one core.")
    parser.add_argument(
        "agents", nargs="*", metavar="AGENT", help="default: all but qt, of which an update is long"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="per contestant")
    parser.add_argument("--stacks", type=int, nargs="+", default=[1, 5], help="seeds in a stack")
    parser.add_argument("--space", choices=list(SPACES), default="hopper", help="observations")
    options = parser.parse_args(arguments)
    known = AGENTS if options.space == "hopper" else SEERS
    try:
        wanted = options.agents or [name for name in known if name != "qt"]
        names = [check_name(name, known, "agent") for name in wanted]
    except UsageError as error:
        parser.error(str(error))
    torch.set_num_threads(1)

    a, b, c = (torch.randn(256, 256) for _ in range(3))
    contestants: dict[tuple[str, int], Callable[[int], Any]] = {
        ("torch.mm", 0): lambda i: torch.mm(a, b, out=c),
        ("our product", 0): lambda i: nets._product(a, b.mT),
    }
    work: dict[str, float] = {}
    for name in names:
        if options.space != "hopper":
            for stack in options.stacks:
                contestants[name, stack] = ours(name, stack, options.space)
            continue
        agent, cls = AGENTS[name], Registry().get(name)
        if agent.plain is not None:
            contestants[f"plain {name}", 1] = plain(agent.plain(), cls.needs(cls.Config()))
            work[f"plain {name}"] = agent.plain_flop or agent.flop
        for stack in options.stacks:
            contestants[name, stack] = ours(name, stack)
        work[name] = agent.flop
    for update in contestants.values():
        for i in range(3):
            update(i)
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in contestants}
    for _ in range(ROUNDS):
        for key, update in contestants.items():
            rates[key].append(rate(update, options.seconds / ROUNDS))
    best = {key: max(found) for key, found in rates.items()}

    flop = 2.0 * 256**3
    limit, fastest = best["torch.mm", 0] * flop, best["our product", 0] * flop
    print(f"256 x 256 products, one core, float32: torch.mm {limit / 1e9:.0f} GFLOP/s, ", end="")
    print(f"our product {fastest / 1e9:.0f} GFLOP/s\n")
    print("| agent | S | seed-updates/s | GFLOP | of torch.mm | of our product | to plain |")
    print("|---|---|---|---|---|---|---|")
    for (name, stack), found in best.items():
        if not stack:
            continue
        speed, need = found * stack, work.get(name)
        if need is None:
            print(f"| {name} | {stack} | {speed:.3g} | | | | |")
            continue
        reference = best.get((f"plain {name.removeprefix('plain ')}", 1))
        ratio = f"{speed / reference:.2f}" if reference else ""
        print(
            f"| {name} | {stack} | {speed:.3g} | {need / 1e9:.2f} | {speed * need / limit:.0%} | "
            f"{speed * need / fastest:.0%} | {ratio} |"
        )
    if names[1:]:
        print(f"\nTime per update over that of {names[0]}, median of the rounds:")
    for name in names[1:]:
        each = [
            f"{np.median(np.divide(rates[names[0], stack], rates[name, stack])):.2f} (S = {stack})"
            for stack in options.stacks
        ]
        print(f"{name} {', '.join(each)}")


if __name__ == "__main__":
    # The C library reads its settings when a process starts, hence the second start.
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main()
