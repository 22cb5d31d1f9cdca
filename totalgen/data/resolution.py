"""The grids of the cascade: the stretched axis, stratified subsampling, and the interpolation that undoes it.

Low-resolution voxel m of phase i lies at full-resolution index i + FACTOR·m (the paper, section 2.2). A generated
volume has no phase: it is placed at the centre of the FACTOR³ boxes, offset 1.5.
"""

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
        samples = low.shape[axis - 3]
        at = torch.arange(start[axis], start[axis] + shape[axis], dtype=torch.float32, device=low.device)
        at = ((at - offsets[axis]) / FACTOR).clamp(0, samples - 1)
        before = at.floor().long().clamp(max=max(samples - 2, 0))
        after = (before + 1).clamp(max=samples - 1)
        weight = (at - before).to(low.dtype).reshape(-1, *[1] * (2 - axis))
        low = torch.lerp(low.index_select(axis - 3, before), low.index_select(axis - 3, after), weight)
    return low


def position(
    start: Sequence[int], shape: Sequence[int], whole: Sequence[int], dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> torch.Tensor:  # fmt: skip
    """[3, *shape]: x, y, z of each voxel of a patch, −1 … 1 over the voxels of the whole volume."""
    axes = [
        torch.arange(s, s + n, dtype=dtype, device=device) * (2 / max(w - 1, 1)) - 1
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
