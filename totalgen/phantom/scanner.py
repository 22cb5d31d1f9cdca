"""From tissues to images: CT texture and noise, PET blur, calibration and noise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from totalgen.data.doses import FWHM, NoiseModel
from totalgen.data.intensity import AIR_HU
from totalgen.data.organs import MEASURED
from totalgen.phantom.canvas import Canvas
from totalgen.phantom.shapes import smooth_field
from totalgen.phantom.uptake import FREE_TISSUES

PET = NoiseModel()  # relative standard deviation in a liver of SUV 2.3, at the scanner's blur
CT_NOISE_HU = 11.0
FLOOR_SUV = {"heart": 1.2, "kidneys": 1.0, "liver": 0.5, "spleen": 0.5}  # no tissue is calibrated below this


class Sphere(NamedTuple):
    """A hot sphere of known truth. centre: mm;  suv: inside it, before the scanner's blur;  tissue: what it is in."""

    centre: tuple[float, float, float]
    diameter_mm: float
    suv: float
    tissue: str

    def cover(self, axes: Sequence[np.ndarray], voxel_mm: float) -> np.ndarray:
        """0…1: how much of each voxel it fills, [x, y, z] float32. axes: coordinates in mm."""
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        a, b, c = self.centre
        distance = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) - self.diameter_mm / 2
        return np.clip(0.5 - distance / voxel_mm, 0, 1).astype(np.float32)


def scan_ct(canvas: Canvas, hu: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
    """CT in HU, float32. Texture is smooth and scales with density; noise is slightly correlated, as in a real scan.

    hu: tissue → HU.
    """
    image = canvas.render(hu, AIR_HU)
    density = np.clip((image + 1000) / 1000, 0, 1.2)
    texture = smooth_field(rng, 16, canvas.axes)
    image += 7 * texture * density
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise = gaussian_filter(noise, 0.5, mode="nearest") * 2.05
    image += CT_NOISE_HU * noise * (0.35 + 0.65 * density)
    np.clip(image, -1024, 3000, out=image)
    return image


def blur(image: np.ndarray, voxel_mm: float, fwhm_mm: float = PET.fwhm_mm) -> np.ndarray:
    """Gaussian point spread of the PET scanner."""
    return gaussian_filter(image, fwhm_mm / FWHM / voxel_mm, mode="nearest", truncate=3.0)


def scan_pet(
    canvas: Canvas, suv: dict[str, float], suv_mean: Mapping[str, float], rng: np.random.Generator,
    fwhm_mm: float = PET.fwhm_mm, spheres: Sequence[Sphere] = (),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(noisy image, noiseless image), SUV float32; noise may be negative where there is little uptake.

    suv: tissue → SUV, changed in place: the free tissues of each measured organ are set so that the noiseless, blurred
    mean over the organ's mask is the sampled one (suv_mean).  fwhm_mm: of the scanner;  spheres: hot ones, added last.
    """
    fields = [smooth_field(rng, length, canvas.axes) for length in (45, 11)]
    texture = np.exp(0.06 * fields[0] + 0.08 * fields[1])
    masks = {organ: np.isin(canvas.organs, MEASURED[organ]) for organ in FREE_TISSUES}
    for _ in range(2):
        clean = blur(canvas.render(suv, 0.0) * texture, canvas.voxel_mm, fwhm_mm)
        for organ, tissues in FREE_TISSUES.items():
            mask = masks[organ]
            free = sum(np.count_nonzero(canvas.mask(name) & mask) for name in tissues)
            share = free / max(int(np.count_nonzero(mask)), 1)
            missing = suv_mean[organ] - clean[mask].mean()
            for name in tissues:
                suv[name] = max(suv[name] + missing / max(share, 0.05), FLOOR_SUV[organ])
    uptake = canvas.render(suv, 0.0) * texture
    for sphere in spheres:
        cover = sphere.cover(canvas.axes, canvas.voxel_mm)
        uptake += cover * (np.float32(sphere.suv) - uptake)
    clean = blur(uptake, canvas.voxel_mm, fwhm_mm)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise = blur(noise, canvas.voxel_mm, fwhm_mm)
    noise /= noise.std()
    return (clean + noise * PET.std(clean)).astype(np.float32), clean.astype(np.float32)
