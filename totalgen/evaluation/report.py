"""The published Table 1, for any reference and candidates, and its statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.data.measures import MEASURES, TINY_L
from totalgen.data.organs import MEASURED
from totalgen.data.studies import read_studies
from totalgen.errors import InputError
from totalgen.evaluation import statistics
from totalgen.evaluation.figures import SEX, violins
from totalgen.evaluation.measured import read_measured

PHANTOM_NOTE = "phantom: not evidence about patients"
PRINTED = {"volume_l": "Volume (L)", "suv_mean": "SUVmean", "suv_max": "SUVmax"}  # rows of the published table
DEMOGRAPHICS = {  # row of the header: (column, factor to its unit)
    "Age (years)": ("age_years", 1),
    "Height (cm)": ("height_m", 100),
    "Weight (kg)": ("weight_kg", 1),
}


@dataclass(frozen=True)
class Cohort:
    """name: as printed;  measured: one row per subject and organ (``read_measured``);  unmeasured: subjects without."""

    name: str
    measured: pd.DataFrame
    unmeasured: int = 0

    @property
    def phantom(self) -> bool:
        """Whether the source of any subject is a phantom, directly or through the training data."""
        if "source" not in self.measured:
            return False
        return bool(self.measured["source"].astype(str).str.contains("phantom", case=False).any())

    def values(self, sex: str, organ: str, measure: str) -> np.ndarray:
        """[n] values of complete organs: missing and tiny ones are counted below the table, not averaged."""
        rows = self._rows(sex, organ)
        return rows.loc[rows["flag"] == "", measure].to_numpy(dtype=float)

    def flagged(self, sex: str, organ: str, flag: str) -> int:
        """Number of subjects whose organ is "missing" or "tiny"."""
        return int((self._rows(sex, organ)["flag"] == flag).sum())

    def people(self, sex: str) -> pd.DataFrame:
        """One row per subject of a sex."""
        return self.measured[self.measured["sex"] == sex].drop_duplicates("subject")

    def _rows(self, sex, organ):
        return self.measured[(self.measured["sex"] == sex) & (self.measured["organ"] == organ)]


def load_cohort(name: str, root: str | Path, split: str | None = None, masks: str = "organs") -> Cohort:
    """A measured cohort root or generated folder as a Cohort. Raises InputError when it has not been measured."""
    measured = read_measured(root, split, masks)
    return Cohort(name, measured, len(read_studies(root, split)) - measured["subject"].nunique())


def compare_cohorts(reference: Cohort, candidates: Sequence[Cohort], outdir: str | Path) -> str:
    """Write table1.md, table1.csv, statistics.csv and violins.png into ``outdir``; returns the text of table1.md.

    Raises InputError when two cohorts share a name or no candidate is given.
    """
    cohorts = [reference, *candidates]
    names = [cohort.name for cohort in cohorts]
    if not candidates:
        raise InputError("no candidate cohort. Give --candidate NAME=FOLDER at least once.")
    if len(set(names)) < len(names):
        raise InputError(f"two cohorts share a name ({', '.join(names)}). Write NAME=FOLDER with different names.")
    outdir = Path(outdir)
    cells = table1(cohorts)
    text = table1_markdown(cohorts, cells)
    for file, table in (("table1.csv", cells), ("statistics.csv", statistics_table(reference, candidates))):
        with atomic(outdir / file) as part:
            table.to_csv(part, index=False, float_format="%.6g")
    whole_organs = [c.measured[c.measured["flag"] == ""].assign(cohort=c.name) for c in cohorts]
    violins(outdir / "violins.png", pd.concat(whole_organs), note=" ".join(_phantom_lines(cohorts)))
    with atomic(outdir / "table1.md") as part:
        part.write_text(text)
    return text


def table1(cohorts: Sequence[Cohort]) -> pd.DataFrame:
    """The cells of Table 1, long: one row per sex, organ, measure and cohort; the first cohort is the reference.

    Columns: sex, organ, measure, unit, cohort, n, mean, std, diff_percent, p_value, significant, missing, tiny. Means
    and differences need one subject per cohort, std and p two; else they are empty.
    """
    rows = []
    for sex, organ, column in _groups():
        measure, unit = MEASURES[column]
        base = cohorts[0].values(sex, organ, column)
        for cohort in cohorts:
            values = cohort.values(sex, organ, column)
            other = cohort is not cohorts[0]
            p_value = statistics.welch(base, values) if other else None
            both = other and len(base) and len(values)
            rows.append(
                dict(
                    sex=SEX[sex][0], organ=organ, measure=measure, unit=unit, cohort=cohort.name, n=len(values),
                    mean=values.mean() if len(values) else None,
                    std=values.std(ddof=1) if len(values) > 1 else None,
                    diff_percent=statistics.difference_percent(base.mean(), values.mean()) if both else None,
                    p_value=p_value,
                    significant=None if p_value is None else int(p_value < statistics.ALPHA),
                    missing=cohort.flagged(sex, organ, "missing"),
                    tiny=cohort.flagged(sex, organ, "tiny"),
                )
            )
    return pd.DataFrame(rows).astype({"significant": "Int64"})


def statistics_table(reference: Cohort, candidates: Sequence[Cohort]) -> pd.DataFrame:
    """One row per sex, organ, measure and candidate: the results of ``statistics.compare``, and three more.

    welch_p_holm and equivalence_p_holm are corrected over all rows of one candidate; anova_p is over the reference and
    all candidates, so it repeats for each.
    """
    tables = []
    for candidate in candidates:
        rows = []
        for sex, organ, column in _groups():
            measure, unit = MEASURES[column]
            groups = [cohort.values(sex, organ, column) for cohort in (reference, *candidates)]
            figures = statistics.compare(groups[0], candidate.values(sex, organ, column))
            place = dict(sex=SEX[sex][0], organ=organ, measure=measure, unit=unit)
            place |= dict(reference=reference.name, candidate=candidate.name)
            rows.append(place | figures | dict(anova_p=statistics.anova(groups)))
        for test in ("welch_p", "equivalence_p"):
            for row, p_value in zip(rows, statistics.holm([row[test] for row in rows]), strict=True):
                row[f"{test}_holm"] = p_value
        tables += rows
    return pd.DataFrame(tables)


def table1_markdown(cohorts: Sequence[Cohort], cells: pd.DataFrame) -> str:
    """Table 1 as Markdown: demographics, then per organ mean ± std and, for candidates, (mean difference %)."""
    columns = [(sex, cohort) for sex in SEX for cohort in cohorts]
    found = cells.set_index(["sex", "organ", "measure", "cohort"])
    lines = [
        f"# Table 1: organ volume and uptake, reference {cohorts[0].name}",
        "",
        _line("", [f"{SEX[sex][0].capitalize()}: {cohort.name}" for sex, cohort in columns]),
        _line("---", ["---"] * len(columns)),
        _line("N", [str(len(cohort.people(sex))) for sex, cohort in columns]),
    ]
    for title, (column, factor) in DEMOGRAPHICS.items():
        people = [cohort.people(sex)[column].astype(float) * factor for sex, cohort in columns]
        lines.append(_line(title, [_mean_std(len(p), p.mean(), p.std(), digits=0) for p in people]))
    for organ in MEASURED:
        lines.append(_line(f"**{organ.capitalize()}**", [""] * len(columns)))
        for column, title in PRINTED.items():
            row = [found.loc[SEX[sex][0], organ, MEASURES[column][0], cohort.name] for sex, cohort in columns]
            if column == next(iter(PRINTED)):
                lines.append(_line("N", [str(cell.n) for cell in row]))
            lines.append(_line(title, [_cell(cell) for cell in row]))
    lines += ["", *_notes(cohorts)]
    return "\n".join(lines) + "\n"


def _groups():
    return [(sex, organ, column) for sex in SEX for organ in MEASURED for column in MEASURES]


def _line(title, texts):
    return "| " + " | ".join([title, *texts]) + " |"


def _mean_std(n, mean, std, digits=2):
    if n == 0:
        return "–"
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if n > 1 else f"{mean:.{digits}f} (n = 1)"


def _cell(cell):
    star = "\\*" if cell.significant is not pd.NA and cell.significant else ""
    difference = "" if pd.isna(cell.diff_percent) else f" ({cell.diff_percent:.1f} %)"
    return _mean_std(cell.n, cell["mean"], cell["std"]) + star + difference


def _notes(cohorts):
    yield f"Mean ± standard deviation (difference of the means from {cohorts[0].name}, %); N: whole organs measured."
    yield "\\* p < 0.05, Welch's t test, not corrected for the number of tests; statistics.csv has corrected values."
    yield ""
    yield f"Not averaged, because missing or under {TINY_L * 1000:.0f} mL:"
    yield ""
    for cohort in cohorts:
        counts = [
            f"{SEX[sex][0]} {organ} {number} {flag}"
            for sex in SEX
            for organ in MEASURED
            for flag in ("missing", "tiny")
            if (number := cohort.flagged(sex, organ, flag))
        ]
        if cohort.unmeasured:
            counts.append(f"{cohort.unmeasured} subjects not measured at all (failures.csv)")
        yield f"- {cohort.name}: {', '.join(counts) or 'none'}"
    phantoms = _phantom_lines(cohorts)
    if phantoms:
        yield ""
        yield from (f"**{line}**" for line in phantoms)


def _phantom_lines(cohorts):
    names = [cohort.name for cohort in cohorts if cohort.phantom]
    return [f"{', '.join(names)} – {PHANTOM_NOTE}."] if names else []
