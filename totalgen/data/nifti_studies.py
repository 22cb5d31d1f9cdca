"""PET/CT studies that are distributed as NIfTI files and a table: onto one grid, and checked as DICOM is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from totalgen.data.demographics import Demographics
from totalgen.data.pair import on_one_grid, pair_doubts
from totalgen.data.plausibility import check_edges, check_hu, check_suv, pet_edge_doubts, suv_doubts
from totalgen.data.segmentation import on_grid_of
from totalgen.data.text_files import read_text
from totalgen.data.volume import Volume, check_finite, placement_doubts, read_labels, read_nifti
from totalgen.errors import InputError, naming

PERSON = ("sex", "age_years", "height_m", "weight_kg")
UNITS = {"age_years": 1.0, "height_m": 1.0, "height_cm": 0.01, "weight_kg": 1.0}  # field of a table → factor
HEIGHTS, SAME_HEIGHT_M = {"height_m", "height_cm"}, 0.0051  # columns of one thing; tables are rounded
SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}


def read_study(
    ct: Path, suv: Path, organs: Path | None, person: Demographics, voxel_mm: float
) -> tuple[dict[str, Volume], dict[str, Any]]:
    """(volumes, report): CT (HU), SUV and, where they are given, organs on one grid of ``voxel_mm`` cubes, as
    ``pair.convert`` makes it of DICOM; report: suv_max_native and warnings.

    ct, suv, organs: NIfTI files of any grid in the same world coordinates.
    Raises InputError for what is not in HU, SUV or mm, or cannot be read.
    """
    own, pet = read_nifti(ct), read_nifti(suv)
    for path, volume in ((ct, own), (suv, pet)):
        check_edges(volume, path)
        check_finite(path, volume)
    with naming(suv):
        check_suv(pet)
    check_hu(own)
    warnings = [f"{name}: {doubt}" for name, path in (("CT", ct), ("SUV", suv)) for doubt in placement_doubts(path)]
    warnings += [f"SUV: {doubt}" for doubt in pet_edge_doubts(pet)]
    warnings += suv_doubts(pet, person.weight_kg)
    made = dict(zip(("CT", "SUV"), on_one_grid(own, pet, voxel_mm), strict=True))
    warnings += pair_doubts(own, pet, made["CT"], made["SUV"])
    if organs is not None:
        made["organs"] = on_grid_of(made["CT"], read_labels(organs), organs)
    return made, dict(suv_max_native=f"{pet.voxels.max():.4g}", warnings="; ".join(warnings))


def read_people(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of people as one of a cohort: subject, sex, age_years, height_m, weight_kg, as far as they are stated.

    columns: name here → name there, such as subject → "Subject ID"; height_cm may take the place of height_m, and
    words such as "female" that of F. Raises InputError for a column that is not there and for what is no number.
    """
    table = read_text(path)
    for here, there in columns.items():
        if here not in ("subject", "sex", *UNITS):
            raise InputError(f"--column {here}={there}: names here are subject, sex, {', '.join(UNITS)}. Use one.")
        if there not in table:
            raise InputError(f'{path}: has no column "{there}". Its columns: {", ".join(table.columns)}.')
    renamed = table.assign(**{here: table[there] for here, there in columns.items()})  # before a column of that name
    if "subject" not in renamed:
        there = ", ".join(table.columns)
        raise InputError(f"{path}: names no subjects. Use --column subject=NAME. Its columns: {there}.")
    found = pd.DataFrame({"subject": renamed["subject"].str.strip()})
    if "sex" in renamed:
        found["sex"] = [SEXES.get(text.strip().lower(), text.strip()) for text in renamed["sex"]]
    for field, factor in UNITS.items():
        if field not in renamed or (field in HEIGHTS and field not in columns and not HEIGHTS.isdisjoint(columns)):
            continue
        numbers = [_number(text, path, field, who) for text, who in zip(renamed[field], found["subject"], strict=True)]
        values = [None if n is None else round(n * factor, 4) for n in numbers]
        found[field.replace("_cm", "_m")] = _both(found, values, path) if field == "height_cm" else values
    return found.drop_duplicates().reset_index(drop=True)


def _both(found, heights, path):
    """Heights in m of the column height_cm and, where they are empty, of height_m."""
    earlier = found.get("height_m", [None] * len(heights))
    for one, other, who in zip(earlier, heights, found["subject"], strict=True):
        if None not in (one, other) and not pd.isna(one) and abs(one - other) > SAME_HEIGHT_M:
            raise InputError(
                f"{path}: height_m of {who} is {one:g} and height_cm {100 * other:g}. Correct one, or choose with "
                "--column height_m=NAME."
            )
    return [one if other is None else other for one, other in zip(earlier, heights, strict=True)]


def _number(text, path, field, who):
    text = text.strip().removesuffix("Y")  # an age as DICOM writes it: 063Y
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f'{path}: {field} of {who} is "{text}", which is no number. Correct it.') from None


def person_of(people: pd.DataFrame, subject: str) -> Demographics:
    """The person of a row. Raises InputError that names what is missing, and where it could come from."""
    rows = people[people["subject"] == subject]
    if len(rows) != 1:
        count = "has no row" if rows.empty else f"has {len(rows)} different rows"
        raise InputError(f"{count} in the table of people. Give it one.")
    row = rows.iloc[0]
    missing = [name for name in PERSON if name not in row or pd.isna(row[name]) or row[name] == ""]
    if missing:
        raise InputError(
            f"{', '.join(missing)} is not stated. Height and weight are in the DICOM headers of the PET, (0010,1020) "
            "and (0010,1030); add them to the table."
        )
    return Demographics(*(row[name] for name in PERSON))
