"""The codec slot: data ↔ the space a network works in. Every codec rebuilds itself from its settings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SIGMA_DATA = 0.5  # standard deviation of encoded data, which the processes assume (Karras 2022)


class Codec(nn.Module, ABC):
    """settings: JSON values, of which ``codec_from`` makes the same codec again; files keep them."""

    settings: dict[str, Any]

    @abstractmethod
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, *space] in data units → [B, C', *space'] in process units."""

    @abstractmethod
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Process units → data units."""


class Standardise(Codec):
    """encode: (x − mean) / std · SIGMA_DATA per channel.

    mean, std: one number per channel. decode is the exact inverse.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: Sequence[float] | torch.Tensor, std: Sequence[float] | torch.Tensor) -> None:
        super().__init__()
        self.settings = dict(kind="standardise", mean=list(mean), std=list(std))
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(std, dtype=torch.float32) / SIGMA_DATA)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self._like(self.mean, x)) / self._like(self.scale, x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z * self._like(self.scale, z) + self._like(self.mean, z)

    @staticmethod
    def _like(values, x):
        return values.reshape(-1, *[1] * (x.ndim - 2))


class Identity(Codec):
    """Data and process are in the same units."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = dict(kind="identity")

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


CODECS: dict[str, type[Codec]] = {"standardise": Standardise, "identity": Identity}


def codec_from(settings: dict[str, Any]) -> Codec:
    """The codec of ``settings``; files of before there were several kinds do not name theirs, the first."""
    values = dict(settings)
    return CODECS[values.pop("kind", "standardise")](**values)
