"""Proportions of one torso: outline, cavity, spine and landmarks as functions of height along the body.

World: mm, RAS+, x to the patient's right, y to the front, z to the head; z = 0 is the tip of the sacrum and
z = length_mm the top of the clavicles. The knots below describe a man of 1.77 m; z is a fraction of length_mm.
"""

from math import gamma

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from totalgen.data.axial_extent import PUBLISHED_SLICE_MM, PUBLISHED_SLICES, PUBLISHED_SLICES_PER_M
from totalgen.data.demographics import Demographics

EXTENT_MARGIN_MM = 40.0  # of the published line, above the clavicles and below the sacrum
EXTENT_SCATTER = 0.02  # relative

TRUNK_SHARE = 0.565  # of body mass between the hips and the neck (segment tables of biomechanics)
LUNG_AIR_LITRE = 3.0
POWER = 2.4  # of the superellipse that is a cross-section
FIELD_BELOW_MM, FIELD_ABOVE_MM, FIELD_WIDTH_MM = 95.0, 75.0, 500.0

KNOTS = (-0.20, -0.08, 0.00, 0.08, 0.17, 0.28, 0.40, 0.52, 0.64, 0.76, 0.86, 0.93, 0.98, 1.03, 1.20)
# outer surface of the muscles: half width, half depth, middle
WIDTH = {
    "M": (164, 170, 172, 164, 156, 152, 156, 165, 172, 172, 160, 130, 92, 68, 62),
    "F": (168, 176, 179, 168, 152, 139, 143, 151, 157, 157, 145, 118, 84, 60, 55),
}
DEPTH = {
    "M": (88, 106, 117, 116, 109, 108, 111, 117, 121, 119, 110, 95, 78, 65, 61),
    "F": (90, 109, 119, 114, 103, 100, 103, 109, 112, 110, 102, 88, 72, 58, 54),
}
MIDDLE = (-6, -9, -16, -15, -6, 0, 0, 0, 0, -2, -8, -15, -19, -18, -12)
# wall between that surface and the cavity of the chest and belly: at the side, mean of front and back, shift forward
SIDE_WALL = (90, 112, 112, 90, 45, 24, 23, 22, 23, 25, 31, 38, 42, 60, 60)
DEEP_WALL = (60, 50, 45, 36, 29, 26, 23, 20, 18, 19, 23, 28, 32, 58, 58)
WALL_SHIFT = (8, 8, 10, 15, 15, 13, 8, 3, 1, 1, 3, 5, 6, 0, 0)
SPINE_KNOTS = (-0.20, 0.00, 0.08, 0.19, 0.30, 0.45, 0.60, 0.75, 0.88, 0.97, 1.03, 1.20)
SPINE = (-55, -62, -80, -48, -33, -40, -60, -65, -55, -42, -34, -24)  # y of the middle of the vertebral bodies
# thickness of the fat under the skin relative to its maximum
FAT_KNOTS = (-0.20, 0.00, 0.10, 0.22, 0.40, 0.60, 0.80, 0.95, 1.20)
FAT = {
    "M": (0.55, 0.80, 0.95, 1.00, 0.90, 0.60, 0.46, 0.34, 0.20),
    "F": (0.95, 1.12, 1.12, 1.02, 0.86, 0.58, 0.48, 0.36, 0.20),
}
VISCERAL_FROM_BMI = 22.0
VISCERAL_MM_PER_BMI = {"M": (1.2, 2.0), "F": (1.3, 1.7)}  # added half width and half depth of the belly


class Frame:
    """The proportions of one subject.

    variability scales all random deviations.
    Attributes: length_mm, scale (transverse, relative to the man of 1.77 m), fat_mm (thickness under the skin).
    """

    def __init__(self, demographics: Demographics, rng: np.random.Generator, variability: float) -> None:
        d = demographics
        deviations = rng.standard_normal(4).clip(-2.2, 2.2) * variability
        extent = (PUBLISHED_SLICES_PER_M * d.height_m + PUBLISHED_SLICES) * PUBLISHED_SLICE_MM
        self.length_mm = float(extent * (1 + EXTENT_SCATTER * deviations[0]) - 2 * EXTENT_MARGIN_MM)
        self.sex, self.bmi = d.sex, d.bmi
        build = np.clip(d.bmi / 25, 0.6, 1.7) ** 0.28
        self.scale = (d.height_m / 1.77) ** 0.6 * build * (1 + 0.02 * deviations[1])
        bulge = np.clip(d.bmi - VISCERAL_FROM_BMI, -4, 24) * (1 + 0.2 * deviations[2])
        self.bulge_mm = tuple(bulge * k for k in VISCERAL_MM_PER_BMI[d.sex])
        self.fat_mm = self._solve_fat(d.weight_kg)

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        """World point (mm) from x, y in mm of the reference man and z as a fraction of the length."""
        return np.array([x * self.scale, y * self.scale, z * self.length_mm])

    def points(self, *triples: tuple[float, float, float]) -> np.ndarray:
        """``point`` for several (x, y, z): [n, 3]."""
        return np.array([self.point(*t) for t in triples])

    def muscle(self, z: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outer surface of the muscles at heights z (mm): half width, half depth, middle."""
        f = np.asarray(z) / self.length_mm
        belly = np.exp(-(((f - 0.33) / 0.17) ** 2))
        front = np.exp(-(((f - 0.31) / 0.19) ** 2))
        width = self._knots(WIDTH[self.sex], f) + self.bulge_mm[0] * belly
        depth = self._knots(DEPTH[self.sex], f) + self.bulge_mm[1] * front
        return width, depth, self._knots(MIDDLE, f) + 0.75 * self.bulge_mm[1] * front

    def cavity(self, z: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner surface of the chest and belly wall: half width, half depth, middle."""
        width, depth, middle = self.muscle(z)
        f = np.asarray(z) / self.length_mm
        inner_width = np.maximum(width - self._knots(SIDE_WALL, f), 4)
        inner_depth = np.maximum(depth - self._knots(DEEP_WALL, f), 4)
        return inner_width, inner_depth, middle + self._knots(WALL_SHIFT, f)

    def skin(self, z: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Body surface without breasts, neck and shoulders: half width, half depth, middle."""
        width, depth, middle = self.muscle(z)
        fat = self.fat_mm * PchipInterpolator(FAT_KNOTS, FAT[self.sex])(np.asarray(z) / self.length_mm)
        return width + fat, depth + 0.9 * fat, middle

    def spine(self, z: ArrayLike) -> np.ndarray:
        """y of the middle of the vertebral bodies at heights z (mm)."""
        return self.scale * PchipInterpolator(SPINE_KNOTS, SPINE)(np.clip(np.asarray(z) / self.length_mm, -0.2, 1.2))

    def field(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) corners of the scanned field in mm: 500 mm wide, or wider if the body needs it."""
        heights = np.linspace(-FIELD_BELOW_MM, self.length_mm, 60)
        width, depth, middle = self.skin(heights)
        half = max(FIELD_WIDTH_MM / 2, width.max() + 25, (depth + np.abs(middle)).max() + 25)
        return np.array([-half, -half, -FIELD_BELOW_MM]), np.array([half, half, self.length_mm + FIELD_ABOVE_MM])

    def _knots(self, values, f):
        return self.scale * PchipInterpolator(KNOTS, values)(np.clip(f, KNOTS[0], KNOTS[-1]))

    def _solve_fat(self, weight_kg):
        """Thickness of fat (mm) with which the trunk has its share of the body mass; at least 2.5 mm."""
        litres = TRUNK_SHARE * weight_kg + LUNG_AIR_LITRE
        shape = 4 * gamma(1 + 1 / POWER) ** 2 / gamma(1 + 2 / POWER)
        heights = np.linspace(-0.03, 0.97, 101) * self.length_mm
        low, high = 2.5, 150.0
        for _ in range(30):
            self.fat_mm = (low + high) / 2
            width, depth, _ = self.skin(heights)
            volume = shape * np.mean(width * depth) * self.length_mm / 1e6
            low, high = (low, self.fat_mm) if volume > litres else (self.fat_mm, high)
        return self.fat_mm
