"""The grids of the cascade: the stretched axis, stratified subsampling, and the interpolation that undoes it.

Low-resolution voxel m of phase i lies at full-resolution index i + FACTOR·m (the paper, section 2.2). A generated
volume has no phase: it is placed at the centre of the FACTOR³ boxes, offset 1.5.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

FACTOR = 4
PHASES = FACTOR**3
CENTRE = ((FACTOR - 1) / 2,) * 3


def phase_offsets(phase: int) -> tuple[int, int, int]:
    """Phase number 0 … 63 → offsets (i, j, k) in full-resolution voxels, phase = (i·FACTOR + j)·FACTOR + k."""
    return phase // FACTOR**2, phase // FACTOR % FACTOR, phase % FACTOR


def subsample(high: Array, phase: int) -> Array:
    """I_LR = I_HR[…, i::4, j::4, k::4] for a phase number; works on arrays and tensors."""
    i, j, k = phase_offsets(phase)
    return high[..., i::FACTOR, j::FACTOR, k::FACTOR]


def upsample(
    low: torch.Tensor, offsets: Sequence[float], start: Sequence[int], shape: Sequence[int]
) -> torch.Tensor:
    """Linear interpolation of ``low`` [..., x, y, z] at the full-resolution voxels start … start + shape − 1.

    offsets: (i, j, k) of the low volume, whole or fractional. Voxels beyond the outermost samples take their value.
    """
    for axis in range(3):
        at = torch.arange(start[axis], start[axis] + shape[axis], dtype=torch.float32, device=low.device)
        low = _interpolated(low, axis - 3, (at - offsets[axis]) / FACTOR)
    return low


def missing(
    high: torch.Tensor, low: torch.Tensor, offsets: Sequence[float], start: Sequence[int], width: float
) -> torch.Tensor:
    """[..., *shape]: what ``high`` [..., *shape], the full resolution from voxel ``start`` on, lacks where the voxels
    of ``low`` lie, averaged over its neighbours and interpolated linearly.

    offsets: as of upsample;  width: standard deviation of that average, a Gaussian, in low-resolution voxels.
    """
    places, lacking = list(offsets), high
    for axis in range(3):
        first = max(math.ceil((start[axis] - offsets[axis]) / FACTOR), 0)
        last = math.floor((start[axis] + high.shape[axis - 3] - 1 - offsets[axis]) / FACTOR)
        end = min(last + 1, low.shape[axis - 3])
        if end <= first:  # a box between the voxels of low
            return torch.zeros_like(high)
        place = torch.arange(first, end, dtype=torch.float32, device=high.device)
        lacking = _interpolated(lacking, axis - 3, FACTOR * place + offsets[axis] - start[axis])
        low = low.narrow(axis - 3, first, end - first)
        places[axis] += FACTOR * first
    return upsample(smoothed(low - lacking, width), places, start, high.shape[-3:])


def smoothed(volume: torch.Tensor, width: float) -> torch.Tensor:
    """[..., x, y, z] averaged over neighbours: a Gaussian of standard deviation ``width``, in voxels. At the border
    over the neighbours that there are."""
    for axis in (-3, -2, -1):
        at = torch.arange(volume.shape[axis], dtype=torch.float32, device=volume.device)
        near = torch.exp(-((at[:, None] - at) ** 2) / (2 * width**2))
        near = near / near.sum(1, keepdim=True)
        volume = (volume.movedim(axis, -1) @ near.T.to(volume)).movedim(-1, axis)
    return volume


def bilateral_filter(volume: np.ndarray, width: float, like: float) -> np.ndarray:
    """[x, y, z] above −1: every voxel averaged over itself and its 26 neighbours, the near and the like ones most, so
    that a plateau becomes even and its border stays.

    width: standard deviation of the Gaussian of the distance, in voxels;  like: of that of the difference of
    ln(value + 1).
    """
    level = np.log1p(volume)
    total, weights = volume.copy(), np.ones_like(volume)
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):  # a pair of neighbours, once
            one, other = (
                tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(way, volume.shape, strict=True))
                for way in (step, tuple(-s for s in step))
            )
            weight = np.exp(-(((level[one] - level[other]) / like) ** 2) / 2 - sum(map(abs, step)) / (2 * width**2))
            for here, there in ((one, other), (other, one)):
                total[here] += weight * volume[there]
                weights[here] += weight
    return total / weights


def _interpolated(volume, axis, at):
    """Linear interpolation along an axis at the indices ``at``, those beyond its ends taking the value there."""
    last = volume.shape[axis] - 1
    at = at.clamp(0, last)
    before = at.floor().long().clamp(max=max(last - 1, 0))
    weight = (at - before).to(volume.dtype).reshape(-1, *[1] * (-1 - axis))
    after = (before + 1).clamp(max=last)
    return torch.lerp(volume.index_select(axis, before), volume.index_select(axis, after), weight)


def position(
    start: Sequence[int], shape: Sequence[int], whole: Sequence[int], device: torch.device | None = None
) -> torch.Tensor:
    """[3, *shape]: x, y, z of each voxel of a patch, −1 … 1 over the voxels of the whole volume."""
    axes = [
        torch.arange(s, s + n, dtype=torch.float32, device=device) * (2 / max(w - 1, 1)) - 1
        for s, n, w in zip(start, shape, whole, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def stretch(voxels: np.ndarray, size: int) -> np.ndarray:
    """[x, y, z] → [x, y, size]: linear resampling of the outer extent of z (voxel faces on voxel faces)."""
    if voxels.shape[2] == size:
        return voxels
    at = (np.arange(size) + 0.5) * (voxels.shape[2] / size) - 0.5
    at = np.clip(at, 0, voxels.shape[2] - 1)
    before = np.minimum(at.astype(int), max(voxels.shape[2] - 2, 0))
    after = np.minimum(before + 1, voxels.shape[2] - 1)
    weight = (at - before).astype(voxels.dtype)
    return voxels[..., before] * (1 - weight) + voxels[..., after] * weight
