"""Three arms are trained on as many studies and tested on the same held-out ones."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from totalgen.data.studies import read_studies
from totalgen.data.volume import Volume, moved, read_labels, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.sections import read_section
from totalgen.evaluation.usefulness import check_files, make_arm, test_arm, usefulness_section

test_arm.__test__ = False  # a function of the package, no test


def test_an_arm_is_a_cohort_of_copies_and_lacks_nothing(cohort, tmp_path):
    train = read_studies(cohort, "train")
    make_arm(tmp_path / "arm", train, "organs")
    found = read_studies(tmp_path / "arm", "train")
    assert found["subject"].tolist() == ["s0", "s1", "s2"]
    assert (tmp_path / "arm" / "cropped" / "s1" / "organs.nii.gz").exists()
    with pytest.raises(InputError, match=r"segmented.nii.gz: no such file. Run 3_Evaluations/1_segment"):
        check_files([(train, "organs"), (train, "segmented")])


def test_arms_are_compared_subject_by_subject(cohort):
    held_out = read_studies(cohort)
    truth = iter([read_labels(folder / "organs.nii.gz") for folder in held_out["folder"]])
    rows = test_arm("reference", lambda ct: next(truth), held_out, "organs")
    empty = test_arm("generated", lambda ct: type(ct)(0 * ct.voxels, ct.affine), held_out, "organs")
    section = usefulness_section(pd.DataFrame(rows + empty), ["reference", "generated"])
    assert section.scores[0].result == "mean Dice 1.000"
    assert section.scores[1].result == "mean Dice 0.000, -1.000 from the reference arm (95 % -1.000 to -1.000)"


@pytest.mark.parametrize("asked", [("--device", "cpu"), ("--set", "device=cpu")])
def test_arms_are_trained_and_tested_where_it_is_asked_for(cohort, generated, invoke, tmp_path, monkeypatch, asked):
    devices = []

    def train(root, outdir, preset, settings):
        devices.append(settings.compute.device)

    def load(weights, device=None):
        devices.append(device)
        return SimpleNamespace(run=lambda ct: dict(organs=Volume(np.ones(ct.shape, np.uint8), ct.affine)))

    monkeypatch.setattr("totalgen.training.organ_training.train_segmenter", train)
    monkeypatch.setattr("totalgen.generation.segmenter.Segmenter", SimpleNamespace(load=load))
    for path in (generated / f"g{i}" for i in range(4)):
        shutil.copy(cohort / "cropped" / "s0" / "organs.nii.gz", path / "organs.nii.gz")
    result = invoke(
        "3_Evaluations/8_usefulness.py", "--reference", cohort, "--generated", generated, "--masks", "organs",
        "--preset", "smoke", "--outdir", tmp_path / "out", *asked,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert devices == ["cpu"] * 6


def test_held_out_masks_that_lie_elsewhere_are_refused_before_anything_is_trained(cohort, generated, invoke, tmp_path):
    for path in (generated / f"g{i}" for i in range(4)):
        shutil.copy(cohort / "cropped" / "s0" / "organs.nii.gz", path / "organs.nii.gz")
    file = cohort / "cropped" / "s3" / "organs.nii.gz"
    labels = read_labels(file)
    write_nifti(file, Volume(labels.voxels, moved(labels.affine, (10, 0, 0))))
    asked = ("--reference", cohort, "--generated", generated, "--masks", "organs", "--preset", "smoke")
    result = invoke("3_Evaluations/8_usefulness.py", *asked, "--outdir", tmp_path / "out")
    assert result.exit_code == 2
    assert "organs.nii.gz: its grid" in result.stderr
    assert not (tmp_path / "out" / "arm0").exists()


HELD_OUT = {  # what would be tested on those who were trained on, or fail after trainings → words of the refusal
    "no splits": "table has no column split",
    "the training's split": "trainings take that split",
    "an unknown split": 'no subject of split "tset"',
    "the reference as generated": "s3 of it is a held-out study",
    "true masks of a held-out subject": "s3/organs.nii.gz: no such file",
    "true masks of a training subject": "s0/organs.nii.gz: no such file",
    "masks of a generated study": "g1/segmented.nii.gz: no such file",
    "CT of a held-out subject": "s3/CT.nii.gz: no such file",
    "a setting": "batch",
}


@pytest.mark.parametrize("fault", HELD_OUT)
def test_all_is_refused_before_the_first_training(cohort, generated, refused, tmp_path, monkeypatch, fault):
    monkeypatch.setattr("totalgen.training.organ_training.train_segmenter", lambda *_: pytest.fail("was trained"))
    masks = cohort / "cropped" / "s0" / "organs.nii.gz"
    for folder in (*(generated / f"g{i}" for i in range(4)), *(cohort / "cropped" / f"s{i}" for i in range(4))):
        shutil.copy(masks, folder / "segmented.nii.gz")
    gone, table = HELD_OUT[fault].partition(": no such file"), pd.read_csv(cohort / "cohort.csv")
    if gone[1]:
        (generated if gone[0].startswith("g") else cohort / "cropped").joinpath(gone[0]).unlink()
    if fault == "no splits":
        table.drop(columns="split").to_csv(cohort / "cohort.csv", index=False)
    asked = {"the training's split": ("--held-out", "train"), "an unknown split": ("--held-out", "tset"),
             "the reference as generated": ("--generated", cohort), "a setting": ("--set", "batch=0")}  # fmt: skip
    line = refused(
        "3_Evaluations/8_usefulness.py", "--reference", cohort, "--generated", generated, "--preset", "smoke",
        "--outdir", tmp_path / "out", *asked.get(fault, ()),
    )  # fmt: skip
    assert HELD_OUT[fault] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script_trains_and_tests_all_arms(cohort, generated, invoke, tmp_path):
    for i in range(4):
        shutil.copy(cohort / "cropped" / f"s{i}" / "organs.nii.gz", generated / f"g{i}" / "segmented.nii.gz")
        shutil.copy(cohort / "cropped" / f"s{i}" / "organs.nii.gz", cohort / "cropped" / f"s{i}" / "segmented.nii.gz")
    result = invoke(
        "3_Evaluations/8_usefulness.py", "--reference", cohort, "--generated", generated, "--preset", "smoke",
        "--outdir", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [score.what for score in read_section(tmp_path / "out").scores] == [
        f"usefulness: trained on {name}" for name in ("generated", "reference", "reference, true masks")
    ]
    assert len(pd.read_csv(tmp_path / "out" / "cases.csv")) == 3
