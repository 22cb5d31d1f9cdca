"""One study in one call: a folder of DICOM → CT in HU and PET in SUV on one grid."""

from pathlib import Path
from typing import Any

from totalgen.data.choice import choose
from totalgen.data.dicom import Series
from totalgen.data.files import require_folder
from totalgen.data.metadata import (
    contradictions,
    demographics,
    merge_demographics,
    plain_label,
    series_label,
    series_of_one,
    study_of,
    unusable,
)
from totalgen.data.pair import convert
from totalgen.data.volume import Volume, check_voxel_mm


def read_study(
    folder: str | Path, voxel_mm: float = 2.0, any_tracer: bool = False
) -> tuple[Volume, Volume, dict[str, Any]]:
    """(ct, suv, report) of the one PET/CT study below ``folder``, whatever the nesting of its files.

    ct: HU;  suv: SUVbw in g/mL; both float32 on an axis-aligned RAS+ grid of ``voxel_mm`` over the PET's field of view;
    report: sex, age_years, height_m and weight_kg of the headers, and what ``pair.convert`` reports, warnings included.
    any_tracer: accept tracers other than F-18 FDG.
    Raises InputError naming the file, the series or the tag when the study cannot be read or is not the only one.
    """
    check_voxel_mm(voxel_mm)
    folder = require_folder(folder, "Give the folder that holds the DICOM files of one study.").resolve()
    pet, ct, values, sources = chosen_in(folder, "study")
    person, doubts = demographics(values, sources), contradictions(values, sources)
    ct_volume, suv, report = convert(pet.files, ct.files, person, voxel_mm, any_tracer, doubts)
    return ct_volume, suv, vars(person) | report


def chosen_in(
    folder: Path, what: str, pet_alone: bool = False
) -> tuple[Series, Series, dict[str, Any], dict[str, str]]:  # fmt: skip
    """(pet, ct, values, sources) of the one patient below ``folder``: see choose and merge_demographics.

    what: that is wanted, for messages;  pet_alone: needs no CT; ct is pet then, too.
    Raises InputError for none and several patients, and when there is no PET, or no CT, that can be used.
    """
    all_series = series_of_one(folder, what)
    pet, ct, reasons = choose(all_series)
    if pet is not None and pet_alone:
        ct = pet
    if pet is None or ct is None:
        raise unusable(str(folder), all_series, pet, reasons, series_label)
    return pet, ct, *merge_demographics(study_of(all_series, pet, ct), plain_label)
