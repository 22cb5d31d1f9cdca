"""Organ volume and uptake of one study."""

from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.signal import oaconvolve

from totalgen.data.crop import rough_body
from totalgen.data.organs import LANDMARKS, MEASURED
from totalgen.data.volume import Volume
from totalgen.errors import InputError

TINY_L = 0.050  # below 50 mL an organ is incomplete or badly segmented (published protocol)
PEAK_ML = 1.0  # sphere of SUVpeak
FLOOR_HU = -500.0  # generated CT has no lower values inside the body; what is compared with it is cut there, too
SUBSAMPLES = 11  # points per axis of a voxel, to estimate the share of it that the sphere covers

MEASURES = {  # column: (name, unit)
    "volume_l": ("volume", "L"),
    "suv_mean": ("suv_mean", "g/mL"),
    "suv_max": ("suv_max", "g/mL"),
    "suv_peak": ("suv_peak", "g/mL"),
}


def measure_study(suv: Volume, organs: Volume) -> list[dict[str, Any]]:
    """One row (dict) per organ of MEASURED: organ, volume_l, suv_mean, suv_max, suv_peak, flag, z_share, voxel_mm.

    suv: SUVbw in g/mL;  organs: label ids on the same grid.
    Volume is voxels × |det affine|. flag is "" or "missing" (no voxel: volume 0, uptake NaN), "not finite" (an SUV in
    it is no number: uptake NaN; or one that a sphere of SUVpeak touches: suv_peak NaN) or "tiny" (< 50 mL: measured
    nevertheless). z_share: height of the organ's middle, 0 at
    the lower end of the field and 1 at the upper;  voxel_mm: such as "2x2x2". Raises InputError when the grids differ.
    """
    if not suv.same_grid(organs):
        raise InputError(f"SUV {suv.shape} and organs {organs.shape} have different grids. Segment this study again.")
    rows = []
    voxel_mm = "x".join(f"{edge:.4g}" for edge in organs.voxel_mm)
    for organ, ids in MEASURED.items():
        mask = np.isin(organs.voxels, ids)
        volume_l = float(mask.sum() * organs.voxel_ml / 1000)
        row: dict[str, Any] = dict(organ=organ, volume_l=volume_l)
        row |= dict(suv_mean=np.nan, suv_max=np.nan, suv_peak=np.nan, flag="missing", z_share=np.nan, voxel_mm=voxel_mm)
        inside = suv.voxels[mask]
        if mask.any():
            row["z_share"] = z_share(mask)
        if mask.any() and not np.isfinite(inside).all():
            row["flag"] = "not finite"
        elif mask.any():
            row["suv_mean"], row["suv_max"] = float(inside.mean(dtype=np.float64)), float(inside.max())
            row["suv_peak"] = suv_peak(suv, mask)
            row["flag"] = "tiny" if volume_l < TINY_L else ""
            if not np.isfinite(row["suv_peak"]):
                row["flag"] = "not finite"
        rows.append(row)
    return rows


def measure_landmarks(organs: Volume) -> list[dict[str, Any]]:
    """Rows like those of ``measure_study``, with volume_l and z_share only, of those bones of LANDMARKS that are there.

    A bone that the masks do not know, or that lies outside the field, has no row: it is no missing organ.
    """
    masks = {bone: np.isin(organs.voxels, ids) for bone, ids in LANDMARKS.items()}
    return [
        dict(organ=bone, volume_l=float(mask.sum() * organs.voxel_ml / 1000), flag="", z_share=z_share(mask))
        for bone, mask in masks.items() if mask.any()
    ]  # fmt: skip


def z_share(mask: np.ndarray) -> float:
    """Height of the middle of a mask [x, y, z] that is not empty: 0 at the lower end of the field, 1 at the upper."""
    slices = mask.sum((0, 1))
    return float(((np.arange(mask.shape[2]) + 0.5) * slices).sum() / slices.sum() / mask.shape[2])


def mass_of_field_kg(ct: Volume, floor_hu: float = FLOOR_HU) -> float:
    """Mass of the body inside the field of a CT (HU), kg: the sum of 1 + HU / 1000 kg/L over the body.

    Values below ``floor_hu`` count as ``floor_hu``, as they do in generated CT: lungs, and the rim of air that
    ``rough_body`` keeps, are too heavy, equally so in every CT of the same voxel size. Raises InputError for a CT
    without a body.
    """
    hu = np.maximum(ct.voxels, floor_hu)
    body = rough_body(Volume(hu, ct.affine), floor_hu)
    return float((1 + hu[body] / 1000).sum(dtype=np.float64) * ct.voxel_ml / 1000)


def suv_peak(suv: Volume, mask: np.ndarray) -> float:
    """Highest mean SUV of a 1 mL sphere whose centre is the centre of a voxel of ``mask``.

    The sphere may extend beyond the organ; at the border of the image the mean is over the part inside. The weight of a
    voxel is the share of it that the sphere covers. The sphere is 12.4 mm wide: larger voxels contain it completely and
    SUVpeak is SUVmax; at 6 mm it touches 27 voxels, and the middle one has a weight of 22 %. NaN where one of these
    spheres touches a voxel that is no finite number.
    mask: bool, same shape, not empty.  Source: Wahl 2009 (PERCIST); IBSI on SUVpeak.
    """
    weights = sphere_weights(suv.affine)
    reach = np.array(weights.shape) // 2
    indices = np.nonzero(mask)
    start = [max(0, int(i.min() - r)) for i, r in zip(indices, reach, strict=True)]
    stop = [min(n, int(i.max() + r + 1)) for i, r, n in zip(indices, reach, suv.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    values = suv.voxels[box].astype(np.float64)
    if (wrong := ~np.isfinite(values)).any():
        if (wrong & binary_dilation(mask[box], weights > 0)).any():
            return float("nan")
        values[wrong] = 0  # no sphere touches them, but the convolution would spread them over the box
    covered = oaconvolve(np.ones_like(values), weights, mode="same")  # 1 except at the faces of the box
    return float((oaconvolve(values, weights, mode="same") / covered)[mask[box]].max())


def sphere_weights(affine: np.ndarray) -> np.ndarray:
    """[i, j, k] odd-sized kernel, sum 1: share of each voxel inside a 1 mL sphere around the middle voxel's centre.

    The affine may be anisotropic, oblique or sheared: the points of a voxel are taken in world coordinates.
    """
    radius_mm = (3 * PEAK_ML * 1000 / (4 * np.pi)) ** (1 / 3)
    axes = np.asarray(affine)[:3, :3]
    # Half-extent of the sphere along each index axis = radius × length of that row of the inverse.
    extent = radius_mm * np.linalg.norm(np.linalg.inv(axes), axis=1)
    reach = np.ceil(extent - 0.5).clip(0).astype(int)
    within = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    lines = [(np.arange(-r, r + 1)[:, None] + within).ravel() for r in reach]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1) @ axes.T
    inside = (points**2).sum(-1) <= radius_mm**2
    sizes = [n for r in reach for n in (2 * r + 1, SUBSAMPLES)]
    share = inside.reshape(sizes).mean(axis=(1, 3, 5))
    return share / share.sum()
