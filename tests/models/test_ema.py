"""The averaging profile is a power function of the requested width."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from totalgen.models import ema
from totalgen.models.ema import PowerEMA, combination, gamma, profile


@pytest.mark.parametrize("sigma_rel", [0.05, 0.10, 0.25])
def test_the_profile_has_the_requested_relative_width(sigma_rel):
    """A profile t^γ on 0 … 1 has the standard deviation σ_rel."""
    t = (np.arange(200000) + 0.5) / 200000
    weight = t ** gamma(sigma_rel)
    mean = np.average(t, weights=weight)
    assert np.sqrt(np.average((t - mean) ** 2, weights=weight)) == pytest.approx(sigma_rel, rel=1e-3)


def test_the_recursion_is_the_weighted_mean_of_all_weights():
    module, steps = nn.Linear(1, 1, bias=False), 200
    average = PowerEMA(module, (0.10,))
    values = torch.randn(steps, generator=torch.Generator().manual_seed(0))
    for step, value in enumerate(values, start=1):
        module.weight.data.fill_(float(value))
        average.update(step)
    exponent = gamma(0.10) + 1
    beta = [(1 - 1 / n) ** exponent for n in range(1, steps + 1)]
    weights = [(1 - beta[n]) * np.prod(beta[n + 1 :]) for n in range(steps)]
    assert sum(weights) == pytest.approx(1)
    expected = float(np.dot(weights, values.numpy()))
    assert float(average.averages[0.10]["weight"]) == pytest.approx(expected, abs=1e-5)


def test_state_can_be_saved_and_loaded():
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    first, second = PowerEMA(one), PowerEMA(two)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.averages[0.05]["weight"], first.averages[0.05]["weight"])


def test_the_profile_is_the_sum_of_the_recursion():
    for rel in (0.05, 0.10):
        for one in (1, 3, 7):
            module = torch.nn.Linear(1, 1, bias=False).double()
            module.weight.data.zero_()
            average = PowerEMA(module, (rel,))
            for step in range(1, 11):
                module.weight.data.fill_(float(step == one))
                average.update(step)
            assert float(average.averages[rel]["weight"]) == pytest.approx(profile(12, 10, rel)[one - 1], abs=1e-12)
    assert profile(12, 10, 0.1)[10:].tolist() == [0, 0]
    assert profile(500, 400, 0.1).sum() == pytest.approx(1)


def test_a_stored_average_is_reproduced_exactly():
    stored = [(step, rel) for step in (100, 200, 300) for rel in (0.05, 0.10)]
    coefficients, misfit = combination(stored, 200, 0.10)
    assert coefficients == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-8)
    assert misfit < 1e-8


def test_coefficients_have_the_sum_1_however_badly_the_profile_is_met():
    """Else all weights would shrink: a wide average of few snapshots, and one before most of them."""
    stored = [(step, rel) for step in range(500, 4501, 500) for rel in (0.05, 0.10)]
    for step, rel in ((4500, 0.12), (4500, 0.30), (1000, 0.12), (100, 0.12)):
        coefficients, misfit = combination(stored, step, rel)
        assert coefficients.sum() == pytest.approx(1)
    assert misfit > 0.5  # step 100, before any snapshot


def test_an_average_that_was_not_tracked_is_combined_from_those_that_were():
    """Weights that change as in training: the combination equals the directly tracked average."""
    random, steps, every = torch.Generator().manual_seed(0), 800, 50
    module = torch.nn.Linear(30, 1, bias=False).double()
    tracked, direct = PowerEMA(module, (0.05, 0.10)), PowerEMA(module, (0.075, 0.15))
    kept = {}
    for step in range(1, steps + 1):
        drift = 0.02 * torch.randn(1, 30, generator=random, dtype=torch.float64)
        module.weight.data = 0.999 * module.weight.data + drift
        for average in (tracked, direct):
            average.source = dict(module.state_dict())
            average.update(step)
        if step % every == 0:
            kept |= {(step, rel): a["weight"].clone() for rel, a in tracked.averages.items()}
    for rel, wanted in direct.averages.items():
        coefficients, misfit = combination(list(kept), steps, rel)
        found = sum(c * weight for c, weight in zip(coefficients, kept.values(), strict=True))
        assert misfit < 0.01
        nearest = min(float((weight - wanted["weight"]).norm()) for weight in kept.values())
        assert float((found - wanted["weight"]).norm()) < 0.05 * nearest


def test_a_long_run_is_combined_as_its_single_steps_are(monkeypatch):
    """4 million steps and a hundred averages would be a matrix of gigabytes."""
    stored = [(step, rel) for step in range(250, 8001, 250) for rel in (0.05, 0.10)]
    exact, misfit = combination(stored, 7900, 0.08)
    monkeypatch.setattr(ema, "GRID", 500)
    coarse, other = combination(stored, 7900, 0.08)
    mean = np.array([profile(8000, *each) for each in stored])
    assert np.linalg.norm((exact - coarse) @ mean) < 2e-3 * np.linalg.norm(exact @ mean)
    assert other == pytest.approx(misfit, rel=0.05)
    monkeypatch.undo()
    tracemalloc.start()
    combination([(4_000_000 * n // 64, 0.1) for n in range(1, 65)], 4_000_000, 0.08)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
