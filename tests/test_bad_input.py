"""What a user can get wrong ends in one line that names it and its cure, exit code 2, and loses nothing."""

import pandas as pd
import pytest

from totalgen.data.archive import pack
from totalgen.data.recipes import PetCt

ONE = ("--sex", "F", "--age", 60, "--weight-kg", 66)
TRAIN = "1_Trainings/train_totalgen.py"
GENERATE = "2_Tests/generate_petct.py"


@pytest.fixture(scope="module")
def packed(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"))
    pack(root, PetCt(shape=(16, 16, 24)))
    return root


def test_height_in_metres(refused, tmp_path):
    line = refused(GENERATE, *ONE, "--height-cm", 1.65, "--outdir", tmp_path)
    assert "1.65 cm" in line
    assert "write 165" in line


def test_a_subject_without_its_weight(refused, tmp_path):
    assert "--weight-kg" in refused(GENERATE, "--sex", "F", "--age", 60, "--height-cm", 165, "--outdir", tmp_path)


def test_weights_that_are_not_there(refused, tmp_path):
    arguments = (*ONE, "--height-cm", 165, "--outdir", tmp_path, "--global-weights", tmp_path / "none.safetensors")
    assert "none.safetensors: no such weights file" in refused(GENERATE, *arguments)


def test_unknown_preset_and_unknown_key(refused, packed, tmp_path):
    assert 'Did you mean "smoke-global-edm"' in refused(
        TRAIN, "--preset", "smoke-global-emd", "--root", packed, "--outdir", tmp_path
    )
    assert 'Did you mean "channels"' in refused(
        TRAIN, "--preset", "smoke-global-edm", "--set", "chanels=8", "--root", packed, "--outdir", tmp_path
    )


def test_a_key_that_no_generation_has(refused, tmp_path):
    one = (*ONE, "--height-cm", 165, "--outdir", tmp_path)
    assert 'Did you mean "slab"' in refused(GENERATE, *one, "--set", "slb=96")


def test_an_archive_of_another_shape_than_the_preset_expects(refused, packed, tmp_path):
    line = refused(TRAIN, "--preset", "smoke-global-edm", "--root", packed, "--outdir", tmp_path / "run")
    assert "16×16×24 voxels, the preset expects 32×32×48" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("0_Preprocess/1_dicom_to_metadata.py", ()),
        ("0_Preprocess/4_crop_torso.py", ()),
        ("0_Preprocess/6_pack_training_set.py", ()),
        (TRAIN, ("--preset", "smoke-global-edm", "--outdir", "unused")),
        ("3_Evaluations/2_measure_organs.py", ()),
    ],
)
def test_a_missing_folder(refused, tmp_path, script, arguments):
    assert "nowhere" in refused(script, "--root", tmp_path / "nowhere", *arguments)


def test_an_empty_cohort(refused, tmp_path):
    pd.DataFrame(columns=["subject", "sex", "age_years", "height_m", "weight_kg"]).to_csv(
        tmp_path / "cohort.csv", index=False
    )
    assert "lists no subject" in refused(GENERATE, "--cohort", tmp_path / "cohort.csv", "--outdir", tmp_path / "out")
    (tmp_path / "dicom").mkdir()
    assert "holds no DICOM file" in refused("0_Preprocess/1_dicom_to_metadata.py", "--root", tmp_path)
