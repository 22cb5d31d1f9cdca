"""A PET that a user brings, in SUV, on its own grid: NIfTI, npz, or a folder with a DICOM series."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from totalgen.data.dicom import read_series
from totalgen.data.metadata import contradictions, demographics
from totalgen.data.plausibility import SUV_DOUBTFUL, check_edges, check_suv, pet_edge_doubts, suv_doubts
from totalgen.data.study import chosen_in
from totalgen.data.suv import needs_whole_person, suv_factors, tracer
from totalgen.data.volume import Volume, check_finite, placement_doubts, read_nifti
from totalgen.errors import InputError, naming

NPZ_VOXEL_MM = 1.65  # of the published npz files, which carry no geometry
ANYBODY = dict(sex="F", age_years=50.0, height_m=1.7)  # SUVbw depends on the weight alone


@dataclass(frozen=True)
class Pet:
    """suv: SUVbw in g/mL on the input's own grid and axes;  warnings: in words;  of a DICOM series: headers, factors,
    one per slice, which turned its values into SUV, and values, sex, age_years, height_m and weight_kg or None."""

    suv: Volume
    warnings: tuple[str, ...] = ()
    headers: tuple[Dataset, ...] = ()
    factors: np.ndarray | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def read_pet(path: str | Path) -> Pet:
    """The PET at ``path``. Any tracer is accepted; another than F-18 FDG is a warning.

    Raises InputError when it cannot be read, is not a finite 3-D volume or is not in SUV or in mm.
    """
    path = Path(path)
    if path.is_dir():
        pet = _from_dicom(path)
    elif path.suffix == ".npz":
        pet = Pet(_from_npz(path), (f"npz has no geometry: voxels of {NPZ_VOXEL_MM} mm are assumed, as published",))
    else:
        pet = _from_nifti(path)
    voxels = pet.suv.voxels
    check_finite(path, pet.suv)
    highest, lowest = float(voxels.max()), float(voxels.min())
    with naming(path):
        check_suv(pet.suv)
    warnings = list(pet.warnings)
    if highest > SUV_DOUBTFUL:
        warnings.append(f"the highest SUV is {highest:.4g}: check that it is SUV")
    if lowest < -0.05 * highest:
        warnings.append(f"the lowest SUV is {lowest:.3g}; negative voxels are kept as they are")
    return replace(pet, warnings=tuple(warnings))


def _from_nifti(path):
    volume = read_nifti(path, reorder=False)
    check_edges(volume, path)
    return Pet(volume, (*placement_doubts(path), *pet_edge_doubts(volume)))


def _from_npz(path):
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: is no file that is there. Correct the path.")
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is npy")
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy, zipfile and zlib each raise their own kinds for a damaged file
        raise InputError(f"{path}: cannot be read as npz ({error}). Export it again.") from None
    if len(arrays) != 1:
        raise InputError(f"{path}: holds {len(arrays)} arrays ({', '.join(arrays)}); one volume is needed. Split it.")
    voxels = np.squeeze(next(iter(arrays.values())))
    if voxels.ndim != 3 or voxels.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {voxels.ndim} dimensions of {voxels.dtype}; a 3-D volume is needed. Split it.")
    return Volume(voxels.astype(np.float32), np.diag([NPZ_VOXEL_MM] * 3 + [1.0]))


def _from_dicom(folder):
    pet, _, values, sources = chosen_in(folder.resolve(), "PET series", pet_alone=True)
    known = values if needs_whole_person(pet.header) else ANYBODY | dict(weight_kg=values["weight_kg"])
    volume, headers = read_series(pet.files)
    found = suv_factors(headers, demographics(known, sources), any_tracer=True)
    other = tracer(headers[0])
    warnings = (*contradictions(values, sources), *found.warnings)
    warnings += (f"the tracer is {other}, not FDG",) if other else ()
    suv = Volume(volume.voxels * found.factors.astype(np.float32), volume.affine)
    warnings += tuple(suv_doubts(suv, values["weight_kg"]))
    return Pet(suv, warnings, tuple(headers), found.factors, values)
