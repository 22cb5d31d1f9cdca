"""A measured cohort, or the columns of a printed table: what a comparison is made between."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from totalgen.data.demographics import check_people
from totalgen.data.measures import MEASURES
from totalgen.data.measuring import outdated
from totalgen.data.names import first_of, person_of
from totalgen.data.studies import read_studies, table_of
from totalgen.data.text_files import read_csv
from totalgen.errors import InputError
from totalgen.evaluation.design import DEMOGRAPHICS, SEX
from totalgen.evaluation.measured import NO_BODIES, measured_files, read_bodies, read_measured
from totalgen.evaluation.statistics import Summary, body_std, summary

FLAGS = ("missing", "tiny", "not finite")  # why an organ is not averaged
PAPER_TABLE = "table1_paper.csv"
PERSON = ["sex", "age_years", "height_m", "weight_kg"]  # the same for all studies of a person
SAME_PERSON = dict(height_m=0.005, weight_kg=0.5)  # tables are rounded


@dataclass(frozen=True)
class Cohort:
    """name: as printed;  measured: one row per subject and organ (``read_measured``);  unmeasured: subjects without;
    doubled: (subject, organ) of further rows of a subject that was measured already;
    bodies: one row per subject (``read_bodies``), or empty;  role: what it is compared as, a key of ROLES.

    A subject is a study; several studies of one person (``generate_petct.py --samples``) count as one of N."""

    name: str
    measured: pd.DataFrame
    unmeasured: int = 0
    role: str = "candidate"
    doubled: tuple[tuple[str, str], ...] = ()
    bodies: pd.DataFrame = field(default_factory=NO_BODIES.copy)
    folder: Path | None = None
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # measured does not change

    @property
    def phantom(self) -> bool:
        """Whether the source of any subject is a phantom, directly or through the training data."""
        if "source" not in self.measured:
            return False
        return bool(self.measured["source"].astype(str).str.contains("phantom", case=False).any())

    def values(self, sex: str, organ: str, measure: str) -> np.ndarray:
        """[n] ``by_person``."""
        return self.by_person(sex, organ, measure).to_numpy(dtype=float)

    def by_person(self, sex: str, organ: str, measure: str) -> pd.Series:
        """The mean of the studies of every person, indexed by person."""
        return self.by_study(sex, organ, measure).groupby(level=0, sort=False).mean()

    def by_study(self, sex: str, organ: str, measure: str) -> pd.Series:
        """Values of complete organs, indexed by person: the others are counted below the table, not averaged."""
        if (sex, organ, measure) not in self._known:
            rows = self._rows(sex, organ)
            found = rows.loc[rows["flag"] == ""].set_index("person")[measure].astype(float)
            self._known[sex, organ, measure] = found[np.isfinite(found)]
        return self._known[sex, organ, measure]

    def summary(self, sex: str, organ: str, measure: str) -> Summary:
        """Mean, standard deviation and number of ``values``: what tests are made of."""
        return summary(self.values(sex, organ, measure))

    def spread(self, sex: str, organ: str, measure: str) -> float:
        """Standard deviation of single bodies: that of ``summary`` when every person has one study."""
        return body_std(self.by_study(sex, organ, measure))

    def studies(self, sex: str | None = None) -> int:
        """Number of measured studies, of one sex when given."""
        return int(self.people(sex)["studies"].sum())

    @property
    def flags(self) -> tuple[str, ...]:
        """FLAGS, and further ones of its table: they are not averaged either."""
        return (*FLAGS, *sorted(set(self.measured["flag"].astype(str)).difference(FLAGS, [""])))

    def flagged(self, sex: str, organ: str, flag: str) -> int:
        """Number of studies whose organ is "missing" (their table may have no row of it), "tiny", "not finite" or has
        another of ``flags``."""
        rows = self._rows(sex, organ)
        if flag == "missing":
            return int((rows["flag"] == flag).sum()) + self.studies(sex) - rows["subject"].nunique()
        if flag == "not finite":
            values = rows[list(MEASURES)].to_numpy(float)
            return int(((rows["flag"] == flag) | (rows["flag"] == "") & ~np.isfinite(values).all(1)).sum())
        return int((rows["flag"].astype(str) == flag).sum())

    def people(self, sex: str | None = None) -> pd.DataFrame:
        """One row per person, of one sex when given: the first study, and further columns person and studies, a number.

        Studies of one person are named so (``names.sample_name``) and have the same demographics.
        """
        if "people" not in self._known:
            studies = self._with_persons().drop_duplicates("subject")
            number = studies.groupby("person")["subject"].transform("size")
            self._known["people"] = studies.assign(studies=number).drop_duplicates("person")
        people = self._known["people"]
        return people if sex is None else people[people["sex"] == sex]

    def demographics(self, sex: str) -> dict[str, Summary]:
        """Row of DEMOGRAPHICS → Summary."""
        people = self.people(sex)
        return {title: summary(people[c].to_numpy(float) * factor) for title, (c, factor) in DEMOGRAPHICS.items()}

    def voxels(self) -> list[str]:
        """The voxel sizes of its measured studies, in words; empty for tables that do not say them."""
        return sorted(set(self.measured.get("voxel_mm", pd.Series(dtype=str)).dropna().astype(str)) - {""})

    def _with_persons(self):
        if "persons" not in self._known:
            person = self.measured["subject"].astype(str).map(person_of)
            known = [column for column in PERSON if column in self.measured]
            alike = self.measured.groupby(person)[known].transform("nunique", dropna=False).le(1).all(axis=1)
            self._known["persons"] = self.measured.assign(person=person.where(alike, self.measured["subject"]))
        return self._known["persons"]

    def _rows(self, sex, organ):
        if "groups" not in self._known:
            self._known["groups"] = dict(iter(self._with_persons().groupby(["sex", "organ"])))
        return self._known["groups"].get((sex, organ), self._with_persons()[:0])


ROLES = {
    "reference": "what the others are compared with",
    "candidate": "what is evaluated",
    "packed": "the reference, packed and unpacked as a generated study is: like with like",
    "control": "a second sample of what the reference is a sample of: what a perfect generator gets",
    "true masks": "the reference measured in its true masks",
}
SAME_SUBJECTS = ("packed", "true masks")  # roles whose subjects are those of the reference


@dataclass(frozen=True)
class PrintedColumn:
    """A column of the published Table 1: means and standard deviations, no subjects. cells: of PAPER_TABLE."""

    name: str
    cells: pd.DataFrame
    phantom: bool = False
    unmeasured: int = 0
    role: str = "printed"

    def summary(self, sex: str, organ: str, measure: str) -> Summary:
        """What is printed; of nothing when it is not."""
        return self._found(sex, organ, MEASURES[measure][0])

    def spread(self, sex: str, organ: str, measure: str) -> float:
        """The standard deviation that is printed."""
        return self.summary(sex, organ, measure).std

    def studies(self, sex: str | None = None) -> int:
        """One of each person."""
        return len(self.people(sex))

    def brackets(self, sex: str, organ: str, measure: str) -> dict[str, Any]:
        """diff_percent and significant as they are printed, slips included; nothing where nothing is."""
        row = self._rows(sex, organ, MEASURES[measure][0])
        if row.empty or pd.isna(row["diff_percent"].iloc[0]):
            return {}
        return dict(diff_percent=float(row["diff_percent"].iloc[0]), significant=int(row["significant"].iloc[0]))

    def demographics(self, sex: str) -> dict[str, Summary]:
        """Row of DEMOGRAPHICS → Summary; those of the reference cohort hold for the synthetic ones, made for them."""
        names = {title: title.split()[0].lower() for title in DEMOGRAPHICS}
        return {title: self._found(sex, "", name) for title, name in names.items()}

    def people(self, sex: str | None = None) -> range:
        """As many as are printed: its length is the number of subjects."""
        chosen = self.cells if sex is None else self.cells[self.cells["sex"] == SEX[sex][0]]
        return range(int(chosen.groupby("sex")["n"].max().sum()))

    def flagged(self, sex: str, organ: str, flag: str) -> int:
        """Not printed."""
        return 0

    def _rows(self, sex, organ, measure):
        rows = self.cells
        return rows[(rows["sex"] == SEX[sex][0]) & (rows["organ"] == organ) & (rows["measure"] == measure)]

    def _found(self, sex, organ, measure):
        rows = self._rows(sex, organ, measure)
        if rows.empty:
            return Summary(np.nan, np.nan, 0)
        return Summary(float(rows["mean"].iloc[0]), float(rows["std"].iloc[0]), int(rows["n"].iloc[0]))


def load_cohort(
    name: str, root: str | Path, split: str | None = None, masks: str = "organs", role: str = "candidate"
) -> Cohort:
    """A measured cohort root or generated folder as a Cohort. Raises InputError when it has not been measured. A
    line on standard error says when it was measured in other files than are there now."""
    if others := outdated(*measured_files(Path(root), masks)):
        first = first_of(others)
        click.echo(
            f"Warning: {Path(root) / masks}.csv: {len(others)} of its subjects ({first}) were measured in other files "
            "than are there now. Run 3_Evaluations/2_measure_organs.py again.", err=True,
        )  # fmt: skip
    measured = read_measured(root, split, masks)
    again = measured.duplicated(["subject", "organ"])
    doubled = tuple(measured.loc[again, ["subject", "organ"]].itertuples(index=False, name=None))
    studies = read_studies(root, split)
    check_people(studies, table_of(root))  # else who is neither F nor M would be in no row
    unmeasured = len(studies) - measured["subject"].nunique()
    return Cohort(
        name, measured[~again].reset_index(drop=True), unmeasured, role, doubled, read_bodies(root, split), Path(root)
    )


def paper_table() -> pd.DataFrame:
    """The published Table 1, one row per cell: sex, organ, measure, unit, cohort, n, mean, std, …, note (its slips)."""
    path = Path(str(importlib.resources.files("totalgen.resource"))) / PAPER_TABLE
    return read_csv(path, dtype=dict(significant="Int64")).fillna(dict(organ="", note=""))


def paper_columns() -> list[PrintedColumn]:
    """The cohorts of the published Table 1: AutoPET, Flow and Diffusion."""
    table = paper_table()
    return [PrintedColumn(f"{name} (paper)", table[table["cohort"] == name]) for name in dict.fromkeys(table["cohort"])]


@dataclass(frozen=True)
class Pairs:
    """subjects: persons of both cohorts, by the same name and demographics;  others: of the candidate, without a
    partner;  strangers: the same name, and another person;  alone: of the reference, without a study of the candidate.
    """

    subjects: tuple[str, ...]
    others: tuple[str, ...]
    strangers: tuple[str, ...]
    alone: tuple[str, ...]


def pairs(reference: Cohort, candidate: Cohort) -> Pairs:
    """Persons that were made for a subject of the reference: the same name but for _sample…, sex, height and weight."""
    ours, theirs = (cohort.people().set_index("person") for cohort in (reference, candidate))
    common = [subject for subject in theirs.index if subject in ours.index]
    same = ours.loc[common, "sex"] == theirs.loc[common, "sex"]
    for column, tolerance in SAME_PERSON.items():
        same &= (ours.loc[common, column] - theirs.loc[common, column]).abs() <= tolerance
    found = tuple(subject for subject in common if same[subject])
    strangers = tuple(subject for subject in common if not same[subject])
    others = tuple(subject for subject in theirs.index if subject not in ours.index)
    return Pairs(found, others, strangers, tuple(subject for subject in ours.index if subject not in set(found)))


def check_names(cohorts: Sequence[Any]) -> None:
    """Raises InputError when two cohorts share a name or no candidate is among them."""
    names = [cohort.name for cohort in cohorts]
    if not any(cohort.role in ("candidate", "control") for cohort in cohorts):
        raise InputError("no candidate cohort. Give --candidate NAME=FOLDER at least once.")
    if len(set(names)) < len(names):
        raise InputError(f"two cohorts share a name ({', '.join(names)}). Write NAME=FOLDER with different names.")
