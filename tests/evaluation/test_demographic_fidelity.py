"""Bodies that follow their demographics have slope 1, others are seen, and an imposed height is no evidence."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from totalgen.data.names import asked_name
from totalgen.data.volume import Volume, read_labels, read_nifti, write_nifti
from totalgen.evaluation.demographic_fidelity import (
    extent_scatter_mm,
    height_is_imposed,
    mass_agreement,
    one_length,
    positions,
    weight_series,
)
from totalgen.evaluation.measured import measure_bodies, measure_cohort, read_bodies
from totalgen.evaluation.measured_cohort import Cohort, load_cohort

RANDOM = np.random.default_rng(0)


def cohort_of(n, slope=1.0, bias=0.0, scatter_mm=15.0, noise=0.5):
    """Bodies whose mass is half the weight, times ``slope`` about 40 kg, plus ``bias``."""
    sex = RANDOM.choice(["M", "F"], n)
    height, weight = RANDOM.normal(1.72, 0.08, n), RANDOM.normal(80, 15, n)
    mass = 40 + slope * (0.5 * weight - 40) + bias + RANDOM.normal(0, noise, n)
    extent = 300 * height + 180 + RANDOM.normal(0, 1, n) * scatter_mm
    bodies = dict(subject=[f"p{i}" for i in range(n)], sex=sex, age_years=60.0, height_m=height, weight_kg=weight)
    bodies = pd.DataFrame(bodies | dict(mass_kg=mass, extent_mm=extent, suv_field_mean=1.0))
    return Cohort("c", pd.DataFrame(dict(subject=[], sex=[], organ=[], flag=[])), bodies=bodies)


def test_mass_is_held_against_the_references_own_regression():
    reference = cohort_of(60)
    itself = mass_agreement(reference, reference)
    assert itself["bias_kg"] == pytest.approx(0, abs=1e-9)
    heavy = mass_agreement(reference, cohort_of(40, bias=3.0))
    assert heavy["bias_kg"] == pytest.approx(3, abs=0.4)
    assert heavy["slope"] == pytest.approx(1, abs=0.05)
    flat = mass_agreement(reference, cohort_of(40, slope=0.5))
    assert flat["slope"] == pytest.approx(0.5, abs=0.05)
    assert flat["spearman"] > 0.9
    holes = cohort_of(40)
    holes.bodies.loc[:4, "mass_kg"] = np.nan
    found = mass_agreement(reference, holes)
    assert (found["n"], found["without"]) == (35, 5)
    assert found["slope"] == pytest.approx(1, abs=0.05)
    assert mass_agreement(cohort_of(5), reference)["bias_kg"] is None  # too few to fit
    assert mass_agreement(reference, cohort_of(0))["bias_kg"] is None


def bodies_of(sexes, seed):
    """Thirty bodies of each sex, whose mass follows exactly the line of their sex (Resource/demo-reference.json)."""
    lines, random = dict(F=(9.3013, -2.4915, 0.6164), M=(9.1891, -2.0629, 0.5882)), np.random.default_rng(seed)
    tables = []
    for sex in sexes:
        height, weight = random.normal(1.7, 0.07, 30), random.normal(79, 16, 30)
        mass = lines[sex] @ np.stack([np.ones(30), height, weight])
        bodies = dict(subject=[f"{sex}{i}" for i in range(30)], sex=sex, age_years=60.0, height_m=height)
        tables.append(pd.DataFrame(bodies | dict(weight_kg=weight, mass_kg=mass, extent_mm=700.0)))
    return dataclasses.replace(cohort_of(0), bodies=pd.concat(tables))


@pytest.mark.parametrize("sex", "MF")
def test_a_reference_of_one_sex_says_nothing_about_the_other(sex):
    other = "MF".replace(sex, "")
    reference = bodies_of(sex, 0)
    none = mass_agreement(reference, bodies_of(other, 1))
    assert (none["n"], none["other_sex"], none["bias_kg"]) == (0, 30, None)
    both = mass_agreement(reference, bodies_of("MF", 1))
    assert (both["n"], both["other_sex"]) == (30, 30)
    assert both["bias_kg"] == pytest.approx(0, abs=1e-9)  # of its own sex, whose line is exact
    assert mass_agreement(bodies_of("MF", 0), bodies_of(other, 1))["bias_kg"] is not None


@pytest.mark.parametrize("column", ["height_m", "weight_kg"])
def test_a_reference_that_does_not_determine_the_regression_has_none(column):
    reference = bodies_of("MF", 0)
    reference.bodies[column] = 1.7
    assert mass_agreement(reference, bodies_of("MF", 1))["bias_kg"] is None


def test_a_height_that_was_computed_is_called_imposed():
    assert height_is_imposed(cohort_of(30)) is False
    assert height_is_imposed(cohort_of(30, scatter_mm=1.0)) is True
    assert extent_scatter_mm(cohort_of(60)) == pytest.approx(15, rel=0.3)
    assert height_is_imposed(cohort_of(3)) is None
    padded = bodies_of("MF", 0)
    assert (height_is_imposed(padded), one_length(padded)) == (True, True)
    assert not one_length(cohort_of(30, scatter_mm=1.0))


def test_a_series_of_weights_rises_or_does_not():
    bodies = cohort_of(8).bodies.assign(sex="F", height_m=1.65, weight_kg=[50, 60, 70, 80, 50, 60, 70, 80])
    bodies["age_years"] = [40.0] * 4 + [60.0] * 4
    people = zip(bodies["age_years"], bodies["weight_kg"], strict=True)
    bodies["subject"] = [asked_name("F", age, 165, weight, 1) for age, weight in people]
    bodies["mass_kg"] = [30, 34, 40, 45, 30, 34, 33, 45]
    found = weight_series(dataclasses.replace(cohort_of(1), bodies=bodies))
    assert [each["monotonic"] for each in found] == [True, False]
    assert found[0]["kg_per_kg"] == pytest.approx(np.polyfit([50, 60, 70, 80], [30, 34, 40, 45], 1)[0])
    assert weight_series(cohort_of(4)) == []
    heavier = bodies["mass_kg"] + [0, 0, 0, 0, 0, 0, 4, 0]
    several = bodies.assign(subject=bodies["subject"] + "_sample2", mass_kg=heavier)
    found = weight_series(dataclasses.replace(cohort_of(1), bodies=pd.concat([bodies, several])))
    assert [each["monotonic"] for each in found] == [True, True]  # samples of a weight are averaged
    chance = bodies.assign(subject=[f"patient{i}" for i in range(8)])
    assert weight_series(dataclasses.replace(cohort_of(1), bodies=chance)) == []


def test_patients_who_agree_by_chance_are_no_series():
    bodies = cohort_of(800).bodies
    bodies = bodies.assign(height_m=bodies["height_m"].round(2), age_years=RANDOM.integers(40, 80, 800).astype(float))
    assert (bodies.groupby(["sex", "age_years", "height_m"])["weight_kg"].nunique() >= 3).sum() > 10
    assert weight_series(dataclasses.replace(cohort_of(1), bodies=bodies)) == []


def test_bodies_of_a_folder_are_measured_once_and_where_there_is_a_ct(cohort):
    measure_bodies(cohort)
    bodies = read_bodies(cohort)
    assert len(bodies) == 4
    ct = read_nifti(cohort / "cropped" / "s0" / "CT.nii.gz")
    assert bodies["extent_mm"].iloc[0] == ct.shape[2] * 12
    write_nifti(cohort / "cropped" / "s0" / "CT.nii.gz", Volume(ct.voxels + 100, ct.affine))
    measure_bodies(cohort)
    assert read_bodies(cohort)["mass_kg"].iloc[0] > bodies["mass_kg"].iloc[0]
    write_nifti(cohort / "cropped" / "s1" / "CT.nii.gz", Volume(0 * ct.voxels - 1000, ct.affine))
    measure_bodies(cohort)
    assert read_bodies(cohort)["mass_kg"].isna().tolist() == [False, True, False, False]
    for path in cohort.glob("cropped/*/CT.nii.gz"):
        path.unlink()
        measure_bodies(cohort)
        assert len(read_bodies(cohort)) == 4
    assert measure_bodies(cohort) is None


def test_positions_are_shares_of_the_field():
    rows = [
        dict(subject=f"p{i}", sex="M", organ="liver", flag="", z_share=share, volume_l=1.0)
        for i, share in enumerate((0.4, 0.6))
    ]
    bodies = pd.DataFrame(dict(subject=["p0", "p1"], sex="M", extent_mm=[600.0, 800.0]))
    first = Cohort("a", pd.DataFrame(rows), bodies=bodies)
    moved = Cohort("b", pd.DataFrame(rows).assign(z_share=0.6))
    found = positions([first, moved]).set_index(["cohort", "sex", "organ"])
    assert found.loc[("a", "male", "liver"), "mean"] == pytest.approx(0.5)
    assert found.loc[("b", "male", "liver"), "difference_mm"] == pytest.approx(70)


def test_bones_of_the_masks_have_positions_too(cohort):
    """TotalSegmentator's vertebrae and the sacrum, a third apart along z; the shipped masks have no vertebrae."""
    for path in cohort.glob("cropped/*/organs.nii.gz"):
        organs = read_labels(path)
        organs.voxels[:, :, :] = 0
        third = organs.shape[2] // 3
        for part, label in enumerate((25, 27, 50)):  # sacrum, L5, C1
            organs.voxels[2:4, 2:4, part * third : (part + 1) * third] = label
        write_nifti(path, organs)
    measure_cohort(cohort)
    found = positions([load_cohort("a", cohort)]).set_index(["sex", "organ"])
    shares = [found.loc[("female", bone), "mean"] for bone in ("sacrum", "vertebra L5", "vertebra C1")]
    third = organs.shape[2] // 3 / organs.shape[2]
    assert shares == pytest.approx([0.5 * third, 1.5 * third, 2.5 * third], rel=1e-5)
    assert ("female", "vertebra L4") not in found.index
