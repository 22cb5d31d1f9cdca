"""Signed distances (mm, negative inside), smooth set operations, smooth random fields."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

WORLD_BOX = (-400, -400, -250), (400, 400, 950)  # mm; one box for all grids, so that all see the same fields
TINY_MM = 1e-3  # keeps quotients of distances finite in the middle of a shape


def ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """First-order signed distance to an axis-aligned ellipsoid at the origin: k(k−1)/|∇k| with k = |p/r|."""
    rx, ry, rz = radii
    x = np.abs(x) + TINY_MM
    k = np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)
    slope = np.sqrt((x / rx**2) ** 2 + (y / ry**2) ** 2 + (z / rz**2) ** 2)
    return k * (k - 1) / slope


def superellipse(
    x: np.ndarray, y: np.ndarray, a: float | np.ndarray, b: float | np.ndarray, power: float = 2.4
) -> tuple[np.ndarray, np.ndarray]:
    """(radial signed distance, gauge) of the planar curve |x/a|^power + |y/b|^power = 1; the gauge is 1 on it."""
    x = np.abs(x) + TINY_MM
    gauge = ((x / a) ** power + (np.abs(y) / b) ** power) ** (1 / power)
    return np.sqrt(x * x + y * y) * (1 - 1 / gauge), gauge


def union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Smooth minimum of two signed distances: edges rounded over about ``blend`` mm (polynomial, quadratic)."""
    h = np.maximum(blend - np.abs(a - b), 0) / blend
    return np.minimum(a, b) - h * h * blend / 4


def intersection(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Smooth maximum of two signed distances."""
    return -union(-a, -b, blend)


def tube(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, points: ArrayLike, radius: ArrayLike, step: float = 3.0,
    reach: float = 14.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(signed distance, position along the tube in 0…1) of a tube around a polyline.

    points: [n, 3] corners in mm, rounded by a Catmull-Rom spline;  radius: mm, a number or one per corner;
    reach: farther than this from the surface (mm) the distance is set to 99 mm.
    """
    centres, radii = curve(points, radius, step)
    query = np.stack([x.ravel(), y.ravel(), z.ravel()], -1)
    distance, nearest = cKDTree(centres).query(query, distance_upper_bound=radii.max() + reach)
    far = np.isinf(distance)
    nearest[far] = 0
    sdf = np.where(far, np.float32(99), distance.astype(np.float32) - radii[nearest])
    return sdf.reshape(x.shape), (nearest / max(len(centres) - 1, 1)).astype(np.float32).reshape(x.shape)


def curve(points: ArrayLike, radius: ArrayLike, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points every ``step`` mm along the Catmull-Rom spline through ``points`` and the radius at each."""
    points = np.asarray(points, dtype=np.float64)
    radius = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(points))
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    centres, radii = [], []
    for i in range(len(points) - 1):
        p0, p1, p2, p3 = padded[i : i + 4]
        count = max(int(np.linalg.norm(p2 - p1) / step), 1)
        t = np.arange(count)[:, None] / count
        centres.append(
            0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        )
        radii.append(radius[i] + (radius[i + 1] - radius[i]) * t[:, 0])
    return np.concatenate([*centres, points[-1:]]), np.concatenate([*radii, radius[-1:]]).astype(np.float32)


def rotated(x: np.ndarray, y: np.ndarray, z: np.ndarray, axis: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along the unit vector ``axis`` and two directions across it (the last nearest to the head)."""
    along = np.asarray(axis) / np.linalg.norm(axis)
    side = np.cross((0, 0, 1), along)
    side /= np.linalg.norm(side)
    third = np.cross(along, side)
    u, v, w = (x * d[0] + y * d[1] + z * d[2] for d in (along, side, third))
    return u, v, w


def smooth_field(rng: np.random.Generator, length_mm: float, axes: Sequence[np.ndarray]) -> np.ndarray:
    """A smooth random function of the world on a grid: float32 [x, y, z], mean 0, standard deviation 1.

    length_mm: distance between the knots of its cubic B-spline;  axes: coordinate vectors xs, ys, zs (mm) of the grid.
    The knots depend on the world only: the same generator gives the same function on every grid inside WORLD_BOX.
    """
    low, high = np.array(WORLD_BOX, dtype=float)
    count = np.ceil((high - low) / length_mm).astype(int) + 4
    # a cubic B-spline keeps 151/315 of the variance of white coefficients per axis, averaged over a cell
    field = (rng.standard_normal(count) / (151 / 315) ** 1.5).astype(np.float32)
    bases = []
    for values, first, n in zip(axes, low, count, strict=True):
        t = np.abs((np.asarray(values) - first)[:, None] / length_mm + 1.5 - np.arange(n))
        spline = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        bases.append(spline.astype(np.float32))
    field = np.tensordot(bases[0], field, (1, 0))  # [x, j, k]
    field = np.matmul(bases[1], field)  # [x, y, k]
    return np.matmul(field, bases[2].T)
