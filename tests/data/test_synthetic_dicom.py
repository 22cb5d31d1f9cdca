"""A generated study as DICOM is what its NIfTI files are, says that it is nobody, and is valid."""

import json
import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest

from totalgen.data.choice import choose
from totalgen.data.demographics import Demographics
from totalgen.data.dicom import find_series, read_series
from totalgen.data.organs import ORGANS
from totalgen.data.suv import suv_factors
from totalgen.data.synthetic_dicom import KINDS, write_synthetic
from totalgen.data.volume import Volume, canonical

WOMAN = Demographics("F", 60, 1.65, 66.0)
SHAPE, MM = (20, 18, 24), 6.0
# PS3.3 C.12.1.1 (SOP Common): Synthetic Data (0008,001C), which validators of before 2023 do not know.
UNKNOWN_TO_OLD_VALIDATORS = "(0x0008,0x001c)"


@pytest.fixture(scope="module")
def volumes():
    random = np.random.default_rng(0)
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = -57.0, -51.3, 10.0
    ct = random.integers(-1000, 500, SHAPE).astype(np.int16)
    suv = (random.gamma(0.5, 3.0, SHAPE) * np.linspace(0.2, 1, SHAPE[2])).astype(np.float32)
    organs = np.zeros(SHAPE, np.uint8)
    for number, name in enumerate(("liver", "kidney_left", "heart", "hip_right")):
        organs[3 * number : 3 * number + 5, 4:9, 5 * number : 5 * number + 6] = ORGANS[name]
    return {name: Volume(voxels, affine) for name, voxels in dict(CT=ct, SUV=suv, organs=organs).items()}


@pytest.fixture(scope="module")
def study(volumes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom")
    write_synthetic(folder, volumes, WOMAN, "woman", "seed 1", "1.0")
    return folder


def test_our_own_reader_finds_what_was_written(volumes, study):
    pet, ct, _ = choose(find_series(study)[0])
    for series, key in ((ct, "CT"), (pet, "SUV")):
        read, headers = read_series(series.files)
        found = suv_factors(headers, WOMAN).factors if key == "SUV" else np.ones(len(headers))
        read = canonical(Volume(read.voxels * found.astype(np.float32), read.affine))
        assert np.allclose(read.affine, volumes[key].affine, atol=0.01)  # mm
        step = volumes[key].voxels.max((0, 1)) / 32767 if key == "SUV" else 0  # of a slice
        assert (np.abs(read.voxels - volumes[key].voxels) <= 0.51 * step + 1e-5).all()


def test_every_file_says_that_it_is_synthetic_and_has_uids_of_uuids(study):
    files = sorted(study.rglob("*.dcm"))
    assert len(files) == 2 * SHAPE[2] + 1
    studies, frames = set(), set()
    for path in files:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert header.SyntheticData == "YES"
        assert str(header.PatientName).startswith("Synthetic")
        assert header.ImageType[0] == "DERIVED"
        for uid in (header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID):
            assert uid.startswith("2.25.")
            assert uid.is_valid
        studies.add(header.StudyInstanceUID)
        frames.add(header.FrameOfReferenceUID)
    assert len(studies) == len(frames) == 1
    pet = pydicom.dcmread(study / "PT/1-001.dcm")
    assert "Not a patient" in pet.ImageComments
    assert float(pet.RescaleIntercept) == 0
    for keyword in ("PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence", "FrameReferenceTime"):
        assert pet.get(keyword)
    assert [pydicom.dcmread(path).ImageIndex for path in sorted((study / "PT").iterdir())] == [*range(1, SHAPE[2] + 1)]


def test_the_segmentation_has_the_masks_on_the_slices_of_the_ct(volumes, study):
    segmentation = highdicom.seg.segread(study / "SEG/organs.dcm")
    names = [segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers]
    assert names == ["kidney_left", "liver", "heart", "hip_right"]
    sources = [pydicom.dcmread(path).SOPInstanceUID for path in sorted((study / "CT").iterdir())]
    masks = segmentation.get_pixels_by_source_instance(sources)  # [slice, row, column, segment], head first
    for k, name in enumerate(names):
        expected = (volumes["organs"].voxels == ORGANS[name])[::-1, ::-1, ::-1].transpose(2, 1, 0)
        assert np.array_equal(masks[..., k].astype(bool), expected)


def test_all_organs_have_a_code():
    assert list(KINDS) == list(ORGANS)


def test_the_same_study_is_written_to_the_byte(volumes, study, tmp_path):
    write_synthetic(tmp_path, volumes, WOMAN, "woman", "seed 1", "1.0")
    for path in study.rglob("*.dcm"):
        assert path.read_bytes() == (tmp_path / path.relative_to(study)).read_bytes()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian's dicom3tools)")
@pytest.mark.parametrize("file", ["CT/1-003.dcm", "PT/1-003.dcm", "SEG/organs.dcm"])
def test_an_independent_validator_finds_no_error(study, file):
    found = subprocess.run(["dciodvfy", study / file], capture_output=True, text=True, check=False)
    errors = [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]
    assert [line for line in errors if UNKNOWN_TO_OLD_VALIDATORS not in line] == []


CORNERSTONE = """
const { calculateSUVScalingFactors } = require('@cornerstonejs/calculate-suv');
const chunks = []; process.stdin.on('data', c => chunks.push(c));
process.stdin.on('end', () => {
  const instances = JSON.parse(Buffer.concat(chunks));
  console.log(JSON.stringify(calculateSUVScalingFactors(instances).map(each => each.suvbw)));
});
"""


def test_an_independent_implementation_computes_the_same_suv(study):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    there = subprocess.run([node, "-e", "require('@cornerstonejs/calculate-suv')"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip("npm's @cornerstonejs/calculate-suv is not installed, or not in NODE_PATH")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted((study / "PT").iterdir())]
    instances = []
    for header in headers:
        drug = header.RadiopharmaceuticalInformationSequence[0]
        texts = {name: str(header.get(name)) for name in (
            "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "DecayCorrection", "Units", "PatientSex")}
        numbers = {name: float(header.get(name)) for name in (
            "PatientWeight", "PatientSize", "FrameReferenceTime", "ActualFrameDuration")}  # fmt: skip
        numbers |= {name: float(drug.get(name)) for name in ("RadionuclideTotalDose", "RadionuclideHalfLife")}
        injected = dict(RadiopharmaceuticalStartDateTime=str(drug.RadiopharmaceuticalStartDateTime))
        instances.append(texts | numbers | injected | dict(CorrectedImage=list(header.CorrectedImage)))
    asked = json.dumps(instances).encode()
    found = subprocess.run([node, "-e", CORNERSTONE], input=asked, capture_output=True, check=True)
    assert json.loads(found.stdout) == pytest.approx(list(suv_factors(headers, WOMAN).factors), rel=1e-4)
