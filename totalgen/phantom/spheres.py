"""Small hot spheres of known size, place and uptake, to see what becomes of lesions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from totalgen.phantom.canvas import Canvas
from totalgen.phantom.scanner import Sphere

DIAMETERS_MM = (10.0, 13.0, 17.0, 22.0, 28.0)
TISSUES = ("liver", "muscle", "lung")
CONTRAST = 4.0  # uptake over that of the tissue around it
LEAST_SUV = 2.0
AWAY_MM = 12.0  # between two surfaces, so that one's background holds no other


def place_spheres(
    canvas: Canvas, uptake: Mapping[str, float], count: int, rng: np.random.Generator
) -> list[Sphere]:
    """``count`` spheres or fewer, wholly inside tissues that have room for them.

    uptake: tissue → SUV. Sizes and tissues take turns, so that every size is in every tissue when there are enough.
    """
    spheres: list[Sphere] = []
    for number in range(count):
        tissue = TISSUES[number % len(TISSUES)]
        diameter = DIAMETERS_MM[number // len(TISSUES) % len(DIAMETERS_MM)]
        depth = distance_transform_edt(canvas.mask(tissue)) * canvas.voxel_mm
        inside = np.argwhere(depth > diameter / 2)
        places = np.stack([axis[inside[:, i]] for i, axis in enumerate(canvas.axes)], axis=1)
        for other in spheres:
            apart = (other.diameter_mm + diameter) / 2 + AWAY_MM
            places = places[np.linalg.norm(places - other.centre, axis=1) > apart]
        if len(places):
            centre = places[rng.integers(len(places))]
            suv = max(CONTRAST * uptake[tissue], LEAST_SUV)
            x, y, z = (float(v) for v in centre)
            spheres.append(Sphere((x, y, z), diameter, suv, tissue))
    return spheres


def sphere_labels(canvas: Canvas, spheres: Sequence[Sphere]) -> np.ndarray:
    """Number of the sphere that each voxel belongs to, from 1; 0 elsewhere: uint8 [x, y, z]."""
    labels = np.zeros(canvas.shape, dtype=np.uint8)
    for number, sphere in enumerate(spheres, start=1):
        labels[sphere.cover(canvas.axes, canvas.voxel_mm) > 0.5] = number
    return labels


def sphere_truth(spheres: Sequence[Sphere]) -> dict[str, Any]:
    """Columns of the table of truth: diameter, SUV and tissue of every sphere."""
    truth: dict[str, Any] = {}
    for number, sphere in enumerate(spheres, start=1):
        truth[f"sphere_{number}_mm"] = sphere.diameter_mm
        truth[f"sphere_{number}_suv"] = round(sphere.suv, 4)
        truth[f"sphere_{number}_tissue"] = sphere.tissue
    return truth
