"""The ranges that the quality check of generated studies asks for (data/quality.py), computed from a cohort."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.demographics import COVERAGE, Demographics, of_split
from totalgen.data.files import atomic, check_place
from totalgen.data.intensity import CT
from totalgen.data.measuring import measure_each
from totalgen.data.names import check_masks
from totalgen.data.quality import FORMAT_VERSION, MARGIN, MASS, Reference, SexReference, study_figures
from totalgen.data.studies import read_studies
from totalgen.data.subjects import read_table
from totalgen.data.volume import read_labels, read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.measured import joined

FEWEST = 10  # subjects of a sex: a range of fewer is chance
WINDOW_HU = (CT.low, CT.high)


def write_reference(
    root: str | Path, path: str | Path, masks: str = "organs", split: str = "train", window_hu: tuple = WINDOW_HU,
    workers: int = 1, scheduler: str | None = None,
) -> str:  # fmt: skip
    """Write the reference of the subjects of a ``split`` of a cohort to ``path`` (JSON), and how many of the others
    pass it: they are as real. Returns both in words.

    masks: name of the mask files;  window_hu: to which CT is cut, that of the training. What is measured of each
    subject is kept in <root>/<masks>_quality.csv. Only complete torsos count. Raises InputError for fewer than FEWEST
    subjects of both sexes, a window that is none, and a ``path`` where something else is that would be lost.
    """
    if window_hu[0] >= window_hu[1]:
        raise InputError(f"--window-hu {window_hu[0]:g} {window_hu[1]:g}: the first is not below. Change one.")
    _check_path(Path(path))
    table = measure_quality(root, masks, window_hu, workers, scheduler)
    if COVERAGE in table:
        table = table[table[COVERAGE].astype(str) != "False"]
    chosen = None if split == "train" and "split" not in table else split  # without splits all are to learn from
    inside = table.index.isin(of_split(table, chosen, root).index)
    sexes = {sex: fitted(rows) for sex, rows in table[inside].groupby("sex") if len(rows) >= FEWEST}
    if not sexes:
        raise InputError(f"{root}: fewer than {FEWEST} complete subjects of each sex in split {split}. Add some.")
    others = table[~inside & table["sex"].isin(list(sexes))]
    reference = Reference(sexes, window_hu)
    passed = sum(not reference.faults(Demographics.from_row(row), row) for row in others.to_dict("records"))
    counts = {sex: known.subjects for sex, known in sexes.items()}
    about = dict(
        format_version=FORMAT_VERSION, window_hu=list(window_hu), margin=MARGIN, split=split,
        sources=sorted(set(table["source"].astype(str))) if "source" in table else [],
        others=dict(subjects=len(others), passed=passed), sexes={sex: vars(known) for sex, known in sexes.items()},
    )  # fmt: skip
    with atomic(path) as part:
        part.write_text(json.dumps(about, indent=1) + "\n")
    return f"Reference: {path} of {counts}; of {len(others)} other subjects {passed} pass it"


def _check_path(path):
    """Raise InputError where a reference cannot be written: seen before anything is measured."""
    check_place(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Give the name of a file, such as {path / 'reference.json'}.")
    if path.exists():
        try:
            Reference.load(path)
        except InputError:
            raise InputError(f"{path}: is there and is no reference; it would be lost. Choose another name.") from None


def measure_quality(
    root: str | Path, masks: str = "organs", window_hu: tuple = WINDOW_HU, workers: int = 1,
    scheduler: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Rows of read_studies with ``study_figures`` of each, kept in <root>/<masks>_quality.csv; what was measured in
    other files than are there now is measured again."""
    studies = read_studies(root).set_index("subject")
    path = Path(root) / f"{check_masks(masks)}_quality.csv"
    names = [f"{name}.nii.gz" for name in ("CT", "SUV", masks)]
    files = {subject: [folder / name for name in names] for subject, folder in studies["folder"].items()}

    def work(subject: str) -> dict[str, Any]:
        ct, suv, organs = files[subject]
        found = study_figures(read_nifti(ct), read_nifti(suv), read_labels(organs), window_hu)
        return dict(window_hu=str(window_hu)) | {name: float(f"{value:.6g}") for name, value in found.items()}

    known = read_table(path)
    same = set(known["subject"][known["window_hu"] == str(window_hu)]) if "window_hu" in known else set()

    everyone = list(studies.index)
    measure_each(root, "quality", files, work, path, everyone, workers, scheduler, usable=same.__contains__)
    return joined(root, None, read_table(path))


def fitted(rows: pd.DataFrame) -> SexReference:
    """Regression of the mass, and ranges of the organs, over subjects of one sex. rows: of ``measure_quality``."""
    design = np.column_stack([np.ones(len(rows)), rows["height_m"], rows["weight_kg"]])
    mass = rows[MASS].to_numpy(float)
    solution = np.linalg.lstsq(design, mass, rcond=None)[0]
    residual = mass - design @ solution
    intercept, per_m, per_kg = (round(float(value), 4) for value in solution)
    line: dict[str, Any] = dict(intercept=intercept, per_m=per_m, per_kg=per_kg)
    organs: dict[str, dict[str, tuple[float, float]]] = {}
    for name in (name for name in rows if name.count(".") == 1 and rows[name].notna().any()):
        organ, measure = name.split(".")
        organs.setdefault(organ, {})[measure] = (float(rows[name].min()), float(rows[name].max()))
    return SexReference(len(rows), line | dict(residual=_range(residual)), organs)


def _range(values):
    return round(float(values.min()), 4), round(float(values.max()), 4)
