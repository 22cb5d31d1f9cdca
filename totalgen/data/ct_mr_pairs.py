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
EDGE = 1e-3  # voxels by which a centre may lie outside
COARSER = 1.5  # times as long voxels: then a volume is smoothed before it is resampled


def pair(ct: Volume, mr: Volume, voxel_mm: float, percentile: float | None = None) -> tuple[Volume, Volume, dict]:
    """(CT, MR, report) on a grid of ``voxel_mm`` cubes over a box that both cover wherever one of them shows body.

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
    box = _shown(made_ct, made_mr, *(_inside(volume, shape, affine) for volume in (ct, mr)))
    made_ct, made_mr = made_ct.crop(*box), made_mr.crop(*box)
    shape, affine = made_ct.shape, made_ct.affine
    body, signal = _body(made_ct), _signal(made_mr)
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


def _body(ct):
    return ct.voxels > BODY_HU


def _signal(mr):
    return mr.voxels > BODY_OF_MR * np.percentile(mr.voxels, 95)


def _inside(volume, shape, affine):
    """Which centres of the grid (shape, affine) lie inside the voxels of ``volume``: fewer than all where it is
    oblique, since it does not fill the box of its corners."""
    index = np.linalg.inv(volume.affine) @ affine
    at = np.ogrid[tuple(slice(n) for n in shape)]
    inside = np.ones(shape, bool)
    for row, n in zip(index, volume.shape, strict=False):
        place = sum((step * axis for step, axis in zip(row, at, strict=False)), row[3])
        inside &= (place > -0.5 - EDGE) & (place < n - 0.5 + EDGE)
    return inside


def _shown(ct, mr, inside_ct, inside_mr):
    """(start, stop) of a box in which nothing that is body in one image lies where the other shows nothing.

    Of the six faces the one with most of what one image lacks goes first. What both show is convex, so some of what
    they lack is always on a face.
    """
    lacking = ~(inside_ct & inside_mr)
    harm = (_body(ct) & ~inside_mr) | (_signal(mr) & ~inside_ct)
    start, stop = np.zeros(3, int), np.array(ct.shape)
    while harm[tuple(map(slice, start, stop))].any():
        left = lacking[tuple(map(slice, start, stop))]
        share = np.array([[left.take(end, axis).mean() for end in (0, -1)] for axis in range(3)])
        axis, end = np.unravel_index(share.argmax(), share.shape)
        if end == 0:
            start[axis] += 1
        else:
            stop[axis] -= 1
        if (stop - start).min() < FEWEST_VOXELS:
            raise InputError(
                "the body that both CT and MR show is too small: one is tilted, or its field is another. "
                "Give images of one field, or resample the tilted one."
            )
    return start, stop


def _smoothed(volume, voxel_mm):
    """A volume without what larger voxels cannot show, along the axes on which they are much larger."""
    ratios = voxel_mm / volume.voxel_mm
    sigma = [ratio / (2 * math.sqrt(2 * math.log(2))) if ratio > COARSER else 0.0 for ratio in ratios]
    return Volume(ndimage.gaussian_filter(volume.voxels, sigma, mode="nearest"), volume.affine)
