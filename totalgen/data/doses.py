"""How noisy a PET is at a dose, and the simulation of a lower one in image space.

This is a simulation: it adds noise of the right amount, place and texture to an image that exists, and knows nothing of
counts, of the reconstruction or of what it does to them. A dose is a fraction of the normal one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from totalgen.data.files import atomic
from totalgen.data.volume import UNITS, Volume, write_nifti
from totalgen.errors import InputError

DOSES = (1 / 2, 1 / 4, 1 / 10, 1 / 20, 1 / 50, 1 / 100)
FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
TRUNCATE = 3.0  # standard deviations after which a Gaussian is cut
STREAM = 11  # random numbers of its own
LOCAL_MM = 12.0  # FWHM of the mean that stands for the local activity where no truth is known


@dataclass(frozen=True)
class NoiseModel:
    """std² = relative² · (reference_suv · activity + floor, inside the body) / dose, in SUV.

    relative: standard deviation over mean of tissue of ``reference_suv`` at the normal dose;  floor: of scatter and
    randoms;  fwhm_mm: of the Gaussian blur that correlates neighbouring voxels.
    """

    relative: float = 0.10
    reference_suv: float = 2.3
    floor: float = 0.02
    fwhm_mm: float = 5.0

    def std(self, activity: np.ndarray) -> np.ndarray:
        """Standard deviation of the noise at the normal dose, of voxels of this noise-free SUV."""
        body = activity > 0.02
        return self.relative * np.sqrt(self.reference_suv * np.maximum(activity, 0) + self.floor * body)


def unit_noise(shape: Sequence[int], voxel_mm: Sequence[float], fwhm_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of standard deviation 1 everywhere, correlated by a blur: float32 [*shape]."""
    sigmas = [fwhm_mm / FWHM / edge for edge in voxel_mm]
    margins = [int(TRUNCATE * s + 0.5) for s in sigmas]  # what scipy's kernels reach
    noise = rng.standard_normal([n + 2 * m for n, m in zip(shape, margins, strict=True)], dtype=np.float32)
    for axis, (sigma, margin) in enumerate(zip(sigmas, margins, strict=True)):
        impulse = np.zeros(2 * margin + 1)
        impulse[margin] = 1
        kernel = gaussian_filter1d(impulse, sigma, truncate=TRUNCATE) if margin else impulse
        noise = gaussian_filter1d(noise, sigma, axis=axis, truncate=TRUNCATE) if margin else noise
        noise /= np.sqrt((kernel**2).sum())
    return noise[tuple(slice(m, m + n) for m, n in zip(margins, shape, strict=True))]


def local_activity(suv: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """The mean SUV around each voxel, not negative: what a noisy image tells of its noise-free one."""
    sigmas = [LOCAL_MM / FWHM / edge for edge in voxel_mm]
    return np.maximum(gaussian_filter(suv, sigmas, mode="nearest", truncate=TRUNCATE), 0)


def thin(
    suv: np.ndarray, voxel_mm: Sequence[float], dose: float, rng: np.random.Generator, before: float = 1.0,
    model: NoiseModel | None = None, activity: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """A PET of dose ``before`` as if taken at ``dose``: noise of the excess variance, ∝ 1/dose − 1/before, is added.

    suv: [x, y, z], not cut at 0: where an image has no negative voxels, cold tissue is biased upwards already, and the
    more the lower its dose;  activity: its noise-free SUV where that is known, otherwise a local mean stands for it.
    So thinning to 1/4 twice adds the noise of thinning to 1/16. Raises ValueError for a dose that is not lower.
    """
    if not 0 < dose <= before:
        raise ValueError(f"dose {dose:g} is not above 0 and at most {before:g}")
    model = model or NoiseModel()
    activity = local_activity(suv, voxel_mm) if activity is None else activity
    excess = np.sqrt(1 / dose - 1 / before)
    noise = unit_noise(suv.shape, voxel_mm, model.fwhm_mm, rng)
    return (suv + noise * model.std(activity) * excess).astype(np.float32)


def check_doses(doses: Sequence[float]) -> None:
    """Raises InputError for a dose that is no fraction of the normal one."""
    for dose in doses:
        if not 0 < dose < 1:
            raise InputError(f"--dose is {dose:g}; give a fraction of the normal dose, below 1, such as 0.1.")


def has_doses(folder: Path, doses: Sequence[float]) -> bool:
    """Whether ``write_doses`` left all of them there."""
    return all((folder / f"SUV_{dose:g}.nii.gz").exists() for dose in doses)


def write_doses(
    folder: Path, suv: Volume, doses: Sequence[float], seed: int, note: str, model: NoiseModel | None = None,
    known: Mapping[str, Volume] | None = None,
) -> None:  # fmt: skip
    """Write <folder>/SUV.nii.gz, the normal dose, SUV_<dose>.nii.gz and what is ``known``, the folder atomically.

    The doses of a subject share the noise of the normal one, as subsets of one scan do, and have random numbers of
    their own.  known: name → Volume; "truth" among them is the noise-free activity.
    """
    known = known or {}
    activity = known["truth"].voxels if "truth" in known else None
    with atomic(folder) as part:
        part.mkdir(parents=True)
        for name, each in dict(SUV=suv, **known).items():
            write_nifti(part / f"{name}.nii.gz", each, note, UNITS["SUV"] if name == "truth" else None)
        for dose in doses:
            rng = np.random.default_rng((seed, STREAM, round(1e6 * dose)))
            low = thin(suv.voxels, suv.voxel_mm.tolist(), dose, rng, model=model, activity=activity)
            write_nifti(part / f"SUV_{dose:g}.nii.gz", Volume(low, suv.affine), note)
