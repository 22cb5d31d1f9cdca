"""A derived PET series reads back as the SUV that was put in, and says of the patient only what was asked for."""

import dataclasses
import datetime

import numpy as np
import pydicom
import pytest

from totalgen.data.ct_input import read_ct
from totalgen.data.derived_series import MR, PET, Original, write_derived
from totalgen.data.dicom import read_series
from totalgen.data.input_names import discreet_input, input_name
from totalgen.data.pet_input import Pet, read_pet
from totalgen.data.volume import Volume
from totalgen.errors import InputError

SECRETS = dict(
    PatientName="Miller^Ada", PatientID="HOSP-4711", PatientBirthDate="19491107", AccessionNumber="ACC-99",
    StudyDescription="Ada Miller restaging", InstitutionName="St. Elsewhere", ReferringPhysicianName="House^G",
    PatientIdentityRemoved=None, PatientComments="sister of Eve", StudyDate="20200101", StudyID="S-1", SeriesNumber=4,
)  # fmt: skip
PERSON = dict(PatientSex="F", PatientAge="070Y", PatientSize=1.65, PatientWeight=71.0)
AFFINES = {
    "feet first": np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 90], [0, 0, 3.0, -20], [0, 0, 0, 1]]),
    "head first": np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 90], [0, 0, -3.0, 40], [0, 0, 0, 1]]),
    "coronal": np.array([[-4.0, 0, 0, 80], [0, 0, 3.0, 90], [0, -4.0, 0, -20], [0, 0, 0, 1]]),
}
KINDS = {
    "activity": {},
    "SUV": dict(Units="GML", SUVType="BW"),
    "lean SUV": dict(Units="GML", SUVType="LBM"),
    "not decay-corrected": dict(DecayCorrection="NONE"),
    "at injection": dict(DecayCorrection="ADMIN"),
    "a date of its own": dict(RadiopharmaceuticalStartDateTime="20191231233000", RadionuclideTotalDose=3.5e9),
}


@pytest.fixture
def source(dicom, tmp_path):
    """source(affine, **tags) → the Pet of a series of random values of a patient with a name."""

    def make(affine=AFFINES["feet first"], per_slice=None, **tags):
        voxels = np.random.default_rng(0).gamma(1.0, 2000.0, (11, 12, 13)).round()
        scale = 1e-3 if tags.get("Units") == "GML" else 1.0
        header = {**SECRETS, **PERSON, **tags, **dicom.pet(**tags)}
        folder = tmp_path / "Miller Ada" / "pet"
        dicom.series(folder, voxels * scale, affine, "PT", slopes=[scale] * 13, per_slice=per_slice, **header)
        return read_pet(folder)

    return make


def write_derived_pet(folder, suv, pet, *others):
    original = Original(pet.suv, pet.headers, pet.values, pet.factors)
    return write_derived(folder, suv, original, PET, *others)


def half(pet):
    return Volume(pet.suv.voxels * 0.5 - 0.01, pet.suv.affine)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", AFFINES)
def test_the_suv_that_was_put_in_is_read_again(source, tmp_path, side, kind, keep):
    def later(k):
        return dict(AcquisitionTime=f"0909{k:02d}") if kind == "not decay-corrected" else {}

    if side == "coronal" and kind == "not decay-corrected":
        later = None  # one factor for all: slices of another direction have no time of their own
    pet = source(AFFINES[side], later, **KINDS[kind])
    suv = half(pet)
    write_derived_pet(tmp_path / "out/dicom", suv, pet, "halved", tmp_path / "out", "about", keep)
    found = read_pet(tmp_path / "out/dicom")
    place = np.linalg.inv(found.suv.affine) @ suv.affine  # slices may be stored in another order, never moved
    at = np.stack(np.meshgrid(*[np.arange(n) for n in suv.shape], indexing="ij"), -1)
    index = np.rint(at @ place[:3, :3].T + place[:3, 3]).astype(int)
    assert np.abs(at @ place[:3, :3].T + place[:3, 3] - index).max() < 1e-3
    read = found.suv.voxels[tuple(np.moveaxis(index, -1, 0))]
    assert np.abs(read - suv.voxels).max() < 2e-4 * np.abs(suv.voxels).max()


def test_without_the_identity_no_identifier_is_left(source, tmp_path):
    pet = source(RadiopharmaceuticalStartDateTime="20200101080000")
    files = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about")
    uids = {header[tag].value for header in pet.headers for tag in ("SOPInstanceUID", "SeriesInstanceUID")}
    names = [value for value in SECRETS.values() if isinstance(value, str) and len(value) > 3]
    for file in files:
        content = file.read_bytes()
        for secret in [*names, *uids, "Miller", "20200101", "1.2.9"]:
            assert str(secret).encode() not in content, secret
    header = pydicom.dcmread(files[0])
    assert header.PatientIdentityRemoved == "YES"
    assert header.PatientID.startswith("sub-")
    assert list(header.ImageType) == ["DERIVED", "PRIMARY"]
    assert header.DerivationDescription == "halved"
    assert (header.Units, header.PatientWeight, header.SeriesTime) == ("BQML", 71.0, "090000")
    drug = header.RadiopharmaceuticalInformationSequence[0]
    assert (float(drug.RadionuclideTotalDose), drug.RadiopharmaceuticalStartTime) == (350e6, "080000")
    days = {
        datetime.date(2020, 1, 1) - datetime.datetime.strptime(str(text)[:8], "%Y%m%d").date()
        for text in (header.SeriesDate, header.AcquisitionDate, drug.RadiopharmaceuticalStartDateTime)
    }
    assert len(days) == 1
    assert days.pop().days >= 365


def test_no_private_element_or_uid_is_left_in_a_sequence(source, tmp_path):
    window = pydicom.Dataset()
    window.EnergyWindowLowerLimit, window.ReferencedSOPInstanceUID = "425", "1.2.840.99.4711"
    window.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "Ada 1949")
    pet = source(EnergyWindowRangeSequence=[window])
    (file, *_) = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about")
    assert [item.EnergyWindowLowerLimit for item in pydicom.dcmread(file).EnergyWindowRangeSequence] == [425]
    assert not [secret for secret in (b"Ada 1949", b"1.2.840.99.4711") if secret in file.read_bytes()]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("charset", "maker", "name"), [
    ("ISO_IR 100", "Mädler", "Müller^Jörg"), ("ISO_IR 192", "联影", "张^三"), ("GB18030", "联影", "张^三"),
])  # fmt: skip
def test_texts_of_any_character_set_stay_readable(source, tmp_path, charset, maker, name, keep):
    pet = source(SpecificCharacterSet=charset, Manufacturer=maker, PatientName=name)
    (file, *_) = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about", keep)
    read = pydicom.dcmread(file)
    assert read.Manufacturer == maker
    if keep:
        assert read.PatientName == name
        assert str(read.PatientName.family_name) == name.split("^")[0]


@pytest.mark.parametrize("number", ["", None, "ANONYMOUS"])
def test_two_people_without_a_patient_id_are_not_one(dicom, tmp_path, number):
    made = []
    for study in ("1.2.7.1", "1.2.7.2"):
        tags = {**dicom.pet(), **PERSON, **SECRETS, "PatientID": number, "StudyInstanceUID": study}
        folder = tmp_path / study
        dicom.series(folder, np.ones((4, 5, 12)) * 500, AFFINES["feet first"], "PT", slopes=[1.0] * 12, **tags)
        pet = read_pet(folder)  # flat: the files of one series lie in the folder itself
        (file, *_) = write_derived_pet(tmp_path / f"out/{study}", half(pet), pet, "halved", tmp_path / "out", "about")
        made.append((str(pydicom.dcmread(file).PatientID), input_name(folder, tmp_path / "out").rsplit("-", 1)[0]))
    assert len(set(made)) == 2
    assert all(patient == name for patient, name in made)


def test_with_the_identity_it_is_one_more_series_of_the_study(source, tmp_path):
    pet = source()
    files = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about", True)
    made, old = [pydicom.dcmread(file) for file in files], pet.headers
    for tag in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "AccessionNumber"):
        assert made[0][tag].value == old[0][tag].value
    assert made[0].SeriesInstanceUID != old[0].SeriesInstanceUID
    assert "PatientIdentityRemoved" not in made[0]
    assert len({file.SOPInstanceUID for file in made}) == len(files)
    by_uid = {header.SOPInstanceUID: header for header in old}
    for file in made:  # every slice names the one that it was made of
        assert by_uid[file.SourceImageSequence[0].ReferencedSOPInstanceUID].ImagePositionPatient[2] == pytest.approx(
            file.ImagePositionPatient[2], abs=1e-3
        )


@pytest.mark.parametrize("keep", [False, True])
def test_what_the_source_lacks_is_empty_made_or_left_out(source, tmp_path, keep):
    lacks = ("SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "CorrectedImage", "ActualFrameDuration")
    pet = source(AcquisitionDate=None, AcquisitionTime=None, **dict.fromkeys(lacks), Units="GML")
    files = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about", keep)
    made = [pydicom.dcmread(file) for file in files]
    for header in made:
        assert "SourceImageSequence" not in header
        for keyword in (*lacks[3:], "AcquisitionDate", "AcquisitionTime", "CollimatorType"):
            assert header[keyword].is_empty, keyword
    for keyword in lacks[1:3]:
        (uid,) = {header[keyword].value for header in made}
        assert uid.is_valid
    assert read_pet(tmp_path / "out/dicom").suv.voxels.max() == pytest.approx(half(pet).voxels.max(), rel=1e-3)


def test_a_height_of_another_series_has_at_most_16_characters(source, tmp_path):
    pet = source(PatientSize=None)
    pet = dataclasses.replace(pet, values=pet.values | dict(height_m=140.4 / 100))  # 1.4040000000000001
    (file, *_) = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about")
    assert pydicom.dcmread(file)["PatientSize"].value.original_string == "1.404"


def test_who_stays_deidentified_says_how(source, tmp_path):
    how = pydicom.Dataset()
    how.CodeValue, how.CodingSchemeDesignator, how.CodeMeaning = "113100", "DCM", "Basic Profile"
    pet = source(PatientIdentityRemoved="YES", DeidentificationMethodCodeSequence=[how])
    (file, *_) = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about", True)
    made = pydicom.dcmread(file)
    assert made.PatientIdentityRemoved == "YES"
    assert made.DeidentificationMethodCodeSequence[0].CodeValue == "113100"


def test_a_series_number_that_is_none_counts_as_0(source, tmp_path):
    pet = source()
    for header in pet.headers:
        header.add_new(0x00200011, "LO", "A5")
    (file, *_) = write_derived_pet(tmp_path / "out/dicom", half(pet), pet, "halved", tmp_path / "out", "about", False)
    assert int(pydicom.dcmread(file).SeriesNumber) == 1000


def test_uids_follow_from_what_was_made(source, tmp_path):
    pet = source()

    def uid(about, root="out"):
        files = write_derived_pet(tmp_path / root / about, half(pet), pet, "halved", tmp_path / root, about)
        header = pydicom.dcmread(files[0])
        return header.SeriesInstanceUID, header.StudyInstanceUID, header.PatientID

    one, same, other = uid("a"), uid("a"), uid("b")
    assert one == same
    assert one[0] != other[0]
    assert one[1:] == other[1:]  # one study and one patient, twice denoised
    assert not set(one) & set(uid("a", "elsewhere"))  # nobody without the salt can join them


def test_a_nifti_has_no_headers_to_derive_from(tmp_path):
    volume = Volume(np.ones((3, 3, 3), np.float32), np.eye(4))
    with pytest.raises(InputError, match="DICOM can only be derived from DICOM"):
        write_derived_pet(tmp_path / "d", volume, Pet(volume), "x", tmp_path, "y")


def test_a_named_patient_is_hidden_in_the_name_of_the_result(source, tmp_path):
    source()
    folder = tmp_path / "Miller Ada" / "pet"
    hidden = input_name(folder, tmp_path / "out")
    assert hidden.startswith("sub-")
    assert hidden == input_name(folder, tmp_path / "out") != input_name(folder, tmp_path / "other")
    assert input_name(folder, tmp_path / "out", keep_identity=True) == "pet"
    assert input_name(tmp_path / "low.nii.gz", tmp_path) == "low"


@pytest.mark.parametrize("blank", [" ", "  "])
def test_an_error_of_a_hidden_patient_names_neither_folder_nor_header(dicom, tmp_path, blank):
    """It is kept in failures.csv beside results that are called sub-…."""
    folder = tmp_path / f"Miller{blank}Ada 1949" / f"of{blank}June"
    tags = {**SECRETS, **PERSON, "SeriesDescription": f"Ada Miller{blank}Thorax 7.11.1949"}
    dicom.series(folder, np.full((8, 8, 13), 40.0), AFFINES["feet first"], "CT", **tags)
    name = input_name(folder, tmp_path / "out")
    said = {}
    for shown in (name, "pet"):  # hidden, and with --keep-identity
        with pytest.raises(InputError) as caught, discreet_input(folder.parent, shown):
            read_pet(folder.parent.resolve())
        said[shown] = str(caught.value)
    assert "Ada Miller Thorax" in said["pet"]
    assert said[name].startswith("the input: no PET can be used (")
    assert not [word for word in ("Miller", "Ada", "1949", "Thorax", str(tmp_path)) if word in said[name]]
    (folder / "0003.dcm").write_bytes((folder / "0003.dcm").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"^the input/#1/#4: is cut"), discreet_input(folder.parent, name):
        read_pet(folder.parent.resolve())


def test_weight_alone_is_enough_for_a_body_weight_suv(dicom, tmp_path):
    voxels = np.full((4, 4, 12), 5000.0)
    tags = {**dicom.pet(Radiopharmaceutical="PSMA-1007"), "PatientWeight": 70.0, "PatientBirthDate": None}
    dicom.series(tmp_path / "pet", voxels, AFFINES["feet first"], "PT", slopes=[1.0] * 12, **tags)
    found = read_pet(tmp_path / "pet")
    assert found.suv.voxels.max() == pytest.approx(5000 * 70e3 / (350e6 * 0.5 ** (3600 / 6586.2)), rel=1e-5)
    assert "the tracer is PSMA-1007, not FDG" in found.warnings
    dicom.series(tmp_path / "lean", voxels, AFFINES["feet first"], "PT", **{**tags, "Units": "GML", "SUVType": "LBM"})
    with pytest.raises(InputError, match=r"height_m: not stated[^.]*\. Add the value to its headers\.$"):
        read_pet(tmp_path / "lean")


@pytest.mark.parametrize("highest", [1.0, 300.0, 1200.0, 2e5])
def test_an_mr_of_any_unit_keeps_its_values(dicom, tmp_path, highest):
    dicom.series(tmp_path / "ct", np.full((12, 11, 13), 40.0), AFFINES["feet first"], "CT", **SECRETS, RescaleType="HU")
    volume, headers = read_series(sorted((tmp_path / "ct").iterdir()))
    mr = Volume(np.linspace(0, highest, volume.voxels.size, dtype=np.float32).reshape(volume.shape), volume.affine)
    files = write_derived(tmp_path / "out", mr, Original(volume, tuple(headers), {}), MR, "made", tmp_path, "about")
    read = [pydicom.dcmread(file) for file in files]
    slopes = {float(each.RescaleSlope) for each in read}
    values = np.concatenate([each.pixel_array.ravel() for each in read]) * slopes.pop()
    assert not slopes
    assert np.abs(np.sort(values) - np.sort(mr.voxels.ravel())).max() <= max(highest, 1000) / 1000 / 2


def test_an_mr_made_of_a_ct_lies_where_the_ct_is(dicom, tmp_path):
    voxels = np.where(np.arange(12)[:, None, None] > 5, 40.0, -1000.0) * np.ones((12, 11, 13))
    tags = {**SECRETS, **PERSON, "RescaleType": "HU", "KVP": "120", "ExposureTime": 500}
    dicom.series(tmp_path / "ct", voxels, AFFINES["feet first"], "CT", **tags)
    ct = read_ct(tmp_path / "ct")
    mr = Volume((ct.ct.voxels + 1000).clip(0) / 2, ct.ct.affine)
    original = Original(ct.ct, ct.headers, ct.values)
    files = write_derived(tmp_path / "out", mr, original, MR, "made", tmp_path, "about")
    headers = [pydicom.dcmread(file) for file in files]
    assert {header.Modality for header in headers} == {"MR"}
    assert "KVP" not in headers[0]
    assert headers[0].PatientWeight == 71.0
    assert b"Miller" not in files[0].read_bytes()
    by_height = {round(float(h.ImagePositionPatient[2]), 2): h.pixel_array * float(h.RescaleSlope) for h in headers}
    for k in range(13):
        z = round(float(ct.ct.world((0, 0, k))[2]), 2)
        assert np.abs(np.sort(by_height[z].ravel()) - np.sort(mr.voxels[:, :, k].ravel())).max() <= 0.5
