"""The published Table 1, for any reference and cohorts: its cells, and its layout as text, Markdown, LaTeX and CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.data.measures import MEASURES, TINY_L
from totalgen.evaluation import statistics
from totalgen.evaluation.design import DEMOGRAPHICS, PUBLISHED_DESIGN, SEX, TITLES, Design
from totalgen.evaluation.measured_cohort import FLAGS, SAME_SUBJECTS, Cohort

PHANTOM_NOTE = "phantom: not evidence about patients"
LATEX = {letter: f"\\{letter}" for letter in "%_&#${}"} | {
    "±": r"$\pm$", "–": "--", "*": r"\textsuperscript{*}", "\\": r"\textbackslash{}", "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def table1(cohorts: Sequence[Any], design: Design = PUBLISHED_DESIGN) -> pd.DataFrame:
    """The cells of Table 1, long: one row per sex, organ, measure and cohort; the first cohort is the reference.

    Columns: sex, organ, measure, unit, cohort, n (persons), studies, mean, std (of bodies), diff_percent, diff_low,
    diff_high (95 %), p_value, significant, and a count of each of FLAGS. Means and differences need one person per
    cohort, std, intervals and p two; else they are empty. Differences of printed columns are from the first printed
    one, and as they are printed.
    """
    rows = []
    for sex, organ, column in design.rows():
        measure, unit = MEASURES[column]
        for cohort in cohorts:
            base = base_of(cohort, cohorts)
            values, known = cohort.summary(sex, organ, column), base.summary(sex, organ, column)
            cell = dict(sex=SEX[sex][0], organ=organ, measure=measure, unit=unit, cohort=cohort.name, n=values.n)
            cell["studies"] = len(cohort.by_study(sex, organ, column)) if isinstance(cohort, Cohort) else values.n
            std = cohort.spread(sex, organ, column) if values.n > 1 else None
            cell |= dict(mean=values.mean if values.n else None, std=std)
            rows.append(cell | _difference(known, values, design, cohort is not base))
            if cohort.role == "printed":
                rows[-1] |= cohort.brackets(sex, organ, column)
            rows[-1] |= {flag.replace(" ", "_"): cohort.flagged(sex, organ, flag) for flag in FLAGS}
    return pd.DataFrame(rows).astype({"significant": "Int64"})


def base_of(cohort: Any, cohorts: Sequence[Any]) -> Any:
    """What a cohort is compared with: the first, or the first printed column."""
    return next(each for each in cohorts if (each.role == "printed") == (cohort.role == "printed"))


def _difference(base, values, design, other):
    found: dict[str, Any] = dict(diff_percent=None, diff_low=None, diff_high=None, p_value=None, significant=None)
    if not other or not (base.n and values.n):
        return found
    found["diff_percent"] = statistics.difference_percent(base.mean, values.mean)
    ratios = statistics.ratio_interval(base, values, 1 - design.alpha)
    if ratios is not None:
        found["diff_low"], found["diff_high"] = (100 * (ratio - 1) for ratio in ratios)
    found["p_value"] = statistics.welch(base, values)
    if found["p_value"] is not None:
        found["significant"] = int(found["p_value"] < design.alpha)
    return found


def grid(cohorts: Sequence[Any], cells: pd.DataFrame, design: Design = PUBLISHED_DESIGN) -> list[list[str]]:
    """The table as rows of text: the first is the header, the first column the titles, male cohorts left of female.

    The title of an organ begins with "# ": it has no values.
    """
    columns = [(sex, cohort) for sex in design.groups for cohort in cohorts]
    found = cells.set_index(["sex", "organ", "measure", "cohort"]).sort_index()
    rows = [["", *(f"{SEX[sex][0].capitalize()}: {cohort.name}" for sex, cohort in columns)]]
    rows.append(["N", *(counted(len(cohort.people(sex)), cohort.studies(sex)) for sex, cohort in columns)])
    for title in DEMOGRAPHICS:
        people = [cohort.demographics(sex)[title] for sex, cohort in columns]
        rows.append([title, *(_mean_std(each.mean, each.std, each.n, 0) for each in people)])
    for organ in design.organs:
        rows.append([f"# {organ.capitalize()}", *[""] * len(columns)])
        for column in design.printed:
            row = [found.loc[(SEX[sex][0], organ, MEASURES[column][0], cohort.name)] for sex, cohort in columns]
            if column == design.printed[0]:
                rows.append(["N", *(counted(cell["n"], cell["studies"]) for cell in row)])
            rows.append([TITLES[column], *(_cell(cell) for cell in row)])
    return rows


def counted(persons: int, studies: int) -> str:
    """A number of persons, with that of their studies where some have several."""
    return f"{persons} ({studies:.0f} studies)" if studies > persons else str(persons)


def _mean_std(mean, std, n, digits=2):
    if n == 0:
        return "–"
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if n > 1 else f"{mean:.{digits}f} (n = 1)"


def _cell(cell):
    star = "*" if cell["significant"] is not pd.NA and cell["significant"] == 1 else ""
    difference = "" if pd.isna(cell["diff_percent"]) else f" ({cell['diff_percent']:.1f} %)"
    return _mean_std(cell["mean"], cell["std"], cell["n"]) + star + difference


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal: columns of equal width."""
    widths = [max(len(row[i].removeprefix("# ")) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for n, row in enumerate(rows):
        texts = [text.removeprefix("# ") for text in row]
        lines.append("  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)).rstrip())
        if n == 0:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """With organs in bold."""
    lines = ["| " + " | ".join(_bold(text).replace("*", "\\*") for text in row) + " |" for row in rows]
    lines = [line.replace("\\*\\*", "**") for line in lines]
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |")
    return "\n".join(lines) + "\n"


def _bold(text):
    return f"**{text[2:]}**" if text.startswith("# ") else text.replace("|", "/")


def as_latex(rows: Sequence[Sequence[str]]) -> str:
    """A tabular, with \\hline only, so that no package is needed."""

    def escaped(text):
        return "".join(LATEX.get(letter, letter) for letter in text.removeprefix("# "))

    lines = [rf"\begin{{tabular}}{{l{'c' * (len(rows[0]) - 1)}}}", r"\hline"]
    for n, row in enumerate(rows):
        texts = [escaped(text) for text in row]
        if row[0].startswith("# "):
            texts[0] = rf"\textbf{{{texts[0]}}}"
        lines.append(" & ".join(texts) + r" \\" + (r" \hline" if n == 0 else ""))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def notes(cohorts: Sequence[Any], design: Design = PUBLISHED_DESIGN) -> list[str]:
    """What the table cannot say: how to read it, and who was not averaged."""
    lines = [
        f"Mean ± standard deviation (difference of the means from {cohorts[0].name}, %); N: persons, below an organ "
        "those in whom it is whole.",
        f"* p < {design.alpha:g}, Welch's t test, not corrected for the number of tests; statistics.csv has corrected "
        "values. No star is no agreement: see the verdicts.",
    ]
    same = [cohort.name for cohort in cohorts if cohort.role in SAME_SUBJECTS]
    if same:
        lines.append(
            f"{' and '.join(same)}: the subjects of {cohorts[0].name} themselves. Welch's test takes them for others "
            "and can miss a difference that the tests of pairs find."
        )
    printed = [cohort.name for cohort in cohorts if cohort.role == "printed"]
    if printed:
        others = " and ".join(printed[1:])
        own = f"{printed[0]} and not from {cohorts[0].name}"
        lines.append(f"Differences and stars of {others} are as printed, from {own}.")
    if any(cohort.studies() > len(cohort.people()) for cohort in cohorts):
        lines.append(
            "Several studies of one person count once: means, differences and tests are of the means of persons, the "
            "standard deviation is that of single bodies."
        )
    lines.append(f"Studies not averaged: missing, under {TINY_L * 1000:.0f} mL or with an SUV that is no number:")
    lines += [f"- {cohort.name}: {excluded(cohort, design)}" for cohort in cohorts if isinstance(cohort, Cohort)]
    return lines


def excluded(cohort: Cohort, design: Design = PUBLISHED_DESIGN) -> str:
    """In words, what of a cohort is not averaged."""
    counts = [
        f"{SEX[sex][0]} {organ} {number} {flag}"
        for sex in design.groups
        for organ in design.organs
        for flag in cohort.flags
        if (number := cohort.flagged(sex, organ, flag))
    ]
    if cohort.unmeasured:
        counts.append(f"{cohort.unmeasured} subjects not measured at all (failures.csv)")
    if cohort.doubled:
        who = ", ".join(dict.fromkeys(subject for subject, _ in cohort.doubled))
        counts.append(f"{len(cohort.doubled)} rows of subjects measured twice ({who}): the first was taken")
    return ", ".join(counts) or "none"


def phantom_line(cohorts: Sequence[Any]) -> str:
    """Names of the cohorts that are phantoms, or were trained on them, and what follows from that; or nothing."""
    names = [cohort.name for cohort in cohorts if cohort.phantom]
    return f"{', '.join(names)} – {PHANTOM_NOTE}." if names else ""


def write_table1(cohorts: Sequence[Any], cells: pd.DataFrame, outdir: Path, design: Design = PUBLISHED_DESIGN) -> str:
    """Write table1.{csv,txt,md,tex} into ``outdir``; returns the text for a terminal."""
    rows = grid(cohorts, cells, design)
    below, phantoms = notes(cohorts, design), phantom_line(cohorts)
    plain = "\n".join(["", *below, *([f"{phantoms}"] if phantoms else [])]) + "\n"
    lists = [line.startswith("- ") for line in below].index(True)
    quoted = "\n\n".join(below[:lists]).replace("*", "\\*") + "\n\n" + "\n".join(below[lists:]) + "\n"
    marked = f"\n{quoted}" + (f"\n**{phantoms}**\n" if phantoms else "")
    layouts: dict[str, Callable[[], str]] = {
        "txt": lambda: as_text(rows) + plain,
        "md": lambda: f"# Table 1: organ volume and uptake, reference {cohorts[0].name}\n\n{as_markdown(rows)}{marked}",
        "tex": lambda: as_latex(rows) + "".join(f"% {line}\n" for line in plain.splitlines() if line),
    }
    for suffix, make in layouts.items():
        with atomic(outdir / f"table1.{suffix}") as part:
            part.write_text(make(), encoding="utf-8")
    with atomic(outdir / "table1.csv") as part:
        cells.to_csv(part, index=False, float_format="%.6g")
    return layouts["txt"]()


def number(value: Any, digits: int = 2) -> str:
    """A figure for a table of a page; – for none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    return f"{value:.{digits}f}"
