"""The families have the formulas of their papers, behind one interface."""

import pytest
import torch
from torch import nn

from totalgen.models.processes import FAMILIES, LOSSES, NOISE_LEVELS, Denoiser, ddpm, ddpm_sigmas, edm, flow

SIGMA = torch.tensor([0.002, 0.05, 0.5, 3.0, 80.0], dtype=torch.float64)


class Oracle(nn.Module):
    """A network that knows the clean volume and returns the exact prediction of its family."""

    def __init__(self, clean, noise, family):
        super().__init__()
        self.answer = {"flow": clean - noise, "ddpm": noise, "regression": clean}.get(family)
        self.clean, self.noise = clean, noise

    def forward(self, x, c_noise):
        if self.answer is not None:
            return self.answer
        sigma = (4 * c_noise).exp().reshape(-1, 1, 1, 1, 1)
        c_skip, c_out, _, _ = edm(sigma)
        return (self.clean - c_skip * (self.clean + sigma * self.noise)) / c_out


@pytest.mark.parametrize("family", FAMILIES)
def test_perfect_network_recovers_the_clean_volume_and_has_no_loss(family):
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 5, 2, 4, 4, 4, dtype=torch.float64)
    condition = torch.zeros(5, 0, 4, 4, 4, dtype=torch.float64)
    denoiser = Denoiser(Oracle(clean, noise, family), family)
    z = clean + SIGMA.reshape(-1, 1, 1, 1, 1) * noise
    assert torch.allclose(denoiser(z, SIGMA, condition), clean, atol=1e-9)
    assert float(denoiser.loss(clean, condition, SIGMA, noise)[1].max()) < 1e-12


def test_a_weighted_loss_is_that_of_every_voxel_times_its_weight():
    class Silent(nn.Module):
        def forward(self, x, c_noise):
            return torch.zeros_like(x)

    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 2, 4, 4, 4, generator=generator)
    weight = torch.rand(3, 1, 4, 4, 4, generator=generator)
    sigma, condition = torch.tensor([0.1, 1.0, 10.0]), torch.zeros(3, 0, 4, 4, 4)
    c_skip, c_out, _, _ = (c.reshape(-1, 1, 1, 1, 1) for c in edm(sigma))
    squared = ((clean - c_skip * (clean + sigma.reshape(-1, 1, 1, 1, 1) * noise)) / c_out) ** 2
    denoiser = Denoiser(Silent(), "edm")
    found = denoiser.loss(clean, condition, sigma, noise, weight)[1]
    assert torch.allclose(found, (weight * squared).mean((1, 2, 3, 4)), rtol=1e-5)
    assert torch.allclose(denoiser.loss(clean, condition, sigma, noise)[1], squared.mean((1, 2, 3, 4)), rtol=1e-5)


def test_edm_input_and_target_have_unit_variance():
    c_skip, c_out, c_in, _ = edm(SIGMA)
    assert torch.allclose(c_in**2 * (0.25 + SIGMA**2), torch.ones(5, dtype=torch.float64))
    target_variance = ((1 - c_skip) ** 2 * 0.25 + c_skip**2 * SIGMA**2) / c_out**2
    assert torch.allclose(target_variance, torch.ones(5, dtype=torch.float64))


def test_flow_input_is_the_straight_line_between_noise_and_clean():
    clean, noise = torch.randn(2, 5, dtype=torch.float64)
    t = 1 / (1 + SIGMA)
    _, _, c_in, c_noise = flow(SIGMA)
    assert torch.allclose(c_in * (clean + SIGMA * noise), t * clean + (1 - t) * noise)
    assert torch.allclose(c_noise, t.log() / 4)


def test_ddpm_sigma_table_is_the_linear_beta_schedule():
    alpha_bar = 1.0
    for step in range(1000):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
        if step in (0, 499, 999):
            assert float(ddpm_sigmas()[step]) == pytest.approx(((1 - alpha_bar) / alpha_bar) ** 0.5, rel=1e-9)


def test_ddpm_gives_the_network_the_step():
    table = ddpm_sigmas()
    steps = torch.tensor([0, 1, 500, 999])
    assert torch.allclose(ddpm(table[steps])[3], steps.double() / 1000, atol=1e-6)


def test_weighted_loss_is_minimal_where_u_is_the_log_of_the_error():
    error, u = torch.tensor(0.3), torch.linspace(-4, 2, 6001)
    assert float(u[(error / u.exp() + u).argmin()]) == pytest.approx(float(error.log()), abs=1e-3)


def test_u_learns_the_error_of_each_noise_level():
    """The learnt weighting of Karras 2024: with the errors as they are, e^u becomes them, another one at every σ."""
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 1, 4, 4, 4)
    off = torch.tensor([0.1, 0.5, 2.0]).reshape(-1, 1, 1, 1, 1)
    denoiser = Denoiser(Oracle(clean + off * torch.randn_like(clean), noise, "edm"), "edm", uncertainty=True)
    sigma, optimiser = torch.tensor([0.3, 1.0, 7.0]), torch.optim.Adam(denoiser.log_variance.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        loss, error = denoiser.loss(clean, clean, sigma, noise)
        loss.sum().backward()
        optimiser.step()
    assert float(error.max() / error.min()) > 3
    assert torch.allclose(loss, 1 + error.log(), atol=0.02)  # the least that e^−u·error + u can be


def test_noise_levels_have_their_distributions():
    uniform = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    log_sigma = NOISE_LEVELS["lognormal"](uniform).log()
    assert float(log_sigma.mean()) == pytest.approx(-0.4, abs=1e-3)
    assert float(log_sigma.std()) == pytest.approx(1.0, abs=1e-2)
    t = 1 / (1 + NOISE_LEVELS["uniform_t"](uniform))
    assert float(t.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(t.std()) == pytest.approx(0.998 / 12**0.5, abs=1e-3)
    assert len(NOISE_LEVELS["uniform_step"](uniform).unique()) == 1000


def test_losses_are_their_formulas():
    error = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(LOSSES["mse"](error), (error**2).mean((1, 2, 3, 4)))
    assert torch.allclose(LOSSES["l1"](error), error.abs().mean((1, 2, 3, 4)))
    steps = ((error[..., 1:] - error[..., :-1]) ** 2).mean((1, 2, 3, 4))
    assert torch.allclose(LOSSES["double"](error), 0.8 * error.abs().mean((1, 2, 3, 4)) + 0.2 * steps)
    along_x = error[..., :1].expand_as(error)  # the same in all slices: no difference between them is wrong
    assert torch.allclose(LOSSES["double"](along_x), 0.8 * LOSSES["l1"](along_x))


def test_the_weight_of_an_item_is_not_rounded_by_mixed_precision():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 1, 4, 4, 4)
    denoiser = Denoiser(Oracle(clean + 0.3, noise, "edm"), "edm", uncertainty=True)
    sigma = torch.tensor([0.02, 0.5, 7.0])
    whole, _ = denoiser.loss(clean, clean, sigma, noise)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = denoiser.loss(clean, clean, sigma, noise)
    assert torch.equal(mixed, whole)
