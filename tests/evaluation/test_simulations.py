"""Twenty thousand simulated comparisons: a test of level 5 % rejects in 5 % of them, 95 % intervals miss in 5 %.

Groups have the sizes, means and standard deviations of the published Table 1. A rate is right when it is inside the
exact binomial interval that contains 99.9 % of the rates of a test that is.
"""

import numpy as np
import pytest
from scipy import stats

from totalgen.evaluation.statistics import (
    Summary,
    agreement_limits,
    anova,
    difference_interval,
    equivalence,
    equivalence_power,
    paired_equivalence,
    paired_mean_interval,
    paired_ratio_interval,
    paired_t,
    ratio_interval,
    smallest_margin,
    welch,
)

pytestmark = pytest.mark.slow
DRAWS = 20_000
MALE, FEMALE = 108, 92
WIDE = (1.76, 0.44)  # male liver volume
NARROW = (1.76, 0.20)


def is_rate(found, expected):
    low, high = stats.binom.interval(0.999, DRAWS, expected)
    return low <= np.count_nonzero(found) <= high


def draws(mean, std, n, seed):
    return np.random.default_rng(seed).normal(mean, std, (DRAWS, n))


def test_the_interval_of_the_rates_is_the_binomial_one():
    """Clopper and Pearson's view of the same: 4.5 to 5.5 % of 20 000."""
    low, high = stats.binom.interval(0.999, DRAWS, 0.05)
    assert 0.0445 < low / DRAWS < 0.0455
    assert 0.0545 < high / DRAWS < 0.0555


def test_welch_keeps_its_level_with_unequal_spread_and_number():
    a, b = draws(*WIDE, MALE, 1), draws(*NARROW, 40, 2)
    assert is_rate(welch(a, b) < 0.05, 0.05)
    low, high = difference_interval(a, b)
    assert is_rate((low > 0) | (high < 0), 0.05)


def test_the_ratio_of_means_is_covered():
    a, b = draws(*WIDE, MALE, 3), draws(1.9, 0.3, FEMALE, 4)
    low, high = ratio_interval(a, b)
    assert is_rate((low > 1.9 / 1.76) | (high < 1.9 / 1.76), 0.05)


@pytest.mark.parametrize("side", [0.95, 1.05])
def test_equivalence_is_claimed_at_the_margin_in_five_percent(side):
    """Spread so small that the other margin is never in doubt: the size is then 5 %, not below."""
    a, b = draws(2.0, 0.15, MALE, 5), draws(2.0 * side, 0.10, FEMALE, 6)
    assert is_rate(equivalence(a, b) < 0.05, 0.05)


def test_a_margin_of_a_mean_that_is_taken_as_known_is_too_wide():
    """Why the uncertainty of the reference is part of the test: without it a false claim is more frequent."""
    a, b = draws(2.0, 0.60, 15, 7), draws(2.0 * 1.4, 0.05, 40, 8)
    assert is_rate(equivalence(a, b, 0.4) < 0.05, 0.05)
    bound = 0.4 * a.mean(1)
    error = np.sqrt(a.var(1, ddof=1) / 15 + b.var(1, ddof=1) / 40)
    known = stats.t.sf((bound - (b.mean(1) - a.mean(1))) / error, 15)
    assert not is_rate(known < 0.05, 0.05)


def test_power_is_what_is_said():
    a, b = draws(*WIDE, MALE, 9), draws(*WIDE, FEMALE, 10)
    groups = Summary(*WIDE, MALE), Summary(*WIDE, FEMALE)
    assert is_rate(equivalence(a, b, smallest_margin(*groups)) < 0.05, 0.80)
    assert is_rate(equivalence(a, b, 0.10) < 0.05, equivalence_power(*groups, 0.10))


def test_analysis_of_variance_keeps_its_level_and_only_welchs_with_unequal_variances():
    equal = [draws(*WIDE, n, n) for n in (30, MALE, FEMALE)]
    assert is_rate(anova(equal) < 0.05, 0.05)
    unequal = [draws(*WIDE, 30, 11), draws(*NARROW, MALE, 12), draws(1.76, 0.30, MALE, 13)]
    assert is_rate(anova(unequal, equal_variances=False) < 0.05, 0.05)
    assert not is_rate(anova(unequal) < 0.05, 0.05)


def test_paired_tests_keep_their_level():
    person = draws(0, 0.40, MALE, 14)
    a, b = 1.76 + person + draws(0, 0.15, MALE, 15), 1.76 + person + draws(0, 0.25, MALE, 16)
    assert is_rate(paired_t(a, b) < 0.05, 0.05)
    low, high = paired_mean_interval(a, b)
    assert is_rate((low > 0) | (high < 0), 0.05)
    low, high = paired_ratio_interval(a, b)
    assert is_rate((low > 1) | (high < 1), 0.05)
    near = person * 0.1 + 1.76
    assert is_rate(paired_equivalence(near, 1.05 * near + draws(0, 0.15, MALE, 17), 0.05) < 0.05, 0.05)


def test_groups_that_were_made_for_the_same_people_are_told_apart_too_rarely_and_never_too_often():
    """Half of the variance is of the demographics: what the report calls conservative. Also for 70 of 108 subjects."""
    person = draws(0, 0.28, MALE, 20)
    a, b = 1.76 + person + draws(0, 0.28, MALE, 21), 1.76 + person + draws(0, 0.28, MALE, 22)
    for made in (b, b[:, :70]):
        low, high = difference_interval(a, made)
        assert ((low > 0) | (high < 0)).mean() < 0.03
        assert (equivalence(a, made * 1.05) < 0.05).mean() < 0.05
    assert is_rate(paired_t(a[:, :70], b[:, :70]) < 0.05, 0.05)
    group = Summary(1.76, 0.28 * 2**0.5, MALE)
    assert (equivalence(a, b, 0.1) < 0.05).mean() > equivalence_power(group, group, 0.1)


def test_limits_of_agreement_contain_95_percent():
    a = draws(*WIDE, 2000, 18)[:50]
    b = a + np.random.default_rng(19).normal(0.1, 0.2, a.shape)
    limits = np.array([agreement_limits(*pair) for pair in zip(a, b, strict=True)])
    inside = ((b - a >= limits[:, 1:2]) & (b - a <= limits[:, 2:])).mean()
    assert inside == pytest.approx(0.95, abs=0.003)
