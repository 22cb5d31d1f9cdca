import numpy as np
import pandas as pd
import pytest

from totalgen.data.dicom import find_series
from totalgen.data.metadata import (
    age_years,
    choose,
    chosen_files,
    demographics,
    describe_cohort,
    height_m,
    merge_demographics,
    sex,
    share,
    weight_kg,
)
from totalgen.errors import InputError

AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])
BOX = np.zeros((8, 8, 12))


def reasons_of(folder):
    series, _ = find_series(folder)
    pet, ct, reasons = choose(series)
    names = {s.uid: s.description for s in series}
    return pet and pet.description, ct and ct.description, {names[uid]: why for uid, why in reasons.items()}


def test_height_that_only_the_pet_states_is_found(dicom, tmp_path):
    dicom.study(tmp_path)
    cohort, series, _, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert failures == []
    row = cohort.iloc[0]
    assert (row.subject, row.sex, row.age_years, row.height_m, row.weight_kg) == ("P1", "F", 60, 1.70, 70)
    assert sorted(series["chosen"]) == ["yes", "yes"]


@pytest.mark.parametrize(
    ("written", "years"), [("069Y", 69), ("030M", 30 / 12), ("104W", 104 * 7 / 365.25), ("731D", 731 / 365.25)]
)
def test_age_units(dicom, written, years):
    assert age_years(dicom.dataset(PatientAge=written)) == (pytest.approx(years), "Patient's Age")


def test_age_from_birth_date_only_when_no_age_is_stated_and_then_in_whole_years(dicom):
    born = dict(PatientBirthDate="19500102", StudyDate="20200101")
    assert age_years(dicom.dataset(**born)) == (69, "birth and study date")  # 70 tomorrow
    assert age_years(dicom.dataset(**{**born, "StudyDate": "20200102"}))[0] == 70
    assert age_years(dicom.dataset(**born, PatientAge="065Y")) == (65, "Patient's Age")


@pytest.mark.parametrize("written", ["000Y", "999Y", "69", "069X"])
def test_an_age_no_patient_has_counts_as_not_stated(dicom, written):
    assert age_years(dicom.dataset(PatientAge=written)) == (None, f'Patient\'s Age is "{written}"')
    years, words = age_years(dicom.dataset(PatientAge=written, PatientBirthDate="19500101", StudyDate="20200101"))
    assert years == 70
    assert words == f'birth and study date (Patient\'s Age is "{written}")'


def test_height_in_centimetres_is_repaired_when_unambiguous(dicom):
    assert height_m(dicom.dataset(PatientSize=172)) == (1.72, "Patient's Size (172 read as centimetres)")
    assert height_m(dicom.dataset(PatientSize=1.72)) == (1.72, "Patient's Size")
    assert height_m(dicom.dataset(PatientSize=0))[0] is None
    for left_for_demographics_to_refuse in (17.2, 68):  # slips of the point, inches
        assert (
            height_m(dicom.dataset(PatientSize=left_for_demographics_to_refuse))[0] == left_for_demographics_to_refuse
        )


def test_a_weight_that_is_no_number_is_not_stated(dicom):
    assert weight_kg(dicom.dataset(PatientWeight=70)) == (70, "Patient's Weight")
    assert weight_kg(dicom.dataset(PatientWeight=[70, 71])) == (None, "Patient's Weight is no number")


def test_a_sex_other_than_f_and_m_is_told_as_written_and_not_guessed(dicom):
    assert sex(dicom.dataset(PatientSex="m")) == ("M", "Patient's Sex")
    assert sex(dicom.dataset(PatientSex="O")) == (None, 'Patient\'s Sex is "O"')
    assert sex(dicom.dataset(PatientSex="")) == (None, "")


def test_the_table_of_sources_tells_which_series_states_a_value_and_who_disagrees(dicom, tmp_path):
    of_pet = dict(PatientWeight=91.0, PatientSize=170, PatientAge="060Y", SeriesDescription="PET AC")
    of_ct = dict(PatientWeight=90.0, PatientSize=None, PatientAge="060Y", SeriesDescription="CT")
    dicom.series(tmp_path / "dicom" / "1", BOX, AFFINE, "CT", **of_ct)
    dicom.series(tmp_path / "dicom" / "2", BOX, AFFINE, "PT", **dicom.pet(), **of_pet)
    dicom.series(
        tmp_path / "dicom" / "3", BOX, AFFINE, "CT", **{**of_ct, "PatientWeight": 90.5, "SeriesDescription": "b"}
    )
    cohort, _, table, _ = describe_cohort(tmp_path / "dicom", 0.26, 0)
    table = table.set_index("field")
    assert list(table.columns) == ["subject", "value", "source"]
    assert table["value"].to_dict() == {"sex": "F", "age_years": 60, "height_m": 1.70, "weight_kg": 91}
    assert cohort.iloc[0].weight_kg == 91  # of the PET: the dose was measured for it
    assert table["source"].to_dict() == {
        "sex": "Patient's Sex of PET AC",
        "age_years": "Patient's Age of PET AC",
        "height_m": "Patient's Size (170 read as centimetres) of PET AC",
        "weight_kg": "Patient's Weight of PET AC; differs: CT says 90 kg",  # 90.5 is within 1 %
    }


@pytest.mark.parametrize(
    ("tags", "field", "source"),
    [
        (dict(PatientSex="O"), "sex", 'Patient\'s Sex is "O" in PT; Patient\'s Sex is "O" in CT'),
        (dict(PatientSize=0), "height_m", "not stated in 2 series"),
        (dict(PatientAge="", PatientBirthDate=""), "age_years", "not stated in 2 series"),
    ],
)
def test_what_nobody_states_is_listed_without_a_value(dicom, tmp_path, tags, field, source):
    dicom.study(tmp_path, **tags)
    cohort, _, table, ((subject, error),) = describe_cohort(tmp_path / "dicom", 0.26, 0)
    row = table.set_index("field").loc[field]
    assert cohort.empty
    assert (row.subject, row.value, row.source) == ("P1", "", source)
    assert subject == "P1"
    assert f"{field}: {source}" in error


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        (dict(PatientWeight=0), "weight"),
        (dict(PatientSize=17.2), "height"),
        (dict(PatientSex="O"), "sex"),
        (dict(PatientAge="", PatientBirthDate=""), "age"),
    ],
)
def test_a_subject_that_cannot_be_described_is_a_failure_and_others_go_on(dicom, tmp_path, tags, named):
    dicom.study(tmp_path, "good")
    dicom.study(tmp_path, "bad", **tags)
    cohort, _, _, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert list(cohort["subject"]) == ["good"]
    ((subject, error),) = failures
    assert subject == "bad"
    assert named in str(error)


@pytest.mark.parametrize("other", ["F", "O"])
def test_series_that_contradict_each_other_about_sex_are_refused(dicom, tmp_path, other):
    known = dict(PatientAge="050Y", PatientWeight=70, PatientSize=1.7)
    dicom.series(tmp_path / "a", BOX, AFFINE, "CT", PatientSex="M", SeriesDescription="plain", **known)
    dicom.series(tmp_path / "b", BOX, AFFINE, "CT", PatientSex=other, SeriesDescription="late")
    values, sources = merge_demographics(find_series(tmp_path)[0])
    assert values["sex"] is None
    assert "plain" in sources["sex"]
    assert "late" in sources["sex"]
    with pytest.raises(InputError, match="sex: "):
        demographics(values, sources)


def test_a_series_that_does_not_state_the_sex_contradicts_nobody(dicom, tmp_path):
    known = dict(PatientAge="050Y", PatientWeight=70, PatientSize=1.7)
    dicom.series(tmp_path / "a", BOX, AFFINE, "CT", PatientSex="M", **known)
    dicom.series(tmp_path / "b", BOX, AFFINE, "CT", PatientSex="")
    assert demographics(*merge_demographics(find_series(tmp_path)[0])).sex == "M"


def test_the_corrected_pet_and_the_overlapping_ct_are_chosen_with_reasons(dicom, tmp_path):
    far, wide = AFFINE.copy(), AFFINE.copy()
    far[2, 3], wide[2, 3] = 40, 5
    pet = dicom.pet()
    dicom.series(tmp_path / "1", BOX, AFFINE, "PT", SeriesDescription="PET AC", **pet)
    dicom.series(tmp_path / "2", BOX, AFFINE, "PT", SeriesDescription="PET x", **{**pet, "CorrectedImage": ["DECY"]})
    dicom.series(tmp_path / "3", BOX, AFFINE, "PT", SeriesDescription="counts", **{**pet, "Units": "PROPCNTS"})
    dicom.series(tmp_path / "4", BOX, AFFINE, "PT", SeriesDescription="WB NAC", **pet)
    dicom.series(tmp_path / "5", BOX, wide, "CT", SeriesDescription="CT body")
    dicom.series(tmp_path / "6", BOX, far, "CT", SeriesDescription="CT head")
    dicom.series(tmp_path / "7", BOX, AFFINE, "CT", SeriesDescription="topogram", ImageType=["ORIGINAL", "LOCALIZER"])
    dicom.series(tmp_path / "8", BOX, AFFINE, "CT", SeriesDescription="CT other frame", FrameOfReferenceUID="1.2.8")
    chosen_pet, chosen_ct, reasons = reasons_of(tmp_path)
    assert (chosen_pet, chosen_ct) == ("PET AC", "CT body")
    assert "ATTN" in reasons["PET x"]
    assert "PROPCNTS" in reasons["counts"]
    assert "attenuation" in reasons["WB NAC"]
    assert "overlaps" in reasons["CT head"]
    assert reasons["topogram"] == "scout"
    assert "frame of reference" in reasons["CT other frame"]


def test_pages_scouts_and_projections_are_never_taken(dicom, tmp_path):
    capture = "1.2.840.10008.5.1.4.1.1.7"
    dicom.series(tmp_path / "0", BOX, AFFINE, "PT", SeriesDescription="PET", **dicom.pet())
    dicom.series(tmp_path / "1", BOX, AFFINE, "CT", SeriesDescription="Dose Report", SOPClassUID=capture)
    dicom.series(tmp_path / "2", BOX, AFFINE, "CT", SeriesDescription="Patient Protocol")
    dicom.series(tmp_path / "3", BOX, AFFINE, "CT", SeriesDescription="Dose_Report")
    dicom.series(tmp_path / "4", BOX, AFFINE, "CT", SeriesDescription="Screen Save")
    dicom.series(
        tmp_path / "5", BOX, AFFINE, "CT", SeriesDescription="a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    dicom.series(tmp_path / "6", BOX[:, :, :2], AFFINE, "CT", SeriesDescription="key images")
    dicom.series(tmp_path / "7", BOX, AFFINE, "CT", SeriesDescription="b", ImageType=["DERIVED", "SECONDARY", "MIP"])
    dicom.series(tmp_path / "8", BOX, AFFINE, "CT", SeriesDescription="low dose CT for AC")
    pet, ct, reasons = reasons_of(tmp_path)
    assert (pet, ct) == ("PET", "low dose CT for AC")
    assert reasons["Dose Report"] == "no stack of CT or PET images: Secondary Capture Image Storage"
    pages = [reasons[name] for name in ("Patient Protocol", "Dose_Report", "Screen Save")]
    assert pages == ["report or screen page"] * 3
    assert reasons["a"] == "scout"
    assert reasons["key images"] == "only 2 slices"
    assert reasons["b"] == "projection, no slices"


def test_an_original_ct_is_taken_before_a_reformat_that_overlaps_as_much(dicom, tmp_path):
    axial = np.diag([-2.0, -2.0, 5.0, 1.0])
    coronal = np.array([[-2.0, 0, 0, 0], [0, 0, -1.0, 0], [0, -2.0, 0, 60], [0, 0, 0, 1]])  # columns, rows, slices
    dicom.series(tmp_path / "1", np.zeros((31, 31, 13)), axial, "PT", SeriesDescription="PET", **dicom.pet())
    dicom.series(tmp_path / "2", np.zeros((31, 31, 13)), axial, "CT", SeriesDescription="axial")
    kind = ["DERIVED", "SECONDARY", "REFORMATTED"]
    dicom.series(tmp_path / "3", np.zeros((31, 31, 61)), coronal, "CT", SeriesDescription="coronal", ImageType=kind)
    dicom.series(tmp_path / "4", np.zeros((31, 31, 12)), axial, "CT", SeriesDescription="short")
    pet, ct, reasons = reasons_of(tmp_path)
    assert (pet, ct) == ("PET", "axial")
    assert reasons["axial"] == "CT that overlaps the PET by 0.2 L"  # 6 cm cubed
    assert reasons["coronal"] == "derived from other images; the chosen CT is original"
    assert reasons["short"] == "overlaps the PET by 0.2 L, the chosen CT by 0.2 L"


def test_of_one_scan_in_two_slice_thicknesses_the_finer_is_taken(dicom, tmp_path):
    thick, thin = np.diag([-5.0, -5.0, 5.0, 1.0]), np.diag([-5.0, -5.0, 1.0, 1.0])
    dicom.series(tmp_path / "1", np.zeros((8, 8, 20)), thick, "PT", SeriesDescription="PET", **dicom.pet())
    dicom.series(tmp_path / "2", np.zeros((8, 8, 20)), thick, "CT", SeriesDescription="5 mm")
    dicom.series(tmp_path / "3", np.zeros((8, 8, 95)), thin, "CT", SeriesDescription="1 mm")  # 1 mm shorter
    _, ct, reasons = reasons_of(tmp_path)
    assert ct == "1 mm"
    assert reasons["5 mm"] == "fewer slices than the chosen CT"


def test_of_several_corrected_pets_the_original_largest_is_taken(dicom, tmp_path):
    pet = dicom.pet()
    silent = {**pet, "CorrectedImage": None}
    derived = dict(pet, ImageType=["DERIVED", "SECONDARY"])
    dicom.series(tmp_path / "0", BOX, AFFINE, "CT", SeriesDescription="CT")
    dicom.series(tmp_path / "1", BOX, AFFINE, "PT", SeriesDescription="PET AC", **pet)
    dicom.series(tmp_path / "2", np.zeros((8, 8, 30)), AFFINE, "PT", SeriesDescription="PET fused", **derived)
    dicom.series(tmp_path / "3", BOX, AFFINE, "PT", SeriesDescription="PET MIP", **derived)
    dicom.series(tmp_path / "4", np.zeros((8, 8, 11)), AFFINE, "PT", SeriesDescription="PET head", **pet)
    dicom.series(tmp_path / "5", np.zeros((8, 8, 30)), AFFINE, "PT", SeriesDescription="PET silent", **silent)
    chosen, _, reasons = reasons_of(tmp_path)
    assert chosen == "PET AC"
    assert reasons["PET AC"] == "PET, corrected for attenuation, BQML"
    assert reasons["PET MIP"] == "projection, no slices"
    assert reasons["PET fused"] == "derived from other images; the chosen PET is original"
    assert reasons["PET head"] == "covers less than the chosen PET"
    assert reasons["PET silent"] == "does not state that it is corrected for attenuation, as the chosen PET does"


def test_a_series_whose_slices_form_no_volume_is_left_for_one_whose_do(dicom, tmp_path):
    def twice(k):  # two gates of 30 slices, at the same places
        return dict(ImagePositionPatient=[0.0, 0.0, 5.0 * (k // 2)])

    dicom.series(tmp_path / "1", BOX, AFFINE, "PT", SeriesDescription="PET", **dicom.pet())
    dicom.series(tmp_path / "2", np.zeros((8, 8, 60)), AFFINE, "CT", SeriesDescription="gated", per_slice=twice)
    gap = dicom.series(tmp_path / "3", np.zeros((8, 8, 40)), AFFINE, "CT", SeriesDescription="gap")
    gap[20].unlink()
    dicom.series(tmp_path / "4", BOX, AFFINE, "CT", SeriesDescription="plain")
    _, ct, reasons = reasons_of(tmp_path)
    assert ct == "plain"
    assert "one place" in reasons["gated"]
    assert "a slice is missing" in reasons["gap"]


def test_chosen_files_are_those_of_the_table_and_a_series_that_is_gone_is_refused(dicom, tmp_path):
    ct, pet = dicom.study(tmp_path)
    series = describe_cohort(tmp_path / "dicom", 0.26, 0)[1]
    assert chosen_files(tmp_path, series, "P1", "CT") == ct
    assert chosen_files(tmp_path, series, "P1", "PT") == pet
    with pytest.raises(InputError, match="P2 has no chosen CT series"):
        chosen_files(tmp_path, series, "P2", "CT")
    ct[0].parent.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="changed since step 1"):
        chosen_files(tmp_path, series, "P1", "CT")


def test_a_second_run_keeps_what_later_steps_and_hands_added_to_the_cohort(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    assert script("1", "--root", tmp_path).exit_code == 0
    table = pd.read_csv(tmp_path / "cohort.csv").assign(covers_torso=True)
    by_hand = dict(subject="Z", sex="M", age_years=50, height_m=1.8, weight_kg=80, covers_torso=False)
    pd.concat([table, pd.DataFrame([by_hand])]).to_csv(tmp_path / "cohort.csv", index=False)
    dicom.study(tmp_path, "B")
    assert script("1", "--root", tmp_path).exit_code == 0
    again = pd.read_csv(tmp_path / "cohort.csv", dtype=str, keep_default_na=False).set_index("subject")
    assert again["covers_torso"].to_dict() == {"A": "True", "B": "", "Z": "False"}
    assert again.loc["Z", "weight_kg"] == "80.0"


@pytest.mark.parametrize(
    ("description", "corrected"),
    [
        *((name, False) for name in ("WB NAC", "NAC_wb", "PET_nac", "PET non-AC", "no AC", "PET uncorrected")),
        *((name, False) for name in ("PET w/o AC", "without attenuation", "not attenuation corrected")),
        *((name, True) for name in ("PET AC", "WB CTAC", "AC_wb", "Pinnacle", "PET FBP back-projection")),
    ],
)
def test_descriptions_that_say_that_a_pet_is_not_corrected(dicom, tmp_path, description, corrected):
    dicom.series(tmp_path / "1", BOX, AFFINE, "PT", **{**dicom.pet(), "SeriesDescription": description})
    dicom.series(tmp_path / "2", BOX, AFFINE, "CT")
    assert reasons_of(tmp_path)[0] == (description if corrected else None)


def test_a_pet_without_attenuation_correction_is_never_taken(dicom, tmp_path):
    dicom.study(tmp_path, CorrectedImage=["DECY"])
    cohort, series, _, ((_, error),) = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert cohort.empty
    assert "attenuation" in str(error)
    assert "yes" not in set(series["chosen"])


def test_one_study_of_a_subject_is_used(dicom, tmp_path):
    dicom.study(tmp_path / "a", StudyInstanceUID="1.7", StudyDate="20200101")
    dicom.study(tmp_path / "b", StudyInstanceUID="1.8", StudyDate="20190101", PatientWeight=66.0)
    pet, ct, reasons = choose(find_series(tmp_path)[0])
    assert pet.study == ct.study == "1.8"
    assert "another study of the subject is used" in reasons.values()


def test_the_split_depends_on_seed_and_subject_alone():
    names = [f"subject{n}" for n in range(4000)]
    test = {name for name in names if share(0, name) < 0.26}
    assert len(test) / len(names) == pytest.approx(0.26, abs=0.03)  # 4 standard deviations
    assert test != {name for name in names if share(1, name) < 0.26}
