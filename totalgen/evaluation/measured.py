"""The tables of organ volumes and uptake, and of bodies, of a cohort."""

from pathlib import Path
from typing import Any

import pandas as pd

from totalgen.data.measures import MEASURES, mass_of_field_kg, measure_landmarks, measure_study
from totalgen.data.measuring import measure_each
from totalgen.data.names import check_masks
from totalgen.data.studies import read_studies
from totalgen.data.subjects import read_table
from totalgen.data.text_files import check_columns, check_numbers
from totalgen.data.volume import read_labels, read_nifti
from totalgen.errors import InputError

BODIES = "bodies.csv"
BODY_COLUMNS = ("mass_kg", "extent_mm", "suv_field_mean")
NO_BODIES = pd.DataFrame(columns=["subject", "sex", "age_years", "height_m", "weight_kg", *BODY_COLUMNS])


def measure_cohort(
    root: str | Path, masks: str = "organs", workers: int = 1, scheduler: str | None = None, split: str | None = None
) -> Path:
    """Measure every study of ``root`` into ``<root>/<masks>.csv``: subject and the columns of ``measure_study``,
    with the rows of ``measure_landmarks`` below them.

    masks: name of the mask file in a study's folder, without suffix. Subjects whose files are still those that they
    were measured in are not measured again; one that fails is listed in failures.csv (measuring.measure_each).
    split: only the subjects of this split; others keep their rows unless their files are others or gone.
    Returns the path of the table. Raises InputError when no study could be measured.
    """
    root = Path(root)
    path, files = measured_files(root, masks)

    def work(subject: str) -> list[dict[str, Any]]:
        suv, organs = read_nifti(files[subject][0]), read_labels(files[subject][1])
        rows = measure_study(suv, organs) + measure_landmarks(organs)
        return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]

    measure_each(root, "measure", files, work, path, list(read_studies(root, split)["subject"]), workers, scheduler)
    return path


def measured_files(root: Path, masks: str) -> tuple[Path, dict[str, list[Path]]]:
    """(path of the table of organs, subject → files that its rows are measured in), of all studies of ``root``."""
    folders = read_studies(root).set_index("subject")["folder"]
    names = ("SUV.nii.gz", f"{check_masks(masks)}.nii.gz")
    return root / f"{masks}.csv", {subject: [folder / name for name in names] for subject, folder in folders.items()}


def read_measured(root: str | Path, split: str | None = None, masks: str = "organs") -> pd.DataFrame:
    """The measured cohort: one row per subject and organ, with the subject's demographics.

    Raises InputError when the cohort, or its ``split``, has not been measured.
    """
    path = Path(root) / f"{check_masks(masks)}.csv"
    if not path.exists():
        raise InputError(f"{path}: no such table. Run 3_Evaluations/2_measure_organs.py --root {root} first.")
    measured = read_table(path)
    table = joined(root, split, measured)
    _check(measured, ("organ", "flag"), tuple(MEASURES), path)
    table["flag"] = table["flag"].astype(object).fillna("")
    if table.empty:
        raise InputError(f"{path}: contains none of the requested subjects. Measure the cohort again.")
    return table


def measure_bodies(
    root: str | Path, workers: int = 1, scheduler: str | None = None, split: str | None = None
) -> Path | None:
    """Measure the body of every study of ``root`` that has a CT into <root>/bodies.csv: subject and BODY_COLUMNS.

    mass_kg: measures.mass_of_field_kg, empty where there is no body;  extent_mm: of the volume along z;
    suv_field_mean: SUV over the whole field, its voxels outside the body included. As ``measure_cohort`` otherwise.
    Rows of studies whose CT is gone stay.
    Returns the path, None without any CT.
    """
    root, path = Path(root), Path(root) / BODIES
    folders = read_studies(root).set_index("subject")["folder"]
    every = {subject: [folder / f"{name}.nii.gz" for name in ("CT", "SUV")] for subject, folder in folders.items()}
    files = {subject: paths for subject, paths in every.items() if paths[0].exists()}
    chosen = [subject for subject in read_studies(root, split)["subject"] if subject in files]
    if not chosen:
        return None

    def work(subject: str) -> dict[str, Any]:
        ct, suv = (read_nifti(path) for path in files[subject])
        extent = ct.shape[2] * ct.voxel_mm[2]
        try:
            mass = mass_of_field_kg(ct)
        except InputError:  # nothing is dense: no body, which is counted where masses are compared
            mass = float("nan")
        found = (mass, extent, suv.voxels.mean(dtype=float))
        return {name: float(f"{value:.6g}") for name, value in zip(BODY_COLUMNS, found, strict=True)}

    measure_each(root, "measure_body", files, work, path, chosen, workers, scheduler)
    return path


def read_bodies(root: str | Path, split: str | None = None) -> pd.DataFrame:
    """The measured bodies with their demographics, one row per subject; empty when they have not been measured."""
    path = Path(root) / BODIES
    if not path.exists():
        return NO_BODIES.copy()
    measured = read_table(path)
    _check(measured, (), BODY_COLUMNS, path)
    return joined(root, split, measured.drop_duplicates("subject"))


def _check(measured, texts, numbers, path):
    """Raises InputError when a table lacks a column, or has a text where a number is expected."""
    check_columns(measured, (*texts, *numbers), path, "Run 3_Evaluations/2_measure_organs.py again.")
    check_numbers(measured, (*numbers, "z_share"), path)


def joined(root: str | Path, split: str | None, measured: pd.DataFrame) -> pd.DataFrame:
    """The table of the studies with what was measured, which takes the place of columns of the same name there."""
    studies = read_studies(root, split)
    known = ["folder", *(name for name in studies.columns if name in measured and name != "subject")]
    return studies.drop(columns=known).merge(measured, on="subject")
