"""The README's path from DICOM to the table, on six coarse phantoms: every script as a user starts it."""

import json

import nibabel
import pandas as pd
import pytest

from totalgen.data.made_with import fingerprint
from totalgen.weights import load_weights


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
    assert (table / "table1.txt").read_text().strip() in printed
    assert (table / "report.html").stat().st_size > 100_000
    assert "phantom: not evidence about patients" in printed
    assert "liver" in printed.lower()
    assert (table / "violins.png").stat().st_size > 10_000


@pytest.mark.slow
def test_from_phantoms_to_denoised_pet(run_script, tmp_path):
    """docs/pet-denoising.md's path on five coarse phantoms, the samples shared by two processes."""
    root, run_folder, out = tmp_path / "doses", tmp_path / "run", tmp_path / "out"

    def run(script, *arguments, **launch):
        process = run_script(script, *arguments, **launch)
        assert process.returncode == 0, f"{script}: {process.stderr[-3000:]}"
        return process.stdout

    made = ("--subjects", 5, "--voxel-mm", 12, "--spheres", 3, "--dose", 0.1, "--test-fraction", 0.4)
    run("0_Preprocess/0_make_phantom_cohort.py", "--root", root, *made)
    run("0_Preprocess/6_pack_training_set.py", "--root", root, "--recipe", "doses")
    run("1_Trainings/train_pet_denoising.py", "--root", root, "--preset", "smoke-edm", "--outdir", run_folder)
    denoise = ("--preset", "smoke", "--weights", run_folder / "ema-0.100.safetensors", "--cohort", root)
    denoise += ("--dose", 0.1, "--split", "test", "--samples", 2, "--outdir", out)
    run("2_Tests/denoise_pet.py", *denoise, processes=2)
    files = {name: f"{root}/doses/{{}}/{name}.nii.gz" for name in ("SUV", "SUV_0.1", "organs", "spheres")}
    printed = run(
        "3_Evaluations/4_image_quality.py", "--range", 0, 16, "--mask-above", 0.1, "--outdir", tmp_path / "quality",
        "--reference", files["SUV"], "--candidate", f"low={files['SUV_0.1']}", "--organs", files["organs"],
        "--candidate", f"EDM={out}/{{}}/SUV.nii.gz", "--std", f"EDM={out}/{{}}/SUV_std.nii.gz", "--samples", 2,
        "--spheres", files["spheres"],
    )  # fmt: skip
    assert "2 subjects" in printed
    assert {path.name for path in (tmp_path / "quality").iterdir()} >= {"cases.csv", "summary.md", "calibration.png"}
    assert set(pd.read_csv(out / "manifest.csv")["dose"]) == {0.1}


@pytest.mark.slow
def test_from_phantoms_to_mr(run_script, tmp_path):
    """docs/ct-to-mr.md's path on five coarse phantoms: three trainings, the latents packed between them."""
    root, out = tmp_path / "pairs", tmp_path / "out"
    runs = {name: tmp_path / f"smoke-{name}" for name in ("vqvae", "slices", "latent")}
    files = {name: folder / "ema-0.100.safetensors" for name, folder in runs.items()}

    def run(script, *arguments):
        process = run_script(script, *arguments)
        assert process.returncode == 0, f"{script}: {process.stderr[-3000:]}"
        return process.stdout

    def train(name):
        run("1_Trainings/train_ct_to_mr.py", "--preset", f"smoke-{name}", "--root", root, "--outdir", runs[name])

    made = ("--subjects", 5, "--voxel-mm", 12, "--mr", "--test-fraction", 0.4)
    run("0_Preprocess/0_make_phantom_cohort.py", "--root", root, *made)
    run("0_Preprocess/6_pack_training_set.py", "--root", root, "--recipe", "pairs")
    train("vqvae")
    train("slices")
    names = {"slices": "slices", "vqvae": "vqvae", "refiner": "latent"}
    translate = ("2_Tests/translate_ct_to_mr.py", "--preset", "smoke", "--cohort", root)
    translate += tuple(part for n, run_ in names.items() for part in ("--set", f"{n}_weights={files[run_]}"))
    run(*translate, "--stage", "slices", "--outdir", out / "slices")
    run("1_Trainings/encode_latents.py", "--root", root, "--slices", out / "slices", "--vqvae", files["vqvae"])
    run("0_Preprocess/6_pack_training_set.py", "--root", root, "--recipe", "latents")
    train("latent")
    assert load_weights(files["latent"])[1]["data"]["vqvae"] == fingerprint(files["vqvae"])
    run(*translate, "--split", "test", "--outdir", out / "refined")
    candidates = [part for n in ("slices", "refined") for part in ("--candidate", f"{n}={out}/{n}/{{}}/MR.nii.gz")]
    printed = run(
        "3_Evaluations/4_image_quality.py", "--range", 0, 1300, "--mask-above", 100, "--outdir", tmp_path / "quality",
        "--reference", f"{root}/pairs/{{}}/MR.nii.gz", *candidates,
    )  # fmt: skip
    assert "2 subjects" in printed
    assert "neighbouring slices" in printed
