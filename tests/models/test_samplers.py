"""Samplers against exact solutions: Gaussian data have a closed-form denoiser and a closed-form ODE solution."""

import numpy as np
import pytest
import torch

from totalgen.models.processes import ddpm_sigmas
from totalgen.models.samplers import SAMPLERS, ancestral, dpm_solver, euler, heun, karras_sigmas, seeded_generator

MEAN, STD = 0.7, 0.5


def gaussian(z, sigma):
    """The ideal denoiser of N(MEAN, STD²) data."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (z - MEAN)


def exact(noise, sigma_max):
    """Where the probability-flow ODE carries z(σ_max) = σ_max·noise: (z − mean) shrinks as √(STD² + σ²)."""
    return MEAN + (sigma_max * noise - MEAN) * STD / (STD**2 + sigma_max**2) ** 0.5


def error(sampler, steps):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    sigmas = karras_sigmas(steps, sigma_min=0.002, sigma_max=10)
    return float((sampler(gaussian, noise, sigmas) - exact(noise, 10)).abs().max())


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


@pytest.mark.parametrize(("name", "expected"), [("heun", 2 * 7 - 1), ("dpm_solver", 7), ("euler", 7), ("ancestral", 7)])
def test_samplers_spend_the_evaluations_they_state(name, expected):
    calls = []
    SAMPLERS[name](lambda z, sigma: calls.append(sigma) or 0 * z, torch.ones(1, 1), karras_sigmas(7))
    assert len(calls) == expected


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


def test_ancestral_draws_gaussian_data_with_the_right_moments():
    noise = torch.randn(40000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = torch.cat([ddpm_sigmas().flip(0), torch.zeros(1, dtype=torch.float64)])
    x = ancestral(gaussian, noise, sigmas, torch.Generator().manual_seed(2))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(x.std()) == pytest.approx(STD, abs=0.015)


def test_a_seeded_generator_depends_on_its_key_alone():
    draws = [torch.randn(3, generator=seeded_generator(*key)) for key in [(1, 2), (1, 2), (2, 1)]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
