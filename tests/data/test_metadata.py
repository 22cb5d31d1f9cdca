import os

import numpy as np
import pandas as pd
import pydicom
import pytest

from totalgen.data import identity, metadata
from totalgen.data.dicom import find_series
from totalgen.data.header_person import age_years, height_m, sex, weight_kg
from totalgen.data.metadata import chosen_files, demographics, describe_cohort, merge_demographics, share
from totalgen.data.parallel import spread
from totalgen.errors import InputError

AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])
BOX = np.zeros((8, 8, 12))


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
    for left_for_demographics_to_refuse in (17.2, 68):  # a misplaced decimal point, inches
        assert (
            height_m(dicom.dataset(PatientSize=left_for_demographics_to_refuse))[0] == left_for_demographics_to_refuse
        )


def test_a_weight_that_is_no_number_is_not_stated(dicom):
    assert weight_kg(dicom.dataset(PatientWeight=70)) == (70, "Patient's Weight")
    assert weight_kg(dicom.dataset(PatientWeight=[70, 71])) == (None, "Patient's Weight is no number")


def test_a_sex_other_than_f_and_m_is_reported_as_written_and_not_guessed(dicom):
    assert sex(dicom.dataset(PatientSex="m")) == ("M", "Patient's Sex")
    assert sex(dicom.dataset(PatientSex="O")) == (None, 'Patient\'s Sex is "O"')
    assert sex(dicom.dataset(PatientSex="")) == (None, "")


def test_the_table_of_sources_names_the_series_that_states_a_value_and_those_that_disagree(dicom, tmp_path):
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
        "weight_kg": "Patient's Weight of PET AC; differs: CT states 90 kg",  # 90.5 is within 1 %
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
def test_a_subject_that_cannot_be_described_is_a_failure_and_others_continue(dicom, tmp_path, tags, named):
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


def test_a_second_run_keeps_what_later_steps_and_users_added_to_the_cohort(dicom, script, tmp_path):
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


def test_the_split_depends_on_seed_and_subject_alone():
    names = [f"subject{n}" for n in range(4000)]
    test = {name for name in names if share(0, name) < 0.26}
    assert len(test) / len(names) == pytest.approx(0.26, abs=0.03)  # 4 standard deviations
    assert test != {name for name in names if share(1, name) < 0.26}


def test_a_third_split_takes_its_subjects_from_training_and_leaves_the_test(dicom, tmp_path):
    for subject in ("A", "B", "C", "D", "E", "F"):
        dicom.study(tmp_path, subject)
    plain, three = (
        describe_cohort(tmp_path / "dicom", 0.3, 0, validation_fraction=fraction)[0].set_index("subject")["split"]
        for fraction in (0.0, 0.7)
    )
    assert set(plain) == {"train", "test"}
    assert ((plain == "test") == (three == "test")).all()
    assert (three[plain == "train"] == "validation").all()


def test_the_order_in_which_workers_finish_changes_nothing(dicom, tmp_path, monkeypatch):
    for subject in "ABC":
        dicom.study(tmp_path, subject)
    expected = describe_cohort(tmp_path / "dicom", 0.26, 0)
    monkeypatch.setattr(metadata, "spread", lambda *arguments: reversed(list(spread(*arguments))))
    for table, found in zip(expected[:3], describe_cohort(tmp_path / "dicom", 0.26, 0)[:3], strict=True):
        pd.testing.assert_frame_equal(table, found)
    assert [s.header.PatientID for s in metadata.scan(tmp_path / "dicom")[0]] == ["A", "A", "B", "B", "C", "C"]


def test_two_patients_with_the_same_series_uids_stay_apart(dicom, tmp_path):
    for subject in "AB":
        dicom.study(tmp_path, subject, StudyInstanceUID="1.5", SeriesInstanceUID=None)
        for n, folder in enumerate(("ct", "pet")):
            for path in (tmp_path / "dicom" / subject / "study" / folder).iterdir():
                header = pydicom.dcmread(path)
                header.SeriesInstanceUID = f"1.5.{n}"
                header.SOPInstanceUID = f"1.5.{n}.{path.stem}"  # the same in both, as some anonymisers leave them
                header.save_as(path)
    cohort, series, _, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert failures == []
    assert list(cohort["subject"]) == ["A", "B"]
    files = [chosen_files(tmp_path, series, subject, "PT") for subject in "AB"]
    assert [{path.parts[-4] for path in found} for found in files] == [{"A"}, {"B"}]


def test_a_second_run_keeps_splits_and_columns_that_were_written_by_hand(dicom, script, tmp_path):
    for subject in "ABC":
        dicom.study(tmp_path, subject)
    assert script("1", "--root", tmp_path).exit_code == 0
    table = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    table["split"], table["site"], table["weight_kg"] = ["test", "test", "train"], ["007", "", "8"], "99"
    table.loc[len(table)] = dict(subject="Z", sex="M", age_years="50", height_m="1.8", weight_kg="80", split="test")
    table.to_csv(tmp_path / "cohort.csv", index=False)
    result = script("1", "--root", tmp_path, "--test-fraction", 0)
    assert "1 subjects stay in cohort.csv" in result.output
    again = pd.read_csv(tmp_path / "cohort.csv", dtype=str, keep_default_na=False).set_index("subject")
    assert list(again["split"]) == ["test", "test", "train", "test"]
    assert list(again["site"]) == ["007", "", "8", ""]
    assert list(again["weight_kg"]) == ["70.0", "70.0", "70.0", "80"]  # of the headers, and by hand


def test_without_a_patient_id_a_study_is_a_subject(dicom, script, tmp_path):
    for subject in ("A", "B"):
        dicom.study(tmp_path / "staged", subject, PatientID="")
    (tmp_path / "root" / "dicom").mkdir(parents=True)
    (tmp_path / "staged" / "dicom").rename(tmp_path / "root" / "dicom" / "export")
    assert script("1", "--root", tmp_path / "root").exit_code == 0
    names = pd.read_csv(tmp_path / "root" / "cohort.csv")["subject"]
    assert len(set(names)) == 2
    assert names.str.startswith("export-").all()


def test_a_study_without_a_patient_id_may_be_in_several_folders(dicom, tmp_path):
    ct, _ = dicom.study(tmp_path, "A", PatientID="")
    assert {series.modality for series in metadata.series_of_one(ct[0].parents[1], "study")} == {"CT", "PT"}


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        (dict(PatientSex="M"), "sex"),
        (dict(PatientBirthDate="19620304"), "birth date"),
        (dict(PatientSize=1.90), "height"),
    ],
)
def test_studies_of_several_people_under_one_id_are_refused(dicom, script, tmp_path, tags, named):
    dicom.study(tmp_path, "A", PatientSize=1.7)
    dicom.study(tmp_path, "B", **{"PatientSize": 1.7, **tags, "PatientID": "A"})
    dicom.study(tmp_path, "C")
    assert script("1", "--root", tmp_path).exit_code == 0
    assert list(pd.read_csv(tmp_path / "cohort.csv")["subject"]) == ["C"]
    (failure,) = pd.read_csv(tmp_path / "failures.csv")["error"]
    assert f"its studies disagree on {named}, so they are of several people" in failure
    assert "19620304" not in failure


def test_two_studies_of_one_person_are_one_subject(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    dicom.study(tmp_path, "B", PatientID="A", StudyDate="20210101")
    assert script("1", "--root", tmp_path).exit_code == 0
    assert list(pd.read_csv(tmp_path / "cohort.csv")["subject"]) == ["A"]


@pytest.mark.parametrize("born", ["19000101", "19010101", "18500101", "20200101", "20210101"])
def test_a_placeholder_or_impossible_birth_date_states_no_age(dicom, born):
    header = dicom.dataset(PatientAge="", PatientBirthDate=born, StudyDate="20200101")
    assert age_years(header)[0] is None
    assert age_years(dicom.dataset(PatientBirthDate=born, StudyDate="20200101", PatientAge="061Y"))[0] == 61


def test_a_subject_that_is_added_by_hand_is_no_failure_any_more(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")  # without a height in the CT or the PET
    for path in (tmp_path / "dicom").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.pop("PatientSize", None)
        header.save_as(path)
    result = script("1", "--root", tmp_path)
    columns = "subject, sex, age_years, height_m, weight_kg, split, source"
    assert result.exit_code == 2
    assert f"Add the subject to cohort.csv by hand ({columns})" in result.output
    assert result.output.count("A: ") == 1
    row = "A,F,60,1.7,70,train,given"
    (tmp_path / "cohort.csv").write_text(f"{columns.replace(' ', '')}\n{row}\n")
    again = script("1", "--root", tmp_path)
    assert again.exit_code == 0
    assert "problems" not in again.output
    assert script("2", "--root", tmp_path, "--voxel-mm", 5).exit_code == 0


def test_doubts_are_said_at_the_end_of_the_step(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    for path in (tmp_path / "dicom").rglob("pet/*.dcm"):
        header = pydicom.dcmread(path)
        header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "085000"
        header.save_as(path)
    assert script("1", "--root", tmp_path).exit_code == 0
    result = script("2", "--root", tmp_path, "--voxel-mm", 5)
    assert "Warning: A: " in result.output
    assert "10 min from injection to scan" in result.output


@pytest.mark.parametrize("placeholder", ["ANONYMOUS", "Anonymized", "0000", "unknown", "n/a", "12345", "XXX", ""])
def test_people_who_share_a_placeholder_are_several_subjects(dicom, tmp_path, placeholder):
    for name in ("a", "b", "c"):
        dicom.study(tmp_path, subject=name, PatientID=placeholder)
    (tmp_path / "dicom").rename(tmp_path / "export")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "export").rename(tmp_path / "dicom" / "export")
    cohort, _, _, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert (len(cohort), failures) == (3, [])


@pytest.mark.parametrize("name", ["Anna", "PATIENT_007", "0001", "test-3", "MR-12345", "NONE7"])
def test_an_id_that_only_resembles_a_placeholder_is_one(name):
    assert identity.patient_id({"PatientID": name}) == name


def test_several_studies_of_one_id_are_said_on_the_terminal(dicom, tmp_path, script):
    for name in ("a", "b"):
        dicom.study(tmp_path, subject=name, PatientID="P7")
    result = script(1, "--root", tmp_path)
    assert result.exit_code == 0
    assert "several PET studies have the Patient ID of P7; one of each is used" in result.output


def test_one_study_with_two_birth_dates_is_refused(dicom, tmp_path):
    """An anonymiser that gives everyone one ID may give one study, too; or none."""
    for name, born in (("a", "19500101"), ("b", "19610203")):
        dicom.study(tmp_path, subject=name, PatientID="P7", StudyInstanceUID="1.2.3", PatientBirthDate=born)
    ((_, error),) = describe_cohort(tmp_path / "dicom", 0.26, 0)[3]
    assert "disagree on birth date, so they are of several people" in error


@pytest.mark.parametrize(
    ("tag", "of_pet", "of_ct", "field", "found"),
    [
        ("PatientAge", "002W", "061Y", "age_years", 61),
        ("PatientAge", "999Y", "061Y", "age_years", 61),
        ("PatientSize", 16.5, 1.65, "height_m", 1.65),
        ("PatientSize", 0.01, 165, "height_m", 1.65),
        ("PatientWeight", 66000, 66, "weight_kg", 66),  # g
        ("PatientWeight", 70, 66, "weight_kg", 70),  # both possible: that of the PET
    ],
)
def test_an_impossible_statement_of_the_pet_does_not_beat_a_possible_one(
    dicom, tmp_path, tag, of_pet, of_ct, field, found
):
    for files, value in zip(dicom.study(tmp_path)[::-1], (of_pet, of_ct), strict=True):
        for path in files:
            header = pydicom.dcmread(path)
            setattr(header, tag, value)
            header.save_as(path)
    cohort, _, table, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert not failures
    assert cohort[field][0] == pytest.approx(found)


def test_headers_that_describe_nobody_any_more_are_an_error_though_a_table_is_there(dicom, script, tmp_path):
    _, pet = dicom.study(tmp_path, "A")
    assert script("1", "--root", tmp_path).exit_code == 0
    for path in pet:
        header = pydicom.dcmread(path)
        header.Units = "PROPCNTS"
        header.save_as(path)
    result = script("1", "--root", tmp_path)
    assert result.exit_code == 2
    assert "No subject can be used" in result.output
    assert list(pd.read_csv(tmp_path / "cohort.csv")["subject"]) == ["A"]


def test_pipes_and_archives_anywhere_below_dicom_are_failures_and_stop_nobody(dicom, script, tmp_path):
    ct, _ = dicom.study(tmp_path, "A")
    os.mkfifo(tmp_path / "dicom" / "pipe")
    os.mkfifo(ct[0].parent / "pipe")
    (tmp_path / "dicom" / "studies.zip").touch()
    assert script("1", "--root", tmp_path).exit_code == 0
    errors = pd.read_csv(tmp_path / "failures.csv")["error"]
    assert errors.str.contains("is a device or pipe, no file. Take it away.", regex=False).sum() == 2
    assert errors.str.contains("is a .zip file, whose content is not read. Unpack it.", regex=False).sum() == 1
