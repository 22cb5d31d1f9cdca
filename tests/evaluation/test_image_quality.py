"""Image quality is its formulas, over the voxels and the subjects that are asked for."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.image_quality import (
    UNDEFINED,
    Files,
    measure_pairs,
    organ_biases,
    quality,
    sphere_recovery,
    summarise,
)
from totalgen.evaluation.sections import read_section

SHAPE = (16, 14, 15)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def test_metrics_are_their_formulas_inside_the_mask():
    random = np.random.default_rng(0)
    reference = random.random(SHAPE) * 8
    mask = np.zeros(SHAPE, bool)
    mask[4:12, 4:10, 4:11] = True
    candidate = np.where(mask, reference + 0.5, 100.0)
    found = quality(reference, candidate, (0.0, 16.0), mask)
    assert found["mae"] == pytest.approx(0.5)
    assert found["nmae"] == pytest.approx(0.5 / reference[mask].mean())
    assert found["psnr_range"] == pytest.approx(20 * np.log10(16 / 0.5))
    assert found["psnr_max"] == pytest.approx(20 * np.log10(reference[mask].max() / 0.5))
    same = quality(reference, reference, (0.0, 16.0), mask)
    assert same["ssim"] == pytest.approx(1)
    assert same["psnr_range"] == np.inf


def test_slices_that_do_not_fit_and_slices_that_are_blurred_are_seen():
    random = np.random.default_rng(0)
    reference, mask = random.random(SHAPE), np.ones(SHAPE, bool)
    shifts = np.where(np.arange(SHAPE[2]) % 2, 1.0, 0.0)
    assert quality(reference, reference + shifts, (0.0, 1.0), mask)["slice_ratio"] > 2
    assert quality(reference, 0.5 * reference, (0.0, 1.0), mask)["slice_ratio"] == pytest.approx(0.5)
    assert np.isnan(quality(reference[..., :1], reference[..., :1], (0.0, 1.0), mask[..., :1])["slice_ratio"])


def test_ssim_agrees_with_its_definition():
    """Wang 2004 with a Gaussian of 1.5 voxels, written out by another library's filter."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(1)
    x, y = random.random((2, 24, 24, 24))

    def mean(values):
        return gaussian_filter(values, 1.5, truncate=3.5)

    c1, c2 = 0.01**2, 0.03**2
    ux, uy = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - ux**2, mean(y * y) - uy**2, mean(x * y) - ux * uy
    expected = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
    mask = np.zeros(x.shape, bool)
    mask[8:16, 8:16, 8:16] = True
    assert quality(x, y, (0.0, 1.0), mask)["ssim"] == pytest.approx(expected[mask].mean(), abs=1e-6)


def test_a_volume_too_thin_for_ssim_has_none():
    flat = np.random.default_rng(0).random((16, 16, 3))
    assert np.isnan(quality(flat, flat + 1, (0, 1), np.ones(flat.shape, bool))["ssim"])


def test_organ_bias_and_noise_of_the_liver():
    organs = np.zeros(SHAPE, np.uint8)
    organs[3:13, 3:11, 3:12] = ORGANS["liver"]
    truth = np.where(organs > 0, 2.0, 0.5)
    made = truth * 1.1
    made[7, 7, 7] = 4.4
    volumes = [Volume(v.astype(np.float32), AFFINE) for v in (truth, made)]
    found = organ_biases(*volumes, Volume(organs, AFFINE))
    count = np.count_nonzero(organs)
    assert found["liver_max_%"] == pytest.approx(120)
    assert found["liver_mean_%"] == pytest.approx(10 + 110 / count, abs=1e-3)
    inner = made[5:11, 5:9, 5:10]
    assert found["liver_cov"] == pytest.approx(inner.std() / inner.mean(), rel=1e-5)


def test_contrast_recovery_of_a_halved_sphere_is_a_half():
    spheres = np.zeros(SHAPE, np.uint8)
    spheres[3:5, 3:5, 3:5], spheres[9:13, 8:11, 9:12] = 1, 2
    truth = np.where(spheres > 0, 6.0, 1.0)
    made = np.where(spheres == 1, 3.5, truth)
    volumes = [Volume(v.astype(np.float32), AFFINE) for v in (truth, made)]
    found = sphere_recovery(*volumes, Volume(spheres, AFFINE))
    assert found["small_contrast_recovery"] == pytest.approx(0.5)
    assert found["contrast_recovery"] == pytest.approx(0.75)
    assert sphere_recovery(*volumes, Volume(0 * spheres, AFFINE)) == {}


def test_what_is_not_defined_is_no_number_and_ends_nothing():
    """A reference of 0, CT below 0, a sphere without contrast or background; every reason has a column."""
    zero, one, mask = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32), np.ones(SHAPE, bool)
    found = quality(zero, one, (0.0, 16.0), mask)
    assert np.isnan([found[name] for name in ("psnr_max", "nmae", "slice_ratio")]).all()
    assert (found["psnr_range"], found["mae"]) == (pytest.approx(20 * np.log10(16)), 1)
    assert found["ssim"] == pytest.approx(0.16**2 / (1 + 0.16**2))
    assert np.isnan(quality(-one, zero, (-500.0, 500.0), mask)["psnr_max"])
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:13, 3:11, 3:12] = ORGANS["liver"]
    empty, full, organs = (Volume(voxels, AFFINE) for voxels in (zero, one, labels))
    biases = organ_biases(empty, full, organs) | organ_biases(full, empty, organs)
    assert set(biases) == {"liver_mean_%", "liver_max_%", "liver_cov"}
    assert np.isnan(organ_biases(empty, full, organs)["liver_max_%"])
    assert np.isnan(biases["liver_cov"])
    assert biases["liver_mean_%"] == -100
    flat = sphere_recovery(full, empty, Volume((labels > 0).astype(np.uint8), AFFINE))
    everywhere = sphere_recovery(full, empty, Volume(np.ones(SHAPE, np.uint8), AFFINE))
    assert np.isnan([flat["contrast_recovery"], everywhere["contrast_recovery"]]).all()
    columns = [*found, *biases, *flat]
    assert all(any(name.endswith(ending) for name in columns) for ending in UNDEFINED)


@pytest.fixture
def pairs(tmp_path):
    """Eight subjects; candidate "far" is off by 1, "near" by 0.2 on average; the last has another grid."""
    random = np.random.default_rng(0)
    for n in range(8):
        reference = random.random(SHAPE) * 4
        for name, error in (("reference", 0.0), ("far", 1.0), ("near", 0.2 + 0.02 * (n % 4))):
            affine = AFFINE * (2 if n == 7 and name == "near" else 1)
            write_nifti(tmp_path / name / f"s{n}.nii.gz", Volume((reference + error).astype(np.float32), affine))
    return tmp_path


def files(root):
    return Files(f"{root}/reference/{{}}.nii.gz", {n: f"{root}/{n}/{{}}.nii.gz" for n in ("far", "near")})


def line_of(text, title):
    """The cells of a row of the summary."""
    return [cell.strip() for cell in next(row for row in text.splitlines() if row.startswith(f"| {title}")).split("|")]


def test_cases_and_their_summary(pairs, tmp_path):
    out = tmp_path / "out"
    cases = measure_pairs(files(pairs), [f"s{n}" for n in range(8)], (0.0, 16.0), out)
    assert len(cases) == 14
    assert pd.read_csv(out / "failures.csv")["subject"].tolist() == ["s7"]
    text = summarise(cases, out, 1)
    assert "7 subjects" in text
    assert "1 more could not be compared, see failures.csv" in text
    summary = pd.read_csv(out / "summary.csv").set_index(["measure", "candidate"])
    near = summary.loc[("mae", "near")]
    errors = np.array([0.2, 0.22, 0.24, 0.26, 0.2, 0.22, 0.24])
    assert near["mean"] == pytest.approx(errors.mean(), abs=1e-4)
    interval = stats.ttest_1samp(errors - 1, 0).confidence_interval()
    assert near[["difference_low", "difference_high"]].tolist() == pytest.approx(list(interval), abs=1e-5)
    assert [cell.endswith("*") for cell in line_of(text, "MAE")[2:4]] == [False, True]
    few = summarise(cases[cases["subject"] < "s5"], tmp_path / "out")
    assert "*" not in "".join(line_of(few, "MAE"))  # a clear difference, but of five pairs


@pytest.mark.parametrize("partner", [2.0, np.nan, np.inf])
def test_a_failure_is_counted_and_gives_no_star(partner, tmp_path):
    """The Hausdorff distance of an organ that B does not find is infinite; the other six pairs favour B."""
    cases = pd.DataFrame(
        [dict(subject=f"s{n}", candidate=c, mae=1.0, hd95_mm=d) for n in range(7) for c, d in (("A", 2.0), ("B", 1.0))]
    )
    assert line_of(summarise(cases, tmp_path), "hd95")[2:4] == ["2 ± 0", "1 ± 0\\*"]
    cases.loc[12:, "hd95_mm"] = [partner, np.inf]
    text = summarise(cases, tmp_path)
    assert line_of(text, "hd95")[3] == "1 ± 0 (n = 6, 1 infinite)"
    row = pd.read_csv(tmp_path / "summary.csv").set_index(["measure", "candidate"]).loc[("hd95_mm", "B")]
    assert (row["n"], row["infinite"]) == (6, 1)
    assert row[["difference", "difference_low", "difference_high"]].isna().all()


def test_number_mean_and_interval_are_of_the_same_subjects(tmp_path):
    cases = pd.DataFrame(
        [dict(subject=f"s{n}", candidate=c, mae=v + n, ssim=np.nan) for n in range(8) for c, v in (("A", 2), ("B", 3))],
    ).astype(dict(mae=float))
    cases.loc[[0, 3], "mae"] = np.nan  # A of s0, B of s1
    text = summarise(cases, tmp_path)
    assert line_of(text, "SSIM")[2:4] == ["– (n = 0)"] * 2
    summary = pd.read_csv(tmp_path / "summary.csv").set_index("measure").loc["mae"]
    assert summary["n"].tolist() == [6, 6]
    assert summary["mean"].tolist() == [2 + 4.5, 3 + 4.5]
    assert summary["difference_low"].tolist() == [0, 1]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["reference", "near"])
def test_a_voxel_that_is_no_number_is_named_where_it_is_compared(pairs, tmp_path, name, wrong):
    path = pairs / name / "s1.nii.gz"
    volume = read_nifti(path)
    volume.voxels[0, 0, 0] = wrong
    write_nifti(path, volume)
    cases = measure_pairs(files(pairs), ["s0", "s1"], (0.0, 16.0), tmp_path / "out")
    assert cases["subject"].tolist() == ["s0", "s0"]
    error = pd.read_csv(tmp_path / "out" / "failures.csv")["error"].item()
    assert error == f"{path}: 1 of the voxels that are compared are no numbers. Correct it, or mask them."
    mask = np.ones(SHAPE, np.uint8)
    mask[:8] = 0
    for subject in ("s0", "s1"):
        write_nifti(tmp_path / "mask" / f"{subject}.nii.gz", Volume(mask, AFFINE))
    masked = files(pairs)._replace(mask=f"{tmp_path}/mask/{{}}.nii.gz")
    cases = measure_pairs(masked, ["s0", "s1"], (0.0, 16.0), tmp_path / "out").set_index(["subject", "candidate"])
    assert np.isfinite(cases.loc[("s1", "near"), ["psnr_range", "psnr_max", "mae", "nmae"]].to_numpy(float)).all()


def test_who_cannot_be_compared_is_not_calibrated_either(pairs, tmp_path, invoke):
    for subject in ("s0", "s1"):
        write_nifti(pairs / "std" / f"{subject}.nii.gz", Volume(np.ones(SHAPE, np.float32), AFFINE))
    volume = read_nifti(pairs / "near" / "s1.nii.gz")
    volume.voxels[0, 0, 0] = np.nan
    write_nifti(pairs / "near" / "s1.nii.gz", volume)
    result = invoke(
        "3_Evaluations/4_image_quality.py", "--reference", f"{pairs}/reference/{{}}.nii.gz", "--range", 0, 16,
        "--candidate", f"near={pairs}/near/{{}}.nii.gz", "--std", f"near={pairs}/std/{{}}.nii.gz", "--samples", 2,
        "--outdir", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path / "out" / "calibration.csv")["voxels"].sum() == np.prod(SHAPE)


def test_why_a_measure_is_not_defined_is_said(tmp_path):
    for name, value in (("reference", 0.0), ("far", 1.0), ("near", 0.5)):
        write_nifti(tmp_path / name / "s0.nii.gz", Volume(np.full(SHAPE, value, np.float32), AFFINE))
    cases = measure_pairs(files(tmp_path), ["s0"], (0.0, 16.0), tmp_path / "out")
    assert "nmae: the reference is 0 throughout" in cases["note"][0]
    assert "(cases.csv): nmae: the reference is 0 throughout." in summarise(cases, tmp_path / "out")


def test_the_script_compares_what_is_complete_and_names_what_is_not(pairs, tmp_path, invoke):
    script = "3_Evaluations/4_image_quality.py"
    arguments = ["--reference", f"{pairs}/reference/{{}}.nii.gz", "--range", 0, 16, "--outdir", tmp_path / "out"]
    (pairs / "far" / "s0.nii.gz").unlink()
    result = invoke(script, *arguments, "--candidate", f"far={pairs}/far/{{}}.nii.gz", "--mask-above", 0.5)
    assert result.exit_code == 0, result.output
    assert "1 of 8 subjects are left out" in result.stderr
    assert "| MAE |" in result.stdout
    (pairs / "cohort.csv").write_text("subject,split\ns1,train\ns2,test\n")
    more = ["--cohort", pairs / "cohort.csv", "--split", "test"]
    assert "1 subjects" in invoke(script, *arguments, "--candidate", f"far={pairs}/far/{{}}.nii.gz", *more).stdout
    for wrong, words in (
        (["--candidate", f"far={pairs}/far/s1.nii.gz"], "does not contain {} once"),
        (["--candidate", f"x={pairs}/none/{{}}.nii.gz"], "no subject has all files"),
    ):
        result = invoke(script, *arguments, *wrong)
        assert result.exit_code == 2
        assert words in result.stderr


def test_options_that_cannot_be_followed_are_refused_before_anything_is_measured(pairs, tmp_path, invoke):
    asked = ["3_Evaluations/4_image_quality.py", "--reference", f"{pairs}/reference/{{}}.nii.gz", "--range", 0, 16]
    asked += ["--candidate", f"far={pairs}/far/{{}}.nii.gz", "--outdir", tmp_path / "out"]
    for wrong, words in (
        (["--picture", "s9"], "--picture s9 is none of the"),
        (["--given", "CT"], "does not contain {} once"),
        (["--given", f"CT={pairs}/none/{{}}.nii.gz", "--picture", "s1"], "no subject has all files"),
        (["--std", f"near={pairs}/far/{{}}.nii.gz"], 'names "near", which is no --candidate'),
        (["--std", f"far={pairs}/far/{{}}.nii.gz"], "--samples is 1; a standard deviation needs two"),
        (["--split", "test"], "--split test is of a table. Give it with --cohort"),
    ):
        result = invoke(*asked, *wrong)
        assert result.exit_code == 2
        assert words in result.stderr
        assert not (tmp_path / "out" / "cases.csv").exists()
    for n in range(4):
        write_nifti(tmp_path / "other" / f"s{n}.nii.gz", Volume(np.zeros((4, 4, 4), np.float32), AFFINE))
    result = invoke(*asked, "--given", f"CT={tmp_path}/other/{{}}.nii.gz", "--picture", "s1")
    assert result.exit_code == 2
    assert "its grid (4, 4, 4) is not that of the reference" in result.stderr


def test_an_empty_mask_is_refused(pairs, tmp_path):
    with pytest.raises(InputError, match="no subject could be compared"):
        measure_pairs(files(pairs), ["s0"], (0.0, 16.0), tmp_path / "out", above=99.0)


def test_labels_of_a_candidate_are_compared_and_the_result_is_a_section_of_the_report(pairs, tmp_path, invoke):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:13, 3:11, 3:12] = ORGANS["liver"]
    for n in range(3):
        write_nifti(tmp_path / "true" / f"s{n}.nii.gz", Volume(labels, AFFINE))
        write_nifti(tmp_path / "made" / f"s{n}.nii.gz", Volume(np.roll(labels, n, 0), AFFINE))
    arguments = ["--reference", f"{pairs}/reference/{{}}.nii.gz", "--candidate", f"far={pairs}/far/{{}}.nii.gz"]
    arguments += ["--range", 0, 16, "--outdir", tmp_path / "out", "--labels", f"far={tmp_path}/made/{{}}.nii.gz"]
    script = "3_Evaluations/4_image_quality.py"
    assert invoke(script, *arguments).exit_code == 2
    result = invoke(script, *arguments, "--organs", f"{tmp_path}/true/{{}}.nii.gz")
    assert result.exit_code == 0, result.output
    cases = pd.read_csv(tmp_path / "out" / "cases.csv").set_index("subject")
    assert cases.loc["s0", ["liver_dice", "liver_hd95_mm", "liver_surface_dice"]].tolist() == [1, 0, 1]
    assert cases.loc["s2", "liver_dice"] == pytest.approx(0.8)
    section = read_section(tmp_path / "out")
    assert section.scores[0].what == "image quality: far"
    assert section.scores[0].n == "3"
