import numpy as np
import pytest

from totalgen.data.dicom import find_series
from totalgen.data.metadata import age_years, choose, describe_cohort, height_m, merge_demographics, share, subject_name
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
    cohort, series, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert failures == []
    row = cohort.iloc[0]
    assert (row.subject, row.sex, row.age_years, row.height_m, row.weight_kg) == ("P1", "F", 60, 1.70, 70)
    assert sorted(series["chosen"]) == ["yes", "yes"]


def test_no_name_and_no_birth_date_leaves(dicom, tmp_path):
    dicom.study(tmp_path)
    text = "".join(table.to_csv() for table in describe_cohort(tmp_path / "dicom", 0.26, 0)[:2])
    assert "Doe" not in text
    assert "1950" not in text


@pytest.mark.parametrize(("written", "years"), [("069Y", 69), ("030M", 2.5), ("104W", 1.993), ("731D", 2.0014)])
def test_age_units(dicom, written, years):
    assert age_years(dicom.dataset(PatientAge=written)) == pytest.approx(years, abs=1e-3)


def test_age_from_birth_date_only_when_no_age_is_stated(dicom):
    born = dict(PatientBirthDate="19500101", StudyDate="20200101")
    assert age_years(dicom.dataset(**born)) == pytest.approx(70, abs=0.01)
    assert age_years(dicom.dataset(**born, PatientAge="065Y")) == 65
    assert age_years(dicom.dataset(PatientAge="000Y")) is None


def test_height_in_centimetres_is_repaired_when_unambiguous(dicom):
    assert height_m(dicom.dataset(PatientSize=172)) == pytest.approx(1.72)
    assert height_m(dicom.dataset(PatientSize=1.72)) == pytest.approx(1.72)
    assert height_m(dicom.dataset(PatientSize=0)) is None
    assert height_m(dicom.dataset(PatientSize=17.2)) == pytest.approx(17.2)  # left for Demographics to refuse


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
    cohort, _, failures = describe_cohort(tmp_path / "dicom", 0.26, 0)
    assert list(cohort["subject"]) == ["good"]
    ((subject, error),) = failures
    assert subject == "bad"
    assert named in str(error)


def test_series_that_contradict_each_other_about_sex_are_refused(dicom, tmp_path):
    dicom.series(
        tmp_path / "a", BOX, AFFINE, "CT", PatientSex="M", PatientAge="050Y", PatientWeight=70, PatientSize=1.7
    )
    dicom.series(tmp_path / "b", BOX, AFFINE, "CT", PatientSex="F")
    with pytest.raises(InputError, match="sex"):
        merge_demographics(find_series(tmp_path)[0])


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


def test_a_pet_without_attenuation_correction_is_never_taken(dicom, tmp_path):
    dicom.study(tmp_path, CorrectedImage=["DECY"])
    cohort, series, ((_, error),) = describe_cohort(tmp_path / "dicom", 0.26, 0)
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


def test_subject_names_are_file_names_and_stay_apart(dicom, tmp_path):
    path = tmp_path / "folder" / "file.dcm"
    names = [subject_name(dicom.dataset(PatientID=n), path, tmp_path) for n in ("A/1", "A 1", "A_1", "../x", "")]
    assert len(set(names)) == 5
    assert all("/" not in name and not name.startswith(".") for name in names)
    assert names[2:] == ["A_1", names[3], "folder"]
