"""Is a candidate cohort like the reference: difference, equivalence, spread, shape of the distribution.

Every function takes 1-D arrays of one value per subject. A group of fewer than two subjects has no spread, so what
needs one is None, never NaN.
"""

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

ALPHA = 0.05
MARGIN = 0.05  # equivalence: within ±5 % of the reference mean
RESAMPLES = 2000


def difference_percent(reference_mean, candidate_mean):
    """(candidate − reference) / reference in %, the bracket of the published Table 1."""
    return 100 * (candidate_mean - reference_mean) / reference_mean


def welch(reference, candidate):
    """Two-sided p of Welch's t test; None when a group has fewer than two values or neither group varies."""
    if not _testable(reference, candidate):
        return None
    summaries = [f for group in (candidate, reference) for f in (np.mean(group), np.std(group, ddof=1), len(group))]
    return float(stats.ttest_ind_from_stats(*summaries, equal_var=False).pvalue)  # quiet when one group is constant


def equivalence(reference, candidate, margin=MARGIN):
    """p of two one-sided Welch tests: small when the means are shown to differ by less than ``margin``.

    margin: share of the reference mean, which is taken as known here; that makes the test a little too ready when the
    reference is small. None under the conditions of ``welch``.
    """
    if not _testable(reference, candidate):
        return None
    bound = margin * abs(np.mean(reference))
    return float(ttost_ind(candidate, reference, -bound, bound, usevar="unequal")[0])


def anova(groups):
    """p of one-way analysis of variance over the groups; None unless two groups of two values or more vary."""
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2 or not any(np.ptp(group) > 0 for group in groups):
        return None
    return float(stats.f_oneway(*groups).pvalue)


def holm(p_values):
    """p values corrected for their number (Holm 1979); None stays None and is not counted."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    corrected = list(p_values)
    if known:
        for i, p in zip(known, multipletests([p_values[i] for i in known], method="holm")[1], strict=True):
            corrected[i] = float(p)
    return corrected


def bootstrap_interval(reference, candidate, level=1 - ALPHA, seed=0):
    """(low, high) of the mean difference candidate − reference, percentile bootstrap; None under two values."""
    if min(len(reference), len(candidate)) < 2:
        return None
    result = stats.bootstrap(
        (candidate, reference),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def std_ratio(reference, candidate):
    """Spread of the candidate over that of the reference (1 = as varied); None when it is undefined."""
    if min(len(reference), len(candidate)) < 2 or np.ptp(reference) == 0:
        return None
    return float(np.std(candidate, ddof=1) / np.std(reference, ddof=1))


def wasserstein(reference, candidate):
    """Earth mover's distance between the two distributions, in the unit of the values; None for an empty group."""
    if min(len(reference), len(candidate)) < 1:
        return None
    return float(stats.wasserstein_distance(reference, candidate))


def compare(reference, candidate):
    """All figures of one candidate against the reference, as a dict; its keys are columns of statistics.csv."""
    low, high = bootstrap_interval(reference, candidate) or (None, None)
    both = min(len(reference), len(candidate)) > 0
    return dict(
        n_reference=len(reference),
        n_candidate=len(candidate),
        difference=float(np.mean(candidate) - np.mean(reference)) if both else None,
        difference_percent=float(difference_percent(np.mean(reference), np.mean(candidate))) if both else None,
        difference_low=low,
        difference_high=high,
        welch_p=welch(reference, candidate),
        equivalence_p=equivalence(reference, candidate),
        std_ratio=std_ratio(reference, candidate),
        wasserstein=wasserstein(reference, candidate),
    )


def _testable(reference, candidate):
    if min(len(reference), len(candidate)) < 2:
        return False
    return np.ptp(reference) > 0 or np.ptp(candidate) > 0
