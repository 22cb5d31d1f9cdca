"""Is a candidate cohort like the reference: difference, equivalence, power, pairs, spread, shape of the distribution.

A group is an array of values, or a Summary where only mean, standard deviation and number are known, as of a printed
table. Arrays of more than one axis hold many samples [samples, n], and the results have one value per sample; so the
tests of this file can be simulated. A group of fewer than two subjects has no spread: results that need one are None.

Several studies of one person are no several subjects: tests and intervals are of arrays with one value per person, the
mean of that person's studies. What describes single bodies takes a Series of studies, indexed by person.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

ALPHA = 0.05
MARGIN = 0.05  # equivalence: within ±5 % of the reference mean
POWER = 0.80
RESAMPLES = 2000
LIMITS = 1.96  # standard deviations: 95 % of a normal distribution (Bland and Altman 1986)
WIDEST, HALVINGS = 2.0, 40  # margin beyond which nothing is called equivalent; steps of its search
MOST_SUBJECTS = 10_000_000


class Summary(NamedTuple):
    """Mean, standard deviation (of the sample, n − 1) and number of values; numbers, or arrays [samples]."""

    mean: Any
    std: Any
    n: int


Group = np.ndarray | Summary


def summary(group: Group) -> Summary:
    """Of the last axis; that of an empty group is NaN, and one value has the standard deviation NaN."""
    if isinstance(group, Summary):
        return group
    n = np.shape(group)[-1]
    mean = np.mean(group, axis=-1) if n else np.nan
    return Summary(mean, np.std(group, axis=-1, ddof=1) if n > 1 else np.nan, n)


def difference_percent(reference_mean: float, candidate_mean: float) -> float | None:
    """(candidate − reference) / reference in %, as in brackets in the published Table 1; None for a reference of 0
    or less, of which a percentage means nothing."""
    return 100 * (candidate_mean - reference_mean) / reference_mean if reference_mean > 0 else None


def welch(reference: Group, candidate: Group) -> Any:
    """Two-sided p of Welch's t test; None when a group has fewer than two values or neither group varies."""
    a, b = summary(reference), summary(candidate)
    if not _testable(a, b):
        return None
    p = stats.ttest_ind_from_stats(b.mean, b.std, b.n, a.mean, a.std, a.n, equal_var=False).pvalue
    return _plain(p)


def difference_interval(reference: Group, candidate: Group, level: float = 1 - ALPHA) -> tuple[Any, Any] | None:
    """(low, high) of the difference of the means, by Welch's t: without 0 where ``welch`` gives p < 1 − level."""
    a, b = summary(reference), summary(candidate)
    if not _testable(a, b):
        return None
    half = special.stdtrit(_freedom(a, b), (1 + level) / 2) * np.sqrt(_error(a) + _error(b))
    return _plain(b.mean - a.mean - half), _plain(b.mean - a.mean + half)


def ratio_interval(reference: Group, candidate: Group, level: float = 1 - ALPHA) -> tuple[Any, Any] | None:
    """(low, high) of candidate mean / reference mean: both means are uncertain (Fieller 1954, Welch's variances).

    None under the conditions of ``welch``, and when the reference mean may be 0: the ratio has no bounds then.
    """
    a, b = summary(reference), summary(candidate)
    if not _testable(a, b) or np.ndim(a.mean) == 0 and a.mean <= 0:
        return None
    square = special.stdtrit(_freedom(a, b), (1 + level) / 2) ** 2
    uncertain = square * _error(a) / np.square(a.mean)
    if np.ndim(uncertain) == 0 and uncertain >= 1:
        return None
    ratio = b.mean / a.mean
    inside = np.maximum(_error(b) + ratio**2 * _error(a) - uncertain * _error(b), 0)
    half = np.sqrt(square * inside) / a.mean
    return _plain((ratio - half) / (1 - uncertain)), _plain((ratio + half) / (1 - uncertain))


def equivalence(reference: Group, candidate: Group, margin: float = MARGIN) -> Any:
    """p of two one-sided tests: small when the means are shown to differ by less than ``margin`` of the reference.

    The reference mean is uncertain as well: tested are candidate − (1 ± margin) · reference (Sasabuchi 1980), with
    Welch's degrees of freedom; p < 0.05 where the 90 % ``ratio_interval`` is within 1 ± margin. None under the
    conditions of ``welch``, and for a reference mean that is not positive.
    """
    a, b = summary(reference), summary(candidate)
    if not _testable(a, b) or np.ndim(a.mean) == 0 and a.mean <= 0:
        return None
    freedom, p_values = _freedom(a, b), []
    for bound, side in ((1 - margin, 1), (1 + margin, -1)):
        t = side * (b.mean - bound * a.mean) / np.sqrt(_error(b) + bound**2 * _error(a))
        p_values.append(special.stdtr(freedom, -t))
    return _plain(np.maximum(*p_values))


def equivalence_power(reference: Group, candidate: Group, margin: Any = MARGIN, alpha: float = ALPHA) -> Any:
    """Probability that ``equivalence`` would be shown if the true means were equal, at these sizes and deviations.

    From t for the noncentral t, which is near for ten subjects and more. None under the conditions of ``equivalence``.
    """
    a, b = summary(reference), summary(candidate)
    if not _testable(a, b) or np.ndim(a.mean) == 0 and a.mean <= 0:
        return None
    freedom, shown = _freedom(a, b), -1.0
    for bound in (1 - margin, 1 + margin):
        error = np.sqrt(_error(b) + bound**2 * _error(a))
        shown = shown + special.stdtr(freedom, margin * a.mean / error - special.stdtrit(freedom, 1 - alpha))
    return _plain(np.maximum(shown, 0))


def smallest_margin(reference: Group, candidate: Group, power: float = POWER, alpha: float = ALPHA) -> Any:
    """The narrowest equivalence margin, as a share of the reference mean, at which ``equivalence_power`` is ``power``;
    None when none below WIDEST does it."""
    a, b = summary(reference), summary(candidate)
    widest = equivalence_power(a, b, WIDEST, alpha)
    if widest is None or np.any(widest < power):
        return None
    low, high = np.zeros(np.shape(a.mean)), np.full(np.shape(a.mean), WIDEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = equivalence_power(a, b, middle, alpha) >= power
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return _plain(high)


def subjects_needed(reference: Group, candidate: Group, margin: float = MARGIN, power: float = POWER) -> int | None:
    """Subjects per group from which ``equivalence_power`` is at least ``power``; None when it never is."""
    a, b = summary(reference), summary(candidate)

    def enough(n):
        found = equivalence_power(a._replace(n=n), b._replace(n=n), margin)
        return found is not None and found >= power

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SUBJECTS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def anova(groups: Sequence[np.ndarray], equal_variances: bool = True) -> Any:
    """p of one-way analysis of variance over the groups, Welch's where variances may differ (Welch 1951).

    None unless two groups of two values or more vary; for Welch's, all of these must.
    """
    groups = [group for group in groups if np.shape(group)[-1] > 1]
    vary = [bool(np.ptp(group) > 0) for group in groups]
    if len(groups) < 2 or not any(vary) or not (equal_variances or all(vary)):
        return None
    return _plain(stats.f_oneway(*groups, equal_var=equal_variances, axis=-1).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979); None stays None and is not counted."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected, highest = list(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[i] = highest
    return corrected


def bootstrap_interval(
    reference: np.ndarray, candidate: np.ndarray, level: float = 1 - ALPHA, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """(low, high) of the mean difference candidate − reference, percentile bootstrap; None below two values."""
    if min(len(reference), len(candidate)) < 2:
        return None
    result = stats.bootstrap(
        (candidate, reference),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_t(reference: np.ndarray, candidate: np.ndarray) -> Any:
    """Two-sided p of the paired t test, 1 when all pairs are equal.

    None below two pairs and when all differ by the same.
    """
    if np.shape(reference)[-1] < 2:
        return None
    if not np.ptp(candidate - reference) > 0:
        return None if np.any(candidate - reference) else 1.0
    return _plain(stats.ttest_rel(candidate, reference, axis=-1).pvalue)


def paired_equivalence(reference: np.ndarray, candidate: np.ndarray, margin: float = MARGIN) -> Any:
    """``equivalence`` of pairs: one-sided t tests of candidate − (1 ± margin) · reference, pair by pair."""
    if np.shape(reference)[-1] < 2 or np.ndim(reference) == 1 and np.mean(reference) <= 0:
        return None
    p_values = []
    for bound, side in ((1 - margin, 1), (1 + margin, -1)):
        distance = summary(side * (candidate - bound * reference))
        if np.ndim(distance.mean) == 0 and not distance.std > 0:
            return None
        p_values.append(special.stdtr(distance.n - 1, -distance.mean / np.sqrt(_error(distance))))
    return _plain(np.maximum(*p_values))


def paired_mean_interval(
    reference: np.ndarray, candidate: np.ndarray, level: float = 1 - ALPHA
) -> tuple[Any, Any] | None:
    """(low, high) of the mean of candidate − reference by Student's t; None below two pairs."""
    distance = summary(candidate - reference)
    if distance.n < 2:
        return None
    half = special.stdtrit(distance.n - 1, (1 + level) / 2) * np.sqrt(_error(distance))
    return _plain(distance.mean - half), _plain(distance.mean + half)


def paired_ratio_interval(
    reference: np.ndarray, candidate: np.ndarray, level: float = 1 - ALPHA
) -> tuple[Any, Any] | None:
    """``ratio_interval`` of pairs (Fieller 1954, with their covariance): the ratios r for which Student's t does not
    show that the mean of candidate − r · reference differs from 0. Within 1 ± margin at level 1 − 2α where
    ``paired_equivalence`` gives p < α. None below two pairs and when the reference mean may be 0.
    """
    n = np.shape(reference)[-1]
    if n < 2:
        return None
    a, b = summary(reference), summary(candidate)
    square = special.stdtrit(n - 1, (1 + level) / 2) ** 2 / n
    covariance = np.sum((reference.T - a.mean).T * (candidate.T - b.mean).T, axis=-1) / (n - 1)
    scale, middle = a.mean**2 - square * a.std**2, a.mean * b.mean - square * covariance
    if np.ndim(scale) == 0 and (scale <= 0 or a.mean <= 0):
        return None
    half = np.sqrt(np.maximum(middle**2 - scale * (b.mean**2 - square * b.std**2), 0))
    return _plain((middle - half) / scale), _plain((middle + half) / scale)


def body_std(studies: pd.Series | np.ndarray) -> float:
    """Standard deviation of single bodies. studies: indexed by person; NaN for fewer than two persons.

    By the law of total variance: that of the means of persons and the mean of those within a person, which is unbiased
    for any number of studies each and the usual one for a study each. Means alone vary less than bodies do.
    """
    persons = pd.Series(studies).groupby(level=0)
    if persons.ngroups < 2:
        return float("nan")
    return float(np.sqrt(persons.mean().var() + persons.var(ddof=0).mean()))


def agreement_limits(
    reference: pd.Series | np.ndarray, candidate: pd.Series | np.ndarray
) -> tuple[float, float, float] | None:
    """(bias, low, high): mean of candidate − reference, and 1.96 standard deviations of a single study to each side
    (Bland and Altman 1986); None below two pairs. Series: studies, indexed by person."""
    distance = pd.Series(candidate - reference)
    persons = distance.groupby(level=0).mean()
    if len(persons) < 2:
        return None
    bias, half = float(persons.mean()), LIMITS * body_std(distance)
    return bias, bias - half, bias + half


def concordance(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    """Lin's concordance correlation (Lin 1989), 1 for identical pairs; None below two pairs or without variation."""
    if len(reference) < 2 or not (np.ptp(reference) > 0 or np.ptp(candidate) > 0):
        return None
    (a, b), covariance = (reference, candidate), np.cov(reference, candidate, ddof=0)[0, 1]
    return float(2 * covariance / (np.var(a) + np.var(b) + (np.mean(a) - np.mean(b)) ** 2))


def std_ratio(reference: pd.Series | np.ndarray, candidate: pd.Series | np.ndarray) -> float | None:
    """``body_std`` of the candidate divided by that of the reference; None when it is undefined."""
    spread = body_std(candidate), body_std(reference)
    if not np.isfinite(spread).all() or np.ptp(reference) == 0:
        return None
    return spread[0] / spread[1]


def wasserstein(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    """Earth mover's distance between the two distributions, in the unit of the values; None for an empty group."""
    if min(len(reference), len(candidate)) < 1:
        return None
    return float(stats.wasserstein_distance(reference, candidate))


def _error(group: Summary) -> Any:
    """Squared standard error of the mean."""
    return np.square(group.std) / group.n


def _freedom(a: Summary, b: Summary) -> Any:
    """Degrees of freedom of Welch's t (Satterthwaite 1946)."""
    parts = _error(a), _error(b)
    return (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / (a.n - 1) + parts[1] ** 2 / (b.n - 1))


def _testable(a: Summary, b: Summary) -> bool:
    if min(a.n, b.n) < 2:
        return False
    return bool(np.any(np.asarray(a.std) > 0) or np.any(np.asarray(b.std) > 0))


def _plain(value: Any) -> Any:
    """float of a single number, the array of several."""
    return float(value) if np.ndim(value) == 0 else value
