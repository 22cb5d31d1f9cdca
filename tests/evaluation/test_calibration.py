"""A spread that is right is on the diagonal, of however few samples; half as large a one is a factor of two above."""

import numpy as np
import pytest
from scipy import ndimage

from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.calibration import Maps, calibrate

SHAPE = (40, 40, 40)
PATTERNS = ("{}/truth.nii.gz", "{}/mean.nii.gz", "{}/std.nii.gz")


def cohort(tmp_path, factor=1.0, samples=4, flat=False):
    """Two subjects: uptake in smooth spots, noise that rises with it; the reference is one more draw."""
    random = np.random.default_rng(0)
    for subject in "ab":
        spots = np.zeros(SHAPE) if flat else ndimage.gaussian_filter(random.normal(size=SHAPE), 3) * 25
        level = 1 + 6 * np.maximum(spots, 0)
        draws = level + np.sqrt(level) * random.standard_normal((samples + 1, *SHAPE))
        std = draws[1:].std(0, ddof=1) if samples > 1 else 0 * level
        made = dict(truth=draws[0], mean=draws[1:].mean(0), std=factor * std)
        for name, voxels in made.items():
            write_nifti(tmp_path / subject / f"{name}.nii.gz", Volume(voxels.astype(np.float32), np.eye(4)))
    return Maps(*(str(tmp_path / pattern) for pattern in PATTERNS), samples)


@pytest.mark.parametrize("samples", [2, 8])
@pytest.mark.parametrize(("factor", "flat"), [(1.0, False), (1.0, True), (0.5, False)])
def test_predicted_is_compared_with_observed(tmp_path, factor, flat, samples):
    table = calibrate(cohort(tmp_path, factor, samples, flat), ["a", "b"], tmp_path / "out")
    ratio = (table["observed"] / table["predicted"])[table["voxels"] > 0]
    assert len(ratio) == 12
    assert ratio.to_numpy() == pytest.approx(1 / factor, rel=0.06)
    assert table["voxels"].sum() == 2 * np.prod(SHAPE)
    assert table["mean"].is_monotonic_increasing
    assert (tmp_path / "out/calibration.png").stat().st_size > 5000


def test_only_the_mask_counts(tmp_path):
    maps = cohort(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:20, 4:20, 4:20] = 1
    for subject in "ab":
        write_nifti(tmp_path / subject / "mask.nii.gz", Volume(mask, np.eye(4)))
        std = read_nifti(tmp_path / subject / "std.nii.gz")
        std.voxels[30:] = np.nan
        write_nifti(tmp_path / subject / "std.nii.gz", std)
    table = calibrate(maps._replace(mask=str(tmp_path / "{}/mask.nii.gz")), ["a", "b"], tmp_path / "out")
    assert table["voxels"].sum() == 2 * mask.sum()


def test_one_sample_has_no_spread(tmp_path):
    with pytest.raises(InputError, match="samples is 1; a standard deviation needs two"):
        calibrate(cohort(tmp_path, samples=1), ["a"], tmp_path / "out")


def test_volumes_that_cannot_be_compared_are_named_and_no_spread_is_drawn_as_none(tmp_path):
    maps = cohort(tmp_path)
    with pytest.raises(InputError, match="no voxel of 1 subjects is above 1000. Choose another mask"):
        calibrate(maps, ["a"], tmp_path / "out", 1000.0)
    std = read_nifti(tmp_path / "a" / "std.nii.gz")
    write_nifti(tmp_path / "b" / "std.nii.gz", Volume(0 * std.voxels, std.affine))
    assert (calibrate(maps, ["b"], tmp_path / "out")["predicted"] == 0).all()
    std.voxels[3, 3, 3] = np.nan
    write_nifti(tmp_path / "a" / "std.nii.gz", std)
    with pytest.raises(InputError, match=r"a/std.nii.gz: voxels that are compared are no numbers"):
        calibrate(maps, ["a"], tmp_path / "out")
