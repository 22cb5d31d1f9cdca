import subprocess
import sys
from pathlib import Path

import nibabel
import pandas as pd
import pytest

from totalgen.data.demographics import COLUMNS, read_cohort
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.phantom import phantom_cohort, plan_cohort, write_cohort

SCRIPT = Path(__file__).parents[2] / "0_Preprocess" / "0_make_phantom_cohort.py"
QUICK = dict(seed=3, voxel_mm=12.0)


def files(root):
    return {p.relative_to(root): p.stat().st_mtime_ns for p in sorted(root.rglob("*.nii.gz"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    assert write_cohort(root, 3, **QUICK) == []
    return root


def test_a_third_split_is_taken_from_the_training_subjects_alone():
    plain, three = plan_cohort(200, seed=1), plan_cohort(200, seed=1, validation_fraction=0.1)
    assert three["split"].value_counts().to_dict() == dict(train=128, test=52, validation=20)
    assert ((plain["split"] == "test") == (three["split"] == "test")).all()
    short = plan_cohort(70, seed=1, validation_fraction=0.1)
    assert list(short["split"]) == list(three["split"][:70])


def test_a_longer_cohort_begins_with_the_shorter_one():
    short, long = plan_cohort(7, seed=1), plan_cohort(20, seed=1)
    pd.testing.assert_frame_equal(short.drop(columns="demographics"), long[:7].drop(columns="demographics"))
    assert (plan_cohort(200, seed=1)["split"] == "test").sum() == 52  # 26 % of 200


def test_the_folder_contains_the_documented_files(made):
    table = read_cohort(made / "cohort.csv")
    assert list(table.columns) == list(COLUMNS)
    assert set(table["source"]) == {"phantom"}
    for subject in table["subject"]:
        ct, suv = (read_nifti(made / "resampled" / subject / f"{name}.nii.gz") for name in ("CT", "SUV"))
        organs = read_nifti(made / "given" / subject / "organs.nii.gz", dtype="uint8")
        assert ct.shape == suv.shape == organs.shape
        header = nibabel.load(made / "resampled" / subject / "CT.nii.gz").header
        assert b"phantom, not a patient" in header["descrip"].item()
        truth = pd.read_csv(made / "truth.csv").set_index("subject").loc[subject]
        liver_ml = (organs.voxels == 5).sum() * organs.voxel_ml
        assert truth["liver_volume_ml"] == pytest.approx(liver_ml, rel=1e-5)
    assert not (made / "failures.csv").exists()


def test_the_same_command_again_makes_only_missing_files(made):
    before = files(made)
    missing = Path("resampled/phantom_0002/SUV.nii.gz")
    content = read_nifti(made / missing).voxels
    (made / missing).unlink()
    assert write_cohort(made, 3, **QUICK) == []
    after = files(made)
    assert set(after) == set(before)
    changed = {str(p.parent.name) for p in after if after[p] != before[p]}
    assert changed == {"phantom_0002"}
    assert (read_nifti(made / missing).voxels == content).all()
    assert pd.read_csv(made / "truth.csv")["subject"].is_unique


def test_one_bad_subject_is_recorded_and_the_others_are_made(tmp_path, monkeypatch):
    genuine, bad = phantom_cohort.make_subject, plan_cohort(3, seed=3)["seed"][1]

    def sometimes(demographics, seed, *args):
        if seed == bad:
            raise ValueError("no such torso")
        return genuine(demographics, seed, *args)

    monkeypatch.setattr(phantom_cohort, "make_subject", sometimes)
    assert write_cohort(tmp_path, 3, **QUICK) == ["phantom_0002"]
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert list(failures["subject"]) == ["phantom_0002"]
    assert "no such torso" in failures["error"][0]
    assert list(read_cohort(tmp_path / "cohort.csv")["subject"]) == ["phantom_0001", "phantom_0003"]
    monkeypatch.undo()
    assert write_cohort(tmp_path, 3, **QUICK) == []
    assert len(read_cohort(tmp_path / "cohort.csv")) == 3
    assert not len(pd.read_csv(tmp_path / "failures.csv"))


def test_dicom_cohorts_leave_the_cohort_table_to_the_first_step(tmp_path):
    assert write_cohort(tmp_path, 1, format="dicom", **QUICK) == []
    (patient,) = (tmp_path / "dicom").iterdir()
    assert patient.name.startswith("PETCT_")
    assert len(patient.name) == len("PETCT_") + 10
    assert (tmp_path / "given" / patient.name / "organs.nii.gz").exists()
    assert not (tmp_path / "cohort.csv").exists()
    before = sorted(p.stat().st_mtime_ns for p in patient.rglob("*.dcm"))
    assert write_cohort(tmp_path, 1, format="dicom", **QUICK) == []
    assert sorted(p.stat().st_mtime_ns for p in patient.rglob("*.dcm")) == before


def test_other_settings_need_another_folder(made):
    with pytest.raises(InputError, match="voxel_mm"):
        write_cohort(made, 3, seed=3, voxel_mm=10.0)
    with pytest.raises(InputError, match="cohort_seed"):
        write_cohort(made, 3, seed=4, voxel_mm=12.0)


def test_a_patient_cohort_is_never_overwritten(tmp_path):
    row = dict(subject="a", sex="F", age_years=60, height_m=1.6, weight_kg=60, split="train", source="hospital")
    pd.DataFrame([row]).to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(InputError, match="no phantoms"):
        write_cohort(tmp_path, 1, **QUICK)


def test_the_script_reports_an_error_in_one_line(tmp_path):
    command = [sys.executable, SCRIPT, "--root", tmp_path, "--subjects", "0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines() == ["Error: --subjects is 0; at least 1 is needed."]
