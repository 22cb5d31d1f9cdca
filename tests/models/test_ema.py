"""The averaging profile is the power function it claims to be."""

import numpy as np
import pytest
import torch
from torch import nn

from totalgen.models.ema import PowerEMA, gamma


@pytest.mark.parametrize("sigma_rel", [0.05, 0.10, 0.25])
def test_the_profile_has_the_relative_width_asked_for(sigma_rel):
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


def test_state_survives_a_round_trip():
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    first, second = PowerEMA(one), PowerEMA(two)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.averages[0.05]["weight"], first.averages[0.05]["weight"])
