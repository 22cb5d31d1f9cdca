"""Condition channels of the two stages: the same maps while training and while generating."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from totalgen.data.demographics import Demographics

# Names of the channels.
DEMOGRAPHICS = ("height_m", "weight_kg / 100", "age_years / 100", "sex")  # sex: F 0, M 1
TEMPLATE = ("template CT", "template SUV")  # the body to be expected of the demographics, standardised
UPSAMPLED = ("CT", "SUV")  # of the upsampled low-resolution volume, standardised
POSITION = ("x", "y", "z")  # −1 … 1 over the volume


def demographic_maps(
    demographics: Demographics, shape: Sequence[int], device: torch.device | None = None
) -> torch.Tensor:
    """The demographics as constant maps, [4, *shape]."""
    channels = torch.from_numpy(demographics.channels()).to(device)
    return channels.reshape(-1, *[1] * len(shape)).expand(-1, *shape)


def standardised(low: torch.Tensor, statistics: Mapping[str, Any]) -> torch.Tensor:
    """A low-resolution volume [2, …] in [0, 1] as a condition of zero mean and unit variance."""
    mean, std = _moments(low, statistics)
    return (low - mean) / std


def destandardised(seen: torch.Tensor, statistics: Mapping[str, Any]) -> torch.Tensor:
    """Inverse of ``standardised``."""
    mean, std = _moments(seen, statistics)
    return seen * std + mean


def _moments(like, statistics):
    return (torch.tensor(statistics[k], device=like.device).reshape(-1, 1, 1, 1) for k in ("low_mean", "low_std"))
