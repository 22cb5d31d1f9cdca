"""From tissues to images: CT texture and noise, PET blur, calibration and noise."""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from totalgen.data.intensity import AIR_HU
from totalgen.data.organs import MEASURED
from totalgen.phantom.canvas import Canvas
from totalgen.phantom.shapes import smooth_field
from totalgen.phantom.uptake import FREE_TISSUES

PET_FWHM_MM = 5.0
PET_NOISE = 0.10  # relative standard deviation in a liver of SUV 2.3, at PET_FWHM_MM
CT_NOISE_HU = 11.0
FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
FLOOR_SUV = {"heart": 1.2, "kidneys": 1.0, "liver": 0.5, "spleen": 0.5}  # no tissue is calibrated below this


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


def blur(image: np.ndarray, voxel_mm: float, fwhm_mm: float = PET_FWHM_MM) -> np.ndarray:
    """Gaussian point spread of the PET scanner."""
    return gaussian_filter(image, fwhm_mm / FWHM / voxel_mm, mode="nearest", truncate=3.0)


def scan_pet(
    canvas: Canvas, suv: dict[str, float], suv_mean: Mapping[str, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(noisy image, noiseless image), SUV float32.

    suv: tissue → SUV, changed in place: the free tissues of each measured organ are set so that the noiseless, blurred
    mean over the organ's mask is the sampled one (suv_mean).
    """
    fields = [smooth_field(rng, length, canvas.axes) for length in (45, 11)]
    texture = np.exp(0.06 * fields[0] + 0.08 * fields[1])
    masks = {organ: np.isin(canvas.organs, MEASURED[organ]) for organ in FREE_TISSUES}
    for _ in range(2):
        clean = blur(canvas.render(suv, 0.0) * texture, canvas.voxel_mm)
        for organ, tissues in FREE_TISSUES.items():
            mask = masks[organ]
            free = sum(np.count_nonzero(canvas.mask(name) & mask) for name in tissues)
            share = free / max(int(np.count_nonzero(mask)), 1)
            missing = suv_mean[organ] - clean[mask].mean()
            for name in tissues:
                suv[name] = max(suv[name] + missing / max(share, 0.05), FLOOR_SUV[organ])
    clean = blur(canvas.render(suv, 0.0) * texture, canvas.voxel_mm)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    noise = blur(noise, canvas.voxel_mm)
    noise /= noise.std()
    # variance grows with the counts (activity) and a floor of scatter and randoms inside the body
    amplitude = PET_NOISE * np.sqrt(2.3 * clean + 0.02 * (clean > 0.02))
    return np.maximum(clean + noise * amplitude, 0).astype(np.float32), clean.astype(np.float32)
