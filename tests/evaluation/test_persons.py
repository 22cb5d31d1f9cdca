"""Several studies of one person are not several subjects: N, tests, intervals and pairs are of persons."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from totalgen.data.measures import MEASURES
from totalgen.data.names import sample_name
from totalgen.data.organs import MEASURED
from totalgen.evaluation import figures
from totalgen.evaluation.comparison import paired_values, statistics_table
from totalgen.evaluation.demographic_fidelity import positions
from totalgen.evaluation.design import PUBLISHED_DESIGN
from totalgen.evaluation.measured_cohort import Cohort, pairs
from totalgen.evaluation.report import compare_cohorts
from totalgen.evaluation.statistics import body_std, welch
from totalgen.evaluation.table1 import grid, table1

QUICK = dataclasses.replace(PUBLISHED_DESIGN, resamples=20)
DRAWS = 400
BETWEEN = 0.7  # share of the variance of bodies that is between persons


def people(persons, samples, **columns):
    """One row per study of men of different weights, the first sample by the name of the person."""
    names = [sample_name(f"p{person}", number) for person in range(persons) for number in range(samples)]
    weight = 50.0 + np.repeat(np.arange(persons), samples)
    table = dict(subject=names, sex="M", age_years=60.0, height_m=1.75, weight_kg=weight, flag="", organ="liver")
    return pd.DataFrame(table | columns)


def drawn(persons, samples, seed):
    """A cohort whose columns 0 … DRAWS − 1 are draws of bodies of mean 10 and standard deviation 1."""
    random = np.random.default_rng(seed)
    person = random.normal(0, BETWEEN**0.5, (persons, 1, DRAWS))
    bodies = 10 + person + random.normal(0, (1 - BETWEEN) ** 0.5, (persons, samples, DRAWS))
    return Cohort("c", pd.concat([people(persons, samples), pd.DataFrame(bodies.reshape(-1, DRAWS))], axis=1))


def measured(persons, samples, seed=0):
    """Every organ and measure of every study."""
    random = np.random.default_rng(seed)
    tables = []
    for organ in MEASURED:
        table = people(persons, samples, organ=organ, source="AutoPET", voxel_mm="6x6x6", z_share=0.5)
        shared = np.repeat(random.normal(0, 0.2, (persons, len(MEASURES))), samples, axis=0)
        table[list(MEASURES)] = 2 + shared + random.normal(0, 0.1, shared.shape)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def test_welchs_test_keeps_its_level_with_eight_studies_of_every_person():
    reference, made = drawn(100, 1, 1), drawn(25, 8, 2)
    groups = [np.stack([cohort.values("M", "liver", k) for k in range(DRAWS)]) for cohort in (reference, made)]
    assert groups[1].shape == (DRAWS, 25)
    low, high = stats.binom.interval(0.999, DRAWS, 0.05)
    assert low <= (welch(*groups) < 0.05).sum() <= high
    studies = np.stack([made.by_study("M", "liver", k) for k in range(DRAWS)])
    assert (welch(groups[0], studies) < 0.05).sum() > 2 * high  # each study as a subject


def test_the_spread_of_bodies_is_not_that_of_the_means_of_persons():
    made = drawn(25, 8, 3)
    variances = np.array([made.spread("M", "liver", k) ** 2 for k in range(DRAWS)])
    assert variances.mean() == pytest.approx(1, abs=4 * variances.std() / DRAWS**0.5)
    means = np.array([made.values("M", "liver", k).var(ddof=1) for k in range(DRAWS)])
    assert means.mean() == pytest.approx(BETWEEN + (1 - BETWEEN) / 8, rel=0.05)
    one = drawn(30, 1, 4)
    assert one.spread("M", "liver", 0) == pytest.approx(one.values("M", "liver", 0).std(ddof=1))
    assert np.isnan(body_std(pd.Series([1.0, 2.0], index=["a", "a"])))  # one person


def test_unequal_numbers_of_studies_do_not_bias_the_spread():
    """A person with one study and one with two: in expectation the variance of bodies, term by term."""
    random = np.random.default_rng(5)
    index = ["a", "b", "b", "c", "c", "c", "c"]
    person = pd.DataFrame(random.normal(0, 1, (3, 2000)), index=["a", "b", "c"]).loc[index]
    bodies = person + random.normal(0, 1, person.shape)
    variances = np.array([body_std(bodies[draw]) ** 2 for draw in bodies])
    assert variances.mean() == pytest.approx(2, abs=4 * variances.std() / len(variances) ** 0.5)


def test_n_counts_persons_and_says_how_many_studies(tables_only, tmp_path):
    made = measured(20, 4, seed=1)
    made.loc[(made["subject"] == "p3_sample2") & (made["organ"] == "liver"), "flag"] = "tiny"
    cohorts = Cohort("real", measured(20, 1)), Cohort("made", made)
    rows = grid(cohorts, table1(cohorts))
    assert rows[1][:3] == ["N", "20", "20 (80 studies)"]
    assert next(row for row in rows[5:] if row[0] == "N")[:3] == ["N", "20", "20 (79 studies)"]
    text = compare_cohorts(cohorts[0], cohorts[1:], tmp_path, QUICK)
    assert "Several studies of one person count once" in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(each["subjects"], each["studies"]) for each in report["cohorts"]] == [(20, 20), (20, 80)]
    scores = {score["what"]: score for score in report["scores"]}
    assert scores["pairs: made"]["n"] == "20 (80 studies)"
    assert scores["pairs: made"]["limit"] == "every study has a partner"
    assert scores["made (candidate) against real"]["n"] == "20 and 20 (80 studies) per sex at most"
    assert "one study each" in scores["made (candidate) against real"]["limit"]


def test_tests_are_of_the_means_of_persons_and_limits_of_single_studies():
    reference, made = Cohort("real", measured(20, 1)), Cohort("made", measured(20, 4, seed=1))
    table = statistics_table(reference, [made], QUICK)
    row = table[(table["sex"] == "male") & (table["organ"] == "heart") & (table["measure"] == "suv_max")].iloc[0]
    ours, theirs = (cohort.measured.query("organ == 'heart'")["suv_max"].to_numpy() for cohort in (reference, made))
    means = theirs.reshape(20, 4).mean(1)
    assert (row["n_candidate"], row["studies_candidate"], row["n_pairs"]) == (20, 80, 20)
    assert row["welch_p"] == pytest.approx(stats.ttest_ind(means, ours, equal_var=False).pvalue)
    assert row["paired_p"] == pytest.approx(stats.ttest_rel(means, ours).pvalue)
    assert row["difference"] == pytest.approx(theirs.mean() - ours.mean())
    assert row["std_ratio"] == pytest.approx(made.spread("M", "heart", "suv_max") / ours.std(ddof=1))
    assert row["wasserstein"] == pytest.approx(stats.wasserstein_distance(ours, theirs))
    single = body_std(pd.Series(theirs - np.repeat(ours, 4), index=np.repeat(np.arange(20), 4)))
    assert row["limits_high"] - row["limits_low"] == pytest.approx(2 * 1.96 * single)
    assert single > (means - ours).std(ddof=1)
    assert len(paired_values(reference, made, "M", "heart", "suv_max", pairs(reference, made).subjects)) == 80


def test_slopes_and_positions_count_persons():
    made = Cohort("made", measured(20, 4, seed=1))
    slope = figures.slopes([made]).query("sex == 'male' and organ == 'liver' and measure == 'suv_mean'")
    slope = slope.set_index("against")
    values = made.by_person("M", "liver", "suv_mean")
    line = stats.linregress(50.0 + np.arange(20), values)
    assert slope.loc["weight_kg", "n"] == 20
    assert slope.loc["weight_kg", "slope"] == pytest.approx(line.slope)
    half = stats.t.ppf(0.975, 18) * line.stderr
    assert slope.loc["weight_kg", "high"] == pytest.approx(line.slope + half)
    place = positions([made]).set_index(["sex", "organ"]).loc[("male", "liver")]
    assert (place["n"], place["std"]) == (20, 0)


def test_other_people_with_names_like_samples_are_persons_of_their_own():
    table = people(2, 3, volume_l=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    table.loc[table["subject"] == "p1_sample2", "weight_kg"] = 90.0
    cohort = Cohort("c", table)
    assert list(cohort.people()["person"]) == ["p0", "p1", "p1_sample2", "p1_sample3"]
    assert cohort.values("M", "liver", "volume_l") == pytest.approx([2, 4, 5, 6])
    assert (len(cohort.people("M")), cohort.studies("M"), len(cohort.people("F"))) == (4, 6, 0)


def test_bland_altman_and_the_lines_are_drawn_of_several_studies(tmp_path):
    design = dataclasses.replace(QUICK, organs=("liver",), printed=("suv_mean",), groups=("M",))
    reference, made = Cohort("real", measured(6, 1)), Cohort("made", measured(6, 3, seed=1))
    assert figures.bland_altman(tmp_path / "pairs.png", reference, made, design) == 6
    figures.against_demographics(tmp_path / "lines.png", [reference, made], "suv_mean", design)
    assert (tmp_path / "lines.png").stat().st_size > 10_000
