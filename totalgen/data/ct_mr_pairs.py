"""A CT and an MR of one patient, aligned in world coordinates, on one grid: what they both show, and nothing else."""

import math

import numpy as np
from scipy import ndimage

from totalgen.data.intensity import AIR_HU, BODY_HU
from totalgen.data.plausibility import check_hu
from totalgen.data.volume import Volume, isotropic_grid, resample
from totalgen.errors import InputError

FEWEST_VOXELS = 8  # along each axis of what both show
LEAST_OVERLAP = 0.6  # Dice of the bodies in CT and MR
BODY_OF_MR = 0.12  # of its 95th percentile: darker is air, or bone
COARSER = 1.5  # times as long voxels: then a volume is smoothed before it is resampled


def pair(ct: Volume, mr: Volume, voxel_mm: float, percentile: float | None = None) -> tuple[Volume, Volume, dict]:
    """(CT, MR, report) on a grid of ``voxel_mm`` cubes over the box that both cover.

    ct: HU;  mr: any unit, not negative;  percentile: this percentile of the MR inside the body becomes 1000, and the
    factor is reported as mr_factor (1 without it), by which the result is to be divided to have the unit back.
    report: voxels, overlap (Dice of the bodies), mr_factor.
    Raises InputError when they show no common box or different places, for a CT not in HU and for an MR that is none.
    """
    if not (np.isfinite(ct.voxels).all() and np.isfinite(mr.voxels).all()):
        raise InputError("a voxel of CT or MR is not a finite number. Repair the files.")
    if float(mr.voxels.min()) < 0 or float(mr.voxels.max()) <= 0:
        raise InputError(f"the MR's values lie between {mr.voxels.min():.4g} and {mr.voxels.max():.4g}: no magnitudes.")
    check_hu(ct)
    shape, affine = _common(ct, mr, voxel_mm)
    made_ct, made_mr = (
        resample(_smoothed(volume, voxel_mm), shape, affine, fill=fill) for volume, fill in ((ct, AIR_HU), (mr, 0.0))
    )
    body = made_ct.voxels > BODY_HU
    signal = made_mr.voxels > BODY_OF_MR * np.percentile(made_mr.voxels, 95)
    either = int(body.sum()) + int(signal.sum())
    overlap = 2 * int((body & signal).sum()) / either if either else 0.0
    if overlap < LEAST_OVERLAP:
        raise InputError(
            f"the bodies in CT and MR overlap by {overlap:.2f} only: different patients or frames of reference? "
            "Register the MR to the CT."
        )
    factor = 1.0
    if percentile is not None:
        factor = 1000.0 / float(np.percentile(made_mr.voxels[body], percentile))
        made_mr = Volume((made_mr.voxels * factor).astype(np.float32), affine)
    return made_ct, made_mr, dict(voxels="×".join(map(str, shape)), overlap=round(overlap, 3), mr_factor=factor)


def _common(ct, mr, voxel_mm):
    """(shape, affine) of the cubes inside the box that both volumes cover."""
    low = np.maximum(ct.corners.min(0), mr.corners.min(0))
    high = np.minimum(ct.corners.max(0), mr.corners.max(0))
    shape = np.floor((high - low) / voxel_mm + 1e-6).astype(int)
    if shape.min() < FEWEST_VOXELS:
        size = "×".join(f"{max(edge, 0):.0f}" for edge in high - low)
        raise InputError(f"CT and MR have {size} mm in common, too little. Are they of one frame of reference?")
    affine = isotropic_grid(ct, voxel_mm)[1]
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * voxel_mm
    return tuple(int(n) for n in shape), affine


def _smoothed(volume, voxel_mm):
    """A volume without what larger voxels cannot show, along the axes on which they are much larger."""
    ratios = voxel_mm / volume.voxel_mm
    sigma = [ratio / (2 * math.sqrt(2 * math.log(2))) if ratio > COARSER else 0.0 for ratio in ratios]
    return Volume(ndimage.gaussian_filter(volume.voxels, sigma, mode="nearest"), volume.affine)
