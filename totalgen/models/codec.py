"""The codec slot: data ↔ the space a diffusion process works in."""

from collections.abc import Sequence

import torch
from torch import nn


class Standardise(nn.Module):
    """encode: (x − mean) / std · σ_data per channel, so that the data's standard deviation is what the process assumes.

    mean, std: one number per channel. decode is the exact inverse.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, mean: Sequence[float] | torch.Tensor, std: Sequence[float] | torch.Tensor, sigma_data: float = 0.5
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(std, dtype=torch.float32) / sigma_data)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, *space] in data units → the same shape in process units."""
        return (x - self._like(self.mean, x)) / self._like(self.scale, x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """[B, C, *space] in process units → data units."""
        return z * self._like(self.scale, z) + self._like(self.mean, z)

    @staticmethod
    def _like(values, x):
        return values.reshape(-1, *[1] * (x.ndim - 2))
