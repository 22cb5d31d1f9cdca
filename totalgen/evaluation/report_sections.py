"""The parts of the report of a comparison, each with its rows of the score card."""

from collections.abc import Sequence
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
from totalgen.evaluation.measured_cohort import ROLES, Cohort, PrintedColumn, pairs
from totalgen.evaluation.sections import Score, Section, rows_of
from totalgen.evaluation.table1 import excluded, grid, notes, number, phantom_line

PICTURED = 3  # subjects as pictures
GAP = 4  # pixels between pictures
NAMED = 3  # subjects of a list by name
COMPARED = {  # columns of statistics.csv that the page shows → title
    "sex": "sex", "organ": "organ", "measure": "measure", "reference": "against", "n_candidate": "n",
    "difference_percent": "difference %", "percent_low": "95 % from", "percent_high": "to", "welch_p": "p",
    "welch_p_holm": "p (Holm)", "equivalence_p": "p of equivalence", "verdict": "verdict",
    "shown_margin_percent": "shown within ± %", "smallest_margin_percent": "could show ± %",
    "subjects_needed": "n for the margin", "std_ratio": "ratio of std",
}  # fmt: skip
PAIRED = {
    "sex": "sex", "organ": "organ", "measure": "measure", "n_pairs": "pairs", "paired_percent": "difference %",
    "paired_p": "p (paired)", "paired_p_holm": "p (Holm)", "paired_equivalence_p": "p of equivalence",
    "paired_verdict": "verdict", "limits_low": "limits from", "limits_high": "to", "concordance": "concordance",
}  # fmt: skip


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by (reference, candidate, role): number of each of VERDICTS, and of p values below 0.05 after Holm."""
    found = table.groupby(["reference", "candidate", "role"], sort=False)
    counts = found["verdict"].value_counts().unstack(fill_value=0).reindex(columns=list(VERDICTS), fill_value=0)
    counts["rows"] = found.size()
    for name, column in (("different (Holm)", "welch_p_holm"), ("equivalent (Holm)", "equivalence_p_holm")):
        counts[name] = found[column].agg(lambda p: int((pd.to_numeric(p) < PUBLISHED_DESIGN.alpha).sum()))
    return counts.reset_index()


def like_with_like(reference: Cohort, others: Sequence[Cohort], table: pd.DataFrame) -> Section:
    """What the comparison does to a perfect candidate: packing, the segmenter, another voxel size."""
    section = Section("Like with like", notes=[f"{role}: {text}." for role, text in ROLES.items()])
    roles = {cohort.role: cohort for cohort in others}
    lacks = {
        "packed": "a generated study has passed the clip, the stretch and the line in height, the reference has not: "
        "SUVmax is not comparable. Give --packed (3_Evaluations/0_pack_reference.py)",
        "true masks": "what the segmenter does to volumes and uptake is not known. Give --true-masks if there are some",
        "control": "what a perfect generator would get is not known. Give --control with a second sample",
    }
    for role, lack in lacks.items():
        if role not in roles:
            section.scores.append(Score(f"like with like: {role}", "0", "not tested", lack))
            continue
        rows = table[(table["candidate"] == roles[role].name) & (table["reference"] == reference.name)]
        result = "nothing to compare"
        if rows["difference_percent"].notna().any():
            worst = rows.loc[rows["difference_percent"].abs().idxmax()]
            place = f"{worst['sex']} {worst['organ']} {worst['measure']}"
            result = f"largest difference from {reference.name}: {worst['difference_percent']:.1f} % ({place})"
        people = str(len(roles[role].people()))
        section.scores.append(Score(f"like with like: {role}", people, result, ROLES[role]))
    shown = table[(table["reference"] == reference.name) & table["role"].isin(list(lacks))]
    if len(shown):
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
        "Every subject is a point; * p < 0.05 (Welch)": outdir / "violins.png",
        "Body mass index: cohorts of other people differ in everything that follows it": outdir / "bmi.png",
    }
    for cohort in measured:
        left = excluded(cohort, design)
        counts = ", ".join(f"{len(cohort.people(sex))} {SEX[sex][0]}" for sex in design.groups)
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
    section = Section("Agreement, and what could have been shown")
    section.notes = [f"{name}: {text}." for name, text in VERDICTS.items()]
    section.notes.append(
        f"Equivalence is within ±{100 * design.margin:g} % of the reference mean. “Shown within” is the narrowest "
        "margin that these data show; “could show” the narrowest that a perfect generator would show with "
        f"{100 * design.power:g} % probability at this number of subjects and this spread: a row whose “could show” is "
        "above the margin cannot decide."
    )
    for _, row in verdict_counts(table).iterrows():
        rows = table[(table["candidate"] == row["candidate"]) & (table["reference"] == row["reference"])]
        words = ", ".join(f"{row[name]} {name}" for name in VERDICTS if row[name])
        words += f"; after Holm {row['different (Holm)']} different, {row['equivalent (Holm)']} equivalent"
        power = pd.to_numeric(rows["equivalence_power"]).dropna()
        margins = pd.to_numeric(rows["smallest_margin_percent"]).dropna()
        limit = "no row has two subjects in both groups"
        if len(power):
            able = int((margins <= 100 * design.margin).sum())
            limit = (
                f"a perfect generator would show ±{100 * design.margin:g} % in {power.sum():.1f} of {len(rows)} rows "
                f"on average; {able} rows have enough subjects"
            )
            if len(margins):
                limit += f" (smallest margins {margins.min():.0f} to {margins.max():.0f} %)"
        n = f"{int(rows['n_reference'].max())} and {int(rows['n_candidate'].max())} per sex at most"
        role = "" if row["role"] in row["candidate"] else f" ({row['role']})"
        what = f"{row['candidate']}{role} against {row['reference']}"
        section.scores.append(Score(what, n, words, limit))
    drawn = table[table["reference"] == reference.name]
    if len(drawn):
        figures.differences(outdir / "differences.png", drawn, design)
        margin = f"in grey ±{100 * design.margin:g} %"
        caption = f"Difference of the means from {reference.name} with 95 % intervals; {margin}"
        section.figures = {caption: outdir / "differences.png"}
    for other in others:
        rows = table[table["candidate"] == other.name]
        shown = rows_of(rows, COMPARED)
        if len(shown) > 1:
            section.tables[f"{other.name} ({other.role})"] = shown
    return section


def pair_section(
    reference: Cohort, others: Sequence[Cohort], table: pd.DataFrame, outdir: Path, design: Design
) -> Section:
    """Candidates against the subject that each was made for."""
    section = Section("Pairs: the subject that each study was made for")
    section.notes = [
        "A generated study is a sample of people with these demographics, not a second scan of one person: limits of "
        "agreement are wide and concordance is below 1 for a perfect generator, too. Pairs remove what demographics "
        "explain, and so show smaller differences of the means."
    ]
    for other in others:
        found = pairs(reference, other)
        problems = []
        if found.others:
            problems.append(f"{len(found.others)} without a partner ({_names(found.others)})")
        if found.strangers:
            problems.append(f"{len(found.strangers)} of the same name, other demographics ({_names(found.strangers)})")
        if not design.paired or not found.subjects:
            limit = "; ".join(problems) or "not asked for"
            section.scores.append(Score(f"pairs: {other.name}", "0", "not tested", limit))
            continue
        rows = table[(table["candidate"] == other.name) & (table["reference"] == reference.name)]
        counts = rows["paired_verdict"].value_counts()
        words = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
        limit = "; ".join(problems) or "every study has a partner"
        section.scores.append(Score(f"pairs: {other.name}", str(len(found.subjects)), words, limit))
        section.tables[f"{other.name} against {reference.name}, pairs"] = rows_of(rows, PAIRED)
        path = outdir / f"bland-altman-{_slug(other.name)}.png"
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
            path = outdir / f"samples-{_slug(cohort.name)}.png"
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
