import numpy as np
import pandas as pd
import pytest

from totalgen.data.demographics import Demographics
from totalgen.phantom.population import MALE_SHARE, POPULATION, SUV_MEAN, VOLUME_ML, sample_demographics, sample_organs

COHORT = 3000  # standard error of a mean: 2 % of a standard deviation


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    people = [sample_demographics(rng) for _ in range(COHORT)]
    rows = []
    for d in people:
        organs = sample_organs(d, rng)
        rows.append(
            dict(sex=d.sex, height_m=d.height_m, weight_kg=d.weight_kg, age_years=d.age_years, bmi=d.bmi)
            | {f"{k}_ml": v for k, v in organs.volume_ml.items()}
            | {f"{k}_suv": v for k, v in organs.suv_mean.items()}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("sex", ["F", "M"])
def test_demographics_have_the_published_mean_and_spread(cohort, sex):
    group = cohort[cohort.sex == sex]
    for name, (mean, std) in POPULATION[sex].items():
        # truncation (age 18–95, BMI 16–48) moves a mean by up to 0.1 standard deviations and narrows it by up to 8 %
        assert abs(group[name].mean() - mean) < 0.15 * std
        assert group[name].std() == pytest.approx(std, rel=0.12)


def test_the_share_of_men_is_as_published_and_nobody_is_implausible(cohort):
    assert (cohort.sex == "M").mean() == pytest.approx(MALE_SHARE, abs=0.03)  # 3 standard errors
    assert cohort.age_years.between(18, 95).all()
    assert cohort.bmi.between(15.5, 48.5).all()


def test_taller_people_are_heavier(cohort):
    for _, group in cohort.groupby("sex"):
        assert 0.3 < np.corrcoef(group.height_m, group.weight_kg)[0, 1] < 0.55


@pytest.mark.parametrize("sex", ["F", "M"])
def test_organs_have_the_published_mean_and_spread(cohort, sex):
    group = cohort[cohort.sex == sex]
    for organ, (mean, std) in VOLUME_ML[sex].items():
        assert group[f"{organ}_ml"].mean() == pytest.approx(mean, rel=0.04)
        assert group[f"{organ}_ml"].std() == pytest.approx(std, rel=0.12)
    for organ, (mean, std) in SUV_MEAN[sex].items():
        assert group[f"{organ}_suv"].mean() == pytest.approx(mean, rel=0.04)
        assert group[f"{organ}_suv"].std() == pytest.approx(std, rel=0.12)


def test_organs_follow_body_size(cohort):
    men = cohort[cohort.sex == "M"]
    assert np.corrcoef(men.weight_kg, men.liver_ml)[0, 1] > 0.25


def test_without_variability_organs_are_the_typical_ones():
    typical = Demographics("M", 58, 1.77, 83)
    organs = sample_organs(typical, np.random.default_rng(3), variability=0)
    assert organs.volume_ml == pytest.approx({k: mean for k, (mean, _) in VOLUME_ML["M"].items()})
    assert organs.suv_mean == pytest.approx({k: mean for k, (mean, _) in SUV_MEAN["M"].items()})
