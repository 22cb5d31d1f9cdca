"""Headers that contradict each other, or what a scan can be: the SUV is right, or the contradiction is said."""

import pandas as pd
import pytest

from totalgen import read_study
from totalgen.data.pet_input import read_pet

PEOPLE = {  # what the PET's header states, what the CT's → what is used, what is said of it
    "weight": (dict(PatientWeight=90), {}, "weight_kg", 90, "weight 90 kg is used", "states 70 kg"),
    "impossible weight": (dict(PatientWeight=7), {}, "weight_kg", 70, "weight 70 kg is used", "states 7 kg"),
    "height": ({}, dict(PatientSize=1.50), "height_m", 1.7, "height 1.7 m is used", "states 1.5 m"),
    "age": ({}, dict(PatientAge="030Y"), "age_years", 60, "age 60 years is used", "states 30 years"),
}


@pytest.mark.parametrize("name", PEOPLE)
def test_values_of_a_person_that_differ_are_said_with_the_one_that_is_used(dicom, script, tmp_path, name):
    pet, ct, column, used, *said = PEOPLE[name]
    dicom.study(tmp_path, "A", pet=pet, ct=ct)
    report = read_study(tmp_path / "dicom/A", voxel_mm=10)[2]
    assert report[column] == used
    assert all(words in report["warnings"] for words in said)
    assert any(all(words in warning for words in said) for warning in read_pet(tmp_path / "dicom/A").warnings)
    first = script("1", "--root", tmp_path)
    second = script("2", "--root", tmp_path, "--voxel-mm", 10)
    table = pd.read_csv(tmp_path / "suv.csv", keep_default_na=False)
    for text in (first.stderr, second.stderr, table["warnings"][0]):
        assert all(words in text for words in said), text


def test_values_that_agree_are_not_mentioned(dicom, script, tmp_path):
    dicom.study(tmp_path, "A", ct=dict(PatientWeight=70.4))  # rounded elsewhere
    assert read_study(tmp_path / "dicom/A", voxel_mm=10)[2]["warnings"] == ""
    assert "Warning" not in script("1", "--root", tmp_path).output
    assert "Warning" not in script("2", "--root", tmp_path, "--voxel-mm", 10).output


def test_a_weight_of_the_cohort_table_that_the_headers_contradict_is_said(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    script("1", "--root", tmp_path)
    table = pd.read_csv(tmp_path / "cohort.csv").assign(weight_kg=80)
    table.to_csv(tmp_path / "cohort.csv", index=False)
    said = script("2", "--root", tmp_path, "--voxel-mm", 10).stderr
    assert "A: weight 80 kg of cohort.csv is used; weight 70 kg by headers" in said
    (tmp_path / "demographics.csv").write_text("subject,weight\nA,70\n")
    result = script("2", "--root", tmp_path, "--voxel-mm", 10)
    assert "demographics.csv: column field, value, source is missing" in result.stderr
