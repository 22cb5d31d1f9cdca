"""The codec slot: data ↔ the space a diffusion process works in."""

import torch
from torch import nn


class Standardise(nn.Module):
    """encode: (x − mean) / std · σ_data per channel, so that the data's standard deviation is what the process assumes.

    mean, std: sequences of one number per channel. decode is the exact inverse.
    """

    def __init__(self, mean, std, sigma_data=0.5):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(std, dtype=torch.float32) / sigma_data)

    def encode(self, x):
        """[B, C, *space] in data units → the same shape in process units."""
        return (x - self._like(self.mean, x)) / self._like(self.scale, x)

    def decode(self, z):
        """[B, C, *space] in process units → data units."""
        return z * self._like(self.scale, z) + self._like(self.mean, z)

    @staticmethod
    def _like(values, x):
        return values.reshape(-1, *[1] * (x.ndim - 2))
