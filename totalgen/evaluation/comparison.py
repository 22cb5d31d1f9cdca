"""Every row of a comparison: a sex, an organ and a measure of one cohort against another, with all its statistics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.measures import MEASURES
from totalgen.evaluation import statistics
from totalgen.evaluation.design import PUBLISHED_DESIGN, SEX, Design
from totalgen.evaluation.measured_cohort import Cohort, pairs

VERDICTS = {
    "equivalent": "shown to differ by less than the margin",
    "different": "shown to differ; not shown to differ by less than the margin",
    "different, within the margin": "shown to differ, and by less than the margin",
    "undecided": "neither shown: too few subjects for this spread, not agreement and not difference",
    "not tested": "fewer than two values in a group, or none that vary",
}


def compare(
    reference: statistics.Group, candidate: statistics.Group, design: Design = PUBLISHED_DESIGN
) -> dict[str, Any]:
    """All results of one group against another; the keys are columns of statistics.csv.

    Groups are arrays of one value per subject; of Summaries, what needs the values is None. shown_margin_percent: the
    narrowest margin within which these data show equivalence;  smallest_margin_percent: what groups of this size and
    spread would show with the design's power if the means were equal;  subjects_needed: per group, for its margin.
    """
    a, b = statistics.summary(reference), statistics.summary(candidate)
    both = min(a.n, b.n) > 0
    level, p = 1 - design.alpha, statistics.welch(a, b)
    interval = statistics.difference_interval(a, b, level) or (None, None)
    ratios = [statistics.ratio_interval(a, b, each) for each in (level, 1 - 2 * design.alpha)]
    percents = [None if each is None else tuple(100 * (end - 1) for end in each) for each in ratios]
    equal = statistics.equivalence(a, b, design.margin)
    narrowest = statistics.smallest_margin(a, b, design.power, design.alpha)
    result = dict(
        n_reference=a.n, n_candidate=b.n,
        difference=float(b.mean - a.mean) if both else None,
        difference_low=interval[0], difference_high=interval[1],
        difference_percent=statistics.difference_percent(float(a.mean), float(b.mean)) if both else None,
        percent_low=percents[0] and percents[0][0], percent_high=percents[0] and percents[0][1],
        welch_p=p, equivalence_p=equal, verdict=verdict(p, equal, design.alpha),
        shown_margin_percent=percents[1] and max(abs(end) for end in percents[1]),
        smallest_margin_percent=None if narrowest is None else 100 * narrowest,
        equivalence_power=statistics.equivalence_power(a, b, design.margin, design.alpha),
        subjects_needed=statistics.subjects_needed(a, b, design.margin, design.power) if narrowest else None,
        std_ratio=None, wasserstein=None, bootstrap_low=None, bootstrap_high=None,
    )  # fmt: skip
    if isinstance(reference, statistics.Summary) or isinstance(candidate, statistics.Summary):
        if min(a.n, b.n) > 1 and a.std > 0:
            result["std_ratio"] = float(b.std / a.std)
        return result
    low, high = statistics.bootstrap_interval(reference, candidate, level, resamples=design.resamples) or (None, None)
    return result | dict(
        std_ratio=statistics.std_ratio(reference, candidate), wasserstein=statistics.wasserstein(reference, candidate),
        bootstrap_low=low, bootstrap_high=high,
    )  # fmt: skip


def verdict(difference_p: float | None, equivalence_p: float | None, alpha: float) -> str:
    """A key of VERDICTS: a test that shows no difference does not show agreement."""
    if difference_p is None or equivalence_p is None:
        return "not tested"
    differs, equal = difference_p < alpha, equivalence_p < alpha
    if equal:
        return "different, within the margin" if differs else "equivalent"
    return "different" if differs else "undecided"


def compare_pairs(
    reference: np.ndarray, candidate: np.ndarray, design: Design = PUBLISHED_DESIGN
) -> dict[str, Any]:
    """The results of a candidate against the reference subject that it was made for; [n] values of the same subjects.

    limits_low, limits_high: 95 % of the differences of single subjects are between them (Bland and Altman).
    """
    n = len(reference)
    mean = float(np.mean(reference)) if n else 0.0
    low, high = statistics.paired_mean_interval(reference, candidate, 1 - design.alpha) or (None, None)
    bias, limit_low, limit_high = statistics.agreement_limits(reference, candidate) or (None, None, None)
    p = statistics.paired_t(reference, candidate)
    equal = statistics.paired_equivalence(reference, candidate, design.margin)
    return dict(
        n_pairs=n,
        paired_difference=float(np.mean(candidate - reference)) if n else None,
        paired_low=low, paired_high=high,
        paired_percent=100 * float(np.mean(candidate - reference)) / mean if mean else None,
        paired_p=p, paired_equivalence_p=equal, paired_verdict=verdict(p, equal, design.alpha),
        limits_low=limit_low, limits_high=limit_high,
        concordance=statistics.concordance(reference, candidate),
    )  # fmt: skip


def statistics_table(reference: Any, others: Sequence[Any], design: Design = PUBLISHED_DESIGN) -> pd.DataFrame:
    """One row per sex, organ, measure and other cohort: the results of ``compare`` and ``compare_pairs``.

    …_holm: corrected over all rows of one cohort;  anova_p, welch_anova_p: over the reference and all candidates (not
    the controls), so they repeat for each. Cohorts may be PrintedColumns: what needs subjects is empty then.
    """
    tables = []
    candidates = [cohort for cohort in others if cohort.role == "candidate"]
    for other in others:
        rows = []
        both = isinstance(reference, Cohort) and isinstance(other, Cohort)
        partners = pairs(reference, other).subjects if both and design.paired else ()
        for sex, organ, column in design.rows():
            measure, unit = MEASURES[column]
            place = dict(sex=SEX[sex][0], organ=organ, measure=measure, unit=unit)
            place |= dict(reference=reference.name, candidate=other.name, role=other.role)
            get = "values" if both else "summary"
            base, made = (getattr(cohort, get)(sex, organ, column) for cohort in (reference, other))
            rows.append(place | compare(base, made, design))
            if both:
                table = paired_values(reference, other, sex, organ, column, partners)
                base, made = (table[name].to_numpy(float) for name in ("reference", "candidate"))
                rows[-1] |= compare_pairs(base, made, design)
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
    """Columns reference and candidate, indexed by those of ``partners`` (``pairs``) that both have a value of."""
    found = [cohort.by_subject(sex, organ, column) for cohort in (reference, other)]
    chosen = [subject for subject in partners if all(subject in each.index for each in found)]
    return pd.DataFrame({name: each.loc[chosen] for name, each in zip(("reference", "candidate"), found, strict=True)})

