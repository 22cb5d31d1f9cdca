import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway

from totalgen.evaluation.comparison import compare, compare_bodies, compare_pairs, verdict
from totalgen.evaluation.statistics import (
    Summary,
    agreement_limits,
    anova,
    bootstrap_interval,
    concordance,
    difference_interval,
    difference_percent,
    equivalence,
    equivalence_power,
    holm,
    paired_equivalence,
    paired_mean_interval,
    paired_ratio_interval,
    paired_t,
    ratio_interval,
    smallest_margin,
    std_ratio,
    subjects_needed,
    summary,
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


def test_equivalence_is_the_larger_of_two_one_sided_tests_of_a_share_of_the_reference():
    near = REFERENCE * 1.01 + 0.02
    for candidate in (CANDIDATE, near):
        _, freedom = welch_by_hand(REFERENCE, candidate)
        above, _ = welch_by_hand(REFERENCE * 0.95, candidate)
        below, _ = welch_by_hand(REFERENCE * 1.05, candidate)
        by_hand = max(special.stdtr(freedom, -above), special.stdtr(freedom, below))
        assert equivalence(REFERENCE, candidate) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_intervals_and_tests_say_the_same(level):
    """The interval of the difference ends at 0 where Welch's p is 1 − level; that of the ratio where the test of
    equivalence has p (1 − level) / 2."""
    for candidate in (CANDIDATE, REFERENCE * 1.01):
        low, high = difference_interval(REFERENCE, candidate, level)
        shifted = REFERENCE + (low if abs(low) < abs(high) else high)
        assert welch(shifted, candidate) == pytest.approx(1 - level, rel=1e-6)
        low, high = ratio_interval(REFERENCE, candidate, level)
        margin = max(1 - low, high - 1)
        assert equivalence(REFERENCE, candidate, margin) == pytest.approx((1 - level) / 2, rel=1e-6)


def test_a_reference_that_may_be_zero_has_no_ratio():
    noise = np.array([-1.0, 0.5, 1.2, -0.4])
    assert ratio_interval(noise, CANDIDATE) is None
    assert smallest_margin(noise, CANDIDATE) is None
    assert equivalence(noise - noise.mean() - 1, CANDIDATE) is None
    assert difference_percent(0.0, 1.0) is None


def test_summaries_give_what_the_values_give():
    groups = summary(REFERENCE), summary(CANDIDATE)
    for function in (welch, equivalence, difference_interval, ratio_interval, smallest_margin, equivalence_power):
        assert function(*groups) == function(REFERENCE, CANDIDATE)


def test_several_samples_are_tested_at_once():
    random = np.random.default_rng(0)
    a, b = random.normal(5, 1, (3, 12)), random.normal(5.2, 2, (3, 9))
    for function in (welch, equivalence, smallest_margin):
        assert function(a, b) == pytest.approx([function(x, y) for x, y in zip(a, b, strict=True)])
    same = random.normal(5, 1, (3, 12))
    for function in (paired_t, paired_equivalence):
        assert function(a, same) == pytest.approx([function(x, y) for x, y in zip(a, same, strict=True)])


@pytest.mark.parametrize(
    ("mean", "std", "known"),  # of the published table; known: 2 (z 0.95 + z 0.90)² (std / mean / 0.05)²
    [(0.68, 0.15, 334), (0.55, 0.09, 184), (2.48, 1.03, 1182), (3.07, 1.39, 1405)],
    ids=["male heart volume", "female heart volume", "male heart SUVmean", "female heart SUVmean"],
)
def test_the_published_numbers_of_subjects_could_not_show_five_percent(mean, std, known):
    group = Summary(mean, std, 108)
    needed = subjects_needed(group, group)
    assert known < needed < 1.06 * known  # the reference mean is uncertain, too: between 0 and 5 % more
    assert smallest_margin(group, group) > 0.05
    enough = group._replace(n=needed)
    assert smallest_margin(enough, enough) <= 0.05 < smallest_margin(*(group._replace(n=needed - 1),) * 2)
    assert equivalence_power(enough, enough) == pytest.approx(0.80, abs=0.01)


def test_welchs_anova_agrees_with_statsmodels():
    groups = [REFERENCE, CANDIDATE, REFERENCE[:30] * 1.2]
    assert anova(groups, equal_variances=False) == pytest.approx(anova_oneway(groups, use_var="unequal").pvalue)
    assert anova([REFERENCE, np.full(5, 1.7)], equal_variances=False) is None


def test_pairs_are_tested_by_their_differences():
    random = np.random.default_rng(1)
    made = REFERENCE * 1.02 + random.normal(0, 0.05, len(REFERENCE))
    away = made - REFERENCE
    error = away.std(ddof=1) / np.sqrt(len(away))
    t = away.mean() / error
    assert paired_t(REFERENCE, made) == pytest.approx(2 * special.stdtr(len(away) - 1, -abs(t)))
    half = special.stdtrit(len(away) - 1, 0.975) * error
    assert paired_mean_interval(REFERENCE, made) == pytest.approx((away.mean() - half, away.mean() + half))
    bias, low, high = agreement_limits(REFERENCE, made)
    assert (bias, high - low) == pytest.approx((away.mean(), 2 * 1.96 * away.std(ddof=1)))
    assert paired_equivalence(REFERENCE, made) < 0.001 < 0.999 < paired_equivalence(REFERENCE, made * 1.10)
    found = compare_pairs(pd.DataFrame(dict(reference=REFERENCE, candidate=made)))
    assert found["n_pairs"] == len(REFERENCE)
    assert found["paired_verdict"] == "different, within the margin"


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_the_ratio_of_pairs_ends_where_its_tests_do(level):
    """Student's t of candidate − r · reference has p = 1 − level at both ends r; equivalence has half of it there."""
    made = REFERENCE * 1.02 + np.random.default_rng(2).normal(0, 0.1, len(REFERENCE))
    ends = paired_ratio_interval(REFERENCE, made, level)
    for end in ends:
        assert stats.ttest_1samp(made - end * REFERENCE, 0).pvalue == pytest.approx(1 - level, rel=1e-6)
    margin = max(1 - ends[0], ends[1] - 1)
    assert paired_equivalence(REFERENCE, made, margin) == pytest.approx((1 - level) / 2, rel=1e-6)
    stacked = paired_ratio_interval(np.stack([REFERENCE, made]), np.stack([made, REFERENCE]), level)
    assert [each[0] for each in stacked] == pytest.approx(ends)
    assert paired_ratio_interval(REFERENCE, 0.97 * REFERENCE, level) == pytest.approx((0.97, 0.97))
    assert paired_ratio_interval(REFERENCE - REFERENCE.mean(), made, level) is None
    assert paired_ratio_interval(REFERENCE[:1], made[:1], level) is None


def test_pairs_that_are_equal_are_no_difference_and_equal_steps_are_not_tested():
    assert paired_t(REFERENCE, REFERENCE) == 1
    assert paired_t(np.arange(5.0), np.arange(5.0) + 1) is None


def test_a_perfect_generator_has_the_spread_of_the_reference_and_the_number_of_the_candidate():
    """A generator of averages must not look as if a perfect one could show what it cannot."""
    narrow = REFERENCE.mean() + 0.1 * (CANDIDATE - CANDIDATE.mean())
    found, wide = compare(REFERENCE, narrow), compare(REFERENCE, CANDIDATE)
    base = summary(REFERENCE)
    perfect = base._replace(n=len(CANDIDATE))
    for name in ("smallest_margin_percent", "equivalence_power", "subjects_needed"):
        assert found[name] == wide[name]
    assert found["smallest_margin_percent"] == 100 * smallest_margin(base, perfect)
    assert found["equivalence_power"] == equivalence_power(base, perfect)
    assert found["subjects_needed"] == subjects_needed(base, perfect)
    assert smallest_margin(base, summary(narrow)) < 0.8 * smallest_margin(base, perfect)


def test_concordance_is_one_for_copies_and_falls_with_a_shift():
    assert concordance(REFERENCE, REFERENCE) == pytest.approx(1)
    assert concordance(REFERENCE, REFERENCE[::-1]) < 0.3
    variance = np.var(REFERENCE)
    assert concordance(REFERENCE, REFERENCE + 1) == pytest.approx(2 * variance / (2 * variance + 1))
    assert concordance(REFERENCE[:1], REFERENCE[:1]) is None


def test_no_difference_shown_is_undecided_not_equal():
    assert verdict(0.5, 0.5, 0.05) == "undecided"
    assert verdict(0.5, 0.01, 0.05) == "equivalent"
    assert verdict(0.01, 0.5, 0.05) == "different"
    assert verdict(0.01, 0.01, 0.05) == "different, within the margin"
    assert verdict(None, None, 0.05) == "not tested"


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
    many = list(np.random.default_rng(0).uniform(size=40) ** 3)
    assert holm(many) == pytest.approx(list(multipletests(many, method="holm")[1]))


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
            for name in ("welch_p", "equivalence_p", "difference_low", "bootstrap_low", "percent_low"):
                assert figures[name] is None
            assert figures["verdict"] == "not tested"
            assert not any(isinstance(value, float) and np.isnan(value) for value in figures.values())
        for groups in ((REFERENCE, small), (small, REFERENCE)):
            assert compare_bodies(*map(pd.Series, groups))["std_ratio"] is None
        found = compare_pairs(pd.DataFrame(dict(reference=small, candidate=small)))
        assert (found["n_pairs"], found["paired_verdict"]) == (len(small), "not tested")
        for name in ("paired_p", "paired_percent_low", "limits_low", "concordance"):
            assert found[name] is None


def test_a_phantom_without_variation_can_be_a_candidate_but_two_of_them_cannot_be_tested():
    steady = np.full(10, 1.7)
    assert 0 <= welch(REFERENCE, steady) <= 1
    assert std_ratio(REFERENCE, steady) == 0
    assert welch(steady, steady) is None
    assert anova([steady, steady]) is None
