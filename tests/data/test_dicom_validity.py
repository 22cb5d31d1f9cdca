"""An independent validator, dciodvfy (Debian's dicom3tools, of 2022), finds no error in what we write as DICOM."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from totalgen.data.ct_input import read_ct
from totalgen.data.demographics import Demographics
from totalgen.data.derived_series import MR, PET, Original, write_derived
from totalgen.data.pet_input import read_pet
from totalgen.data.scan_headers import ENTRY, LYING, put_position
from totalgen.data.volume import Volume
from totalgen.phantom import make_subject
from totalgen.phantom.phantom_dicom import write_study

NEEDS_VALIDATOR = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian's dicom3tools)"
)
WOMAN = Demographics("F", 60, 1.65, 66.0)


def errors(path):
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """{"CT", "PT"} → folder of the phantom's series."""
    folder = tmp_path_factory.mktemp("phantom") / "PETCT_0123456789"
    write_study(folder, folder.name, make_subject(WOMAN, seed=3, voxel_mm=12.0), WOMAN, seed=3)
    files = {path.parent: path for path in folder.rglob("*.dcm")}
    return {pydicom.dcmread(path, stop_before_pixels=True).Modality: parent for parent, path in files.items()}


@NEEDS_VALIDATOR
@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_the_phantom_is_valid(phantom, modality):
    assert errors(sorted(phantom[modality].iterdir())[2]) == []


@NEEDS_VALIDATOR
@pytest.mark.parametrize("keep", [False, True])
def test_a_derived_pet_is_valid(phantom, tmp_path, keep):
    pet = read_pet(phantom["PT"])
    original = Original(pet.suv, pet.headers, pet.values, pet.factors)
    files = write_derived(tmp_path / "out/dicom", pet.suv, original, PET, "the same", tmp_path / "out", "about", keep)
    assert errors(files[2]) == []


@NEEDS_VALIDATOR
@pytest.mark.parametrize("keep", [False, True])
def test_a_derived_mr_is_valid(phantom, tmp_path, keep):
    ct = read_ct(phantom["CT"])
    mr, original = Volume(np.maximum(ct.ct.voxels + 1000, 0), ct.ct.affine), Original(ct.ct, ct.headers, ct.values)
    files = write_derived(tmp_path / "out/dicom", mr, original, MR, "an MR", tmp_path / "out", "about", keep)
    assert errors(files[2]) == []


def test_a_derived_pet_says_how_the_patient_lay(phantom, tmp_path):
    pet = read_pet(phantom["PT"])
    original = Original(pet.suv, pet.headers, pet.values, pet.factors)
    files = write_derived(tmp_path / "out/dicom", pet.suv, original, PET, "the same", tmp_path / "out", "about")
    lying = pydicom.dcmread(files[0]).PatientOrientationCodeSequence[0]
    assert lying.CodeMeaning == "recumbent"
    assert lying.PatientOrientationModifierCodeSequence[0].CodeMeaning == "supine"


@pytest.mark.parametrize(
    ("position", "modifier", "entry"),
    [("HFS", "supine", "headfirst"), ("FFDL", "left lateral decubitus", "feet-first")],
)
def test_a_position_becomes_its_codes(position, modifier, entry):
    ds = pydicom.Dataset()
    ds.PatientPosition = position
    put_position(ds, position)
    assert "PatientPosition" not in ds
    lying = ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence[0]
    assert lying.CodeMeaning == modifier
    assert ds.PatientGantryRelationshipCodeSequence[0].CodeMeaning == entry
    put_position(ds, "unknown")
    assert len(ds.PatientOrientationCodeSequence) == len(ds.PatientGantryRelationshipCodeSequence) == 0


def test_the_codes_of_positions_are_those_of_the_dictionary():
    known = {codes.SCT.Supine, codes.SCT.Prone, codes.SCT.RightLateralDecubitus, codes.SCT.LeftLateralDecubitus}
    assert {value for value, _ in LYING.values()} == {each.value for each in known}
    assert [ENTRY[key][0] for key in ("HF", "FF")] == [codes.SCT.Headfirst.value, codes.SCT.FeetFirst.value]
