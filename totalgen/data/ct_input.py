"""A CT that a user brings, in HU, on its own grid: NIfTI, or a folder with a DICOM series."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from totalgen.data.dicom import Series, read_series
from totalgen.data.intensity import BODY_HU
from totalgen.data.metadata import merge_demographics, series_label, series_of_one
from totalgen.data.plausibility import check_edges, check_hu, field_doubts
from totalgen.data.volume import Volume, check_finite, placement_doubts, read_nifti
from totalgen.errors import InputError, naming

NO_AIR_HU, HIGH_HU = -200.0, 5000.0  # no CT is without air; nothing but metal is denser
BODY_SHARE = 0.005  # of the voxels, at least


@dataclass(frozen=True)
class Ct:
    """ct: HU on the input's own grid and axes;  warnings: in words;  of a DICOM series: headers, one per slice, and
    values, sex, age_years, height_m and weight_kg or None."""

    ct: Volume
    warnings: tuple[str, ...] = ()
    headers: tuple[Dataset, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


def read_ct(path: str | Path) -> Ct:
    """The CT at ``path``. Raises InputError when it cannot be read, is no finite 3-D volume, not in HU or mm, or
    shows nobody."""
    path = Path(path)
    found = _from_dicom(path) if path.is_dir() else _from_nifti(path)
    voxels = found.ct.voxels
    check_finite(path, found.ct)
    lowest, highest = float(voxels.min()), float(voxels.max())
    if lowest > NO_AIR_HU:
        raise InputError(
            f"{path}: its lowest value is {lowest:.4g}, so it has no air and is no CT in HU; an MR, or values as "
            "stored, before the rescale intercept? Give a CT in HU."
        )
    share = float((voxels > BODY_HU).mean())
    if share < BODY_SHARE:
        raise InputError(f"{path}: {100 * share:.2g} % of it is denser than {BODY_HU:g} HU: no body. Is it the right?")
    with naming(path):
        check_hu(found.ct)
    warnings = list(found.warnings)
    if highest > HIGH_HU:
        warnings.append(f"the highest value is {highest:.4g} HU: check that it is HU")
    return Ct(found.ct, tuple(warnings), found.headers, found.values)


def _from_nifti(path):
    volume = read_nifti(path, reorder=False)
    check_edges(volume, path)
    return Ct(volume, (*placement_doubts(path), *field_doubts(volume)))


def _from_dicom(folder):
    all_series = series_of_one(folder.resolve(), "CT series")
    usable = [series for series in all_series if series.is_image and series.modality == "CT" and not series.problem]
    if not usable:
        why = "; ".join(f"{series_label(series)}: {_why_not(series)}" for series in all_series)
        raise InputError(f"{folder}: no CT can be used ({why}). Give the folder of one CT series.")
    if len(usable) > 1:
        names = "; ".join(f"{series_label(series)}: {series.count} slices" for series in usable)
        raise InputError(f"{folder}: holds {len(usable)} CT series ({names}). Give the folder of one of them.")
    volume, headers = read_series(usable[0].files)
    return Ct(volume, (), tuple(headers), merge_demographics(usable)[0])


def _why_not(series: Series) -> str:
    return series.problem or f"modality {series.modality or 'unknown'}"
