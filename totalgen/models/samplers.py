"""Samplers over one interface: denoise(z, sigma) → clean, z = clean + σ·noise.

Each takes noise [B, C, *space] of unit variance and sigmas [N + 1], decreasing, the last one 0, and returns the sample.
All integrate dz/dσ = (z − D(z; σ)) / σ, the probability-flow ODE in which σ is the time (Karras 2022, equation 4 with
σ(t) = t), or its stochastic counterpart.
"""

from collections.abc import Callable

import numpy as np
import torch

from totalgen.models.processes import DDPM_STEPS, ddpm_sigmas

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # z, σ → clean
ConditionalDenoiser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # z, σ [B], condition → clean
Sampler = Callable[..., torch.Tensor]  # denoiser, noise, sigmas → sample
SIGMA_MAX = 80.0  # highest noise level of a sample, as released


def karras_sigmas(steps: int, sigma_min: float = 0.002, sigma_max: float = SIGMA_MAX, rho: float = 7.0) -> torch.Tensor:
    """The noise levels of Karras 2022, equation 5, and a final 0: [steps + 1] float64."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def euler(denoise: Denoise, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """First order; equals DDIM (Song 2021), whose coordinate z = x_t / √ᾱ is this one. N evaluations."""
    z = noise * float(sigmas[0])
    for sigma, after in _pairs(sigmas):
        clean = denoise(z, sigma)
        z = clean + (z - clean) * (after / sigma)
    return z


@torch.no_grad()
def heun(
    denoise: Denoise, noise: torch.Tensor, sigmas: torch.Tensor, churn: float = 0.0, noise_scale: float = 1.0
) -> torch.Tensor:
    """Second order (Karras 2022, algorithm 1). 2N − 1 evaluations.

    churn: S_churn of algorithm 2: before each step noise is added that raises σ by the factor
    1 + min(churn / N, √2 − 1), at all levels (S_tmin 0, S_tmax ∞), times noise_scale (S_noise).
    """
    z, gamma = noise * float(sigmas[0]), min(churn / (len(sigmas) - 1), 2**0.5 - 1)
    fresh = _fresh(noise) if gamma else None
    for sigma, after in _pairs(sigmas):
        if fresh is not None:
            raised = sigma * (1 + gamma)
            z = z + fresh() * noise_scale * (raised**2 - sigma**2).sqrt()
            sigma = raised
        slope = (z - denoise(z, sigma)) / sigma
        ahead = z + (after - sigma) * slope
        if after > 0:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            ahead = z + (after - sigma) * slope
        z = ahead
    return z


@torch.no_grad()
def dpm_solver(denoise: Denoise, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """DPM-Solver++(2M): second order in λ = −ln σ from two past evaluations (Lu 2022, algorithm 2). N evaluations."""
    z, estimates = noise * float(sigmas[0]), _two_step(denoise)
    for sigma, after in _pairs(sigmas):
        estimate = estimates(z, sigma, after)
        z = estimate + (z - estimate) * (after / sigma)
    return z


@torch.no_grad()
def sde_dpm_solver(
    denoise: Denoise, noise: torch.Tensor, sigmas: torch.Tensor, noise_scale: float = 1.0
) -> torch.Tensor:
    """SDE-DPM-Solver++(2M): the estimates of dpm_solver in the stochastic equation (Lu 2022, "DPM-Solver++").

    N evaluations. New noise at every step lets later steps correct the errors of earlier ones.
    noise_scale: more than 1 makes up for a denoiser that takes away more than noise, as S_noise of Karras 2022 does.
    """
    return _stochastic(_two_step(denoise), noise, sigmas, _fresh(noise), noise_scale)


@torch.no_grad()
def ancestral(
    denoise: Denoise, noise: torch.Tensor, sigmas: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """DDPM (Ho 2020, algorithm 2) in z = x_t / √ᾱ: the posterior of the next level given z and the clean estimate.

    generator: of the noise of the steps; by default that of each sample follows from its ``noise``, whatever the batch.
    """
    return _stochastic(lambda z, sigma, _: denoise(z, sigma), noise, sigmas, _fresh(noise, generator))


def _stochastic(estimates, noise, sigmas, fresh, noise_scale=1.0):
    """Keeps (σ'/σ)² of z at each step and adds as much noise as leads to σ', times noise_scale. estimates: (z, σ, σ') →
    clean."""
    z = noise * float(sigmas[0])
    for sigma, after in _pairs(sigmas):
        clean, keep = estimates(z, sigma, after), (after / sigma) ** 2
        z = clean + (z - clean) * keep
        if after > 0:
            z = z + fresh() * noise_scale * (after**2 * (1 - keep)).sqrt()
    return z


def _two_step(denoise):
    """(z, σ, σ') → the clean estimate for this step, extrapolated in λ from the evaluation here and the one before."""
    previous, last_step = None, None

    def estimates(z, sigma, after):
        nonlocal previous, last_step
        estimate = clean = denoise(z, sigma)
        if after > 0:
            step = sigma.log() - after.log()
            if previous is not None:
                estimate = clean + (clean - previous) * (step / (2 * last_step))
            last_step = step
        previous = clean
        return estimate

    return estimates


def _fresh(noise: torch.Tensor, generator: torch.Generator | None = None) -> Callable[[], torch.Tensor]:
    """A function that gives new unit noise like ``noise`` at each call; without a generator it follows from ``noise``,
    that of each sample from its own."""
    first = [each.flatten()[:2].float().cpu().numpy().tobytes() for each in noise]
    generators = [generator or seeded_generator(int.from_bytes(seed)) for seed in first]

    def fresh():
        made = [torch.randn(noise.shape[1:], generator=own, dtype=torch.float32) for own in generators]
        return torch.stack(made).to(noise)

    return fresh


SAMPLERS: dict[str, Sampler] = {
    "heun": heun,
    "dpm_solver": dpm_solver,
    "sde_dpm_solver": sde_dpm_solver,
    "euler": euler,
    "ddim": euler,
    "ancestral": ancestral,
}


STOCHASTIC = ("sde_dpm_solver", "ancestral")  # and heun with churn: noise at every step


def _pairs(sigmas):
    """(σ, next σ) as float32-safe scalars: 0-d float64 tensors multiply a float32 volume without widening it."""
    return zip(sigmas[:-1], sigmas[1:], strict=True)


def evaluations(sampler: str = "heun", steps: int = 35) -> int:
    """Number of calls of the denoiser that a sampler makes."""
    return 2 * steps - 1 if sampler == "heun" else steps


def noise_levels(
    family: str | None, steps: int, levels: str = "auto", sigma_min: float = 0.002, sigma_max: float = SIGMA_MAX,
    rho: float = 7.0,
) -> torch.Tensor:  # fmt: skip
    """Those of a sample by a denoiser of a family, and a final 0: [steps + 1] float64. levels: as of ``sample``."""
    if levels == "auto":
        levels = "ddpm" if family == "ddpm" else "karras"
    return ddpm_steps(steps) if levels == "ddpm" else karras_sigmas(steps, sigma_min, sigma_max, rho)


def ddpm_steps(steps: int) -> torch.Tensor:
    """The noise levels of ``steps`` of DDPM's own steps, evenly spaced from the last to the first, and a final 0:
    [steps + 1] float64. The Karras grid would leave the levels that such a network was trained on."""
    if not 1 <= steps <= DDPM_STEPS:
        raise ValueError(f"DDPM has {DDPM_STEPS} steps, not {steps}")
    chosen = torch.linspace(DDPM_STEPS - 1, 0, steps, dtype=torch.float64).round().long()
    return torch.cat([ddpm_sigmas()[chosen], torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def sample(
    denoiser: ConditionalDenoiser, condition: torch.Tensor, noise: torch.Tensor, sampler: str = "heun", steps: int = 35,
    levels: str = "auto", sigma_min: float = 0.002, sigma_max: float = SIGMA_MAX, rho: float = 7.0,
    guide: ConditionalDenoiser | None = None, guidance: float = 1.0, start: torch.Tensor | None = None,
    churn: float = 0.0, noise_scale: float = 1.0,
    time_shift: float = 1.0, time_shift_sigma_min: float = 0.0, time_shift_sigma_max: float = SIGMA_MAX,
    time_shift_of: int | None = None,
    amend: Callable[[torch.Tensor, float], torch.Tensor] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Samples [B, C, *space] for a condition [B, K, *space] from unit noise [B, C, *space].

    levels: "karras", the grid of sigma_min, sigma_max and rho; "ddpm", DDPM's own steps; "auto": by the family of the
    denoiser;  guide, guidance: a weaker denoiser D_g and w: D = D_g + w·(D − D_g), autoguidance (Karras 2024, "Guiding
    a diffusion model with a bad version of itself"); w = 1 needs no guide;  start: [B, C, *space] that the noise of the
    highest level is added to; None: 0, pure noise;  churn: of heun;  noise_scale: of sde_dpm_solver and of churn;
    time_shift: the denoiser is told σ times this, from the level time_shift_sigma_min to time_shift_sigma_max (Li 2024,
    "Alleviating exposure bias in diffusion models through sampling with shifted time steps"): besides noise of σ a
    sample has the errors of the steps before;  time_shift_of: the only channel that is estimated so, at the price of a
    second evaluation; None: all;  amend: what becomes of each estimate D [B, C, *space] at σ, such as what is known of
    it otherwise.
    """

    def estimate(z, sigma):
        sigma = sigma.to(z).expand(len(z))
        clean = denoiser(z, sigma, condition)
        if guidance != 1:
            assert guide is not None, "guidance other than 1 needs a guide"
            clean = guide(z, sigma, condition).lerp(clean, guidance)
        return clean

    def denoise(z, sigma):
        level = float(sigma)
        if time_shift == 1 or not time_shift_sigma_min <= level <= time_shift_sigma_max:
            clean = estimate(z, sigma)
        elif time_shift_of is None:
            clean = estimate(z, sigma * time_shift)
        else:
            clean = estimate(z, sigma).clone()
            clean[:, time_shift_of] = estimate(z, sigma * time_shift)[:, time_shift_of]
        return clean if amend is None else amend(clean, level)

    sigmas = noise_levels(getattr(denoiser, "family", None), steps, levels, sigma_min, sigma_max, rho)
    if start is not None:
        noise = noise + start / float(sigmas[0])  # samplers begin at noise · σ
    if churn:
        return heun(denoise, noise, sigmas, churn, noise_scale)
    along = {} if noise_scale == 1 else dict(noise_scale=noise_scale)
    return SAMPLERS[sampler](denoise, noise, sigmas, **along)


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on the integers ``key`` alone, not on batches, processes or interruptions."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
