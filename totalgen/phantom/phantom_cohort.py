"""A cohort of phantom subjects on disk, in the layout of a cohort of patients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.demographics import COLUMNS, TEST_FRACTION, carry_over
from totalgen.data.demographics import write_cohort as write_table
from totalgen.data.doses import NoiseModel, check_doses, has_doses, write_doses
from totalgen.data.files import atomic
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.data.text_files import read_text
from totalgen.data.volume import UNITS, write_nifti
from totalgen.errors import InputError, closest
from totalgen.phantom.population import sample_demographics
from totalgen.phantom.scanner import PET
from totalgen.phantom.subject import make_subject
from totalgen.phantom.uptake import TRACERS

SOURCE = "phantom"
NOTE = "Computer-generated phantom, not a patient (TotalGen)"
FILES = {  # files of a finished subject
    "nifti": ("given/{}/organs.nii.gz", "resampled/{}/CT.nii.gz", "resampled/{}/SUV.nii.gz"),
    "dicom": ("given/{}/organs.nii.gz", "dicom/{}"),
}


def plan_cohort(
    subjects: int, seed: int, test_fraction: float = TEST_FRACTION, validation_fraction: float = 0.0
) -> pd.DataFrame:
    """The subjects to make: the columns of a cohort table and ``seed``, one row per subject.

    A longer cohort of the same seed begins with the shorter one, split included.
    """
    rows, others = [], -1  # others: number of the subject among those that are not for testing
    for index in range(subjects):
        sequence = np.random.SeedSequence((seed, index))
        d = sample_demographics(np.random.default_rng(sequence))
        split = "train"
        if _steps(index, test_fraction):
            split = "test"
        elif _steps(others := others + 1, validation_fraction / (1 - test_fraction)):
            split = "validation"
        rows.append(
            dict(subject=f"phantom_{index + 1:04d}", sex=d.sex, age_years=d.age_years, height_m=d.height_m,
                 weight_kg=d.weight_kg, split=split, source=SOURCE,
                 seed=int(sequence.generate_state(1)[0]), demographics=d)
        )  # fmt: skip
    return pd.DataFrame(rows)


def _steps(index, share):
    """Whether subject ``index`` is one of the evenly spaced ``share`` of all."""
    return int((index + 1) * share) > int(index * share)


def write_cohort(
    root: str | Path, subjects: int, seed: int = 0, format: str = "nifti", voxel_mm: float = 4.0,
    test_fraction: float = TEST_FRACTION, validation_fraction: float = 0.0, variability: float = 1.0,
    workers: int = 1, scheduler: str | None = None, tracer: str = "fdg", fwhm_mm: float = PET.fwhm_mm,
    spheres: int = 0, doses: Sequence[float] = (), mr: bool = False,
) -> list[str]:  # fmt: skip
    """Make ``subjects`` phantom subjects under ``root``; existing ones are kept. Returns the names that failed.

    format "nifti": resampled/<subject>/{CT,SUV}.nii.gz, given/<subject>/organs.nii.gz, cohort.csv and truth.csv, ready
    for the segmentation step. format "dicom": dicom/<patient>/<study>/<series>/*.dcm, given/<patient>/organs.nii.gz and
    truth.csv, ready for the first step, which writes cohort.csv.
    tracer, fwhm_mm, spheres: as of make_subject.  doses: fractions of the normal one; with any, doses/<subject>/ gets
    SUV (the normal dose), SUV_<dose>, truth (noise-free), organs and spheres; its SUVs are not cut at 0.
    mr: pairs/<subject>/ gets CT, MR, truth (the MR without bias field and noise) and organs.
    workers, scheduler: where the work is done (subjects.for_each_subject).
    Raises InputError for impossible numbers and for a root that contains something else.
    """
    root = Path(root)
    plan = _checked_plan(root, subjects, seed, format, voxel_mm, test_fraction, validation_fraction)
    closest(tracer, TRACERS)
    check_doses(doses)
    settings = dict(cohort_seed=seed, format=format, voxel_mm=voxel_mm, variability=variability)
    settings |= dict(tracer=tracer, fwhm_mm=fwhm_mm, spheres=spheres, mr=mr)
    _check_settings(root / "truth.csv", settings)
    rows = {row.subject: row for row in plan.itertuples()}
    write = {"nifti": _write_nifti, "dicom": _write_dicom}[format]

    def work(subject: str) -> dict[str, Any]:
        row = rows[subject]
        made = make_subject(row.demographics, row.seed, voxel_mm, variability, tracer, fwhm_mm, spheres, mr)
        write(root, row, made)
        if doses:
            known = dict(truth=made.noise_free, organs=made.organs, spheres=made.spheres)
            model = NoiseModel(fwhm_mm=fwhm_mm)
            write_doses(root / "doses" / subject, made.unclipped, doses, row.seed, NOTE, model, known)
        if made.mr is not None:
            pair = dict(CT=made.ct, MR=made.mr, truth=made.mr_truth, organs=made.organs)
            with atomic(root / "pairs" / subject) as part:
                for name, volume in pair.items():
                    write_nifti(part / f"{name}.nii.gz", volume, NOTE, UNITS["MR"] if name == "truth" else None)
        return settings | made.truth

    def done(subject: str) -> bool:
        there = all((root / file.format(subject)).exists() for file in FILES[format])
        there &= not mr or (root / "pairs" / subject).is_dir()
        return there and has_doses(root / "doses" / subject, doses)

    failed = for_each_subject(root, "make_phantom", list(rows), work, done, root / "truth.csv", workers, scheduler)
    if format == "nifti":
        table = plan.loc[~plan["subject"].isin(failed), list(COLUMNS)]
        write_table(root / "cohort.csv", carry_over(table, root / "cohort.csv"))
    return failed


def _checked_plan(root, subjects, seed, format, voxel_mm, test_fraction, validation_fraction):
    if subjects < 1:
        raise InputError(f"--subjects is {subjects}; at least 1 is needed.")
    if seed < 0:
        raise InputError(f"--seed is {seed}; give 0 or a positive number.")
    if format not in FILES:
        raise InputError(f'--format is "{format}"; known: {", ".join(FILES)}.')
    if not 1 <= voxel_mm <= 12:
        raise InputError(f"--voxel-mm is {voxel_mm:g}; 1 to 12 mm are possible. The default is 4.")
    if not 0 <= test_fraction <= 1:
        raise InputError(f"--test-fraction is {test_fraction:g}; give a number from 0 to 1.")
    if not 0 <= validation_fraction <= 1 - test_fraction:
        limit = f"from 0 to {1 - test_fraction:g}, what --test-fraction leaves"
        raise InputError(f"--validation-fraction is {validation_fraction:g}; give a number {limit}.")
    table = root / "cohort.csv"
    if format == "nifti" and table.exists():
        sources = set(read_text(table).get("source", [""]))
        if sources != {SOURCE}:
            raise InputError(f"{table}: lists subjects that are no phantoms. Choose another --root for the phantoms.")
    plan = plan_cohort(subjects, seed, test_fraction, validation_fraction)
    if format == "dicom":
        plan["subject"] = [
            f"PETCT_{np.random.SeedSequence(s).generate_state(1, np.uint64)[0]:016x}"[:16] for s in plan["seed"]
        ]
    return plan


def _check_settings(path, wanted):
    """Raises InputError when the table of truth lists subjects that were made with other settings."""
    truth = read_table(path)
    for name, value in wanted.items():
        others = [v for v in truth.get(name, ()) if v != value]
        if others:
            raise InputError(
                f"{path}: made with {name} {others[0]}, not {value}. Choose another --root, or the same {name}."
            )


def _write_nifti(root, row, made):
    write_nifti(root / "resampled" / row.subject / "CT.nii.gz", made.ct, NOTE)
    write_nifti(root / "resampled" / row.subject / "SUV.nii.gz", made.suv, NOTE)
    write_nifti(root / "given" / row.subject / "organs.nii.gz", made.organs, NOTE)


def _write_dicom(root, row, made):
    from totalgen.phantom.phantom_dicom import write_study  # pydicom is only needed here

    write_study(root / "dicom" / row.subject, row.subject, made, row.demographics, row.seed)
    write_nifti(root / "given" / row.subject / "organs.nii.gz", made.organs, NOTE)
