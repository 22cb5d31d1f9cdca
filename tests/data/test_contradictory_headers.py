"""Headers that contradict each other, or what a scan can be: the SUV is right, or the contradiction is said."""

import pandas as pd
import pytest

from totalgen import read_study
from totalgen.data.demographics import Demographics
from totalgen.data.pet_input import read_pet
from totalgen.data.suv import SUVError, suv_factors

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


DATES = {  # Decay Correction DateTime, other tags → minutes from injection to what is corrected to, what is said
    "first acquisition": ("20200101090000", {}, 60, ""),
    "injection": ("20200101080000", {}, 0, ""),  # as some scanners state it, though ADMIN would say so
    "series, a minute before the first bed": ("20200101085900", dict(SeriesTime="085900"), 59, ""),
    "a clock that differs by seconds": ("20200101090030", {}, 60.5, ""),
    "an hour late": ("20200101100000", {}, 60, "is 60 min after the first acquisition; not used: a time zone?"),
    "late": ("20200101093300", {}, 60, "is 33 min after the first acquisition; not used"),
    "a day late": ("20200102090000", {}, 60, "differ by 1 days; times of day were used"),
    "a year early": ("20190101090000", {}, 60, "differ by 365 days; times of day were used"),
    "a year and an hour late": ("20210101133000", {}, 60, "is 270 min after the first acquisition; not used"),
    "past midnight": (
        "20191231235500", dict(AcquisitionTime="000100", SeriesTime="000100", RadiopharmaceuticalStartTime="230000"),
        55, "",
    ),
    "no place on earth": (
        "20200101090000+0100", dict(TimezoneOffsetFromUTC="+9999"), 60, "(0008,0201) is +9999, no time zone",
    ),
    "no minutes": (
        "20200101090000+0175", dict(TimezoneOffsetFromUTC="+0100"), 60, "(0018,9701) is +0175, no time zone",
    ),
    "far west": (
        "20200101090000-1300", dict(TimezoneOffsetFromUTC="-0800"), 60, "(0018,9701) is -1300, no time zone",
    ),
    "a text": (
        "20200101090000", dict(TimezoneOffsetFromUTC="Doe 19500101"), 60, "(0008,0201) is a text, no time zone",
    ),
    "the easternmost": ("20200101090000+1400", dict(TimezoneOffsetFromUTC="+1400"), 60, ""),
    "series alone": ("20200101100000", dict(AcquisitionTime=None), 120, "is 60 min after the series time; used"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATES)
def test_a_reference_time_that_contradicts_the_scan_is_said_and_a_later_one_not_used(dicom, name):
    written, tags, minutes, said = DATES[name]
    header = dicom.dataset(**dicom.pet(**{"DecayCorrectionDateTime": written, "SeriesTime": "090000"} | tags))
    found = suv_factors([header], Demographics("F", 60, 1.70, 70))
    assert found.factors[0] == pytest.approx(70_000 / (350e6 * 0.5 ** (60 * minutes / 6586.2)), rel=1e-6)
    assert said in "; ".join(found.warnings)
    assert bool(found.warnings) == bool(said)


def test_a_reference_time_before_the_injection_is_refused_by_its_name(dicom):
    header = dicom.dataset(**dicom.pet(DecayCorrectionDateTime="20200101070000"))
    with pytest.raises(SUVError, match=r"Decay Correction DateTime \(0018,9701\): .* is 08:00:00 and the scan 07:"):
        suv_factors([header], Demographics("F", 60, 1.70, 70))


def test_a_reference_days_before_the_scan_of_a_long_lived_nuclide_is_said(dicom):
    zirconium = dict(RadionuclideHalfLife=282240, Radiopharmaceutical="Zr-89 antibody")
    times = dict(RadiopharmaceuticalStartDateTime="20191231070000", RadiopharmaceuticalStartTime="070000")
    header = dicom.dataset(**dicom.pet(DecayCorrectionDateTime="20191231090000", **zirconium, **times))
    found = suv_factors([header], Demographics("F", 60, 1.70, 70), any_tracer=True)
    assert found.factors[0] == pytest.approx(70_000 / (350e6 * 0.5 ** (2 * 3600 / 282240)))
    assert "Decay Correction DateTime (0018,9701) is 24 h before the first acquisition: check it" in found.warnings
