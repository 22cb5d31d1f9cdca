"""Condition channels of the two stages: the same maps while training and while generating."""

import torch

DEMOGRAPHICS = 4  # channels: height_m, weight_kg / 100, age_years / 100, sex
UPSAMPLED = 2  # CT and PET of the upsampled low-resolution volume
POSITION = 3  # x, y, z in −1 … 1


def demographic_maps(demographics, shape, device=None):
    """The demographics as constant maps, [4, *shape]."""
    channels = torch.from_numpy(demographics.channels()).to(device)
    return channels.reshape(-1, *[1] * len(shape)).expand(-1, *shape)


def standardised(low, statistics):
    """A low-resolution volume [2, …] in [0, 1] as a condition of zero mean and unit variance."""
    mean, std = _moments(low, statistics)
    return (low - mean) / std


def destandardised(seen, statistics):
    """Inverse of ``standardised``."""
    mean, std = _moments(seen, statistics)
    return seen * std + mean


def _moments(like, statistics):
    return (torch.tensor(statistics[k], device=like.device).reshape(-1, 1, 1, 1) for k in ("low_mean", "low_std"))
