"""The person of a study: sex, age, height, weight, and the cohort table that lists subjects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.data.names import check_subjects
from totalgen.data.text_files import check_numbers, read_csv, read_text, spreadsheet_row
from totalgen.errors import InputError

COLUMNS = ("subject", "sex", "age_years", "height_m", "weight_kg", "split", "source")
MANIFEST = "manifest.csv"  # the cohort table of a folder of generated studies
TEST_FRACTION = 0.26  # share of test subjects: 200 of 765 in the paper
COVERAGE = "covers_torso"  # a further column, True or False, that 4_crop_torso.py adds
PERSON_NUMBERS = ("age_years", "height_m", "weight_kg")
SEXES = ("F", "M")
SPLITS = ("train", "validation", "test")  # trainings learn from the first
HEIGHT_M = (1.0, 2.3)
WEIGHT_KG = (20.0, 300.0)
AGE_YEARS = (1.0, 120.0)


@dataclass(frozen=True)
class Demographics:
    """sex: "F" or "M";  age_years;  height_m;  weight_kg.  Raises InputError for values no patient has."""

    sex: str
    age_years: float
    height_m: float
    weight_kg: float

    def __post_init__(self) -> None:
        if self.sex not in SEXES:
            raise InputError(f'sex is "{self.sex}"; the model knows F and M. Give one of the two.')
        if not HEIGHT_M[0] <= self.height_m <= HEIGHT_M[1]:
            if HEIGHT_M[0] <= self.height_m / 100 <= HEIGHT_M[1]:
                raise InputError(
                    f"height is {self.height_m:g} m; {HEIGHT_M[0]:g} to {HEIGHT_M[1]:g} m are accepted. It looks like "
                    f"centimetres: write {self.height_m / 100:g}."
                )
            given_cm = self.height_m * 100
            accepted = f"{HEIGHT_M[0] * 100:g} to {HEIGHT_M[1] * 100:g} cm are accepted"
            metres = HEIGHT_M[0] <= given_cm <= HEIGHT_M[1]
            hint = f" It looks like metres: write {100 * given_cm:g}." if metres else " Correct it."
            raise InputError(f"height is {given_cm:g} cm; {accepted}.{hint}")
        if not WEIGHT_KG[0] <= self.weight_kg <= WEIGHT_KG[1]:
            raise InputError(
                f"weight is {self.weight_kg:g} kg; {WEIGHT_KG[0]:g} to {WEIGHT_KG[1]:g} kg are accepted. Correct it."
            )
        if not AGE_YEARS[0] <= self.age_years <= AGE_YEARS[1]:
            raise InputError(
                f"age is {self.age_years:g} years; {AGE_YEARS[0]:g} to {AGE_YEARS[1]:g} are accepted. Correct it."
            )

    @property
    def bmi(self) -> float:
        """Body mass index, kg/m²."""
        return self.weight_kg / self.height_m**2

    def channels(self) -> np.ndarray:
        """[4] float32: height_m, weight_kg / 100, age_years / 100, sex (F 0, M 1) – constant maps once broadcast."""
        return np.array(
            [self.height_m, self.weight_kg / 100, self.age_years / 100, float(self.sex == "M")], dtype=np.float32
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any] | pd.Series) -> "Demographics":
        """From a row of a cohort table, or a dict of its columns."""
        numbers = []
        for name in PERSON_NUMBERS:
            value = row.get(name, np.nan)  # an archive lacks what was empty
            try:
                numbers.append(float(value))
            except (ValueError, TypeError):
                raise InputError(f'{name} is "{value}", not a number. Correct the table.') from None
            if np.isnan(numbers[-1]):
                raise InputError(f"{name} is empty. Fill it in.")
        sex = row.get("sex", np.nan)
        if pd.isna(sex):
            raise InputError("sex is empty. Fill it in.")
        return cls(sex, *numbers)


RANGES = {"age_years": (1, "years"), "height_m": (100, "cm"), "weight_kg": (1, "kg")}  # name: factor to the unit shown


def ranges(people: Iterable[Demographics]) -> dict[str, list[float]]:
    """name → [lowest, highest] of age_years, height_m and weight_kg over people."""
    rows = [vars(person) for person in people]
    return {name: [min(row[name] for row in rows), max(row[name] for row in rows)] for name in RANGES}


def outside(person: Demographics, known: dict[str, list[float]]) -> list[str]:
    """In words, which values of a person are outside the ranges of a training cohort (see ``ranges``)."""
    found = []
    for name, (low, high) in known.items():
        value, (factor, unit) = getattr(person, name), RANGES[name]
        if not low <= value <= high:
            word = name.partition("_")[0]
            span = f"{factor * low:.4g} to {factor * high:.4g} {unit}"
            found.append(f"{word} {factor * value:.4g} {unit} is outside {span} of the training cohort")
    return found


def read_cohort(path: str | Path, person: bool = True) -> pd.DataFrame:
    """A cohort table as a DataFrame, subject and split as text.

    person: whether sex, age, height and weight must be there. An empty split is train, since trainings take it; not of
    a manifest.csv, whose studies nothing was trained on.
    Raises InputError when it is missing, empty or without a column, and when a subject occurs twice or cannot be the
    name of a folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such cohort table. Run 0_Preprocess/1_dicom_to_metadata.py on its folder first.")
    text = dict.fromkeys(("subject", "sex", "split"), str)
    table = read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    needed = ("subject", "sex", *PERSON_NUMBERS) if person else ("subject",)
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing. A cohort table has {', '.join(COLUMNS)}.")
    if table.empty:
        raise InputError(f"{path}: lists no subject. Read the reasons in failures.csv in the same folder.")
    if "split" in table and path.name != MANIFEST:
        table["split"] = table["split"].fillna(SPLITS[0])
    check_subjects(table["subject"], path, unique=True)
    check_numbers(table, PERSON_NUMBERS, path)
    if COVERAGE in table:
        told = table[COVERAGE].dropna().astype(str)
        for index, text in told[~told.isin(("True", "False"))].items():
            who = f"{path}, row {spreadsheet_row(index)} ({table.loc[index, 'subject']})"
            raise InputError(f'{who}: {COVERAGE} is "{text}"; it is True, False or empty. Correct the table.')
    return table


def check_people(table: pd.DataFrame, path: str | Path) -> None:
    """Raises InputError, naming the row as a spreadsheet counts, for a person that no model knows (``Demographics``).

    table: of ``read_cohort``, or rows of it.
    """
    for index, row in table.iterrows():
        try:
            Demographics.from_row(row)
        except InputError as error:
            raise InputError(f"{path}, row {spreadsheet_row(index)}, subject {row['subject']}: {error}") from None


def of_split(table: pd.DataFrame, split: str | None, path: str | Path) -> pd.DataFrame:
    """The rows of ``split`` of the cohort table at ``path``; all when it is None.

    All, too, of a manifest.csv without that column: generated studies need not have one. Raises InputError for another
    table without it, and when no row is left.
    """
    if split is None or ("split" not in table and Path(path).name == MANIFEST):
        return table
    if "split" not in table:
        raise InputError(f"{path}: has no column split, of which {split} is asked for. Add it, or leave --split out.")
    chosen = table[table["split"] == split]
    if chosen.empty:
        known = ", ".join(sorted(table["split"].dropna().unique())) or "none"
        raise InputError(f'{path}: no subject of split "{split}". Splits there: {known}. Choose one with --split.')
    return chosen


def carry_over(table: pd.DataFrame, path: str | Path, keep: Collection[str] = ()) -> pd.DataFrame:
    """``table`` with values of the same subjects in the cohort table at ``path``, as text: those of its further columns
    and of the columns ``keep``."""
    if not Path(path).exists():
        return table
    known = read_text(path)
    if "subject" not in known:
        raise InputError(f"{path}: column subject is missing. A cohort table has {', '.join(COLUMNS)}.")
    known = known.drop_duplicates("subject").set_index("subject")
    for name in known:
        earlier = table["subject"].map(known[name]).fillna("")
        if name not in table:
            table = table.assign(**{name: earlier})
        elif name in keep:
            table = table.assign(**{name: earlier.where(earlier != "", table[name])})
    return table


def write_cohort(path: str | Path, table: pd.DataFrame) -> None:
    """Write a cohort table, atomically."""
    with atomic(path) as part:
        table.to_csv(part, index=False)


def add_to_cohort(path: str | Path, subjects: Sequence[str], source: str, test_fraction: float, seed: int) -> None:
    """Add the subjects that a cohort table lacks, nothing known of them but a split and their source.

    So many of them, chosen at random, are of split test that it has its share of the whole table. What was there stays,
    and a table without splits has none for them either.
    """
    known = read_text(path) if Path(path).exists() else pd.DataFrame(dict(subject=[], split=[]))
    if "subject" not in known:
        raise InputError(f"{path}: column subject is missing. A cohort table has {', '.join(COLUMNS)}.")
    new = [subject for subject in subjects if subject not in set(known["subject"])]
    if not new:
        return
    rows = pd.DataFrame(dict(subject=new, source=source))
    if "split" in known:
        wanted = int(np.ceil(test_fraction * (len(known) + len(new)))) - int((known["split"] == "test").sum())
        test = set(np.random.default_rng(seed).permutation(new)[: max(wanted, 0)])
        rows.insert(1, "split", ["test" if subject in test else "train" for subject in new])
    write_cohort(path, pd.concat([known, rows]))


def changes(path: str | Path, table: pd.DataFrame) -> list[str]:
    """In words, what rows of ``table`` say otherwise of people than the cohort table at ``path`` does, such as after a
    correction by hand there."""
    if not Path(path).exists():
        return []
    known = read_text(path).drop_duplicates("subject").set_index("subject")
    found = []
    for row in table.to_dict("records"):
        for name in ("sex", *PERSON_NUMBERS):
            there = str(known[name].get(row["subject"], "")) if name in known else ""
            if there and _differ(there, row[name]):
                found.append(
                    f"{Path(path).name} said {name} {there} of {row['subject']}, and now {row[name]}, as the table of "
                    "people does: correct it there"
                )
    return found


def _differ(text, value):
    try:
        return abs(float(text) - float(value)) > 1e-6
    except ValueError:
        return text != str(value)


def write_with_others(path: str | Path, table: pd.DataFrame) -> pd.DataFrame:
    """Write a cohort table whose subjects keep their split and further columns, and in which the subjects that it had
    besides, such as those added by hand, stay. Returns what was written."""
    if Path(path).exists():
        table = carry_over(table, path, keep=("split",))
        known = read_text(path)
        table = pd.concat([known[~known["subject"].isin(table["subject"])], table], ignore_index=True)
    table = table.sort_values("subject")
    write_cohort(path, table)
    return table
