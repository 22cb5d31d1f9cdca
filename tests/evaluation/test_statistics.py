import numpy as np
import pytest
from scipy import special, stats

from totalgen.evaluation.statistics import (
    anova,
    bootstrap_interval,
    compare,
    difference_percent,
    equivalence,
    holm,
    std_ratio,
    wasserstein,
    welch,
)

RANDOM = np.random.default_rng(3)
REFERENCE = RANDOM.normal(1.76, 0.44, 108)  # male liver volume of the published table
CANDIDATE = RANDOM.normal(1.60, 0.20, 40)


def welch_by_hand(reference, candidate, shift=0.0):
    """(t, degrees of freedom) of candidate − reference − shift, from Welch's and Satterthwaite's formulas."""
    parts = [np.var(group, ddof=1) / len(group) for group in (reference, candidate)]
    t = (np.mean(candidate) - np.mean(reference) - shift) / np.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (reference, candidate), strict=True))
    return t, freedom


def test_welch_is_its_formula():
    t, freedom = welch_by_hand(REFERENCE, CANDIDATE)
    assert welch(REFERENCE, CANDIDATE) == pytest.approx(2 * special.stdtr(freedom, -abs(t)), rel=1e-9)


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    near = REFERENCE * 1.01 + 0.02
    for candidate in (CANDIDATE, near):
        bound = 0.05 * REFERENCE.mean()
        above, freedom = welch_by_hand(REFERENCE, candidate, -bound)
        below, _ = welch_by_hand(REFERENCE, candidate, bound)
        by_hand = max(special.stdtr(freedom, -above), special.stdtr(freedom, below))
        assert equivalence(REFERENCE, candidate) == pytest.approx(by_hand, rel=1e-9)


def test_equal_means_of_large_uniform_groups_are_equivalent_and_shifted_ones_are_not():
    steady = np.linspace(0.98, 1.02, 100)
    assert equivalence(steady, steady) < 0.001
    assert equivalence(steady, steady * 1.10) > 0.999


def test_anova_of_two_groups_is_the_pooled_t_test():
    pooled = stats.ttest_ind(REFERENCE, CANDIDATE).pvalue
    assert anova([REFERENCE, CANDIDATE]) == pytest.approx(pooled, rel=1e-9)
    assert anova([REFERENCE, CANDIDATE, np.array([1.0])]) == pytest.approx(pooled, rel=1e-9)  # one value has no spread


def test_holm_multiplies_by_the_number_left_and_never_descends():
    # Sorted 0.01, 0.02, 0.03: times 3, 2, 1 → 0.03, 0.04, max(0.03, 0.04).
    assert holm([0.02, None, 0.01, 0.03]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([None, None]) == [None, None]


def test_the_bootstrap_interval_agrees_with_welch_for_large_groups():
    low, high = bootstrap_interval(REFERENCE, CANDIDATE)
    error = np.sqrt(REFERENCE.var(ddof=1) / len(REFERENCE) + CANDIDATE.var(ddof=1) / len(CANDIDATE))
    middle = CANDIDATE.mean() - REFERENCE.mean()
    # 2000 resamples leave some 5 % of noise on the 2.5 % quantiles.
    assert low == pytest.approx(middle - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(middle + 1.96 * error, abs=0.2 * error)
    assert bootstrap_interval(REFERENCE, CANDIDATE) == (low, high)


def test_a_shifted_and_stretched_copy_has_the_expected_distance_and_spread():
    assert wasserstein(REFERENCE, REFERENCE + 0.3) == pytest.approx(0.3)
    assert std_ratio(REFERENCE, 0.5 * REFERENCE + 7) == pytest.approx(0.5)
    assert difference_percent(2.0, 2.1) == pytest.approx(5)


@pytest.mark.parametrize("small", [np.array([]), np.array([1.7])], ids=["empty", "one"])
def test_a_group_too_small_for_a_test_has_none_and_no_warning(small):
    with np.errstate(all="raise"):
        for figures in (compare(REFERENCE, small), compare(small, REFERENCE)):
            for name in ("welch_p", "equivalence_p", "std_ratio", "difference_low", "difference_high"):
                assert figures[name] is None
            assert not any(isinstance(value, float) and np.isnan(value) for value in figures.values())


def test_a_phantom_without_variation_can_be_a_candidate_but_two_of_them_cannot_be_tested():
    steady = np.full(10, 1.7)
    assert 0 <= welch(REFERENCE, steady) <= 1
    assert std_ratio(REFERENCE, steady) == 0
    assert welch(steady, steady) is None
    assert anova([steady, steady]) is None
