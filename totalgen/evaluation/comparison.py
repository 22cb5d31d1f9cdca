"""Every row of a comparison: a sex, an organ and a measure of one cohort against another, with all its statistics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.measures import MEASURES
from totalgen.evaluation import statistics
from totalgen.evaluation.design import PUBLISHED_DESIGN, SEX, Design
from totalgen.evaluation.measured_cohort import SAME_SUBJECTS, Cohort, pairs

OF_A_GENERATOR = ("smallest_margin_percent", "equivalence_power", "subjects_needed")
VERDICTS = {
    "equivalent": "shown to differ by less than the margin",
    "different": "shown to differ; not shown to differ by less than the margin",
    "different, within the margin": "shown to differ, and by less than the margin",
    "undecided": "neither shown: too few subjects for this spread, not agreement and not difference",
    "not tested": "fewer than two values in a group, none that vary, or a reference mean of 0 or less, of which "
    "percentages mean nothing",
}


def compare(
    reference: statistics.Group, candidate: statistics.Group, design: Design = PUBLISHED_DESIGN
) -> dict[str, Any]:
    """All results of one group against another, as independent; the keys are columns of statistics.csv.

    Groups are arrays of one value per person; of Summaries, what needs the values is None. shown_margin_percent: the
    narrowest margin within which these data show equivalence.  smallest_margin_percent, equivalence_power,
    subjects_needed (per group, for the margin): of a perfect generator, whose mean and spread are the reference's, with
    as many persons as the candidate. The candidate's own spread says nothing of it: a generator of averages has little.
    """
    a, b = statistics.summary(reference), statistics.summary(candidate)
    perfect = statistics.Summary(a.mean, a.std, b.n)
    both = min(a.n, b.n) > 0
    level, p = 1 - design.alpha, statistics.welch(a, b)
    interval = statistics.difference_interval(a, b, level) or (None, None)
    ratios = [statistics.ratio_interval(a, b, each) for each in (level, 1 - 2 * design.alpha)]
    percents = [None if each is None else tuple(100 * (end - 1) for end in each) for each in ratios]
    equal = statistics.equivalence(a, b, design.margin)
    narrowest = statistics.smallest_margin(a, perfect, design.power, design.alpha)
    result = dict(
        n_reference=a.n, n_candidate=b.n,
        difference=float(b.mean - a.mean) if both else None,
        difference_low=interval[0], difference_high=interval[1],
        difference_percent=statistics.difference_percent(float(a.mean), float(b.mean)) if both else None,
        percent_low=percents[0] and percents[0][0], percent_high=percents[0] and percents[0][1],
        welch_p=p, equivalence_p=equal, verdict=verdict(p, equal, design.alpha),
        shown_margin_percent=percents[1] and max(abs(end) for end in percents[1]),
        smallest_margin_percent=None if narrowest is None else 100 * narrowest,
        equivalence_power=statistics.equivalence_power(a, perfect, design.margin, design.alpha),
        subjects_needed=statistics.subjects_needed(a, perfect, design.margin, design.power) if narrowest else None,
        bootstrap_low=None, bootstrap_high=None,
    )  # fmt: skip
    if isinstance(reference, statistics.Summary) or isinstance(candidate, statistics.Summary):
        return result
    low, high = statistics.bootstrap_interval(reference, candidate, level, resamples=design.resamples) or (None, None)
    return result | dict(bootstrap_low=low, bootstrap_high=high)


def compare_bodies(
    reference: pd.Series | statistics.Summary, candidate: pd.Series | statistics.Summary
) -> dict[str, Any]:
    """What describes single bodies, not means of persons. Series: studies, indexed by person."""
    if isinstance(reference, statistics.Summary) or isinstance(candidate, statistics.Summary):
        a, b = statistics.summary(reference), statistics.summary(candidate)
        known = min(a.n, b.n) > 1 and a.std > 0
        return dict(std_ratio=float(b.std / a.std) if known else None, wasserstein=None)
    return dict(
        studies_reference=len(reference), studies_candidate=len(candidate),
        std_ratio=statistics.std_ratio(reference, candidate), wasserstein=statistics.wasserstein(reference, candidate),
    )  # fmt: skip


def verdict(difference_p: float | None, equivalence_p: float | None, alpha: float) -> str:
    """A key of VERDICTS: a test that shows no difference does not show agreement."""
    if difference_p is None or equivalence_p is None:
        return "not tested"
    differs, equal = difference_p < alpha, equivalence_p < alpha
    if equal:
        return "different, within the margin" if differs else "equivalent"
    return "different" if differs else "undecided"


def compare_pairs(studies: pd.DataFrame, design: Design = PUBLISHED_DESIGN) -> dict[str, Any]:
    """The results of a candidate against the reference subject that it was made for.

    studies: columns reference and candidate, one row per study of the candidate, indexed by person (``paired_values``);
    tests and intervals are of the means of persons.  limits_low, limits_high: 95 % of the differences of single studies
    are between them (Bland and Altman);  concordance: of single studies.
    """
    persons = studies.groupby(level=0, sort=False).mean()
    a, b = (persons[name].to_numpy(float) for name in ("reference", "candidate"))
    n = len(persons)
    mean = float(np.mean(a)) if n else 0.0
    low, high = statistics.paired_mean_interval(a, b, 1 - design.alpha) or (None, None)
    ratios = [statistics.paired_ratio_interval(a, b, level) for level in (1 - design.alpha, 1 - 2 * design.alpha)]
    percents = [None if each is None else tuple(100 * (end - 1) for end in each) for each in ratios]
    _, limit_low, limit_high = statistics.agreement_limits(studies["reference"], studies["candidate"]) or (None,) * 3
    p, equal = statistics.paired_t(a, b), statistics.paired_equivalence(a, b, design.margin)
    single = (studies[name].to_numpy(float) for name in ("reference", "candidate"))
    return dict(
        n_pairs=n,
        paired_difference=float(np.mean(b - a)) if n else None,
        paired_low=low, paired_high=high,
        paired_percent=100 * float(np.mean(b - a)) / mean if mean > 0 else None,
        paired_percent_low=percents[0] and percents[0][0], paired_percent_high=percents[0] and percents[0][1],
        paired_p=p, paired_equivalence_p=equal, paired_verdict=verdict(p, equal, design.alpha),
        paired_shown_margin_percent=percents[1] and max(abs(end) for end in percents[1]),
        limits_low=limit_low, limits_high=limit_high,
        concordance=statistics.concordance(*single) if n > 1 else None,
    )  # fmt: skip


def statistics_table(reference: Any, others: Sequence[Any], design: Design = PUBLISHED_DESIGN) -> pd.DataFrame:
    """One row per sex, organ, measure and other cohort: results of ``compare``, ``compare_bodies``, ``compare_pairs``.

    verdict_by: "pairs" for the reference's own subjects once more (SAME_SUBJECTS), else "groups", as independent;
    …_holm: corrected over all rows of one cohort;  anova_p, welch_anova_p: over the reference and all candidates (not
    the controls), so they repeat for each. Cohorts may be PrintedColumns: what needs subjects is empty then.
    """
    tables = []
    candidates = [cohort for cohort in others if cohort.role == "candidate"]
    for other in others:
        rows = []
        both = isinstance(reference, Cohort) and isinstance(other, Cohort)
        same = other.role in SAME_SUBJECTS
        partners = pairs(reference, other).subjects if both and (design.paired or same) else ()
        for sex, organ, column in design.rows():
            measure, unit = MEASURES[column]
            place = dict(sex=SEX[sex][0], organ=organ, measure=measure, unit=unit)
            place |= dict(reference=reference.name, candidate=other.name, role=other.role)
            place |= dict(verdict_by="pairs" if same else "groups")
            of_persons, of_bodies = ("values", "by_study") if both else ("summary", "summary")
            base, made = (getattr(cohort, of_persons)(sex, organ, column) for cohort in (reference, other))
            row = place | compare(base, made, design)
            base, made = (getattr(cohort, of_bodies)(sex, organ, column) for cohort in (reference, other))
            row |= compare_bodies(base, made)
            if both:
                row |= compare_pairs(paired_values(reference, other, sex, organ, column, partners), design)
            if same:  # no independent groups, and nothing that a generator could be perfect at
                row |= dict.fromkeys(OF_A_GENERATOR) | dict(verdict=row["paired_verdict"])
            rows.append(row)
        for test in ("welch_p", "equivalence_p", "paired_p", "paired_equivalence_p"):
            for row, p_value in zip(rows, statistics.holm([row.get(test) for row in rows]), strict=True):
                row[f"{test}_holm"] = p_value
        if isinstance(reference, Cohort):
            for row, (sex, organ, column) in zip(rows, design.rows(), strict=True):
                groups = [cohort.values(sex, organ, column) for cohort in (reference, *candidates)]
                row |= dict(anova_p=statistics.anova(groups), welch_anova_p=statistics.anova(groups, False))
        tables += rows
    return pd.DataFrame(tables)


def paired_values(
    reference: Cohort, other: Cohort, sex: str, organ: str, column: str, partners: Sequence[str]
) -> pd.DataFrame:
    """Columns reference and candidate, a row per study of the other cohort, indexed by those of ``partners``
    (``pairs``) that both have a value of. Several studies of a person of the reference are averaged."""
    base, made = reference.by_person(sex, organ, column), other.by_study(sex, organ, column)
    made = made[made.index.isin(base.index.intersection(pd.Index(partners, dtype=object)))]
    return pd.DataFrame(dict(reference=base.reindex(made.index), candidate=made))

