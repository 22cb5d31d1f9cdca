"""Is a candidate cohort like the reference: difference, equivalence, spread, shape of the distribution.

Every function takes 1-D arrays of one value per subject. A group of fewer than two subjects has no spread: results
that need one are None, never NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

ALPHA = 0.05
MARGIN = 0.05  # equivalence: within ±5 % of the reference mean
RESAMPLES = 2000


def difference_percent(reference_mean: float, candidate_mean: float) -> float:
    """(candidate − reference) / reference in %, as in brackets in the published Table 1."""
    return 100 * (candidate_mean - reference_mean) / reference_mean


def welch(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    """Two-sided p of Welch's t test; None when a group has fewer than two values or neither group varies."""
    if not _testable(reference, candidate):
        return None
    summaries = [f for group in (candidate, reference) for f in (np.mean(group), np.std(group, ddof=1), len(group))]
    return float(stats.ttest_ind_from_stats(*summaries, equal_var=False).pvalue)  # no warning for a constant group


def equivalence(reference: np.ndarray, candidate: np.ndarray, margin: float = MARGIN) -> float | None:
    """p of two one-sided Welch tests: small when the means are shown to differ by less than ``margin``.

    margin: share of the reference mean, which is treated as exactly known; so the test shows equivalence a little too
    often when the reference is small. None under the conditions of ``welch``.
    """
    if not _testable(reference, candidate):
        return None
    bound = margin * abs(np.mean(reference))
    return float(ttost_ind(candidate, reference, -bound, bound, usevar="unequal")[0])


def anova(groups: Sequence[np.ndarray]) -> float | None:
    """p of one-way analysis of variance over the groups; None unless two groups of two values or more vary."""
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2 or not any(np.ptp(group) > 0 for group in groups):
        return None
    return float(stats.f_oneway(*groups).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979); None stays None and is not counted."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    corrected = list(p_values)
    if known:
        for i, p in zip(known, multipletests([p_values[i] for i in known], method="holm")[1], strict=True):
            corrected[i] = float(p)
    return corrected


def bootstrap_interval(
    reference: np.ndarray, candidate: np.ndarray, level: float = 1 - ALPHA, seed: int = 0
) -> tuple[float, float] | None:
    """(low, high) of the mean difference candidate − reference, percentile bootstrap; None below two values."""
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


def paired_interval(
    reference: np.ndarray, candidate: np.ndarray, level: float = 1 - ALPHA, seed: int = 0
) -> tuple[float, float] | None:
    """(low, high) of the mean of candidate − reference of the same subjects, percentile bootstrap over subjects.

    Subjects without a value in one of the two are left out; None when fewer than two are left.
    """
    differences = candidate - reference
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    random = np.random.default_rng(seed)
    result = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=level, method="percentile", rng=random
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def std_ratio(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    """Spread of the candidate divided by that of the reference; None when it is undefined."""
    if min(len(reference), len(candidate)) < 2 or np.ptp(reference) == 0:
        return None
    return float(np.std(candidate, ddof=1) / np.std(reference, ddof=1))


def wasserstein(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    """Earth mover's distance between the two distributions, in the unit of the values; None for an empty group."""
    if min(len(reference), len(candidate)) < 1:
        return None
    return float(stats.wasserstein_distance(reference, candidate))


def compare(reference: np.ndarray, candidate: np.ndarray) -> dict[str, Any]:
    """All results of one candidate against the reference; the keys are columns of statistics.csv."""
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
