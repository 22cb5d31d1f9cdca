"""Power-function exponential moving averages of weights (Karras 2024, section 3.1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

GRID = 8192  # intervals that a long run is divided into


def gamma(sigma_rel: float) -> float:
    """The exponent γ whose averaging profile has relative width σ_rel (equation 126's positive root).

    σ_rel² = (γ + 1) / ((γ + 2)²(γ + 3)).
    """
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def profile(steps: int, step: int, sigma_rel: float) -> np.ndarray:
    """[steps] float64: share of the weights after optimiser step 1, 2, … in the average after ``step``.

    PowerEMA.update gives the same shares: (i^(γ+1) − (i−1)^(γ+1)) / step^(γ+1) up to ``step``, then 0.
    """
    return _shares(np.arange(steps + 1), step, sigma_rel)


def _shares(edges, step, sigma_rel):
    """Of the weights between neighbouring edges, in steps."""
    return np.diff(np.minimum(edges / step, 1) ** (gamma(sigma_rel) + 1))


def combination(stored: Sequence[tuple[int, float]], step: int, sigma_rel: float) -> tuple[np.ndarray, float]:
    """(coefficients [n], misfit) of the combination of stored averages nearest to the average of another profile.

    stored: n pairs (step, σ_rel) of averages that were saved during training;  step, sigma_rel: of the wanted one.
    misfit: norm of the difference between the combined and the wanted profile, relative to the wanted one.
    Source: Karras 2024, section 3.2: least squares between profiles, here over the optimiser steps themselves (of long
    runs over GRID intervals of them), and scaled to the sum 1, without which all weights would shrink.
    """
    last = max(step, *(s for s, _ in stored))
    grid = np.linspace(0, last, min(last, GRID) + 1)
    edges = np.unique([*grid.round(), step, *(s for s, _ in stored)])
    density = 1 / np.sqrt(np.diff(edges))  # shares² over an interval's length: those of its steps
    basis = np.stack([_shares(edges, *pair) * density for pair in stored], axis=1)
    wanted = _shares(edges, step, sigma_rel) * density
    coefficients = np.linalg.lstsq(basis, wanted, rcond=None)[0]
    coefficients /= coefficients.sum()
    return coefficients, float(np.linalg.norm(basis @ coefficients - wanted) / np.linalg.norm(wanted))


class PowerEMA:
    """Averages of a module's learnt parameters with one profile per ``sigma_rel``.

    All else is not averaged: fixed numbers stay, and what a module changes itself (a codebook) is taken as it is.
    """

    def __init__(self, module: nn.Module, sigma_rels: Sequence[float] = (0.05, 0.10)) -> None:
        self.source = module.state_dict()  # shares the module's memory
        learnt = [name for name, value in module.named_parameters() if value.requires_grad]
        self.averages = {rel: {name: self.source[name].clone() for name in learnt} for rel in sigma_rels}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step ``step`` (1, 2, …): average ← β·average + (1 − β)·weight, β = (1 − 1/step)^(γ + 1)."""
        for rel, average in self.averages.items():
            beta = (1 - 1 / step) ** (gamma(rel) + 1)
            torch._foreach_lerp_(list(average.values()), [self.source[name] for name in average], 1 - beta)

    def state_of_module(self, sigma_rel: float) -> dict[str, torch.Tensor]:
        """A state for the module's load_state_dict: averaged parameters, and its present buffers."""
        return {name: value.detach().clone() for name, value in self.source.items()} | self.averages[sigma_rel]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Flat name → tensor; load_state_dict reads it back."""
        return {f"{rel:.3f}.{name}": value for rel, average in self.averages.items() for name, value in average.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for rel, average in self.averages.items():
            for name, value in average.items():
                value.copy_(state[f"{rel:.3f}.{name}"])
