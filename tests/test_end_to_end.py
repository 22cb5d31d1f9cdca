"""The README's path from DICOM to the table, on six coarse phantoms: every script as a user starts it."""

import json

import nibabel
import pandas as pd
import pytest


@pytest.mark.slow
def test_from_dicom_to_the_table(run_script, tmp_path):
    root, out, table = tmp_path / "cohort", tmp_path / "out", tmp_path / "table"
    runs = {stage: tmp_path / f"smoke-{stage}-edm" for stage in ("global", "sr")}

    def run(script, *arguments):
        process = run_script(script, *arguments)
        assert process.returncode == 0, f"{script}: {process.stderr[-3000:]}"
        return process.stdout

    cohort = ("--root", root)
    run("0_Preprocess/0_make_phantom_cohort.py", *cohort, "--subjects", 6, "--format", "dicom", "--voxel-mm", 10)
    run("0_Preprocess/1_dicom_to_metadata.py", *cohort, "--test-fraction", 0.5)
    run("0_Preprocess/2_dicom_to_nifti.py", *cohort, "--voxel-mm", 15)
    run("0_Preprocess/3_segment_organs.py", *cohort, "--backend", "given")
    run("0_Preprocess/4_crop_torso.py", *cohort, "--field-mm", 480)
    run("0_Preprocess/5_fit_axial_extent.py", *cohort)
    run("0_Preprocess/6_pack_training_set.py", *cohort, "--shape", 32, 32, 48)
    subjects = pd.read_csv(root / "cohort.csv")
    assert len(subjects) == 6
    assert set(subjects["split"]) == {"train", "test"}

    for stage, outdir in runs.items():
        run("1_Trainings/train_totalgen.py", "--preset", f"smoke-{stage}-edm", *cohort, "--outdir", outdir)
    run("1_Trainings/train_segmenter.py", *cohort, "--outdir", tmp_path / "segmenter", "--preset", "smoke")

    weights = [f"{runs[stage]}/ema-0.100.safetensors" for stage in runs]
    generate = ("--preset", "smoke", "--global-weights", weights[0], "--sr-weights", weights[1], "--outdir", out)
    assert "TFLOP" in run("2_Tests/generate_petct.py", *generate, "--set", "precision=float32", "--dry-run")
    assert not out.exists()
    run("2_Tests/generate_petct.py", *generate, "--cohort", root / "cohort.csv", "--split", "test")
    manifest = pd.read_csv(out / "manifest.csv")
    wanted = subjects[subjects["split"] == "test"]
    assert sorted(manifest["subject"]) == sorted(wanted["subject"])
    line = json.loads((root / "axial_extent.json").read_text())
    for row in manifest.itertuples():
        shape = nibabel.load(out / row.subject / "CT.nii.gz").shape
        expected_mm = line["slope_mm_per_m"] * row.height_m + line["intercept_mm"]
        assert shape[:2] == (32, 32)
        assert shape[2] * 15 == pytest.approx(expected_mm, abs=8)  # half a voxel

    segmenter = tmp_path / "segmenter" / "segmenter.safetensors"
    run("3_Evaluations/1_segment_generated.py", "--root", out, "--weights", segmenter)
    run("3_Evaluations/2_measure_organs.py", *cohort)
    run("3_Evaluations/2_measure_organs.py", "--root", out)
    compare = ("--reference", f"Phantom={root}", "--candidate", f"EDM={out}", "--outdir", table)
    printed = run("3_Evaluations/3_compare_cohorts.py", *compare)
    assert printed.strip() in (table / "table1.md").read_text()
    assert "phantom: not evidence about patients" in printed
    assert "liver" in printed.lower()
    assert (table / "violins.png").stat().st_size > 10_000
