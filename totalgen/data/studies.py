"""The studies of a cohort root or of a folder of generated studies, read by one function."""

from pathlib import Path

import pandas as pd

from totalgen.data.demographics import MANIFEST, of_split, read_cohort
from totalgen.data.files import require_folder
from totalgen.errors import InputError

LAYOUTS = {  # table: folder, relative to the table, that contains one folder per subject
    "cohort.csv": "cropped",
    MANIFEST: ".",
}


def table_of(root: str | Path) -> Path:
    """The table of a cohort root or of a folder of generated studies. Raises InputError where there is none."""
    root = require_folder(root, "Give the root of a cohort or the output folder of 2_Tests/generate_petct.py.")
    name = next((name for name in LAYOUTS if (root / name).exists()), None)
    if name is None:
        raise InputError(f"{root}: has neither {' nor '.join(LAYOUTS)}. Give a cohort root or a generated folder.")
    return root / name


def read_studies(root: str | Path, split: str | None = None) -> pd.DataFrame:
    """The cohort table of ``root`` with one more column, ``folder``: where a subject's CT, SUV and organs are.

    root: a cohort root (``cohort.csv``, ``cropped/<subject>/``) or the output of a generation (``manifest.csv``,
    ``<subject>/``).  split: keep the rows of this split, as ``of_split``.
    Raises InputError when the folder is neither of the two or no row is left.
    """
    path = table_of(root)
    table = read_cohort(path)
    table["folder"] = [path.parent / LAYOUTS[path.name] / subject for subject in table["subject"]]
    return of_split(table, split, path)
