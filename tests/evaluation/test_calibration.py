"""A spread that is right lies on the diagonal; one that is half as large as it should be lies a factor of two above."""

import numpy as np
import pytest

from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.calibration import Maps, calibrate

PATTERNS = ("{}/truth.nii.gz", "{}/mean.nii.gz", "{}/std.nii.gz")


def cohort(tmp_path, factor=1.0, samples=4):
    random = np.random.default_rng(0)
    for subject in "ab":
        level = random.uniform(0.1, 2.0, (24, 24, 24))
        draws = 3 + level * random.standard_normal((samples + 1, 24, 24, 24))
        made = dict(truth=draws[0], mean=draws[1:].mean(0), std=factor * level)
        for name, voxels in made.items():
            write_nifti(tmp_path / subject / f"{name}.nii.gz", Volume(voxels.astype(np.float32), np.eye(4)))
    return Maps(*(str(tmp_path / pattern) for pattern in PATTERNS), samples)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_predicted_is_compared_with_observed(tmp_path, factor):
    table = calibrate(cohort(tmp_path, factor), ["a", "b"], tmp_path / "out")
    ratio = (table["observed"] / table["predicted"])[table["voxels"] > 1000]
    assert len(ratio) > 4
    assert ratio.to_numpy() == pytest.approx(1 / factor, rel=0.08)
    assert table["voxels"].sum() == 2 * 24**3
    assert (tmp_path / "out/calibration.png").stat().st_size > 5000


def test_one_sample_has_no_spread(tmp_path):
    with pytest.raises(InputError, match="samples is 1; a standard deviation needs two"):
        calibrate(cohort(tmp_path, samples=1), ["a"], tmp_path / "out")
