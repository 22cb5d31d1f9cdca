"""Packing and unpacking is what generation does to a volume, and nothing else."""

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


def test_the_script_makes_a_cohort_that_can_be_measured(folder, invoke, tmp_path):
    root = tmp_path / "cohort"
    (root / "cropped").mkdir(parents=True)
    folder.rename(root / "cropped" / "s0")
    row = dict(subject="s0", sex="F", age_years=60, height_m=1.65, weight_kg=66, split="test", source="phantom")
    pd.DataFrame([row]).to_csv(root / "cohort.csv", index=False)
    script, out = "3_Evaluations/0_pack_reference.py", tmp_path / "out"
    result = invoke(script, "--root", root, "--preset", "demo", "--outdir", out)
    assert result.exit_code == 0, result.output
    assert pd.read_csv(out / "manifest.csv")["subject"].tolist() == ["s0"]
    assert (out / "s0" / "SUV.nii.gz").exists()
    assert invoke(script, "--root", root, "--outdir", out).exit_code == 2
