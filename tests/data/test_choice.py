import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from totalgen.data.choice import choose
from totalgen.data.dicom import find_series
from totalgen.data.metadata import describe_cohort

AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])
BOX = np.zeros((8, 8, 12))


def reasons_of(folder):
    series, _ = find_series(folder)
    pet, ct, reasons = choose(series)
    names = {s.uid: s.description for s in series}
    return pet and pet.description, ct and ct.description, {names[uid]: why for uid, why in reasons.items()}


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


@pytest.mark.parametrize(
    ("description", "corrected"),
    [
        *((name, False) for name in ("WB NAC", "NAC_wb", "PET_nac", "PET non-AC", "no AC", "PET uncorrected")),
        *((name, False) for name in ("PET w/o AC", "without attenuation", "not attenuation corrected")),
        *((name, True) for name in ("PET AC", "WB CTAC", "AC_wb", "Pinnacle", "PET FBP back-projection")),
    ],
)
def test_descriptions_that_state_that_a_pet_is_not_corrected(dicom, tmp_path, description, corrected):
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


def test_a_study_whose_series_have_different_times_is_one_study(dicom, tmp_path):
    pet = dicom.pet()
    dicom.series(tmp_path / "1", BOX, AFFINE, "PT", SeriesDescription="unstated", StudyTime="080000",
                 **{**pet, "CorrectedImage": None})  # fmt: skip
    dicom.series(tmp_path / "2", BOX, AFFINE, "PT", SeriesDescription="PET AC", StudyTime="090000", **pet)
    dicom.series(tmp_path / "3", BOX, AFFINE, "CT", SeriesDescription="CT", StudyTime="083000")
    chosen, ct, reasons = reasons_of(tmp_path)
    assert (chosen, ct) == ("PET AC", "CT")
    assert reasons["unstated"].startswith("does not state")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("dynamic", ["DYNAMIC", "IMAGE"]),
        ("gated", ["GATED", "IMAGE"]),
        ("reprojection", ["WHOLE BODY", "REPROJECTION"]),  # views from around the body
    ],
)
def test_series_that_are_no_static_image_are_refused_by_name(dicom, tmp_path, kind, values):
    dicom.study(tmp_path)
    pet = dicom.study(tmp_path / "more", SeriesDescription="moving", SeriesNumber=1, SeriesType=values)[1]
    _, _, reasons = choose(find_series(tmp_path)[0])
    (moving,) = find_series(pet[0].parent)[0]
    assert reasons[moving.uid] == f"{kind} by its Series Type (0054,1000), not a static image"


LONG = dict(ActualFrameDuration=300_000)


def test_of_two_equal_pets_the_one_with_the_longer_frames_is_taken(dicom, tmp_path):
    short = dicom.study(tmp_path, SeriesNumber=1, ActualFrameDuration=10_000)[1]
    tags = dict(SeriesNumber=9, ActualFrameDuration=180_000)
    (long,) = find_series(dicom.study(tmp_path / "more", **tags)[1][0].parent)[0]
    pet, _, reasons = choose(find_series(tmp_path)[0])
    assert pet.uid == long.uid
    assert reasons[find_series(short[0].parent)[0][0].uid] == "shorter frames than the chosen PET"


def test_of_equal_pets_the_one_an_hour_after_the_injection_is_taken(dicom, tmp_path):
    """Frames of a scan whose headers call nothing dynamic, with lower numbers and longer than the static one."""
    early, late = (
        dicom.study(tmp_path / time, SeriesNumber=1, SeriesTime=time, AcquisitionTime=time, **LONG)[1]
        for time in ("080100", "103000")
    )
    (static,) = find_series(dicom.study(tmp_path / "3", SeriesNumber=9)[1][0].parent)[0]
    pet, _, reasons = choose(find_series(tmp_path)[0])
    assert pet.uid == static.uid
    for files in (early, late):
        assert "nearer to 60 min" in reasons[find_series(files[0].parent)[0][0].uid]


def test_localizers_inside_a_ct_series_are_left_out(dicom, tmp_path):
    ct, _ = dicom.study(tmp_path, slices=14)
    for path in ct[:2]:
        header = pydicom.dcmread(path)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(path)
    found = find_series(tmp_path)[0]
    _, chosen, reasons = choose(found)
    assert chosen.count == 12
    assert [reasons[series.uid] for series in found if series.count == 2] == ["scout"]


@pytest.mark.parametrize("name", ["0.dcm", "zz.dcm"])  # whichever is read first
def test_a_screen_page_inside_a_ct_series_is_left_out(dicom, script, tmp_path, name):
    ct, _ = dicom.study(tmp_path)
    page = pydicom.dcmread(ct[0])
    page.SOPClassUID = page.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    page.SOPInstanceUID = page.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(page, keyword)
    page.save_as(ct[0].parent / name)
    found = find_series(tmp_path)[0]
    _, chosen, reasons = choose(found)
    assert chosen.files == ct
    (page,) = (series for series in found if not series.is_image)
    assert reasons[page.uid] == "no stack of CT or PET images: Secondary Capture Image Storage"
    assert script("1", "--root", tmp_path).exit_code == 0
    assert script("2", "--root", tmp_path, "--voxel-mm", 10).exit_code == 0


def test_a_file_that_cannot_be_read_is_no_single_slice(dicom, tmp_path):
    ct, _ = dicom.study(tmp_path)
    whole = pydicom.dcmread(ct[0])
    whole.NumberOfFrames, whole.PixelData = 12, 12 * whole.PixelData
    for path in ct[1:]:
        path.unlink()
    whole.save_as(ct[0])
    _, chosen, reasons = choose(find_series(tmp_path)[0])
    assert chosen is None
    assert "12 frames in a file of a single-frame kind. Export them one by one." in reasons.values()


def test_the_modality_that_a_header_lacks_is_that_of_its_kind(dicom, script, tmp_path):
    dicom.study(tmp_path, Modality=None)
    found = find_series(tmp_path)[0]
    assert sorted(series.modality for series in found) == ["CT", "PT"]
    assert None not in choose(found)[:2]
    assert script("1", "--root", tmp_path).exit_code == 0
    assert script("2", "--root", tmp_path, "--voxel-mm", 10).exit_code == 0


def test_a_series_number_that_is_no_number_does_not_matter(dicom, tmp_path):
    ct, _ = dicom.study(tmp_path)
    for path in ct:
        header = pydicom.dcmread(path)
        header[0x0020, 0x0011] = RawDataElement(Tag(0x0020, 0x0011), "IS", 4, b"2-1 ", 0, False, True)
        header.save_as(path)
    assert choose(find_series(tmp_path)[0])[1].count == 12
