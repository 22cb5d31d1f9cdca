"""The torso: clavicles to sacrum, without the table, centred on the body in a square of fixed size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from totalgen.data.intensity import AIR_HU, BODY_HU
from totalgen.data.organs import ORGANS
from totalgen.data.segmentation import air_in_organs
from totalgen.data.volume import Volume, moved
from totalgen.errors import InputError

MARGIN_MM = 40.0  # above the clavicles and below the sacrum: the released code's 20 slices of 2 mm
FIELD_MM = 448.0  # in-plane edge of the paper's volume: 224 voxels of 2 mm
TABLE_MM = 4.0  # half the thickness below which a structure counts as table, sheet or tube
SKIN_MM = 4.0  # this much air is kept around the body, so that the blurred skin is complete
SHORT_MM = 5.0  # lacking of a margin: a torso is not complete, and its extent would bend the line in height
ROUGH_HU = 200.0  # generated air is rough: the body is what is denser than the lowest value by so much
SPECK = 0.1  # a piece smaller than this fraction of its organ is ignored

TOP = (ORGANS["clavicula_left"], ORGANS["clavicula_right"])
BOTTOM = (ORGANS["sacrum"],)


def crop_torso(
    ct: Volume, suv: Volume, organs: Volume | None, field_mm: float = FIELD_MM, margin_mm: float = MARGIN_MM
) -> tuple[Volume, Volume, Volume, dict[str, Any]]:
    """Crop CT (HU), SUV and organ labels, Volumes on one RAS+ grid, to the torso.

    Axially from margin_mm above the clavicles to margin_mm below the sacrum; the true extent is kept. In the plane a
    square of field_mm, centred on the body, cropped or filled with air (CT), 0 (SUV) and 0 (labels). Outside the body –
    the largest object denser than −500 HU, and a rim of SKIN_MM – CT becomes air and SUV becomes 0, so that table,
    sheets and the noise around the patient disappear from both.

    organs: Volume, or None when there are no labels.  An end that the scan or the labels do not show is left where the
    scan ends.

    Returns (ct, suv, organs, report): three Volumes on one grid, report a dict of covers_torso (bool), clavicles and
    sacrum (see axial_range), z_extent_mm and note (text). Raises InputError for grids that differ and for a CT without
    a body.
    """
    for name, other in (("SUV", suv), ("organs", organs)):
        if other is not None and not ct.same_grid(other):
            raise InputError(f"CT and {name} do not share one grid. Run 2_dicom_to_nifti.py and 3_segment_organs.py.")
    labels = np.zeros(ct.shape, np.uint8) if organs is None else organs.voxels
    low, high, landmarks, notes = axial_range(labels, ct.voxel_mm[2], margin_mm)
    if organs is None:
        notes = ["no organ labels: the whole scan is kept"]
    notes += air_in_organs(ct, labels)

    ct, suv, organs = (
        Volume(v, ct.affine).crop((0, 0, low), (*ct.shape[:2], high)) for v in (ct.voxels, suv.voxels, labels)
    )
    body = body_mask(ct)
    box = ndimage.find_objects(body.astype(np.uint8))[0]
    edge = np.round(field_mm / ct.voxel_mm[:2]).astype(int)
    extent = np.array([axis.stop - axis.start for axis in box[:2]])
    if (extent > edge).any():
        notes.append(f"body {(extent * ct.voxel_mm[:2]).max():.0f} mm wide, cut at {field_mm:g} mm")
    middle = np.array([axis.start + axis.stop for axis in box[:2]]) / 2
    start = (*np.round(middle - edge / 2).astype(int), 0)
    shape = (*edge, ct.shape[2])

    cropped = (
        window(Volume(np.where(body, ct.voxels, np.float32(AIR_HU)), ct.affine), start, shape, AIR_HU),
        window(Volume(np.where(body, suv.voxels, np.float32(0)), ct.affine), start, shape, 0),
        window(organs, start, shape, 0),
    )
    covers = set(landmarks.values()) == {"whole"}
    z_extent_mm = round(float(shape[2] * ct.voxel_mm[2]), 3)
    return *cropped, dict(covers_torso=covers, **landmarks, z_extent_mm=z_extent_mm, note="; ".join(notes))


def axial_range(
    labels: np.ndarray, slice_mm: float, margin_mm: float = MARGIN_MM
) -> tuple[int, int, dict[str, str], list[str]]:
    """(low, high, landmarks, notes): slices low ≤ k < high contain the torso of labels [x, y, z], z to the head.

    landmarks: dict of clavicles and sacrum → "whole", "short" (the scan ends within the margin beyond it), "cut" (by
    the end of the scan) or "absent";  notes: list of what
    the scan lacks.
    """
    margin, slices = round(margin_mm / slice_mm), labels.shape[2]
    tops = [organ_slices(labels, label) for label in TOP]
    (bottom,) = (organ_slices(labels, label) for label in BOTTOM)
    top = max((found[1] for found in tops if found), default=slices)
    first = bottom[0] if bottom else 0
    landmarks = dict(
        clavicles="absent" if None in tops else "cut" if top == slices else "whole",
        sacrum="absent" if bottom is None else "cut" if first == 0 else "whole",
    )
    low, high = first - margin, top + margin
    notes = [f"{name} not fully in the scan" for name, state in landmarks.items() if state != "whole"]
    for name, missing, place in (("clavicles", high - slices, "above"), ("sacrum", -low, "below")):
        if landmarks[name] == "whole" and missing > 0:
            short_mm = missing * slice_mm
            notes.append(f"scan ends {short_mm:.0f} mm short of the margin {place} the {name}")
            if short_mm > SHORT_MM:
                landmarks[name] = "short"
    low, high = max(low, 0), min(high, slices)
    if low >= high:  # a clavicle below the sacrum: labels on an upside-down grid
        raise InputError("the clavicles lie below the sacrum: labels or affine are upside down. Correct them.")
    return low, high, landmarks, notes


def organ_slices(labels: np.ndarray, label: int) -> tuple[int, int] | None:
    """(first, last + 1) slice of an organ in labels [x, y, z], without its small separate pieces; None when absent."""
    mask = labels == label
    if not mask.any():
        return None
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    pieces, _ = ndimage.label(mask[box], np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    keep = sizes >= SPECK * sizes[1:].sum()
    keep[0] = False
    slices = np.flatnonzero(keep[pieces].any((0, 1))) + box[2].start
    return int(slices[0]), int(slices[-1]) + 1


def body_mask(ct: Volume, largest: bool = True) -> np.ndarray:
    """bool [x, y, z]: the patient in a CT Volume (HU), lungs and bowel gas included, table and sheets not.

    The voxels denser than −500 HU are opened by TABLE_MM, which separates the table; of the rest the largest piece is
    kept, its holes are filled slice by slice, and a rim of SKIN_MM is added. largest: False keeps all pieces, such as
    two legs, or arms beside the torso.
    Raises InputError when there is nothing dense.
    """
    voxel_mm = float(ct.voxel_mm.max())
    thin, skin = max(round(TABLE_MM / voxel_mm), 1), max(round(SKIN_MM / voxel_mm), 1)
    dense = ct.voxels > BODY_HU
    mask = np.zeros(ct.shape, bool)
    for near in ndimage.find_objects(dense.view(np.uint8)):  # at most one box; nothing needs to be done far from it
        near = tuple(slice(max(n.start - thin - skin, 0), n.stop + thin + skin) for n in near)
        padded = np.pad(dense[near], thin, mode="edge")  # so that opening keeps a body that continues beyond the scan
        core = ndimage.binary_opening(padded, iterations=thin)[(slice(thin, -thin),) * 3]
        pieces, count = ndimage.label(core)
        if count:
            body = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if largest else pieces > 0
            mask[near] = fill_in_plane(ndimage.binary_dilation(fill_in_plane(body), iterations=skin))
            return mask
    raise InputError(f"CT has no body: nothing is denser than {BODY_HU:g} HU. Check that its unit is HU.")


def rough_body(ct: Volume, low_hu: float) -> np.ndarray:
    """body_mask of a CT that has no values below ``low_hu``, where air is rough: a generated one, or one cut so."""
    return body_mask(Volume(np.where(ct.voxels > low_hu + ROUGH_HU, 0.0, AIR_HU), ct.affine))


def fill_in_plane(mask: np.ndarray) -> np.ndarray:
    """bool [x, y, z] with the holes of every axial slice filled."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1, :, 1] = in_plane[:, 1, 1] = True
    around = np.pad(~mask, ((1, 1), (1, 1), (0, 0)), constant_values=True)  # a rim of air: one outside per slice
    pieces, _ = ndimage.label(around, in_plane)
    return ~np.isin(pieces, np.unique(pieces[0, 0]))[1:-1, 1:-1]


def window(volume: Volume, start: Sequence[int], shape: Sequence[int], fill: float) -> Volume:
    """The box of ``shape`` voxels that begins at voxel ``start`` (may be negative), ``fill`` outside the volume.

    No voxel moves in the world: the affine follows the box.
    """
    first, shape = np.asarray(start), tuple(int(n) for n in shape)
    out = np.full(shape, fill, dtype=volume.voxels.dtype)
    low = np.maximum(first, 0)
    high = np.minimum(first + shape, volume.shape)
    if (high > low).all():
        target = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
        out[target] = volume.voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Volume(out, moved(volume.affine, start))
