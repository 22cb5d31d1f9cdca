"""Distances between cohorts are their formulas; a cohort like the reference is at the floor, another is above it."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from sklearn.metrics.pairwise import polynomial_kernel

from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.sections import read_section
from totalgen.evaluation.volume_fidelity import (
    BANDS,
    FEATURE,
    columns_of,
    describe_study,
    fidelity_section,
    figures_of,
    frechet,
    histogram_distance,
    kernel_distance,
    read_features,
    spectrum,
)
from totalgen.generation.bottleneck import bottleneck_features
from totalgen.generation.segmenter import Segmenter
from totalgen.models.organ_network import segmentation_network

RANDOM = np.random.default_rng(0)


def test_the_frechet_distance_of_normal_samples_is_that_of_their_distributions():
    a, b = RANDOM.normal(0, 1, (20_000, 2)), RANDOM.normal(1, 2, (20_000, 2))
    assert frechet(a, b) == pytest.approx(2 * (1**2 + (2 - 1) ** 2), rel=0.03)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_the_kernel_distance_is_unbiased_and_its_formula():
    a, b = RANDOM.normal(size=(8, 5)), RANDOM.normal(0.5, 1, (6, 5))
    aa, bb, ab = (polynomial_kernel(x, y, degree=3) for x, y in ((a, a), (b, b), (a, b)))
    off = [each[~np.eye(len(each), dtype=bool)].mean() for each in (aa, bb)]
    assert kernel_distance(a, b) == pytest.approx(sum(off) - 2 * ab.mean())
    same = [kernel_distance(*RANDOM.normal(size=(2, 10, 5))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(400)  # zero on average, not above it


def test_a_wave_is_in_the_band_of_its_frequency_and_blur_empties_the_high_ones():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    z = np.arange(48)
    wave = np.broadcast_to(np.sin(2 * np.pi * z * 12 / 48), (32, 32, 48)).astype(np.float32)
    assert spectrum(Volume(wave, affine)).argmax() == int(12 / 48 / 0.5 * BANDS)  # a quarter of a cycle per voxel
    noise = RANDOM.standard_normal((32, 32, 48)).astype(np.float32)
    white, blurred = (spectrum(Volume(each, affine)) for each in (noise, ndimage.gaussian_filter(noise, 1)))
    assert np.ptp(white[2:]) < 0.2  # the first two bands hold a few hundred values
    assert blurred[-1] < white[-1] - 1


def studies(n, shift, seed):
    random = np.random.default_rng(seed)
    values = {f"{FEATURE}{i}": random.normal(shift, 1, n) for i in range(6)}
    for name in ("CT", "SUV"):
        values |= {f"spectrum_{name}_{i}": random.normal(shift, 0.1, n) for i in range(BANDS)}
        bins = random.dirichlet(np.arange(1, 51) + 30 * shift, n)
        values |= {f"histogram_{name}_{i}": bins[:, i] for i in range(50)}
    return pd.DataFrame(values)


def test_a_cohort_like_the_reference_is_at_the_floor_and_another_above_it():
    reference = studies(40, 0, 1)
    same, other = (figures_of(reference, studies(20, shift, 2)) for shift in (0, 3))
    assert len(same) == 6
    assert set(same["n"]) == {20}
    assert not same["above_floor"].any()
    assert other["above_floor"].all()
    with pytest.raises(InputError, match="6 reference studies and 3 others"):
        figures_of(reference[:6], reference[:3])


def test_histograms_are_shares():
    a, b = np.array([[0.5, 0.5, 0.0]]), np.array([[0.5, 0.0, 0.5]])
    assert histogram_distance(a, b) == 0.5
    assert columns_of(studies(4, 0, 1), "histogram_CT_").sum(1) == pytest.approx(1)


def test_features_are_those_of_the_coarsest_level(cohort):
    torch.manual_seed(0)
    from totalgen.data.volume import read_nifti

    data = dict(ids=[5], voxel_mm=12.0, sources=["phantom"], encodings={})
    data["encodings"] = {"CT": dict(kind="window", low=-500.0, high=500.0)}
    segmenter = Segmenter(segmentation_network(2, 2), 16, data, torch.device("cpu"))
    folder = cohort / "cropped" / "s0"
    ct, suv = (read_nifti(folder / f"{name}.nii.gz") for name in ("CT", "SUV"))
    found = bottleneck_features(segmenter, ct)
    assert found.shape == (2 * 16,)  # MONAI's network is 16 times as wide at the bottom
    assert np.array_equal(found, bottleneck_features(segmenter, ct))
    row = describe_study(ct, suv, lambda volume: bottleneck_features(segmenter, volume))
    assert sum(name.startswith(FEATURE) for name in row) == 32
    assert sum(value for name, value in row.items() if name.startswith("histogram_SUV")) == pytest.approx(1, abs=1e-4)


def test_the_script_takes_features_of_another_network(cohort, generated, invoke, tmp_path, monkeypatch):
    import totalgen.evaluation.volume_fidelity as module

    monkeypatch.setattr(module, "FEWEST", 2)
    script = "3_Evaluations/7_fidelity.py"
    arguments = ["--reference", f"P={cohort}", "--candidate", f"G={generated}", "--outdir", tmp_path / "out"]
    result = invoke(script, *arguments)
    assert result.exit_code == 0, result.output
    assert len(read_section(tmp_path / "out").scores) == 4
    for name, letter in (("P", "s"), ("G", "g")):
        table = pd.DataFrame(dict(subject=[f"{letter}{n}" for n in range(4)], a=range(4), b=[1, 3, 2, 5]))
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    given = [each for name in "PG" for each in ("--features", f"{name}={tmp_path}/{name}.csv")]
    assert len(invoke(script, *arguments, *given).stdout.splitlines()) == 6 + 2 + 2  # scores, progress, last lines
    assert invoke(script, *arguments, *given[:2]).exit_code == 2
    (tmp_path / "G.csv").write_text("subject,a,b\ng0,1,\n")
    assert "G.csv: row 2 (g0): b is empty" in invoke(script, *arguments, *given).stderr


GOOD = "subject,a,b\ns0,1,2\ns1,3,4\n"
BAD_FEATURES = {  # table → words of the refusal
    "an empty cell": ("subject,a,b\ns0,1,2\ns1,,4\n", r"row 3 \(s1\): a is empty or not finite"),
    "infinity": ("subject,a,b\ns0,1,inf\ns1,3,4\n", r"row 2 \(s0\): b is empty or not finite"),
    "nan": ("subject,a,b\ns0,1,nan\ns1,3,4\n", r"row 2 \(s0\): b is empty or not finite"),
    "a text": ("subject,a,b\ns0,1,2\ns1,3,4 mm\n", r'row 3 \(s1\): b is "4 mm", which is no number'),
    "an empty column": ("subject,a,b\ns0,1,\ns1,3,\n", r"row 2 \(s0\): b is empty or not finite"),
    "an empty cell below a blank row": ("subject,a,b\n\ns0,1,2\ns1,,4\n", r"row 4 \(s1\): a is empty"),
    "a subject twice": (GOOD + "s1,5,6\n", "row 4: subject 's1' is in row 3 already"),
    "a subject without a name": (GOOD + ",5,6\n", "row 4: subject ''"),
    "another column": ("subject,a,c\ns0,1,2\ns1,3,4\n", "column b is in this file or in .*P.csv, not in both"),
    "one column": ("subject,a\ns0,1\ns1,3\n", "column b is in this file or in .*P.csv, not in both"),
    "one column more": ("subject,a,b,c\ns0,1,2,3\ns1,3,4,5\n", "column c is in this file or in"),
    "an index": (",subject,a,b\n0,s0,1,2\n1,s1,3,4\n", "a column without a name"),
    "no numbers": ("subject\ns0\ns1\n", "needs a column subject and columns of numbers"),
    "no subjects": ("a,b\n1,2\n", "needs a column subject and columns of numbers"),
    "no rows": ("subject,a,b\n", "needs a column subject and columns of numbers"),
}


@pytest.mark.parametrize("name", BAD_FEATURES)
def test_features_that_are_no_numbers_of_all_are_refused_by_file_row_and_column(tmp_path, name):
    text, words = BAD_FEATURES[name]
    (tmp_path / "P.csv").write_text(GOOD)
    (tmp_path / "G.csv").write_text(text)
    with pytest.raises(InputError, match=f"G.csv.*{words}"):
        read_features({each: str(tmp_path / f"{each}.csv") for each in "PG"})


def test_features_are_compared_by_their_names(tmp_path):
    (tmp_path / "P.csv").write_text(GOOD)
    (tmp_path / "G.csv").write_text("b,subject,a\n2,s0,1\n4,s1,3\n")
    first, second = read_features({each: str(tmp_path / f"{each}.csv") for each in "PG"}).values()
    assert first.equals(second)


@pytest.fixture
def fidelity(cohort, generated, invoke, tmp_path, monkeypatch):
    """Function (number of a network or None) → Result of the script; features begin with that number."""
    import totalgen.evaluation.volume_fidelity as module

    def features(weights, ct):
        return np.array([float(weights.read_text()), ct.voxels.mean(), ct.voxels.std()])

    monkeypatch.setattr(module, "FEWEST", 2)
    monkeypatch.setattr(module, "REPEATS", 2)
    monkeypatch.setattr(module, "picture", lambda path, tables: path.touch())
    monkeypatch.setattr("totalgen.generation.segmenter.segmenter_of_process", lambda weights, device: weights)
    monkeypatch.setattr("totalgen.generation.bottleneck.bottleneck_features", features)

    def run(weights, *more):
        arguments = ["--reference", f"P={cohort}", "--candidate", f"G={generated}", "--outdir", tmp_path / "out", *more]
        if weights is not None:
            (tmp_path / weights).write_text(weights)
            arguments += ["--weights", tmp_path / weights]
        return invoke("3_Evaluations/7_fidelity.py", *arguments)

    return run


def first_features(root):
    return pd.read_csv(root / "volume_features.csv")["feature_0"].tolist()


def test_features_are_of_the_weights_that_are_named(fidelity, cohort, generated, tmp_path):
    assert fidelity(None).exit_code == 0
    result = fidelity("1")  # measured without features before: measured again
    assert result.exit_code == 0, result.output
    assert first_features(cohort) == first_features(generated) == [1] * 4
    assert len(read_section(tmp_path / "out").scores) == 6
    other = fidelity("2")
    assert other.exit_code == 2
    assert "4 results (s0, s1, s2, …) were made with weights sha256" in other.stderr
    assert f"remove {cohort / 'volume_features.csv'} to measure again." in other.stderr
    assert first_features(cohort) == [1] * 4
    for root in (cohort, generated):
        (root / "volume_features.csv").unlink()
    assert fidelity("2").exit_code == 0
    assert first_features(cohort) == [2] * 4
    without = fidelity(None)
    assert without.exit_code == 0
    assert "Features: none" in read_section(tmp_path / "out").notes[0]
    assert len(read_section(tmp_path / "out").scores) == 4  # no distance of features that were not asked for
    assert "0 subjects done, 4 were done before" in without.output


def test_cohorts_of_other_voxels_are_refused_before_anything_is_measured(fidelity, generated):
    for path in generated.glob("*/*.nii.gz"):
        volume = read_nifti(path)
        write_nifti(path, Volume(volume.voxels[::2, ::2, ::2], volume.affine @ np.diag([2, 2, 2, 1])))
    result = fidelity(None)
    assert result.exit_code == 2
    assert "G: has voxels of 24×24×24 mm, P of 12×12×12. Resample one of the cohorts." in result.stderr
    assert not (generated / "volume_features.csv").exists()


def test_subjects_of_another_split_cannot_bring_features_of_other_weights(fidelity, cohort, generated):
    """Part of a cohort was measured with other weights; the rest would be mixed with it."""
    assert "3 reference studies and 4 others" in fidelity("1", "--split", "train").stderr
    assert first_features(cohort) == [1] * 3
    assert "were made with weights" in fidelity("2").stderr
    assert fidelity("1").exit_code == 0
    assert first_features(cohort) == [1] * 4


@pytest.mark.parametrize("name", ["CT", "SUV"])
def test_a_study_with_a_voxel_that_is_no_number_is_named_and_left_out(fidelity, generated, tmp_path, name):
    assert fidelity(None).exit_code == 0
    table = pd.read_csv(generated / "volume_features.csv")
    path = generated / "g1" / f"{name}.nii.gz"
    volume = read_nifti(path)
    volume.voxels[2, 2, 2] = np.nan
    write_nifti(path, volume)
    for earlier in (False, True):  # a row that an earlier version measured in this file
        if earlier:
            spoilt = table.assign(spectrum_SUV_0=table["spectrum_SUV_0"].mask(table["subject"] == "g1"))
            spoilt.to_csv(generated / "volume_features.csv", index=False)
        result = fidelity(None)
        assert result.exit_code == 0, result.output
        failed = pd.read_csv(generated / "failures.csv")
        assert failed["subject"].tolist() == ["g1"]
        assert f"{name}.nii.gz: 1 voxels are not finite numbers. Repair it." in failed["error"].iloc[0]
        assert "g1" not in pd.read_csv(generated / "volume_features.csv")["subject"].tolist()
        assert np.isfinite(pd.read_csv(tmp_path / "out" / "fidelity.csv")["value"]).all()


def test_a_figure_that_is_no_number_is_never_nothing_seen(tmp_path):
    reference, made = studies(40, 0, 1), studies(20, 0, 2)
    made.loc[3, "spectrum_SUV_0"] = np.nan
    scores = fidelity_section({"EDM": figures_of(reference, made)}, "none", 0, tmp_path / "spectra.png").scores
    limits = {score.what.split(",")[0]: score.limit for score in scores}
    assert limits["power spectrum of SUV"] == "not tested: no finite number"
    assert limits["power spectrum of CT"] == "not above the floor: nothing seen at this number"
