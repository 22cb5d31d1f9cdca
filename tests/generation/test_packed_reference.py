"""Packing and unpacking is what generation does to a volume, and nothing else."""

import shutil

import numpy as np
import pandas as pd
import pytest

from totalgen.data.axial_extent import AxialExtent
from totalgen.data.demographics import Demographics
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.generation.packed_reference import pack_and_unpack

PERSON = Demographics("F", 60, 1.65, 66)
SHAPE = (70, 60, 118)


@pytest.fixture(scope="module")
def cascade():
    return Cascade.shipped("demo")


@pytest.fixture
def root(folder, tmp_path):
    """A cohort of one study."""
    (tmp_path / "cohort" / "cropped").mkdir(parents=True)
    folder.rename(tmp_path / "cohort" / "cropped" / "s0")
    row = dict(subject="s0", sex="F", age_years=60, height_m=1.65, weight_kg=66, split="test", source="phantom")
    pd.DataFrame([row]).to_csv(tmp_path / "cohort" / "cohort.csv", index=False)
    return tmp_path / "cohort"


@pytest.fixture
def folder(tmp_path):
    """A body of fat with a hot and dense core, at 6 mm."""
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    ct, suv = np.full(SHAPE, -1000, np.float32), np.zeros(SHAPE, np.float32)
    ct[10:60, 10:50], suv[10:60, 10:50] = -100, 1.0
    ct[30:40, 25:35, 50:70], suv[30:40, 25:35, 50:70] = 900, 40.0
    for name, voxels in (("CT", ct), ("SUV", suv)):
        write_nifti(tmp_path / "study" / f"{name}.nii.gz", Volume(voxels, affine))
    return tmp_path / "study"


def test_values_are_clipped_and_the_length_is_that_of_the_line(folder, cascade):
    made = pack_and_unpack(folder, PERSON, cascade)
    ct, suv = made["CT"], made["SUV"]
    assert suv.voxels.max() == pytest.approx(25, abs=0.03)  # stored as float16
    assert ct.voxels.max() == 500
    line = AxialExtent.from_dict(cascade.global_stage.data["axial_extent"])
    assert ct.shape[2] == round(line.mm(PERSON.height_m) / 6)
    assert ct.voxels.shape[:2] == cascade.shape[:2]
    middle = np.array(ct.shape) // 2
    assert ct.voxels[tuple(middle)] == 500
    body = ct.voxels[:, :, middle[2]] > -200
    assert body.sum() == 50 * 40


def test_noise_is_repeatable_and_only_in_the_body(folder, cascade):
    quiet, *noisy = (pack_and_unpack(folder, PERSON, cascade, noise, 3)["CT"].voxels for noise in (0.0, 20.0, 20.0))
    assert np.array_equal(*noisy)
    fat = quiet == -100
    assert noisy[0][fat].std() == pytest.approx(20, rel=0.2)  # stretching averages neighbours a little
    assert np.array_equal(noisy[0][quiet == -1000], quiet[quiet == -1000])


def test_other_voxels_are_refused(folder, cascade):
    for name in ("CT", "SUV"):
        volume = read_nifti(folder / f"{name}.nii.gz")
        write_nifti(folder / f"{name}.nii.gz", Volume(volume.voxels, np.diag([5.0, 5.0, 5.0, 1.0])))
    with pytest.raises(InputError, match="voxels of 5 mm, the weights have 6"):
        pack_and_unpack(folder, PERSON, cascade)


def test_the_script_makes_a_cohort_that_can_be_measured(root, invoke, tmp_path):
    script, out = "3_Evaluations/0_pack_reference.py", tmp_path / "out"
    result = invoke(script, "--root", root, "--preset", "demo", "--outdir", out)
    assert result.exit_code == 0, result.output
    assert pd.read_csv(out / "manifest.csv")["subject"].tolist() == ["s0"]
    assert (out / "s0" / "SUV.nii.gz").exists()
    assert invoke(script, "--root", root, "--outdir", out).exit_code == 2
    assert "1 were done before" in invoke(script, "--root", root, "--preset", "demo", "--outdir", out).output


def test_one_folder_holds_all_splits_that_were_packed_into_it(root, invoke, tmp_path):
    shutil.copytree(root / "cropped" / "s0", root / "cropped" / "s1")
    table = pd.read_csv(root / "cohort.csv")
    pd.concat([table, table.assign(subject="s1", split="train")]).to_csv(root / "cohort.csv", index=False)
    for split, there in (("train", ["s1"]), ("test", ["s0", "s1"])):
        asked = ("--root", root, "--preset", "demo", "--outdir", tmp_path / "out", "--split", split)
        assert invoke("3_Evaluations/0_pack_reference.py", *asked).exit_code == 0
        assert pd.read_csv(tmp_path / "out/manifest.csv")["subject"].tolist() == there


def other_image(root):
    path = root / "cropped" / "s0" / "CT.nii.gz"
    volume = read_nifti(path)
    write_nifti(path, Volume(volume.voxels + 1, volume.affine))


OTHERS = {  # what is changed → (arguments, words of the refusal)
    "noise": (("--preset", "demo", "--ct-noise", 30), "ct_noise_hu 0, not with ct_noise_hu 30"),
    "weights": (("--preset", "demo-flow"), "made with weights sha256"),
    "images": (("--preset", "demo"), "1 result (s0) was made from other files or demographics than those given"),
}
OTHERS["height"] = OTHERS["images"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_there_was_packed_as_asked_for_or_is_refused(root, invoke, refused, tmp_path, name):
    script, out = "3_Evaluations/0_pack_reference.py", tmp_path / "out"
    assert invoke(script, "--root", root, "--preset", "demo", "--outdir", out).exit_code == 0
    made = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if name == "images":
        other_image(root)
    if name == "height":
        table = pd.read_csv(root / "cohort.csv")
        table.assign(height_m=table["height_m"] + 0.1).to_csv(root / "cohort.csv", index=False)
    arguments, words = OTHERS[name]
    assert words in refused(script, "--root", root, "--outdir", out, *arguments)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == made


@pytest.mark.parametrize("place", [".", "cropped", "cropped/s0", "cropped/packed", "../cohort/cropped/.", "generated"])
def test_nothing_is_packed_onto_other_studies(root, refused, place):
    (root / "generated").mkdir()
    pd.DataFrame([dict(subject="g0", preset="demo")]).to_csv(root / "generated" / "manifest.csv", index=False)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    line = refused("3_Evaluations/0_pack_reference.py", "--root", root, "--preset", "demo", "--outdir", root / place)
    assert "--outdir" in line
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
