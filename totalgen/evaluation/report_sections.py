"""The parts of the report of a comparison, each with its rows of the score card."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.data.pictures import enlarged, study_strip
from totalgen.data.studies import read_studies
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.evaluation import demographic_fidelity, figures
from totalgen.evaluation.comparison import VERDICTS
from totalgen.evaluation.design import PUBLISHED_DESIGN, SEX, Design
from totalgen.evaluation.measured_cohort import ROLES, SAME_SUBJECTS, Cohort, PrintedColumn, pairs
from totalgen.evaluation.sections import Score, Section, rows_of
from totalgen.evaluation.table1 import counted, excluded, grid, notes, number, phantom_line

PICTURED = 3  # subjects as pictures
GAP = 4  # pixels between pictures
NAMED = 3  # subjects of a list by name
COMPARED = {  # columns of statistics.csv that the page shows → title
    "sex": "sex", "organ": "organ", "measure": "measure", "reference": "against", "n_candidate": "n",
    "difference_percent": "difference %", "percent_low": "95 % from", "percent_high": "to", "welch_p": "p",
    "welch_p_holm": "p (Holm)", "equivalence_p": "p of equivalence", "verdict": "verdict",
    "paired_verdict": "verdict of pairs",
    "shown_margin_percent": "shown within ± %", "smallest_margin_percent": "could show ± %",
    "subjects_needed": "n for the margin", "std_ratio": "ratio of std",
}  # fmt: skip
INDEPENDENT = (
    "Intervals, p, verdicts, “could show” and “n for the margin” take the two cohorts as independent. Where studies "
    "were made for subjects of the reference, both vary with the same demographics, and all of these are conservative, "
    "the more so the more the demographics explain. “Verdict of pairs” answers the sharper question, whether studies "
    "differ from the subjects that they were made for; subjects without a study are not in it. The packed reference "
    "and true masks are the same subjects: all their figures here are of pairs."
)
PAIRED = {
    "sex": "sex", "organ": "organ", "measure": "measure", "n_pairs": "pairs", "paired_percent": "difference %",
    "paired_percent_low": "95 % from", "paired_percent_high": "to", "paired_p": "p (paired)",
    "paired_p_holm": "p (Holm)", "paired_equivalence_p": "p of equivalence",
    "paired_verdict": "verdict",
    "paired_shown_margin_percent": "shown within ± %", "limits_low": "limits from", "limits_high": "to",
    "concordance": "concordance",
}  # fmt: skip
OF_PAIRS = {  # column of groups → that of pairs
    "n_reference": "n_pairs", "n_candidate": "n_pairs", "difference_percent": "paired_percent",
    "percent_low": "paired_percent_low", "percent_high": "paired_percent_high", "welch_p": "paired_p",
    "welch_p_holm": "paired_p_holm", "equivalence_p": "paired_equivalence_p",
    "equivalence_p_holm": "paired_equivalence_p_holm", "shown_margin_percent": "paired_shown_margin_percent",
}  # fmt: skip


def decisive(table: pd.DataFrame) -> pd.DataFrame:
    """statistics.csv with the figures of pairs in the columns of groups, where the verdict is by pairs."""
    of_groups = table["verdict_by"] != "pairs"
    return table.assign(**{name: table[name].where(of_groups, table[other]) for name, other in OF_PAIRS.items()})


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by (reference, candidate, role, verdict_by): number of each of VERDICTS, and of p values below 0.05 after
    Holm;  pairs: the verdicts of pairs in words, where these are not the verdicts already and most persons have one."""
    found = decisive(table).groupby(["reference", "candidate", "role", "verdict_by"], sort=False)
    counts = found["verdict"].value_counts().unstack(fill_value=0).reindex(columns=list(VERDICTS), fill_value=0)
    counts["rows"] = found.size()
    for name, column in (("different (Holm)", "welch_p_holm"), ("equivalent (Holm)", "equivalence_p_holm")):
        counts[name] = found[column].agg(lambda p: int((pd.to_numeric(p) < PUBLISHED_DESIGN.alpha).sum()))
    counts["pairs"] = [_pair_words(rows) for _, rows in found]
    return counts.reset_index()


def _pair_words(rows):
    if rows["verdict_by"].iloc[0] == "pairs" or not 2 * rows["n_pairs"].sum() > rows["n_candidate"].sum():
        return ""
    counts = rows["paired_verdict"].value_counts()
    return "; by pairs " + ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)


def like_with_like(reference: Cohort, others: Sequence[Cohort], table: pd.DataFrame) -> Section:
    """What the comparison does to a perfect candidate: packing, the segmenter, another voxel size."""
    section = Section("Like with like", notes=[f"{role}: {text}." for role, text in ROLES.items()])
    table = decisive(table)
    lacks = {
        "packed": "a generated study has passed the clip, the stretch and the line in height, the reference has not: "
        "SUVmax is not comparable. Give --packed (3_Evaluations/0_pack_reference.py)",
        "true masks": "what the segmenter does to volumes and uptake is not known. Give --true-masks if there are some",
        "control": "what a perfect generator would get is not known. Give --control with a second sample",
    }
    for role, lack in lacks.items():
        found = [cohort for cohort in others if cohort.role == role]
        for cohort in found:
            rows = table[(table["candidate"] == cohort.name) & (table["reference"] == reference.name)]
            result, known = "nothing to compare", pd.to_numeric(rows["difference_percent"]).dropna()
            if len(known):
                worst = rows.loc[known.abs().idxmax()]
                place = f"{worst['sex']} {worst['organ']} {worst['measure']}"
                result = f"largest difference from {reference.name}: {worst['difference_percent']:.1f} % ({place})"
            people = counted(len(cohort.people()), cohort.studies())
            what = f"like with like: {cohort.name}" + ("" if role in cohort.name else f" ({role})")
            section.scores.append(Score(what, people, result, ROLES[role]))
        if not found:
            section.scores.append(Score(f"like with like: {role}", "0", "not tested", lack))
    shown = table[(table["reference"] == reference.name) & table["role"].isin(list(lacks))]
    if len(shown):
        shown = shown.assign(difference_percent=pd.to_numeric(shown["difference_percent"]))
        wide = shown.pivot_table("difference_percent", ["sex", "organ", "measure"], "candidate", sort=False)
        section.tables[f"Difference from {reference.name} in %, which no network made"] = rows_of(
            wide.reset_index(), _same(["sex", "organ", "measure", *wide.columns])
        )
    sizes = {cohort.name: cohort.voxels() for cohort in (reference, *others)}
    known = {size for found in sizes.values() for size in found}
    words = "; ".join(f"{name}: {', '.join(found) or 'not recorded'} mm" for name, found in sizes.items())
    result = "one size" if len(known) == 1 and all(sizes.values()) else "different or unknown sizes: " + words
    limit = "SUVmax of larger voxels is lower, and small organs lose volume"
    section.scores.append(Score("voxel size", str(len(sizes)), result, limit))
    return section


def table_section(cohorts: Sequence[Any], cells: pd.DataFrame, outdir: Path, design: Design) -> Section:
    """Table 1 and its violins, with BMI."""
    measured = [cohort for cohort in cohorts if isinstance(cohort, Cohort)]
    whole = [c.measured[c.measured["flag"] == ""].assign(cohort=c.name) for c in measured]
    shown = pd.concat([each for each in whole if len(each)]) if any(map(len, whole)) else whole[0]
    figures.violins(outdir / "violins.png", shown, phantom_line(measured), design, cells)
    figures.bmi_distributions(outdir / "bmi.png", measured, design)
    section = Section("Table 1", notes=notes(cohorts, design))
    section.tables["Organ volume and uptake"] = grid(cohorts, cells, design)
    section.figures = {
        "Every study is a point; * p < 0.05 (Welch)": outdir / "violins.png",
        "Body mass index: cohorts of other people differ in everything that follows it": outdir / "bmi.png",
    }
    for cohort in measured:
        left = excluded(cohort, design)
        numbers = ((len(cohort.people(sex)), cohort.studies(sex), SEX[sex][0]) for sex in design.groups)
        counts = ", ".join(f"{counted(persons, studies)} {sex}" for persons, studies, sex in numbers)
        limit = "organs that are left out are not missing at random: look at them"
        section.scores.append(Score(f"who is averaged: {cohort.name}", counts, f"left out: {left}", limit))
    slips = [row for c in cohorts if isinstance(c, PrintedColumn) for _, row in c.cells.iterrows() if row["note"]]
    for row in slips:
        section.notes.append(f"{row['cohort']}, {row['sex']} {row['organ']} {row['measure']}: {row['note']}.")
    return section


def verdict_section(
    table: pd.DataFrame, reference: Cohort, others: Sequence[Any], outdir: Path, design: Design
) -> Section:
    """Differences with intervals, equivalence, power, for every cohort."""
    section, shown = Section("Agreement, and what could have been shown"), decisive(table)
    section.notes = [f"{name}: {text}." for name, text in VERDICTS.items()]
    section.notes.append(
        f"Equivalence is within ±{100 * design.margin:g} % of the reference mean. “Shown within” is the narrowest "
        "margin that these data show; “could show” the narrowest that a perfect generator, whose mean and spread are "
        f"the reference's, would show with {100 * design.power:g} % probability at this number of subjects: a row "
        "whose “could show” is above the margin cannot decide."
    )
    section.notes.append(INDEPENDENT)
    for _, row in verdict_counts(table).iterrows():
        rows = shown[(shown["candidate"] == row["candidate"]) & (shown["reference"] == row["reference"])]
        words = ", ".join(f"{row[name]} {name}" for name in VERDICTS if row[name])
        words += f"; after Holm {row['different (Holm)']} different, {row['equivalent (Holm)']} equivalent"
        words += row["pairs"]
        most = counted(int(rows["n_candidate"].max()), rows["studies_candidate"].max())
        n, limit = f"{int(rows['n_reference'].max())} and {most} per sex at most", _power_words(rows, design)
        if row["verdict_by"] == "pairs":
            n = f"{int(rows['n_pairs'].max())} pairs per sex at most"
            limit = f"paired tests: the subjects of {row['reference']} themselves, no sample of a generator"
        elif row["pairs"]:
            limit += "; as of independent cohorts, conservative where studies were made for these subjects"
        role = "" if row["role"] in row["candidate"] else f" ({row['role']})"
        what = f"{row['candidate']}{role} against {row['reference']}"
        section.scores.append(Score(what, n, words, limit))
    drawn = shown[shown["reference"] == reference.name]
    if len(drawn):
        figures.differences(outdir / "differences.png", drawn, design)
        margin = f"in grey ±{100 * design.margin:g} %"
        caption = f"Difference of the means from {reference.name} with 95 % intervals, of independent cohorts "
        caption += f"(of pairs where the subjects are the same); {margin}; "
        caption += f"triangles: beyond ±{figures.WIDEST_PERCENT:g} %"
        section.figures = {caption: outdir / "differences.png"}
    for other in others:
        rows = shown[shown["candidate"] == other.name]
        if len(rows):
            by = ", by pairs" if other.role in SAME_SUBJECTS else ""
            section.tables[f"{other.name} ({other.role}{by})"] = rows_of(rows, COMPARED)
    return section


def _power_words(rows, design):
    """What a perfect generator would show in these rows."""
    power = pd.to_numeric(rows["equivalence_power"]).dropna()
    margins = pd.to_numeric(rows["smallest_margin_percent"]).dropna()
    if power.empty:
        return "no row can be tested"
    able = int((margins <= 100 * design.margin).sum())
    words = f"a perfect generator would show ±{100 * design.margin:g} % in {power.sum():.1f} of {len(rows)} rows "
    words += f"on average; {able} rows have enough subjects"
    if rows["studies_candidate"].sum() > rows["n_candidate"].sum():
        words += ", taken with one study each"
    return words + (f" (smallest margins {margins.min():.0f} to {margins.max():.0f} %)" if len(margins) else "")


def pair_section(
    reference: Cohort, others: Sequence[Cohort], table: pd.DataFrame, outdir: Path, design: Design
) -> Section:
    """Candidates against the subject that each was made for."""
    section = Section("Pairs: the subject that each study was made for")
    section.notes = [
        "A generated study is a sample of people with these demographics, not a second scan of one person: limits of "
        "agreement are wide and concordance is below 1 for a perfect generator, too. The more demographics explain, "
        "the smaller the differences of the means that pairs can show.",
        "Tests and intervals are of the means of persons; limits and concordance of single studies.",
    ]
    slugs = _slugs([reference, *others])
    for other in others:
        found = pairs(reference, other)
        problems = []
        if found.others:
            problems.append(f"{len(found.others)} without a partner ({_names(found.others)})")
        if found.strangers:
            problems.append(f"{len(found.strangers)} of the same name, other demographics ({_names(found.strangers)})")
        problems = problems or ["every study has a partner"]
        if found.alone and other.role != "control":  # a control is made for nobody
            problems.append(f"{len(found.alone)} subjects of {reference.name} without a study ({_names(found.alone)})")
        if not found.subjects or not design.paired and other.role not in SAME_SUBJECTS:
            limit = "; ".join(problems) if design.paired else "not asked for"
            section.scores.append(Score(f"pairs: {other.name}", "0", "not tested", limit))
            continue
        rows = table[(table["candidate"] == other.name) & (table["reference"] == reference.name)]
        counts = rows["paired_verdict"].value_counts()
        words = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
        people = other.people().set_index("person")["studies"].loc[list(found.subjects)]
        n, limit = counted(len(people), people.sum()), "; ".join(problems)
        section.scores.append(Score(f"pairs: {other.name}", n, words, limit))
        section.tables[f"{other.name} against {reference.name}, pairs"] = rows_of(rows, PAIRED)
        path = outdir / f"bland-altman-{slugs[other.name]}.png"
        if figures.bland_altman(path, reference, other, design):
            section.figures[f"Bland–Altman: {other.name}"] = path
    return section


def relation_section(cohorts: Sequence[Cohort], slopes: pd.DataFrame, outdir: Path, design: Design) -> Section:
    """Organ size and uptake against height, weight and age."""
    section = Section("Organs against height, weight and age")
    section.notes = ["Lines are least squares of each sex; slopes.csv has every slope with its 95 % interval."]
    for measure in design.printed:
        path = outdir / f"against-{_slug(measure)}.png"
        figures.against_demographics(path, cohorts, measure, design)
        section.figures[f"{figures.TITLES[measure]} of every organ"] = path
    known = slopes.set_index(["cohort", "sex", "organ", "measure", "against"])
    for cohort in cohorts[1:]:
        apart = both = 0
        for key, row in known.loc[[cohort.name]].iterrows() if cohort.name in known.index else ():
            base = known.loc[(cohorts[0].name, *key[1:])]
            if row["slope"] is None or base["slope"] is None or np.isnan(row["slope"]) or np.isnan(base["slope"]):
                continue
            both += 1
            apart += bool(row["low"] > base["high"] or row["high"] < base["low"])
        limit = "intervals that overlap do not show equal slopes; three points make a line, and say little"
        result = f"{apart} apart (95 % intervals)"
        section.scores.append(Score(f"slopes: {cohort.name}", f"{both} slopes", result, limit))
    return section


def body_section(reference: Cohort, others: Sequence[Cohort], design: Design) -> Section:
    """Mass, height and positions."""
    section = Section("Is the body the one that was asked for")
    section.notes = [
        "Mass of the field: CT of the body, every value below −500 HU counted as −500, against the reference's own "
        "regression on sex, height and weight. It is no weight on a scale: arms, head and legs are outside the field."
    ]
    others = [cohort for cohort in others if cohort.role != "true masks"]  # the same bodies once more
    cohorts = [reference, *others]
    masses = [demographic_fidelity.mass_agreement(reference, cohort) for cohort in cohorts]
    for cohort, found in zip(cohorts, masses, strict=True):
        result, limit = "not tested", f"needs bodies.csv of both, {demographic_fidelity.FEWEST} of the reference"
        limit += " that differ in height and weight"
        if found["bias_kg"] is not None:
            bias = [round(found[name], 1) + 0.0 for name in ("bias_kg", "bias_percent")]  # no −0.0
            result = f"bias {bias[0]:.1f} kg ({bias[1]:.1f} %), slope {number(found['slope'])}, "
            result += f"Spearman {number(found['spearman'])}"
            limit = "fitted to these subjects: bias 0 by construction" if cohort is reference else "mass of the field"
        limit += f"; {found['without']} studies without a body left out" if found["without"] else ""
        lacks = f"; {found['other_sex']} bodies left out: {reference.name} has nobody of their sex to compare them with"
        limit += lacks if found["other_sex"] else ""
        section.scores.append(Score(f"mass: {cohort.name}", str(found["n"]), result, limit))
    section.tables["Mass of the field"] = rows_of(pd.DataFrame(masses), _same(masses[0]))
    for cohort in others:
        imposed = demographic_fidelity.height_is_imposed(cohort)
        scatter = demographic_fidelity.extent_scatter_mm(cohort)
        result = "too few subjects" if scatter is None else f"extent {scatter:.1f} mm about its line in height"
        limit = "imposed by the line in height (axis z is stretched): no evidence" if imposed else "not imposed"
        if imposed and demographic_fidelity.one_length(cohort):
            limit = "all volumes are equally long (axis z is padded): no evidence"
        limit = limit if imposed is not None else "not tested"
        section.scores.append(Score(f"height: {cohort.name}", str(len(cohort.bodies)), result, limit))
        series = demographic_fidelity.weight_series(cohort)
        if series:
            rising = sum(each["monotonic"] for each in series)
            words = f"{rising} of {len(series)} series rise at every step"
            limit = "noise of single samples can break a series; several samples of each weight help"
            section.scores.append(Score(f"rising weight: {cohort.name}", f"{len(series)} series", words, limit))
            section.tables[f"Series of weights: {cohort.name}"] = rows_of(pd.DataFrame(series), _same(series[0]))
        elif cohort.role == "candidate":
            limit = 'make one: generate_petct.py --demographics "sex=F age=60 height_cm=165 weight_kg=54,66,80,95"'
            section.scores.append(Score(f"rising weight: {cohort.name}", "0 series", "not tested", limit))
    places = demographic_fidelity.positions(cohorts, design)
    section.tables["Height of the middle of organs and bones in the field (0 lower end, 1 upper end)"] = rows_of(
        places, _same(places)
    )
    return section


def picture_section(reference: Cohort, others: Sequence[Cohort], outdir: Path) -> Section:
    """Coronal CT, PET and projection of the first subjects of every cohort, those of a row made for one person."""
    section = Section("Sample pictures")
    section.notes = ["Coronal CT, coronal PET and projection of PET. The first subjects of each table, not chosen."]
    slugs = _slugs([reference, *others])
    for cohort in (reference, *others):
        if cohort.folder is None or cohort.role == "true masks":
            continue
        folders = read_studies(cohort.folder).set_index("subject")["folder"]
        strips = []
        for subject in list(cohort.people()["subject"])[:PICTURED]:
            try:
                ct, suv = (read_nifti(folders[subject] / f"{name}.nii.gz").voxels for name in ("CT", "SUV"))
            except (InputError, KeyError):
                continue
            strips.append(study_strip(ct, np.nan_to_num(suv)))
        if strips:
            path = outdir / f"samples-{slugs[cohort.name]}.png"
            _write_strips(path, strips)
            section.figures[f"{cohort.name}: {_names(list(cohort.people()['subject'])[:PICTURED])}"] = path
    return section


def _write_strips(path, strips):
    height = max(strip.shape[0] for strip in strips)
    padded = [np.pad(strip, ((0, height - strip.shape[0]), (0, GAP)), constant_values=255) for strip in strips]
    with atomic(path) as part:  # all enlarged by the same factor: their sizes can be compared
        imageio.imwrite(part, enlarged(np.concatenate(padded, axis=1)), extension=".png")


def _same(names):
    return {name: name for name in names}


def _names(subjects):
    return ", ".join(subjects[:NAMED]) + (f" and {len(subjects) - NAMED} more" if len(subjects) > NAMED else "")


def _slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _slugs(cohorts):
    """name → slug, of which no two are the same: EDM+ and EDM- would share their pictures. Later ones get a number."""
    plain: dict[str, str] = {cohort.name: _slug(cohort.name) for cohort in cohorts}
    found: dict[str, str] = {}
    for name, slug in plain.items():
        numbered = (f"{slug}-{n}" for n in count(2))
        free = (each for each in numbered if each not in plain.values() and each not in found.values())
        found[name] = next(free) if slug in found.values() else slug
    return found
