"""How a volume too large for one evaluation is cut into windows, along any axes, and put together again."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from totalgen.tasks.task import Box

BLENDS = ("smooth", "ramp", "keep")
LOWEST_WEIGHT = 1e-3  # of a smooth window at its own border, so that every voxel has some


@dataclass(frozen=True)
class Tile:
    """A window of a volume, and the part of it whose result is kept when windows are not blended."""

    box: Box
    kept: Box

    @property
    def kept_inside(self) -> tuple[slice, ...]:
        """The kept part, counted from the window's first voxel."""
        pairs = zip(self.kept.start, self.kept.shape, self.box.start, strict=True)
        return tuple(slice(k - s, k - s + n) for k, n, s in pairs)


def _along(size, window, overlap, stride, shift):
    """(start, stop, kept start, kept stop) of the windows along one axis."""
    if window >= size:
        return [(0, size, 0, size)]
    last = math.ceil((size - window) / stride) * stride  # ends at the volume's end, and begins at a multiple of stride
    starts = [*range(-shift, last, (window - overlap) // stride * stride), last]
    result: list[tuple[int, int, int, int]] = []
    for n, start in enumerate(starts):
        stop = min(start + window, size)
        kept_stop = size if n == len(starts) - 1 else stop - overlap // 2
        result.append((max(start, 0), stop, result[-1][3] if result else 0, kept_stop))
    return result


def tiles(
    shape: Sequence[int], window: Sequence[int], overlap: Sequence[int] | int = 0, stride: Sequence[int] | int = 1,
    shift: Sequence[int] | int = 0,
) -> list[Tile]:  # fmt: skip
    """Windows over a volume of ``shape`` voxels, the last axis fastest.

    window: voxels per axis; where it is as long as the volume, or longer, there is one window as long as the volume;
    overlap: of neighbours, voxels per axis; the kept parts meet in its middle;  stride: every window begins at a
    multiple of it, so that a network that halves its axes sees the same boxes in every window;  shift: a multiple of
    stride, less than window − overlap, by which the first window is shorter and all inner borders come earlier.
    The last window ends where the volume ends: it is moved back, or, where stride forbids that, shorter.
    Raises ValueError for an overlap that leaves no progress.
    """
    axes = len(shape)
    overlaps = (overlap,) * axes if isinstance(overlap, int) else tuple(overlap)
    strides = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    shifts = (shift,) * axes if isinstance(shift, int) else tuple(shift)
    for size, length, common, step in zip(shape, window, overlaps, strides, strict=True):
        if size > length and not 0 <= common <= length - step:
            raise ValueError(f"overlap {common} leaves no progress for windows of {length} and stride {step}")
    along = [_along(*each) for each in zip(shape, window, overlaps, strides, shifts, strict=True)]
    result = []
    for parts in itertools.product(*along):
        starts, stops, kept_starts, kept_stops = zip(*parts, strict=True)
        box = Box(starts, tuple(b - a for a, b in zip(starts, stops, strict=True)))
        kept = Box(kept_starts, tuple(b - a for a, b in zip(kept_starts, kept_stops, strict=True)))
        result.append(Tile(box, kept))
    return result


def weights(tile: Tile, shape: Sequence[int], overlap: Sequence[int], blend: str) -> torch.Tensor:
    """How much the voxels of a window count, [*tile.box.shape]: 1 in the kept part and 0 elsewhere ("keep"), or falling
    over the overlap towards inner borders, smoothly ("smooth") or linearly ("ramp")."""
    if blend == "keep":
        result = torch.zeros(tile.box.shape)
        result[tile.kept_inside] = 1
        return result
    total = torch.ones(())
    for start, length, size, common in zip(tile.box.start, tile.box.shape, shape, overlap, strict=True):
        ramp = torch.ones(length)
        if common:
            rise = (torch.arange(common) + 0.5) / common
            if blend == "smooth":
                rise = torch.sin(math.pi / 2 * rise).square().clamp(min=LOWEST_WEIGHT)
            if start > 0:
                ramp[:common] *= rise
            if start + length < size:
                ramp[-common:] *= rise.flip(0)
        total = total[..., None] * ramp
    return total


class TiledDenoiser(nn.Module):
    """A denoiser over volumes too large for its network: windows are denoised apart and averaged, at every call.

    It has the signature of a Denoiser, so that every sampler and every guide works with it; since the windows are
    joined at each noise level, no border can grow. Memory is that of the volume and of ``batch`` windows.
    denoiser: (z, sigma, condition) → clean;  window, overlap, stride, shift: as of ``tiles``;  blend: a word of BLENDS;
    batch: windows per evaluation.
    """

    def __init__(
        self, denoiser: Callable[..., torch.Tensor], window: Sequence[int], overlap: Sequence[int] | int = 0,
        stride: Sequence[int] | int = 1, blend: str = "smooth", batch: int = 1, shift: Sequence[int] | int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if blend not in BLENDS:
            raise ValueError(f"blend {blend!r} is not one of {', '.join(BLENDS)}")
        self.denoiser, self.window, self.stride, self.shift = denoiser, window, stride, shift
        self.blend, self.batch = blend, batch
        self.overlap = (overlap,) * len(window) if isinstance(overlap, int) else tuple(overlap)
        self.family = getattr(denoiser, "family", None)

    def forward(
        self, z: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor | Callable[[Tile], torch.Tensor]
    ) -> torch.Tensor:
        """The expected clean volumes [B, C, *space] of z [B, C, *space].

        condition: [B, K, *space], or a function that gives that of a window, [B, K, *tile.box.shape].
        """
        shape = z.shape[2:]
        total, share = torch.zeros_like(z), torch.zeros(shape, device=z.device, dtype=z.dtype)
        plan = tiles(shape, self.window, self.overlap, self.stride, self.shift)
        by_shape = {tile.box.shape: [t for t in plan if t.box.shape == tile.box.shape] for tile in plan}
        for group in by_shape.values():
            for first in range(0, len(group), self.batch):
                self._add(group[first : first + self.batch], z, sigma, condition, total, share)
        return total / share

    def _add(self, group, z, sigma, condition, total, share):
        """Denoise windows of one shape in one evaluation and add them where they belong."""
        boxes = [(..., *tile.box.slices) for tile in group]
        given = [condition(tile) for tile in group] if callable(condition) else [condition[box] for box in boxes]
        clean = self.denoiser(torch.cat([z[box] for box in boxes]), sigma.repeat(len(group)), torch.cat(given))
        for tile, box, part in zip(group, boxes, clean.split(len(z)), strict=True):
            weight = weights(tile, z.shape[2:], self.overlap, self.blend).to(part)
            total[box] += weight * part
            share[tile.box.slices] += weight
