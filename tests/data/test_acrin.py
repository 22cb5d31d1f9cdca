"""Steps 1 to 4 on a real study: ACRIN 6668, subject 042 (lower neck to kidneys)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from totalgen.data.archive import Archive
from totalgen.data.axial_extent import read_axial_extent
from totalgen.data.demographics import Demographics
from totalgen.data.dicom import find_series, read_series
from totalgen.data.metadata import choose, describe_cohort
from totalgen.data.suv import suv_factors
from totalgen.data.volume import read_nifti
from totalgen.generation.cascade import load_stage

REPOSITORY = Path(__file__).resolve().parents[2]
DICOM = REPOSITORY.parent / "shared" / "data" / "acrin_petct" / "dicom"
STEPS = (1, 2, 4, 5, 6)
SUBJECT = "ACRIN-NSCLC-FDG-PET-042"
FACTOR, SUV_MAX = 4.2111e-4, 51.1  # from the study's own factor objects

pytestmark = pytest.mark.skipif(not DICOM.is_dir(), reason="the ACRIN study is not next to the project")


def test_the_study_is_described_from_all_its_series():
    cohort, series, demographics, failures = describe_cohort(DICOM, 0.26, 0)
    row = cohort.iloc[0]
    assert failures == []
    assert (row.subject, row.sex, row.age_years, row.weight_kg) == (SUBJECT, "M", 69, 91)
    assert row.height_m == pytest.approx(1.88)  # only the PET headers state it
    assert demographics.set_index("field").loc["height_m", "source"] == "Patient's Size of PET AC"
    by_name = series.set_index("description")
    assert by_name["chosen"].to_dict() == {"CT IMAGES": "yes", "PET AC": "yes", "PET NAC": "no"}
    assert "PROPCNTS" in by_name.loc["PET NAC", "reason"]


def test_the_suv_factor_is_the_studys_own():
    pet, _, _ = choose(find_series(DICOM)[0])
    volume, headers = read_series(pet.files)
    found = suv_factors(headers, Demographics("M", 69, 1.88, 91))
    assert found.factors == pytest.approx(FACTOR, rel=1e-4)
    assert len({float(h.RescaleSlope) for h in headers}) == 135
    assert (volume.voxels * found.factors).max() == pytest.approx(SUV_MAX, abs=0.1)
    assert found.reference == "series date-time"
    assert "differ by 23 days" in found.warnings[0]  # 1959-12-24 and 1960-01-16: shifted by de-identification


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The study after steps 1, 2, 4, 5 and 6, run as a user runs them (2 mm voxels; nobody has organ labels for it)."""
    root = tmp_path_factory.mktemp("acrin")
    (root / "dicom").symlink_to(DICOM)
    for step in STEPS:
        script = next((REPOSITORY / "0_Preprocess").glob(f"{step}_*.py"))
        subprocess.run([sys.executable, script, "--root", root], check=True, capture_output=True)
    return root


@pytest.mark.slow
def test_the_study_passes_to_the_archive(root):
    row = pd.read_csv(root / "suv.csv").iloc[0]
    assert row["factor"] == pytest.approx(FACTOR, rel=1e-4)
    assert row["suv_max_native"] == pytest.approx(SUV_MAX, abs=0.1)
    ct, suv = (read_nifti(root / "resampled" / SUBJECT / f"{name}.nii.gz") for name in ("CT", "SUV"))
    assert ct.shape == suv.shape == (300, 300, 221)  # 600 mm field, 135 slices of 3.27 mm
    assert ct.voxel_mm == pytest.approx([2, 2, 2])
    assert ct.voxels.min() == -1000
    assert best_shift_mm(ct, suv) == pytest.approx([0, 0, 0], abs=4.7)  # one PET voxel

    crop = pd.read_csv(root / "crop.csv").iloc[0]
    assert not crop["covers_torso"]
    assert crop["z_extent_mm"] == 442
    assert "whole scan is kept" in crop["note"]
    cropped = read_nifti(root / "cropped" / SUBJECT / "CT.nii.gz")
    assert cropped.shape == (224, 224, 221)
    assert "published" in read_axial_extent(root / "axial_extent.json").source
    archive = Archive(root / "training.zarr")
    assert archive.array(0, "high").shape == (2, 224, 224, 384)  # the partial torso is packed like a whole one
    assert 0.9 < archive.array(0, "high")[1].max() <= 1  # a lesion beyond SUV 25 is clipped there


@pytest.mark.slow
def test_a_generated_subject_of_the_same_demographics_is_shown_below_it(root, run_script, tmp_path):
    weights = [REPOSITORY / "Resource" / f"demo-{stage}-edm.safetensors" for stage in ("global", "sr")]
    arguments = ["--preset", "smoke", "--global-weights", weights[0], "--sr-weights", weights[1]]
    arguments += ["--cohort", root / "cohort.csv", "--compare-with", root, "--outdir", tmp_path]
    process = run_script("2_Tests/generate_petct.py", *arguments)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / SUBJECT / "comparison.png").stat().st_size > 10_000
    generated = read_nifti(tmp_path / SUBJECT / "CT.nii.gz")
    line = load_stage(weights[0], "global").data["axial_extent"]
    expected_mm = line["slope_mm_per_m"] * 1.88 + line["intercept_mm"]
    assert generated.shape[2] * generated.voxel_mm[2] == pytest.approx(expected_mm, abs=3)  # half a voxel


def best_shift_mm(ct, suv):
    """Shift of the SUV (mm, [3]) at which liver and spleen of the PET lie best on the soft tissue of the CT."""
    soft = ndimage.gaussian_filter(((ct.voxels > -100) & (ct.voxels < 200)).astype(np.float32), 1.5)[::2, ::2, :160:2]
    warm = np.clip(suv.voxels, 0, 2)[::2, ::2, :160:2]
    spectrum = np.fft.rfftn(soft - soft.mean()) * np.conj(np.fft.rfftn(warm - warm.mean()))
    peak = np.unravel_index(np.fft.irfftn(spectrum, soft.shape, (0, 1, 2)).argmax(), soft.shape)
    return [4.0 * (p if p <= n // 2 else p - n) for p, n in zip(peak, soft.shape, strict=True)]
