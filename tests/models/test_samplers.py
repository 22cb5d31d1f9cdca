"""Samplers against exact solutions: Gaussian data have a closed-form denoiser and a closed-form ODE solution."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from totalgen.errors import InputError
from totalgen.models.networks import UNet
from totalgen.models.processes import Denoiser, ddpm_sigmas
from totalgen.models.samplers import (
    SAMPLERS,
    ancestral,
    ddpm_steps,
    dpm_solver,
    euler,
    evaluations,
    heun,
    karras_sigmas,
    noise_levels,
    sample,
    sde_dpm_solver,
    seeded_generator,
)
from totalgen.settings import SamplingSettings

MEAN, STD = 0.7, 0.5


def gaussian(z, sigma):
    """The ideal denoiser of N(MEAN, STD²) data."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (z - MEAN)


def exact(noise, sigma_max):
    """The end of the probability-flow ODE from z(σ_max) = σ_max·noise: (z − mean) shrinks as √(STD² + σ²)."""
    return MEAN + (sigma_max * noise - MEAN) * STD / (STD**2 + sigma_max**2) ** 0.5


def error(sampler, steps):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    sigmas = karras_sigmas(steps, sigma_min=0.002, sigma_max=10)
    return float((sampler(gaussian, noise, sigmas) - exact(noise, 10)).abs().max())


def test_churn_keeps_the_distribution_and_forgets_the_noise():
    noise = torch.randn(4000, 1, generator=seeded_generator(0), dtype=torch.float64)
    sigmas = karras_sigmas(40, sigma_min=0.002, sigma_max=10)
    plain, churned = (heun(gaussian, noise, sigmas, churn) for churn in (0.0, 40.0))
    assert torch.equal(churned, heun(gaussian, noise, sigmas, 40.0))  # the same seed, the same sample
    assert float(churned.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(churned.std()) == pytest.approx(STD, rel=0.05)
    assert abs(np.corrcoef(plain[:, 0], churned[:, 0])[0, 1]) < 0.2
    with pytest.raises(InputError, match="only heun has it"):
        SamplingSettings(sampler="euler", churn=1.0)


@pytest.mark.parametrize(("churn", "gamma"), [(3.0, 0.3), (40.0, 2**0.5 - 1)])
def test_churn_raises_every_level_by_its_factor(churn, gamma):
    """Karras 2022, algorithm 2: γ = min(S_churn / N, √2 − 1)."""
    told, sigmas = [], karras_sigmas(10, sigma_min=0.002, sigma_max=10)

    def denoise(z, sigma):
        told.append(float(sigma))
        return gaussian(z, sigma)

    heun(denoise, torch.zeros(2, 1, dtype=torch.float64), sigmas, churn)
    assert told[::2] == pytest.approx(((1 + gamma) * sigmas[:-1]).tolist())
    assert told[1::2] == pytest.approx(sigmas[1:-1].tolist())


def test_dpm_solver_is_the_textbook_multistep_whatever_the_steps():
    """Lu 2022, algorithm 2, with α = 1 and λ = −ln σ; the last step, to σ 0, is of first order."""
    sigmas = torch.tensor([10, 3, 2.5, 0.4, 0.35, 0.02, 0], dtype=torch.float64)
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x, before = noise * sigmas[0], None
    for i in range(1, len(sigmas)):
        estimate = data = gaussian(x, sigmas[i - 1])
        if before is not None and sigmas[i] > 0:
            h, h_before = (sigmas[i - 1] / sigmas[i]).log(), (sigmas[i - 2] / sigmas[i - 1]).log()
            r = h_before / h
            estimate = (1 + 1 / (2 * r)) * data - 1 / (2 * r) * before
        x, before = sigmas[i] / sigmas[i - 1] * x + (1 - sigmas[i] / sigmas[i - 1]) * estimate, data
    assert torch.allclose(dpm_solver(gaussian, noise, sigmas), x, atol=1e-12)


def test_the_scale_of_the_noise_reaches_every_stochastic_sampler():
    """With an exact denoiser more noise means more spread; without noise along the way it is refused."""
    noise, sigmas = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(2)), karras_sigmas(24)
    usual, more = (sample(lambda z, s, c: gaussian(z, s[0]), None, noise, "sde_dpm_solver", 24, noise_scale=scale)
                   for scale in (1.0, 1.2))  # fmt: skip
    assert float(more.std() / usual.std()) > 1.05
    assert float(more.mean()) == pytest.approx(MEAN, abs=0.03)
    plain, wide = (heun(gaussian, noise, sigmas, 40.0, scale) for scale in (1.0, 1.2))
    assert float(wide.std() / plain.std()) > 1.05
    with pytest.raises(InputError, match="adds no noise"):
        SamplingSettings(sampler="dpm_solver", noise_scale=1.1)


def test_a_shifted_level_is_what_the_denoiser_is_told():
    """An exact one that takes z for noisier than it is makes samples of less spread around the same mean."""
    noise, told, real = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(3)), [], []

    def denoiser(z, sigma, condition):
        told.append(float(sigma[0]))
        return gaussian(z, sigma[0])

    def amend(clean, level):
        real.append(level)
        return clean

    way, within = (denoiser, None, noise, "dpm_solver", 24), dict(time_shift_sigma_max=10, amend=amend)
    usual, calmer = (sample(*way, time_shift=shift, **within) for shift in (1.0, 1.3))
    sample(*way, time_shift=1.3, time_shift_sigma_min=0.3, **within)
    levels = karras_sigmas(24)[:-1].tolist()
    shifted, between = ([level * (1.3 if low <= level <= 10 else 1) for level in levels] for low in (0, 0.3))
    assert 0 < sum(level > 10 for level in levels) < sum(level > 0.3 for level in levels) < 24
    assert told == pytest.approx(levels + shifted + between)
    assert real == pytest.approx(3 * levels)
    assert float(usual.std()) == pytest.approx(STD, rel=0.05)
    assert float(calmer.std()) < 0.9 * STD
    assert float(calmer.mean()) == pytest.approx(MEAN, abs=0.03)
    assert SamplingSettings(time_shift=1.3, time_shift_sigma_max=10).time_shift_sigma_max == 10
    for name, value in (("time_shift_sigma_min", 0.3), ("time_shift_sigma_max", 10), ("time_shift_of", "SUV")):
        with pytest.raises(InputError, match=rf"{name} is {value}, but time_shift is 1.*Set time_shift, or .*{name}"):
            SamplingSettings(**{name: value})
    with pytest.raises(InputError, match="time_shift_sigma_min 10 is not below time_shift_sigma_max 10"):
        SamplingSettings(time_shift=2, time_shift_sigma_min=10, time_shift_sigma_max=10)


def test_one_channel_alone_is_told_more_noise():
    """The other one is what it is without, up to the last bit; the one is what it is when both are."""
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(3))
    told = []

    def denoiser(z, sigma, condition):
        told.append(float(sigma[0]))
        return gaussian(z, sigma[0])

    shifts = dict(time_shift=2.0, time_shift_sigma_max=1.0)
    plain, both, alone = (sample(denoiser, None, noise, "heun", 12, **each)
                          for each in ({}, shifts, shifts | dict(time_shift_of=1)))  # fmt: skip
    assert torch.equal(alone, torch.stack([plain[:, 0], both[:, 1]], 1))
    assert not torch.equal(plain[:, 1], both[:, 1])
    levels = noise_levels("edm", 12)[:-1]
    again = int((levels <= 1).sum() + (levels[1:] <= 1).sum())
    assert len(told) == 3 * 23 + again


def mixture(z, sigma, means=(-1.0, 0.4, 1.5), weights=(0.3, 0.5, 0.2), std=0.25):
    """The ideal denoiser of a mixture of Gaussians: the posterior mean under each, weighted by its evidence."""
    means, weights = (torch.tensor(v, dtype=torch.float64) for v in (means, weights))
    total = std**2 + sigma**2
    off = torch.as_tensor(z)[..., None] - means
    evidence = torch.softmax(weights.log() - off**2 / (2 * total), dim=-1)
    return (evidence * (means + std**2 / total * off)).sum(-1)


def test_samplers_converge_on_a_mixture_with_their_order():
    """Compared with an independent ODE solver of order 8."""
    noise = torch.tensor([-1.7, -0.6, -0.05, 0.3, 0.9, 2.1], dtype=torch.float64)

    def slope(sigma, z):
        return ((torch.from_numpy(z) - mixture(torch.from_numpy(z), sigma)) / sigma).numpy()

    start, end = 10.0, 0.01
    reference = solve_ivp(slope, (start, end), (start * noise).numpy(), "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    for sampler, order in ((euler, 1), (heun, 2), (dpm_solver, 2)):
        errors = []
        for steps in (100, 200, 400):
            sigmas = karras_sigmas(steps, sigma_min=end, sigma_max=start)[:-1]  # without the last jump to 0
            errors.append(np.abs(sampler(mixture, noise, sigmas).numpy() - reference).max())
        measured = np.log2(errors[1] / errors[2])
        assert measured == pytest.approx(order, abs=0.35), (sampler.__name__, errors)
        assert errors[-1] < 0.03


def test_ddim_is_euler_in_its_own_coordinate():
    """Song 2021, equation 12 without noise, in x = √ᾱ·z."""
    sigmas = karras_sigmas(6, sigma_max=20.0)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)
    alpha_bar = 1 / (1 + sigmas**2)
    x = noise * sigmas[0] * alpha_bar[0].sqrt()
    for k in range(6):
        clean = mixture(x / alpha_bar[k].sqrt(), sigmas[k])
        predicted_noise = (x - alpha_bar[k].sqrt() * clean) / (1 - alpha_bar[k]).sqrt()
        x = alpha_bar[k + 1].sqrt() * clean + (1 - alpha_bar[k + 1]).sqrt() * predicted_noise
    assert torch.allclose(SAMPLERS["ddim"](mixture, noise, sigmas), x, atol=1e-12)


def test_flow_sampled_in_t_is_flow_sampled_in_sigma():
    """Euler steps of dx/dt = clean − noise along x = t·clean + (1 − t)·noise, t = 1/(1 + σ)."""
    sigmas = karras_sigmas(9, sigma_max=30.0)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)
    t = 1 / (1 + sigmas)
    x = t[0] * sigmas[0] * noise
    for k in range(9):
        clean = mixture(x / t[k], sigmas[k])
        velocity = clean - (x - t[k] * clean) / (1 - t[k])
        x = x + (t[k + 1] - t[k]) * velocity
    assert torch.allclose(euler(mixture, noise, sigmas), x, atol=1e-12)


@pytest.mark.parametrize("sampler", ["heun", "dpm_solver", "sde_dpm_solver", "euler"])
def test_a_sample_does_not_depend_on_the_other_items_of_its_batch(sampler):
    torch.manual_seed(0)
    network = UNet(2 + 1, 2, channels=16, multipliers=(1, 2), blocks=1, attention=(1,))
    network.out_gain.data.fill_(1)
    denoiser = Denoiser(network, "edm").eval()
    noise = torch.stack([torch.randn(2, 8, 8, 8, generator=seeded_generator(7, n)) for n in range(3)])
    condition = torch.randn(3, 1, 8, 8, 8, generator=seeded_generator(8))
    together = sample(denoiser, condition, noise, sampler, steps=4)
    alone = [sample(denoiser, condition[n : n + 1], noise[n : n + 1], sampler, steps=4) for n in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)  # sums of a convolution may be added in another order


def test_karras_grid_has_its_ends_and_a_final_zero():
    sigmas = karras_sigmas(18)
    assert len(sigmas) == 19
    assert float(sigmas[0]) == pytest.approx(80)
    assert float(sigmas[-2]) == pytest.approx(0.002)
    assert float(sigmas[-1]) == 0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpm_solver, 2)])
def test_samplers_converge_to_the_exact_solution_with_their_order(sampler, order):
    errors = np.array([error(sampler, steps) for steps in (64, 128, 256)])
    assert errors[-1] < 0.02
    measured = np.log2(errors[:-1] / errors[1:])
    assert measured[-1] == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(("sampler", "order"), [(ancestral, 1), (sde_dpm_solver, 2)])
def test_the_variance_of_stochastic_samplers_converges_with_their_order(sampler, order, monkeypatch):
    """With a linear denoiser a sample is a sum of the start and of each step's noise: element k carries the k-th."""

    def off(steps):
        calls = iter(range(1, steps + 1))
        unit = torch.eye(steps + 1, dtype=torch.float64)
        monkeypatch.setattr("totalgen.models.samplers._fresh", lambda noise, generator=None: lambda: unit[next(calls)])
        gains = sampler(lambda z, sigma: gaussian(z + MEAN, sigma) - MEAN, unit[0], karras_sigmas(steps, sigma_max=10))
        gains[0] *= (STD**2 + 10**2) ** 0.5 / 10  # the start has the data in it
        return abs(float(gains.square().sum()) - STD**2)

    errors = np.array([off(steps) for steps in (64, 128, 256)])
    assert errors[-1] < 0.02
    assert np.log2(errors[:-1] / errors[1:])[-1] == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("sampler", [ancestral, sde_dpm_solver])
def test_stochastic_samples_of_gaussian_data_have_its_moments_whatever_the_start(sampler):
    noise = torch.randn(8000, 1, generator=seeded_generator(1), dtype=torch.float64)
    x = sampler(gaussian, noise, karras_sigmas(100, sigma_max=10))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(STD, rel=0.06)
    assert abs(np.corrcoef(noise[:, 0], x[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("heun", 2 * 7 - 1), ("dpm_solver", 7), ("sde_dpm_solver", 7), ("euler", 7), ("ancestral", 7)],
)
def test_samplers_use_the_stated_number_of_evaluations(name, expected):
    calls = []
    SAMPLERS[name](lambda z, sigma: calls.append(sigma) or 0 * z, torch.ones(1, 1), karras_sigmas(7))
    assert len(calls) == expected == evaluations(name, 7)


def test_guidance_extrapolates_from_the_guide():
    def strong(z, sigma, condition):
        return gaussian(z, sigma[:1])

    def weak(z, sigma, condition):
        return strong(z, sigma, condition) - 0.1

    noise, condition = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 0)
    plain, guided, off = (
        sample(strong, condition, noise, "euler", 1, guide=guide, guidance=w)
        for guide, w in ((None, 1.0), (weak, 3.0), (weak, 1.0))
    )
    assert float(guided - plain) == pytest.approx((3.0 - 1) * 0.1)  # D + (w − 1)·(D − D_g)
    assert torch.equal(off, plain)


def test_ancestral_step_is_the_textbook_ddpm_posterior():
    """Mean and variance of q(x_{t−1} | x_t, x_0) of Ho 2020, equations 6 and 7, in x rather than in z."""
    sigmas = ddpm_sigmas()
    t = 600
    alpha_bar, before = (float(1 / (1 + s**2)) for s in (sigmas[t], sigmas[t - 1]))
    beta = 1 - alpha_bar / before
    clean = torch.full((400000,), 0.3, dtype=torch.float64)
    x_t = 1.1
    noise = torch.full_like(clean, x_t / alpha_bar**0.5 / float(sigmas[t]))
    grid = torch.stack([sigmas[t], sigmas[t - 1]])
    x = ancestral(lambda z, sigma: clean, noise, grid, torch.Generator().manual_seed(0)) * before**0.5
    mean = before**0.5 * beta / (1 - alpha_bar) * 0.3 + (1 - beta) ** 0.5 * (1 - before) / (1 - alpha_bar) * x_t
    variance = (1 - before) / (1 - alpha_bar) * beta
    assert float(x.mean()) == pytest.approx(mean, abs=5 * (variance / 400000) ** 0.5)
    assert float(x.var()) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
def test_a_ddpm_network_is_sampled_at_levels_it_was_trained_on(steps):
    """Karras's grid would leave them: 8 of its 100 levels are below the lowest that DDPM has."""
    seen, table = [], ddpm_sigmas()

    class Trained(torch.nn.Module):
        family = "ddpm"

        def forward(self, z, sigma, condition):
            seen.append(float(sigma[0]))
            return torch.zeros_like(z)

    noise, condition = torch.ones(1, 1, 2), torch.zeros(1, 0, 2)
    assert sample(Trained(), condition, noise, "euler", steps).abs().max() < 1e-6
    assert len(set(seen)) == steps
    assert all(float((table - sigma).abs().min()) < 1e-5 * sigma for sigma in seen)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(float(table[-1]))
    seen.clear()
    sample(Trained(), condition, noise, "euler", 100, levels="karras")
    assert sum(sigma < 0.99 * float(table[0]) for sigma in seen) > 5


def test_ddpm_has_no_more_levels_than_steps():
    with pytest.raises(ValueError, match="DDPM has 1000 steps, not 1001"):
        ddpm_steps(1001)


def test_ancestral_samples_of_gaussian_data_have_the_right_moments():
    noise = torch.randn(1, 40000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = torch.cat([ddpm_sigmas().flip(0), torch.zeros(1, dtype=torch.float64)])
    x = ancestral(gaussian, noise, sigmas, torch.Generator().manual_seed(2))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(x.std()) == pytest.approx(STD, abs=0.015)


def test_a_seeded_generator_depends_on_its_key_alone():
    numbers = [torch.randn(3, generator=seeded_generator(*key)) for key in [(1, 2), (1, 2), (2, 1)]]
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])


@pytest.mark.parametrize("sampler", ["ancestral", "sde_dpm_solver"])
def test_the_noise_of_stochastic_steps_follows_from_the_noise_given(sampler):
    one, other = torch.randn(2, 1, 1, 4, 4, 4)

    def made(noise):
        return sample(lambda z, sigma, condition: z / (1 + sigma), torch.zeros(1, 0, 4, 4, 4), noise, sampler, 5)

    assert torch.equal(made(one), made(one))
    assert not torch.allclose(made(one), made(other))
