"""A causal transformer over trajectories, stacked by seeds, and the memory of one that acts.

Every step t of a window is three tokens: return-to-go R_t, observation s_t and action a_t. A token
sees itself and the real tokens before it, so what is predicted from s_t knows R_t and the steps
before, and neither a_t nor anything later. Windows are padded on the left, where ``mask`` is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, layer_norm

from baselines.common import Noise, Parameters
from baselines.config import UsageError, check_ranges
from baselines.contract import Batch, Memory, Spec, Step
from baselines.nets import MLP, ActionBox, observation_size, perceptron

WINDOW = ("observations", "actions", "returns_to_go", "timesteps", "mask")
STATES = slice(1, None, 3)  # the tokens of observations, among R_1 s_1 a_1 R_2 s_2 a_2 ...
LAST = slice(-1, None)  # a window ends with an observation: its action is what is wanted
ALL = slice(None)
START = 0.02  # standard deviation of the blocks' first weights (Radford et al. 2019)


@dataclass(frozen=True)
class TrajectoryTransformer:
    """The network of Decision Transformer (Chen et al. 2021), a GPT-2 without position table.

    Pre-norm blocks of causal attention and a ReLU layer of four times the width; a learned vector
    per timestep of the episode is added to the three tokens of a step, which then are normalised.

    Attributes:
        observation: features of an observation.
        action: features of an action.
        width: features of a token.
        layers: blocks.
        heads: of attention; they divide the width.
        timesteps: rows of the table of times; later steps share the last row.
        dropout: rate behind embeddings, attention weights and both parts of a block.
        next_state: whether there is a head that predicts the next observation from s_t and a_t.
    """

    observation: int
    action: int
    width: int
    layers: int
    heads: int
    timesteps: int
    dropout: float = 0.0
    next_state: bool = False

    @classmethod
    def build(cls, spec: Spec, config: Any, next_state: bool = False) -> TrajectoryTransformer:
        """The network for a task; ``config`` has the fields that :func:`check_network` reads."""
        return cls(
            observation_size(spec.observation_space),
            ActionBox.of(spec.action_space).size,
            config.width,
            config.layers,
            config.heads,
            spec.horizon or config.timesteps,
            config.dropout,
            next_state,
        )

    def init(self, noise: Noise) -> Parameters:
        """Draws parameters: embeddings and heads as ``nn.Linear``, the blocks as GPT-2."""
        width, made = self.width, {"time": noise.normal(self.timesteps, self.width)}

        def affine(name: str, inputs: int, outputs: int, std: float | None = None) -> None:
            start = MLP((inputs, outputs)).init(noise)
            if std is not None:
                start["weight0"] = noise.normal(inputs, outputs) * std
                start["bias0"] = torch.zeros_like(start["bias0"])
            made[f"weight_{name}"], made[f"bias_{name}"] = start["weight0"], start["bias0"]

        def norm(name: str) -> None:
            made[f"weight_{name}"] = torch.ones_like(made["time"][:, :1])
            made[f"bias_{name}"] = torch.zeros_like(made["time"][:, :1])

        for name, size in (("return", 1), ("state", self.observation), ("action", self.action)):
            affine(name, size, width)
        norm("embedding_norm")
        for i in range(self.layers):
            norm(f"norm{i}")
            affine(f"query{i}", width, width, START)
            affine(f"key_value{i}", width, 2 * width, START)
            affine(f"attended{i}", width, width, START)
            norm(f"inner_norm{i}")
            affine(f"inner{i}", width, 4 * width, START)
            affine(f"outer{i}", 4 * width, width, START)
        norm("final_norm")
        affine("act", width, self.action)
        if self.next_state:
            affine("next", width, self.observation)
        return {name: value.detach().requires_grad_() for name, value in made.items()}

    def dropout_masks(self, noise: Noise, windows: int, steps: int) -> Parameters | None:
        """Factors ``[S, B, ...]`` for a pass of :meth:`actions`; None where nothing is dropped."""
        if not self.dropout:
            return None
        tokens, masks = 3 * steps - 1, {}
        masks["embedding"] = noise.dropout(self.dropout, windows, tokens, self.width)
        for i in range(self.layers):
            trimmed = i == self.layers - 1 and not self.next_state
            asked = steps if trimmed else tokens
            masks[f"weights{i}"] = noise.dropout(self.dropout, windows, self.heads, asked, tokens)
            for part in ("attended", "outer"):
                masks[f"{part}{i}"] = noise.dropout(self.dropout, windows, asked, self.width)
        return masks

    def actions(
        self, p: Parameters, window: Batch, masks: Parameters | None = None, last: bool = False
    ) -> Tensor:
        """Actions in [-1, 1] at every step, ``[S, B, K, A]``; with ``last`` only at the last one.

        Args:
            p: parameters.
            window: observations, actions in [-1, 1], returns-to-go, timesteps and mask,
                ``[S, B, K, ...]``.
            masks: from :meth:`dropout_masks`; None drops nothing.
            last: spare the last block all but the last step.
        """
        return _affine(p, "act", self._run(p, window, LAST if last else STATES, masks)).tanh()

    def actions_and_next(
        self, p: Parameters, window: Batch, masks: Parameters | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions, and what follows every step but the last, ``[S, B, K - 1, O]``."""
        hidden = self._run(p, window, ALL, masks)
        following = _affine(p, "next", hidden[..., 2::3, :])
        return _affine(p, "act", hidden[..., STATES, :]).tanh(), following

    def _run(self, p: Parameters, window: Batch, wanted: slice, masks: Parameters | None) -> Tensor:
        """The normalised outputs at the wanted tokens ``[S, B, N, width]``.

        The last block computes no other tokens than these: nothing reads them. Nor is the last
        action a token, because none comes after it.
        """
        mask = window["mask"].bool()
        steps = mask.shape[-1]
        tokens = _drop(self._embed(p, window)[..., : 3 * steps - 1, :], masks, "embedding")
        real = mask.repeat_interleave(3, -1)[..., : 3 * steps - 1]
        causal = torch.ones(real.shape[-1], real.shape[-1], dtype=torch.bool, device=mask.device)
        seen = (causal.tril() & real.unsqueeze(-2)).unsqueeze(2)  # [S, B, 1, T, T]
        # Finite, for a padded token may see nothing at all.
        hiding = tokens.new_zeros(()).masked_fill(~seen, torch.finfo(tokens.dtype).min)
        hiding = hiding.expand(-1, -1, self.heads, -1, -1).flatten(0, 2)
        for i in range(self.layers):
            asked = wanted if i == self.layers - 1 else ALL
            tokens = self._block(p, i, tokens, hiding, asked, masks)
        return _norm(p, "final_norm", tokens)

    def _embed(self, p: Parameters, window: Batch) -> Tensor:
        """All tokens ``[S, B, 3 K, width]``."""
        rows = window["timesteps"].clamp(max=self.timesteps - 1)
        first = torch.arange(len(rows), device=rows.device).reshape(-1, 1, 1) * self.timesteps
        time = embedding(rows + first, p["time"].flatten(0, 1))
        returns = _affine(p, "return", window["returns_to_go"].unsqueeze(-1))
        states = _affine(p, "state", window["observations"])
        actions = _affine(p, "action", window["actions"])
        tokens = torch.stack([returns + time, states + time, actions + time], 3)
        return _norm(p, "embedding_norm", tokens.flatten(2, 3))

    def _block(
        self,
        p: Parameters,
        i: int,
        tokens: Tensor,
        hiding: Tensor,
        asked: slice,
        masks: Parameters | None,
    ) -> Tensor:
        """One block; its outputs at the tokens asked for.

        ``hiding`` ``[S x B x heads, T, T]`` is added to the scores: 0 or about -infinity.
        """
        normed = _norm(p, f"norm{i}", tokens)
        query = self._heads(_affine(p, f"query{i}", normed[..., asked, :]))
        keys, values = map(self._heads, _affine(p, f"key_value{i}", normed).chunk(2, -1))
        scores = torch.baddbmm(
            hiding[:, asked],
            query.flatten(0, 2),
            keys.flatten(0, 2).mT,
            alpha=1.0 / math.sqrt(self.width // self.heads),
        )
        weights = scores.reshape(*query.shape[:4], -1).softmax(-1)
        attended = _drop(weights, masks, f"weights{i}") @ values
        attended = _affine(p, f"attended{i}", attended.transpose(2, 3).flatten(3))
        tokens = _add(tokens[..., asked, :], attended, masks, f"attended{i}")
        outer = _affine(p, f"inner{i} outer{i}", _norm(p, f"inner_norm{i}", tokens))
        return _add(tokens, outer, masks, f"outer{i}")

    def _heads(self, tokens: Tensor) -> Tensor:
        """``[S, B, T, width]`` -> ``[S, B, heads, T, width / heads]``."""
        return tokens.reshape(*tokens.shape[:-1], self.heads, -1).transpose(2, 3)


def _affine(p: Parameters, names: str, inputs: Tensor) -> Tensor:
    """Affine maps by name, rectifiers between them, over ``[S, B, T, in]``."""
    layers = [p[f"{kind}_{name}"] for name in names.split() for kind in ("weight", "bias")]
    return perceptron(inputs.flatten(1, 2), *layers).reshape(*inputs.shape[:-1], -1)


def _norm(p: Parameters, name: str, tokens: Tensor) -> Tensor:
    """Layer normalisation (Ba et al. 2016) of ``[S, B, T, width]``, with each seed's own scale."""
    weight, bias = (p[f"{kind}_{name}"].unsqueeze(1) for kind in ("weight", "bias"))
    return torch.addcmul(bias, layer_norm(tokens, tokens.shape[-1:]), weight)


def _drop(values: Tensor, masks: Parameters | None, name: str) -> Tensor:
    return values if masks is None else values * masks[name]


def _add(tokens: Tensor, part: Tensor, masks: Parameters | None, name: str) -> Tensor:
    """tokens + part, of which some features are dropped."""
    return tokens + part if masks is None else torch.addcmul(tokens, part, masks[name])


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``[S, B, K]`` over each seed's real steps, ``[S]``."""
    return (values * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1.0)


def check_network(config: Any) -> None:
    """Refuses a config whose network, optimiser or return scale cannot be.

    Raises:
        UsageError: naming the field and its range.
    """
    check_ranges(
        config,
        context=(1, math.inf),
        width=(1, math.inf),
        layers=(1, math.inf),
        heads=(1, config.width),
        dropout=(0, 0.99),
        lr=(0, math.inf),
        weight_decay=(0, math.inf),
        max_norm=(0, math.inf),
        batch_size=(1, math.inf),
        timesteps=(1, math.inf),
    )
    if config.width % config.heads:
        raise UsageError(f"heads must divide width {config.width}, not {config.heads}")
    if config.return_scale is not None and not config.return_scale > 0:
        raise UsageError(f"return_scale must be above 0 or null, not {config.return_scale:g}")


# Returns-to-go -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReturnUnits:
    """What a return-to-go is measured in: the training units of rewards, divided by ``scale``.

    Attributes:
        reward_scale: training units per raw unit.
        scale: training units per unit of the network's input.
        best: the best return of the data, raw units; None if it is not known.
    """

    reward_scale: float
    scale: float
    best: float | None

    @classmethod
    def of(cls, spec: Spec, return_scale: float | None) -> ReturnUnits:
        """Reads the data's statistics.

        Args:
            spec: of the agent.
            return_scale: raw returns are divided by this; None for the largest of the data.

        Raises:
            UsageError: if that is asked for and the data's returns are not known.
        """
        best = spec.statistics.get("return_best")
        if return_scale is None:
            if best is None:
                raise UsageError(
                    "return_scale null takes the data's returns, which are not known here; "
                    "set return_scale to a number"
                )
            return_scale = max(abs(best), abs(spec.statistics["return_worst"])) or 1.0
        reward_scale = spec.statistics.get("reward_scale", 1.0)
        return cls(reward_scale, return_scale * reward_scale, best)

    def targets(self, fractions: Sequence[float], raw: Sequence[float] | None) -> list[float]:
        """Returns to aim at, as the network's input.

        Args:
            fractions: of the data's best return.
            raw: in raw units; used in place of fractions if given.

        Raises:
            UsageError: if the best return is asked for and not known.
        """
        if raw is None:
            if self.best is None:
                raise UsageError(
                    "this agent aims at fractions of the data's best return, which is not known "
                    "here; name the return to aim at (dt: target_return, qt: target_returns)"
                )
            raw = [fraction * self.best for fraction in fractions]
        return [target * self.reward_scale / self.scale for target in raw]


# Acting --------------------------------------------------------------------------------------


def recall(memory: Memory | None, step: Step, steps: int, action: int) -> Memory:
    """The windows of the last K steps that end with ``step``; episodes that begin have no past.

    Args:
        memory: windows from the previous step, None at the start; left as they are.
        step: what is seen now.
        steps: K.
        action: features of an action.

    Returns:
        ``observations``, ``actions`` (in [-1, 1], of which the last is still missing), ``received``
        (the sum of rewards before a step), ``timesteps`` and ``mask``, ``[S, E, K, ...]``.
    """
    observations, first = step["observations"], step["first"]
    if memory is None:
        blank = observations.new_zeros(*first.shape, steps)
        memory = {
            "observations": observations.new_zeros(*first.shape, steps, observations.shape[-1]),
            "actions": observations.new_zeros(*first.shape, steps, action),
            "received": blank,
            "timesteps": blank.long(),
            "mask": blank,
        }
    zero = torch.zeros_like(step["rewards"])
    now = {
        "observations": observations,
        "actions": torch.zeros_like(memory["actions"][..., 0, :]),
        "received": torch.where(first, zero, memory["received"][..., -1] + step["rewards"]),
        "timesteps": torch.where(first, 0, memory["timesteps"][..., -1] + 1),
        "mask": zero + 1.0,
    }
    recalled = {}
    for name, value in memory.items():
        kept = value[:, :, 1:]
        begins = first.reshape(*first.shape, *[1] * (value.dim() - 2))
        kept = torch.where(begins, torch.zeros_like(kept), kept)
        recalled[name] = torch.cat([kept, now[name].unsqueeze(2)], 2)
    return recalled


def remember(memory: Memory, actions: Tensor) -> Memory:
    """The memory with the executed actions ``[S, E, A]`` (in [-1, 1]) at its last step."""
    filled = torch.cat([memory["actions"][:, :, :-1], actions.unsqueeze(2)], 2)
    return {**memory, "actions": filled}


def candidate_windows(memory: Memory, targets: Tensor, scale: float) -> Batch:
    """The same past under several targets, folded into the batch: ``[S, E x C, K, ...]``.

    Args:
        memory: from :func:`recall`.
        targets: the returns to aim at ``[C]``, as the network's input.
        scale: of :class:`ReturnUnits`.
    """
    received = memory["received"].unsqueeze(2) / scale
    returns_to_go = (targets.reshape(-1, 1) - received) * memory["mask"].unsqueeze(
        2
    )  # [S, E, C, K]
    count = returns_to_go.shape[2]
    window = {
        name: value.repeat_interleave(count, 1)
        for name, value in memory.items()
        if name != "received"
    }
    return {**window, "returns_to_go": returns_to_go.flatten(1, 2)}


def training_window(batch: Mapping[str, Tensor], actions: Tensor, scale: float) -> Batch:
    """A batch as the network's input: actions in [-1, 1], returns-to-go divided by ``scale``."""
    window = {name: batch[name] for name in WINDOW}
    return {**window, "actions": actions, "returns_to_go": batch["returns_to_go"] / scale}
