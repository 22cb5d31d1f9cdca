"""What a run minimises. A new kind of model is a new objective, not a new loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from totalgen.models.processes import Denoiser, training_sigmas
from totalgen.models.samplers import sample, seeded_generator
from totalgen.settings import ProcessSettings
from totalgen.tasks.items import Items

PICTURE_STEPS = 16


class Objective(nn.Module, ABC):
    """A model and its loss.

    model: what is trained; the parameters it learns are averaged, all else (a codebook, fixed numbers) is taken as it
    is;  network: the part of it that weights files contain, or all of it;
    extras: (seed, n, target) → random numbers that belong to item ``n`` alone; they are sampled where the item is
    loaded, so it is a function that can be sent there.
    """

    model: nn.Module
    network: nn.Module
    extras: Callable[[int, int, torch.Tensor], tuple[torch.Tensor, ...]]

    @abstractmethod
    def forward(self, *batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(loss to minimise, named figures for the log, "loss" among them), all [B].

        batch: stacked items, each followed by its ``extras``.
        """

    @abstractmethod
    def picture(self, items: Items, n: int, seed: int, device: torch.device) -> np.ndarray:
        """Item n next to what the model makes of it, uint8 [rows, columns]."""


class Denoising(Objective):
    """The loss of a diffusion model: items are (target, condition), extras are (uniform number, unit noise).

    weight: condition [B, K, *space] → the weight of each voxel in the loss (Task.weight).
    """

    model: Denoiser

    def __init__(
        self, denoiser: Denoiser, process: ProcessSettings,
        weight: Callable[[torch.Tensor], torch.Tensor | None] = lambda condition: None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.process, self.extras, self.weight = denoiser, process, noise_of_item, weight

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        return self.model.network

    def forward(self, *batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target, condition, uniform, noise = batch
        sigma = noise_levels(uniform, self.process)
        weighted, error = self.model.loss(target, condition, sigma, noise, self.weight(condition))
        return weighted, dict(loss=error)

    def picture(self, items: Items, n: int, seed: int, device: torch.device) -> np.ndarray:
        _, target, condition = items[n]
        noise = torch.randn(target.shape, generator=seeded_generator(seed, 3, n))
        given = condition[None].to(device), noise[None].to(device)
        sampled = sample(self.model, *given, "dpm_solver", PICTURE_STEPS)[0]
        return np.concatenate([items.task.picture(items.volume(n, x.float().cpu())) for x in (target, sampled)], axis=1)


def noise_levels(uniform: torch.Tensor, process: ProcessSettings) -> torch.Tensor:
    """σ of training items, [B] float32, from uniform numbers [B] in (0, 1)."""
    return training_sigmas(uniform, process.noise_levels, process.noise_mean, process.noise_std).float()


def noise_of_item(seed: int, n: int, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(uniform number float64 in (0, 1), Gaussian noise like ``target``) that belong to item n, whatever its batch."""
    generator = seeded_generator(seed, 2, n)
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    return uniform.clamp(1e-6, 1 - 1e-6), torch.randn(target.shape, generator=generator)
