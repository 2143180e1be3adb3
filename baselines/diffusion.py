"""A denoising diffusion model of actions given observations, for stacked seeds.

Ho, Jain & Abbeel 2020 (arXiv 2006.11239), with the variance-preserving schedule of Song et al. 2021
(arXiv 2011.13456) in T steps. With abar_t = prod_(s <= t) alpha_s and eps_theta the noise model:

    alpha_t = exp(-beta_min / T - (beta_max - beta_min) (2 t - 1) / (2 T^2))
    a_t     = sqrt(abar_t) a + sqrt(1 - abar_t) eps
    L_d     = E |eps - eps_theta(a_t, t, s)|^2
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from baselines.common import Noise, Parameters
from baselines.nets import MLP, mish


class Diffusion:
    """Pure functions of flat parameter dicts, as the networks of :mod:`baselines.nets`.

    Diffusion times t = 1 .. T are indices k = t - 1, in the embedding too.

    Args:
        observation: features of an observation.
        action: dimensions of an action in [-1, 1].
        hidden: units per layer of the noise model, Mish between them.
        steps: T.
        beta: beta_min and beta_max, per unit of diffusion time.
        features: of the embedding of t, even: sines and cosines of the angles k / 10000^(i / n),
            i = 0 .. n with n + 1 = features / 2, through a hidden layer twice as wide.
    """

    def __init__(
        self,
        observation: int,
        action: int,
        hidden: Sequence[int],
        *,
        steps: int,
        beta: tuple[float, float],
        features: int,
    ) -> None:
        self.steps = steps
        self.time_net = MLP((features, 2 * features, features), activation=mish)
        self.noise_net = MLP((action + features + observation, *hidden, action), activation=mish)

        t = np.arange(1, steps + 1)
        alphas = np.exp(-beta[0] / steps - (beta[1] - beta[0]) * (2 * t - 1) / (2 * steps**2))
        kept = alphas.cumprod()  # abar_t
        before = np.append(1.0, kept[:-1])  # abar_(t-1)
        self.signal, self.spread = np.sqrt(kept).tolist(), np.sqrt(1 - kept).tolist()
        # Of q(a_(t-1) | a_t, a_0): the weights of a_0 and a_t in its mean, and its deviation.
        self.to_start = ((1 - alphas) * np.sqrt(before) / (1 - kept)).tolist()
        self.to_noisy = ((1 - before) * np.sqrt(alphas) / (1 - kept)).tolist()
        self.deviation = np.sqrt((1 - alphas) * (1 - before) / (1 - kept)).tolist()

        frequencies = np.exp(-math.log(10_000) * np.arange(features // 2) / (features // 2 - 1))
        angles = np.arange(steps)[:, None] * frequencies
        self.waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def init(self, noise: Noise) -> Parameters:
        """Draws the parameters of both networks."""
        times = {f"time_{name}": value for name, value in self.time_net.init(noise).items()}
        return {**times, **self.noise_net.init(noise)}

    def times(self, parameters: Parameters) -> Tensor:
        """The embeddings of all diffusion times, ``[S, T, features]``."""
        own = {n.removeprefix("time_"): v for n, v in parameters.items() if n.startswith("time_")}
        waves = own["bias0"].new_tensor(self.waves)
        return self.time_net(own, waves.expand(len(own["bias0"]), -1, -1))

    def predict(
        self, parameters: Parameters, noisy: Tensor, times: Tensor, observations: Tensor
    ) -> Tensor:
        """eps_theta ``[S, B, A]`` from noisy actions and embedded times ``[S, B, features]``."""
        return self.noise_net(parameters, torch.cat([noisy, times, observations], -1))

    def losses(
        self,
        parameters: Parameters,
        observations: Tensor,
        actions: Tensor,
        k: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """L_d ``[S]``: the error about ``noise`` ``[S, B, A]`` added at times ``k`` ``[S, B]``."""
        signal, spread = (noise.new_tensor(x)[k].unsqueeze(-1) for x in (self.signal, self.spread))
        # A product in place of an index, whose gradient is slow.
        chosen = torch.nn.functional.one_hot(k, self.steps).to(noise.dtype)
        times = chosen @ self.times(parameters)
        predicted = self.predict(parameters, signal * actions + spread * noise, times, observations)
        squares: Tensor = (predicted - noise).square()
        return squares.mean((1, 2))

    def sample(self, parameters: Parameters, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions ``[S, B, A]`` from standard normal ``noise`` ``[S, T, B, A]``."""
        times, noisy = self.times(parameters), noise[:, 0]
        start = noisy
        for k in reversed(range(self.steps)):
            time = times[:, k : k + 1].expand(-1, noisy.shape[1], -1)
            predicted = self.predict(parameters, noisy, time, observations)
            start = ((noisy - self.spread[k] * predicted) / self.signal[k]).clamp(-1, 1)
            if k > 0:
                mean = self.to_start[k] * start + self.to_noisy[k] * noisy
                noisy = mean + self.deviation[k] * noise[:, self.steps - k]
        return start
