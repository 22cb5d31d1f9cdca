"""The pictures of a comparison: violins, differences, BMI, organs against demographics, Bland–Altman.

PNGs, drawn without pyplot.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats

from totalgen.data.files import atomic
from totalgen.evaluation import statistics
from totalgen.evaluation.comparison import paired_values
from totalgen.evaluation.design import PUBLISHED_DESIGN, SEX, TITLES, Design
from totalgen.evaluation.measured_cohort import Cohort, pairs

VIOLIN_FROM = 5  # subjects: with fewer, a violin shows its smoothing, not the data
LINE_FROM = 3  # subjects: two points always lie on a line
DPI = 110
AGAINST = {"height_m": ("height (m)", 1.0), "weight_kg": ("weight (kg)", 1.0), "age_years": ("age (years)", 1.0)}
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "^", "s", "D", "v", "P")
WIDEST_PERCENT = 60.0  # of the axis of differences; what lies beyond is a triangle at its edge


def write(figure: Figure, path: str | Path, note: str = "") -> None:
    """Write a PNG, atomically, with one line of ``note`` below."""
    if note:
        figure.text(0.01, 0.003, note, fontsize=9)
    with atomic(path) as part:
        figure.savefig(part, dpi=DPI, format="png")


def violins(
    path: str | Path, values: pd.DataFrame, note: str = "", design: Design = PUBLISHED_DESIGN,
    stars: pd.DataFrame | None = None,
) -> None:  # fmt: skip
    """Violins of every organ (rows) and measure (columns), cohorts side by side, male left of female; a PNG.

    values: columns cohort, sex, organ and the printed measures, one row per study and organ; cohorts are in the order
    of their first row. Points are studies; a group of fewer than VIOLIN_FROM has points and no violin, a panel without
    any point says so.  note: one line under the picture.
    stars: cells of Table 1; a significant difference is marked above its violin.
    """
    cohorts = list(dict.fromkeys(values["cohort"]))
    width = 3.2 + 1.1 * len(cohorts)
    figure = Figure(figsize=(width * len(design.printed) * 0.8, 2.5 * len(design.organs)))
    axes = figure.subplots(len(design.organs), len(design.printed), squeeze=False)
    palette = {sex: SEX[sex][1] for sex in design.groups}
    group = dict(x="cohort", order=cohorts, hue="sex", hue_order=list(design.groups), palette=palette, legend=False)
    for organ, row in zip(design.organs, axes, strict=True):
        chosen = values[values["organ"] == organ]
        for measure, axis in zip(design.printed, row, strict=True):
            points = chosen[np.isfinite(chosen[measure].astype(float))]
            _violin(axis, points, measure, group)
            axis.set(xlabel="", ylabel="", title=f"{organ.capitalize()}: {_title(measure)}")
            axis.set_ylim(bottom=0)  # volumes and uptake are compared as ratios: the axis must begin at zero
            axis.title.set_fontsize(10)
            axis.tick_params(axis="x", labelsize=8, rotation=15 if len(cohorts) > 3 else 0)
            axis.spines[["top", "right"]].set_visible(False)
            if stars is not None:
                _stars(axis, stars[(stars["organ"] == organ)], measure, cohorts, points, design)
    patches = [Patch(color=SEX[sex][1], label=SEX[sex][0]) for sex in design.groups]
    figure.legend(handles=patches, loc="upper right", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.02, 1, 0.98))
    write(figure, path, note)


def _violin(axis, points, measure, group):
    if points.empty:
        axis.set(xticks=[], yticks=[])
        axis.text(0.5, 0.5, "no organ measured", ha="center", transform=axis.transAxes, fontsize=9)
        return
    counts = points.groupby(["cohort", "sex"])[measure].transform("count")
    if (counts >= VIOLIN_FROM).any():
        seaborn.violinplot(
            points[counts >= VIOLIN_FROM], y=measure, **group, ax=axis, cut=0, inner="quart", density_norm="width",
            linewidth=0.8, alpha=0.55,
        )  # fmt: skip
    seaborn.stripplot(points, y=measure, **group, ax=axis, dodge=True, size=2.5, alpha=0.7)


def _stars(axis, cells, measure, cohorts, points, design):
    """* above the group of every significant difference; the groups of a cohort are 0.8 wide together."""
    names = {"volume_l": "volume"}.get(measure, measure)
    top = axis.get_ylim()[1]
    for _, cell in cells[(cells["measure"] == names) & (cells["significant"] == 1)].iterrows():
        sex = next(key for key in design.groups if SEX[key][0] == cell["sex"])
        if cell["cohort"] not in cohorts:
            continue
        shift = 0.8 * ((design.groups.index(sex) + 0.5) / len(design.groups) - 0.5)
        own = points[(points["cohort"] == cell["cohort"]) & (points["sex"] == sex)][measure]
        axis.text(cohorts.index(cell["cohort"]) + shift, own.max() + 0.01 * top, "*", ha="center", fontsize=13)
    axis.set_ylim(0, top * 1.06)


def _title(measure):
    return TITLES[measure] if measure == "volume_l" else f"{TITLES[measure]} (g/mL)"


def differences(path: str | Path, table: pd.DataFrame, design: Design = PUBLISHED_DESIGN) -> None:
    """Difference from the reference (%) of every organ (rows) and measure (columns) with its interval; a PNG.

    table: rows of statistics.csv against one reference. Its candidates are in the order of their first row: stages of
    one training, given in their order, are its curve. The band is the margin of equivalence. Triangles at
    WIDEST_PERCENT point to what lies beyond: full ones to a mean, hollow ones to the end of an interval.
    """
    names = list(dict.fromkeys(table["candidate"]))
    printed = {measure: "volume" if measure == "volume_l" else measure for measure in design.printed}
    figure = Figure(figsize=((1.6 + 0.8 * len(names)) * len(printed), 2.1 * len(design.organs)), layout="constrained")
    axes = figure.subplots(len(design.organs), len(printed), squeeze=False, sharex=True)
    for organ, row in zip(design.organs, axes, strict=True):
        for (measure, called), axis in zip(printed.items(), row, strict=True):
            cells = table[(table["organ"] == organ) & (table["measure"] == called)]
            axis.axhspan(-100 * design.margin, 100 * design.margin, color="0.9", zorder=0)
            axis.axhline(0, color="0.7", lw=0.8, zorder=0)
            for number, sex in enumerate(design.groups):
                own = cells[cells["sex"] == SEX[sex][0]].set_index("candidate").reindex(names)
                shift = 0.3 * ((number + 0.5) / len(design.groups) - 0.5)
                _differences(axis, own, shift, SEX[sex][1])
            axis.set_xticks(range(len(names)), names, fontsize=8, rotation=30 if len(names) > 2 else 0)
            axis.set_xlim(-0.5, len(names) - 0.5)
            axis.set_title(f"{organ.capitalize()}: {TITLES[measure].partition(' (')[0]}, %", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
    lines = [Line2D([], [], color=SEX[sex][1], marker="o", ms=4, ls="", label=SEX[sex][0]) for sex in design.groups]
    lines.append(Line2D([], [], color="0.3", marker="^", ls="", label=f"beyond ±{WIDEST_PERCENT:g} %"))
    figure.legend(handles=lines, loc="outside upper right", ncols=3, frameon=False)
    write(figure, path)


def _differences(axis, rows, shift, colour):
    """Points of one sex, with intervals where there are any."""
    middle, low, high = (
        pd.to_numeric(rows[name]).to_numpy(float) for name in ("difference_percent", "percent_low", "percent_high")
    )
    at, edge = np.arange(len(rows)) + shift, WIDEST_PERCENT
    axis.plot(at, np.where(np.abs(middle) <= edge, middle, np.nan), "o", color=colour, ms=4)
    seen = (low <= edge) & (high >= -edge)
    ends = (np.where(seen, end.clip(-edge, edge), np.nan) for end in (low, high))
    axis.vlines(at, *ends, color=colour, lw=1.2)
    for marker, sign, end in (("^", 1, high), ("v", -1, low)):
        for values, fill in ((middle, "full"), (end, "none")):
            place = np.where(sign * values > edge, sign * edge, np.nan)
            axis.plot(at, place, marker, color=colour, ms=6, fillstyle=fill)


def bmi_distributions(path: str | Path, cohorts: Sequence[Cohort], design: Design = PUBLISHED_DESIGN) -> None:
    """BMI of every cohort, one panel per sex: whether the cohorts are of the same people at all. Every person is a
    line below the curve; fewer than VIOLIN_FROM have no curve."""
    figure = Figure(figsize=(5.2 * len(design.groups), 3.4), layout="constrained")
    for sex, axis in zip(design.groups, figure.subplots(1, len(design.groups), squeeze=False)[0], strict=True):
        for number, cohort in enumerate(cohorts):
            people = cohort.people(sex)
            bmi = (people["weight_kg"] / people["height_m"] ** 2).to_numpy(float)
            colour = f"C{number}"
            if len(bmi) >= VIOLIN_FROM and np.ptp(bmi) > 0:
                at = np.linspace(10, 60, 250)
                axis.plot(at, stats.gaussian_kde(bmi)(at), color=colour, ls=STYLES[number % len(STYLES)])
            below = np.full(len(bmi), -0.004 * (number + 1))
            axis.plot(bmi, below, "|", color=colour, label=f"{cohort.name} ({len(bmi)})")
        axis.set(title=SEX[sex][0], xlabel="BMI (kg/m²)", yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    write(figure, path)


class Slope(NamedTuple):
    """Of ordinary least squares, with its 95 % interval; n subjects. slope: unit of the measure per unit of x."""

    slope: float
    low: float
    high: float
    n: int


def slope_of(x: np.ndarray, y: np.ndarray) -> Slope | None:
    """None below LINE_FROM subjects, or when they are all the same."""
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < LINE_FROM or np.ptp(x) == 0:
        return None
    found = stats.linregress(x, y)
    half = stats.t.ppf(0.975, len(x) - 2) * found.stderr
    return Slope(float(found.slope), float(found.slope - half), float(found.slope + half), len(x))


def slopes(cohorts: Sequence[Cohort], design: Design = PUBLISHED_DESIGN) -> pd.DataFrame:
    """How organ size and uptake follow the demographics: one row per cohort, sex, organ, measure and column.

    n: persons; several studies of one are averaged, as their scatter says nothing of the slope."""
    rows = []
    for cohort in cohorts:
        people = cohort.people().set_index("person")
        for sex, organ, measure in design.rows(printed=True):
            values = cohort.by_person(sex, organ, measure)
            persons = people.loc[values.index]
            for column in AGAINST:
                found = slope_of(persons[column].to_numpy(float), values.to_numpy(float))
                place = dict(cohort=cohort.name, sex=SEX[sex][0], organ=organ, measure=measure, against=column)
                none = dict(slope=None, low=None, high=None, n=len(values))
                rows.append(place | (none if found is None else found._asdict()))
    return pd.DataFrame(rows)


def against_demographics(
    path: str | Path, cohorts: Sequence[Cohort], measure: str, design: Design = PUBLISHED_DESIGN
) -> None:
    """One measure of every organ (rows) against height, weight and age (columns), with a line per cohort and sex."""
    figure = Figure(figsize=(4.2 * len(AGAINST), 2.6 * len(design.organs) + 0.5), layout="constrained")
    axes = figure.subplots(len(design.organs), len(AGAINST), squeeze=False)
    for organ, row in zip(design.organs, axes, strict=True):
        for (column, (title, _)), axis in zip(AGAINST.items(), row, strict=True):
            for number, cohort in enumerate(cohorts):
                for sex in design.groups:
                    _relation(axis, cohort, sex, organ, measure, column, number)
            axis.set(xlabel=title if organ == design.organs[-1] else "", title=f"{organ}: {_title(measure)}")
            axis.title.set_fontsize(9)
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
    handles: list[Any] = [Patch(color=SEX[sex][1], label=SEX[sex][0]) for sex in design.groups]
    handles += [
        Line2D([], [], color="0.3", ls=STYLES[n % len(STYLES)], marker=MARKERS[n % len(MARKERS)], ms=4, label=c.name)
        for n, c in enumerate(cohorts)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    write(figure, path)


def _relation(axis, cohort, sex, organ, measure, column, number):
    people, colour = cohort.people().set_index("person")[column].astype(float), SEX[sex][1]
    studies, values = cohort.by_study(sex, organ, measure), cohort.by_person(sex, organ, measure)
    marker, alpha = MARKERS[number % len(MARKERS)], 0.25 if number == 0 else 0.6
    axis.plot(people.loc[studies.index].to_numpy(), studies.to_numpy(), marker, color=colour, ms=3, alpha=alpha)
    x, y = people.loc[values.index].to_numpy(), values.to_numpy()
    found = slope_of(x, y)
    if found is not None:
        ends = np.array([x.min(), x.max()])
        axis.plot(ends, y.mean() + found.slope * (ends - x.mean()), STYLES[number % len(STYLES)], color=colour, lw=1.2)


def bland_altman(path: str | Path, reference: Cohort, candidate: Cohort, design: Design = PUBLISHED_DESIGN) -> int:
    """Candidate − reference of the same subjects against their mean, with bias and limits of agreement of each sex.

    Every study is a point. Returns the number of subjects that were paired; nothing is drawn for none.
    """
    figure = Figure(figsize=(4.0 * len(design.printed), 2.5 * len(design.organs)), layout="constrained")
    axes = figure.subplots(len(design.organs), len(design.printed), squeeze=False)
    seen: set[str] = set()
    partners = pairs(reference, candidate).subjects
    for organ, row in zip(design.organs, axes, strict=True):
        for measure, axis in zip(design.printed, row, strict=True):
            for sex in design.groups:
                table = paired_values(reference, candidate, sex, organ, measure, partners)
                seen |= set(table.index)
                _agreement(axis, table, SEX[sex][1])
            axis.axhline(0, color="0.8", lw=0.8, zorder=0)
            axis.set_title(f"{organ}: {_title(measure)}", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{candidate.name} − {reference.name} against their mean; bias, and limits of 95 %", fontsize=10)
    if seen:
        write(figure, path)
    return len(seen)


def _agreement(axis, table, colour):
    a, b = table["reference"], table["candidate"]
    axis.plot(((a + b) / 2).to_numpy(), (b - a).to_numpy(), "o", color=colour, ms=3, alpha=0.6)
    limits = statistics.agreement_limits(a, b)
    if limits is not None:
        for value, style in zip(limits, ("-", "--", "--"), strict=True):
            axis.axhline(value, color=colour, ls=style, lw=0.9)
