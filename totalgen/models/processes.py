"""Diffusion families: four coefficients each, behind one interface.

A noisy volume is z = clean + σ·noise. Every family predicts the clean volume as

    D(z; σ) = c_skip·z + c_out·F(c_in·z; c_noise)

and is trained on |D − clean|² / c_out², the mean squared error of the network F in its own prediction space.
Sources: EDM – Karras 2022, table 1; flow – Lipman 2022 with z = x_t / t; DDPM – Ho 2020 with z = x_t / √ᾱ.
"""

from collections.abc import Callable

import torch
from torch import nn

from totalgen.models.codec import SIGMA_DATA
from totalgen.models.networks import FourierFeatures, MPLayer, UNet
from totalgen.models.precision import exact

DDPM_STEPS = 1000
DDPM_BETA = (1e-4, 0.02)  # linear schedule of Ho 2020
Coefficients = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # c_skip, c_out, c_in, c_noise


def ddpm_sigmas(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """σ of every DDPM step: √((1 − ᾱ)/ᾱ), [DDPM_STEPS], increasing."""
    beta = torch.linspace(*DDPM_BETA, DDPM_STEPS, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - beta, dim=0)
    return ((1 - alpha_bar) / alpha_bar).sqrt().to(dtype)


def edm(sigma: torch.Tensor) -> Coefficients:
    """c_skip, c_out, c_in, c_noise for unit-variance input and target."""
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def flow(sigma: torch.Tensor) -> Coefficients:
    """x_t = t·clean + (1 − t)·noise = t·z with t = 1/(1 + σ); the network predicts clean − noise."""
    t = 1 / (1 + sigma)
    return t, 1 - t, t, t.log() / 4


def ddpm(sigma: torch.Tensor) -> Coefficients:
    """x_t = √ᾱ·z, ᾱ = 1/(1 + σ²); the network predicts the noise; c_noise is the step / number of steps."""
    table = ddpm_sigmas(exact(sigma.device)).to(sigma.device)
    level = sigma.to(table)
    upper = torch.searchsorted(table, level).clamp(1, DDPM_STEPS - 1)
    low, high = table[upper - 1].log(), table[upper].log()
    step = upper - 1 + ((level.log() - low) / (high - low)).clamp(0, 1)
    return torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt(), (step / DDPM_STEPS).to(sigma.dtype)


def regression(sigma: torch.Tensor) -> Coefficients:
    """No diffusion: the network never sees z and predicts the clean volume itself, in one evaluation."""
    zero = torch.zeros_like(sigma)
    return zero, torch.ones_like(sigma), zero, zero


FAMILIES: dict[str, Callable[[torch.Tensor], Coefficients]] = {
    "edm": edm,
    "flow": flow,
    "ddpm": ddpm,
    "regression": regression,
}


def lognormal(uniform: torch.Tensor, mean: float = -0.4, std: float = 1.0) -> torch.Tensor:
    """ln σ ~ N(mean, std): the training noise levels of EDM and of the released flow models. uniform: [B] in (0, 1)."""
    return (mean + std * torch.special.ndtri(uniform)).exp()


def uniform_t(uniform: torch.Tensor) -> torch.Tensor:
    """t = 1/(1 + σ) uniform in [0.001, 0.999]: flow matching as published (Lipman 2022)."""
    return 1 / (0.001 + 0.998 * uniform) - 1


def uniform_step(uniform: torch.Tensor) -> torch.Tensor:
    """The σ of a DDPM step that is uniformly distributed."""
    return ddpm_sigmas(uniform.dtype).to(uniform.device)[(uniform * DDPM_STEPS).long().clamp(max=DDPM_STEPS - 1)]


NOISE_LEVELS: dict[str, Callable[..., torch.Tensor]] = {
    "lognormal": lognormal,
    "uniform_t": uniform_t,
    "uniform_step": uniform_step,
}


def training_sigmas(uniform: torch.Tensor, levels: str, mean: float = -0.4, std: float = 1.0) -> torch.Tensor:
    """Noise levels σ from uniform numbers, both [B]. levels: a key of NOISE_LEVELS;  mean, std: of ln σ (lognormal)."""
    return NOISE_LEVELS[levels](uniform, **(dict(mean=mean, std=std) if levels == "lognormal" else {}))


def double(error: torch.Tensor) -> torch.Tensor:
    """0.8 of the mean absolute error and 0.2 of the mean squared difference of neighbouring slices' errors, which is
    that of the differences themselves; slices follow each other along the last axis."""
    steps = error.diff(dim=-1).square().flatten(1).mean(1)
    return 0.8 * error.abs().flatten(1).mean(1) + 0.2 * steps


LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # error of F [B, C, *space] → [B]
    "mse": lambda error: error.square().flatten(1).mean(1),
    "l1": lambda error: error.abs().flatten(1).mean(1),
    "double": double,
}


class Denoiser(nn.Module):
    """A network and a family: denoiser(z, sigma, condition) → clean.

    network: maps ([B, C + K, *space], c_noise [B]) to [B, C, *space];  family: a key of FAMILIES;
    uncertainty: learn the log-variance u(σ) of the loss (EDM2, equation 14), used in training only;
    measure: a key of LOSSES.
    """

    def __init__(self, network: UNet, family: str, uncertainty: bool = False, measure: str = "mse") -> None:
        super().__init__()
        self.network = network
        self.family = family
        self.coefficients, self.measure = FAMILIES[family], LOSSES[measure]
        self.log_variance = nn.Sequential(FourierFeatures(128), MPLayer(128, 1)) if uncertainty else None

    def raw(
        self, z: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(F, c_skip, c_out): the network's own prediction and the coefficients, broadcast over [B, 1, …]."""
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        wide = [c.reshape(-1, *[1] * (z.ndim - 1)).to(z.dtype) for c in (c_skip, c_out, c_in)]
        prediction = self.network(torch.cat([wide[2] * z, condition], dim=1), c_noise)
        return prediction.to(z.dtype), wide[0], wide[1]

    def forward(self, z: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """z: [B, C, *space];  sigma: [B];  condition: [B, K, *space] → the expected clean volume [B, C, *space]."""
        prediction, c_skip, c_out = self.raw(z, sigma, condition)
        return c_skip * z + c_out * prediction

    def loss(
        self, clean: torch.Tensor, condition: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """(loss to minimise, error), both [B]: a key of LOSSES of (D − clean)/c_out, weighted as e^−u·error + u.

        weight: of the squared error of each voxel, [B, 1, *space]; None: all count the same.
        Computed in the space of F, where nothing is divided by a small c_out twice.
        """
        z = clean + sigma.reshape(-1, *[1] * (clean.ndim - 1)) * noise
        prediction, c_skip, c_out = self.raw(z, sigma, condition)
        difference = prediction - (clean - c_skip * z) / c_out
        error = self.measure(difference if weight is None else difference * weight.sqrt())
        if self.log_variance is None:
            return error, error
        with torch.autocast(clean.device.type, enabled=False):  # e^−u weighs the loss: not in bfloat16
            u = self.log_variance(self.coefficients(sigma)[3]).flatten()
        return error / u.exp() + u, error
