"""One study in one call: a folder of DICOM → CT in HU and PET in SUV on one grid."""

from pathlib import Path
from typing import Any

from totalgen.data.choice import choose
from totalgen.data.files import require_folder
from totalgen.data.metadata import by_subject, demographics, merge_demographics, scan, series_label
from totalgen.data.pair import convert
from totalgen.data.volume import Volume
from totalgen.errors import InputError


def read_study(
    folder: str | Path, voxel_mm: float = 2.0, any_tracer: bool = False
) -> tuple[Volume, Volume, dict[str, Any]]:
    """(ct, suv, report) of the one PET/CT study below ``folder``, whatever the nesting of its files.

    ct: HU;  suv: SUVbw in g/mL; both float32 on an axis-aligned RAS+ grid of ``voxel_mm`` over the PET's field of view;
    report: sex, age_years, height_m and weight_kg of the headers, and what ``pair.convert`` reports, warnings included.
    any_tracer: accept tracers other than F-18 FDG.
    Raises InputError naming the file, the series or the tag when the study cannot be read or is not the only one.
    """
    folder = require_folder(folder, "Give the folder that holds the DICOM files of one study.").resolve()
    found, damaged = scan(folder)
    for file in damaged:
        raise InputError(f"{file.path}: {file.why}. Restore the file.")
    subjects = by_subject(found, damaged, folder, "patient-id")[0]
    if len(subjects) != 1:
        count = f"holds {len(subjects)} patients" if subjects else "holds no DICOM file"
        raise InputError(f"{folder}: {count}. Give the folder of one study.")
    ((all_series, _),) = subjects.values()
    pet, ct, reasons = choose(all_series)
    if pet is None or ct is None:
        why = "; ".join(f"{series_label(series)}: {reasons[series.uid]}" for series in all_series)
        raise InputError(f"{folder}: no {'CT' if pet else 'PET'} can be used ({why}).")
    person = demographics(*merge_demographics([pet, ct, *all_series]))
    ct_volume, suv, report = convert(pet.files, ct.files, person, voxel_mm, any_tracer)
    return ct_volume, suv, vars(person) | report
