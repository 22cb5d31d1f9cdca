"""A stack of painted layers: anatomy is which tissue covers what; a modality is one number per tissue."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from totalgen.phantom.shapes import smooth_field

Box = tuple[slice, ...]  # of voxels, one slice per axis
WARP_LENGTH_MM = 90.0
WARP_MM = (4.5, 4.0, 3.0)  # standard deviation of the random displacement along x, y, z
WARP_LIMIT_MM = 14.0


class Canvas:
    """The voxel grid of one subject, its warped coordinates, and the layers painted on it.

    xs, ys, zs: world coordinates (mm) of the voxel centres along the axes;  rng: source of the deformation;
    variability: 0 leaves the coordinates as they are.
    """

    def __init__(
        self, xs: ArrayLike, ys: ArrayLike, zs: ArrayLike, voxel_mm: float, rng: np.random.Generator, variability: float
    ) -> None:
        self.axes = tuple(np.asarray(v, dtype=np.float32) for v in (xs, ys, zs))
        self.voxel_mm = float(voxel_mm)
        self.shape = tuple(len(v) for v in self.axes)
        self.coordinates: list[np.ndarray] = []
        for axis, values in enumerate(self.axes):
            shape = [1, 1, 1]
            shape[axis] = -1
            shift = smooth_field(rng, WARP_LENGTH_MM, self.axes)
            shift *= WARP_MM[axis] * variability
            np.clip(shift, -WARP_LIMIT_MM, WARP_LIMIT_MM, out=shift)
            self.coordinates.append(shift + values.reshape(shape))
        self.layers: list[tuple[Box, np.ndarray, str]] = []
        self.tissue = np.full(self.shape, -1, dtype=np.int16)
        self.organs = np.zeros(self.shape, dtype=np.uint8)
        self.names: list[str] = []

    def box(self, low: Iterable[float], high: Iterable[float]) -> Box:
        """Slices of the voxels whose warped coordinates may lie between two world corners (mm)."""
        margin = WARP_LIMIT_MM + 2 * self.voxel_mm
        slices = []
        for values, a, b in zip(self.axes, low, high, strict=True):
            start, stop = np.searchsorted(values, [a - margin, b + margin])
            slices.append(slice(int(start), int(stop)))
        return tuple(slices)

    def axes_in(self, box: Box) -> list[np.ndarray]:
        """Coordinate vectors (mm, not warped) of a box."""
        return [values[i] for values, i in zip(self.axes, box, strict=True)]

    def at(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Warped coordinates x, y, z in a box, each [x, y, z] float32."""
        x, y, z = (c[box] for c in self.coordinates)
        return x, y, z

    def paint(self, box: Box, sdf: np.ndarray, tissue: str, organ: int = 0, strength: float | np.ndarray = 1.0) -> None:
        """Cover the box by ``tissue`` where ``sdf`` < 0, with an edge one voxel wide; the voxels become ``organ``.

        strength: 1, or an array of covers (0…1) for structures finer than a voxel.
        """
        if not sdf.size:
            return
        t = np.clip(0.5 - sdf / self.voxel_mm, 0, 1)
        cover = t * t * (3 - 2 * t) * strength
        self.layers.append((box, cover.astype(np.float32), tissue))
        if tissue not in self.names:
            self.names.append(tissue)
        inside = cover > 0.5
        self.tissue[box][inside] = self.names.index(tissue)
        self.organs[box][inside] = organ

    def render(self, table: Mapping[str, float], background: float) -> np.ndarray:
        """The image of a modality: float32 [x, y, z].

        table: tissue name → value;  background: the value where nothing is painted.
        """
        image = np.full(self.shape, background, dtype=np.float32)
        for box, cover, tissue in self.layers:
            part = image[box]
            part += cover * (np.float32(table[tissue]) - part)
        return image

    def mask(self, tissue: str) -> np.ndarray:
        """Voxels that ``tissue`` covers: bool [x, y, z]."""
        return self.tissue == (self.names.index(tissue) if tissue in self.names else -2)

    def count(self, volume_ml: float) -> int:
        """Number of voxels of a volume in mL."""
        return max(int(round(volume_ml * 1000 / self.voxel_mm**3)), 1)


def level_for(shape: np.ndarray, allowed: np.ndarray, count: int) -> float:
    """The level c for which {shape < c} within ``allowed`` has ``count`` voxels: an organ grown or shrunk to size."""
    values = shape[allowed]
    if len(values) <= count:
        return float(values.max()) if len(values) else 0.0
    return float(np.partition(values, count)[count])
