"""A PET and its CT on one grid: SUV and HU, isotropic, RAS+."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from totalgen.data.crop import body_mask
from totalgen.data.demographics import Demographics
from totalgen.data.dicom import read_series
from totalgen.data.intensity import AIR_HU
from totalgen.data.plausibility import body_doubts, check_hu, suv_doubts
from totalgen.data.suv import suv_factors
from totalgen.data.volume import Volume, isotropic_grid, moved, read_nifti, resample
from totalgen.errors import InputError

COMMON = 0.7  # of the shorter of two scans, along the body
IN_BODY = (0.9, 0.5)  # of the SUV, doubtful and impossible below: real studies 0.95 to 0.99, 60 mm off 0.83 to 0.88


def convert(
    pet_files: Sequence[str | Path], ct_files: Sequence[str | Path], person: Demographics, voxel_mm: float = 2.0,
    any_tracer: bool = False, doubts: Sequence[str] = (),
) -> tuple[Volume, Volume, dict[str, Any]]:  # fmt: skip
    """(ct, suv, report) of a PET and a CT series given as lists of DICOM files; person: Demographics.

    ct: Volume in HU, air where the CT does not reach;  suv: Volume of SUVbw, both float32 on one grid of ``voxel_mm``.
    report: dict of factor (of the middle slice), suv_max_native (before resampling), reference (where the reference
    time comes from) and warnings (text), which begin with the ``doubts`` about the person.
    Raises InputError (SUVError) naming the file or the tag.
    """
    pet, headers = read_series(pet_files)
    found = suv_factors(headers, person, any_tracer)
    pet = Volume(pet.voxels * found.factors.astype(np.float32), pet.affine)
    warnings = [*doubts, *found.warnings, *suv_doubts(pet, person.weight_kg)]
    ct = read_series(ct_files)[0]
    check_hu(ct)
    ct_out, suv_out = on_one_grid(ct, pet, voxel_mm)
    warnings += pair_doubts(ct, pet, ct_out, suv_out)
    report = dict(
        factor=f"{found.factors[len(found.factors) // 2]:.6g}",
        suv_max_native=f"{pet.voxels.max():.4g}",
        reference=found.reference,
        warnings="; ".join(warnings),
    )
    return ct_out, suv_out, report


def on_one_grid(ct: Volume, pet: Volume, voxel_mm: float) -> tuple[Volume, Volume]:
    """(ct, pet) on the axis-aligned RAS+ grid of voxel_mm over the PET's field of view, where both reach axially.

    Linear; the CT's padding (−1024, −3024, …) becomes air first, so that it does not bleed into the field of view;
    outside its field of view the CT is air, outside the PET's the PET is 0. Raises InputError when they do not overlap.
    """
    ct = Volume(np.maximum(ct.voxels, np.float32(AIR_HU)), ct.affine)
    shape, affine = isotropic_grid(pet, voxel_mm)
    z = affine[2, 3] + voxel_mm * np.arange(shape[2])
    (pet_low, pet_high), (ct_low, ct_high) = axial_reach(pet), axial_reach(ct)
    both = np.flatnonzero((z >= max(pet_low, ct_low)) & (z <= min(pet_high, ct_high)))
    if len(both) == 0:
        raise InputError(
            f"CT ({ct_low:.0f} to {ct_high:.0f} mm) and PET ({pet_low:.0f} to {pet_high:.0f} mm) do not overlap along "
            "the body. Check that they are of one session."
        )
    shape, affine = (*shape[:2], len(both)), moved(affine, (0, 0, both[0]))
    return resample(ct, shape, affine, fill=AIR_HU), resample(pet, shape, affine, fill=0)


def pair_doubts(ct: Volume, pet: Volume, hu: Volume, suv: Volume) -> list[str]:
    """Doubts whether a CT and a PET lie on each other, and about the mean SUV of the body (``body_doubts``).

    hu, suv: the two on_one_grid. What lies beside the CT, whose field may be narrower than the patient, does not count.
    Raises InputError when most of the SUV is where the CT shows nobody, and as body_doubts does.
    """
    (pet_low, pet_high), (ct_low, ct_high) = axial_reach(pet), axial_reach(ct)
    common = (min(pet_high, ct_high) - max(pet_low, ct_low)) / min(pet_high - pet_low, ct_high - ct_low)
    short = f"CT and PET share {100 * common:.0f} % of the shorter of them along the body: are they of one session?"
    doubts = [short] if common < COMMON else []
    ends = (np.linalg.solve(suv.affine, [*end, 1])[:3] for end in (ct.corners.min(0), ct.corners.max(0)))
    box = tuple(slice(max(math.ceil(a), 0), max(math.floor(b) + 1, 0)) for a, b in zip(*ends, strict=True))
    seen = float(suv.voxels[box].sum(dtype=np.float64))
    inside = suv.voxels[box][body_mask(hu, largest=False)[box]].sum(dtype=np.float64) if seen > 0 else 0.0
    share = inside / seen if seen > 0 else 0.0
    if share >= IN_BODY[0]:
        return doubts + body_doubts(suv, body_mask(hu))
    text = f"{100 * share:.0f} % of the SUV lie in the body that the CT shows, usually 95 or more"
    if share < IN_BODY[1]:
        raise InputError(f"{text}: CT and PET do not lie on each other. Give those of one session, where they belong.")
    return [*doubts, f"{text}: CT and PET may not lie on each other"]  # nor does the mean of that body say anything


def check_same_voxels(folder: Path, subjects: Sequence[str], voxel_mm: float) -> None:
    """Raises InputError when the first of the subjects that are done in ``folder`` has other voxels than cubes of
    ``voxel_mm``: two sizes in one cohort would go unnoticed until it is packed."""
    if subjects:
        there = read_nifti(folder / subjects[0] / "CT.nii.gz").voxel_mm
        if abs(there - voxel_mm).max() > 1e-3:
            raise InputError(f"{folder}: holds voxels of {there[0]:g} mm. Remove it, or use that size.")


def axial_reach(volume: Volume) -> tuple[float, float]:
    """(low, high) world z in mm of a volume's outer voxel faces."""
    z = volume.corners[:, 2]
    return float(z.min()), float(z.max())
