"""Names that become files and folders: subjects of tables, generated studies, and masks."""

import glob
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from totalgen.data.text_files import spreadsheet_row
from totalgen.errors import InputError

LONGEST = 100  # bytes: suffixes and the names of temporary folders must fit into 255 as well
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # of Windows
TABLES = {  # of a cohort or of generated studies
    "cohort", "manifest", "series", "demographics", "suv", "crop", "truth", "failures", "statistics", "table1",
    "pairs", "import", "bodies", "report",
}  # fmt: skip
IMAGES = {"ct", "suv", "pet", "mr"}
ASKED = re.compile(r"[FM]_[^_]+y_[^_]+cm_[^_]+kg_seed-?\d+")  # asked_name
SAMPLE = re.compile(r"_sample\d+$")  # sample_name


def fault(name: str) -> str | None:
    """Why ``name`` cannot be the name of a file or folder, in words; None when it can."""
    if not name.strip():
        return "is empty"
    if name != name.strip() or name.startswith(".") or name.endswith("."):
        return "begins or ends with a blank or a dot"
    if any(character in name for character in "/\\"):
        return "contains a path separator"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in name):
        return "contains a control character"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if name.split(".")[0].lower() in DEVICES:
        return "is the name of a device on Windows"
    if name.lower().endswith((".csv", ".json", ".html", ".zarr")):
        return "is the name of a table, a page or an archive"
    return None


def check_subjects(subjects: Iterable[object], path: str | Path, unique: bool = False) -> None:
    """Raise InputError naming the table ``path`` and the row of the first subject that cannot name a folder.

    subjects: a column of ``read_csv``, or any others, of rows without gaps;  unique: refuse one that occurs again, too.
    """
    seen: dict[str, int] = {}
    for index, subject in subjects.items() if isinstance(subjects, pd.Series) else enumerate(subjects):
        row = spreadsheet_row(index)
        name = subject if isinstance(subject, str) else ""
        if (why := fault(name)) is not None:
            raise InputError(f"{path}, row {row}: subject {name!r} {why}. Give it a plain name.")
        if unique and name in seen:
            raise InputError(f"{path}, row {row}: subject {name!r} is in row {seen[name]} already. Remove one of them.")
        seen[name] = row


def check_masks(name: str) -> str:
    """``name`` of the mask files of a cohort and of their table. Raises InputError for that of other files."""
    why = fault(name)
    if why is None and name.lower() in TABLES | IMAGES:
        why = "is the name of another table or image"
    if why is not None:
        raise InputError(f"--masks {name!r} {why}. Give a name such as segmented.")
    return name


def check_name(name: str, path: str | Path) -> str:
    """``name``, which the results of the file or folder ``path`` get. Raises InputError where it is no plain name."""
    if (why := fault(name)) is not None:
        raise InputError(f"{path}: its results would be called {name!r}, which {why}. Rename it.")
    return name


def check_below(folder: str) -> str:
    """A folder below a root. Raises InputError for one that is elsewhere."""
    for part in folder.split("/"):
        if (why := fault(part)) is not None:
            raise InputError(f"--folder {folder!r}: {part!r} {why}. Give the name of a folder below the root.")
    return folder


def asked_name(sex: str, age_years: float, height_cm: float, weight_kg: float, seed: int) -> str:
    """The name of a study whose demographics were asked for, not taken from a table."""
    return f"{sex}_{age_years:g}y_{height_cm:g}cm_{weight_kg:g}kg_seed{seed}"


def is_asked(study: str) -> bool:
    """Whether a study has an ``asked_name``, or is a further sample of one that has."""
    return ASKED.fullmatch(person_of(study)) is not None


def sample_name(name: str, number: int) -> str:
    """The name of a further study of the same person; number 0 is the first."""
    return f"{name}_sample{number + 1}" if number else name


def person_of(study: str) -> str:
    """The name of the person of a study: that of the first sample."""
    return SAMPLE.sub("", study)


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, with an ellipsis where there are more."""
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])


def pattern(text: str) -> str:
    """A path with one {}, which stands for a subject. Raises InputError for another."""
    if text.count("{}") != 1:
        raise InputError(f'"{text}" does not contain {{}} once, which stands for the subject. Write it.')
    return text


def file_of(text: str, subject: str) -> str:
    """The path that a ``pattern`` means for a subject; other braces belong to the path."""
    return text.replace("{}", subject)


def matching(first: str, *others: str) -> tuple[list[str], list[str]]:
    """(complete, incomplete): the subjects that the files of the first pattern are of, by whether the files of the
    ``others`` are there, too. Raises InputError when nobody is complete."""
    before, _, after = pattern(first).partition("{}")
    where, start = (Path(before), "") if before.endswith("/") else (Path(before).parent, Path(before).name)
    inside = after.partition("/")[0]
    found = sorted(where.glob(f"{glob.escape(start)}*{glob.escape(inside)}"))
    names = [path.name.removeprefix(start).removesuffix(inside) for path in found]
    names = [check_name(name, first) for name in names if name and Path(file_of(first, name)).exists()]
    complete = [name for name in names if all(Path(file_of(pattern(other), name)).exists() for other in others)]
    if not complete:
        raise InputError(f"no subject has all files: {', '.join((first, *others))}. Check the patterns.")
    return complete, [name for name in names if name not in complete]
