"""The spread of samples is that of what is written, on the grid of what was brought."""

import numpy as np
import pytest

from totalgen.data.volume import Volume, resample
from totalgen.generation.sample_statistics import mean_and_std

MADE = np.diag([4.0, 4.0, 4.0, 1.0])
BROUGHT = np.array([[0, 3.0, 0, 1.0], [2.5, 0, 0, 2.0], [0, 0, -3.0, 28.0], [0, 0, 0, 1]])


def samples(count, affine=MADE):
    random = np.random.default_rng(0)
    return [Volume(random.standard_normal((10, 9, 8)).astype(np.float32), affine) for _ in range(count)]


@pytest.mark.parametrize("affine", [MADE, BROUGHT])
def test_mean_and_standard_deviation_are_of_the_samples_on_that_grid(affine):
    """Between voxels a sample is an average: the interpolated spread of voxels would be too large."""
    made, given = samples(6), Volume(np.zeros((10, 9, 8), np.float32), affine)
    found = mean_and_std("SUV", iter(made), given)
    there = np.stack([resample(each, given.shape, affine, fill=0.0).voxels for each in made]).astype(float)
    assert found["SUV"].voxels == pytest.approx(there.mean(0), abs=1e-6)
    assert found["SUV_std"].voxels == pytest.approx(there.std(0, ddof=1), abs=1e-6)
    assert all(np.array_equal(each.affine, affine) for each in found.values())
    assert {each.voxels.dtype for each in found.values()} == {np.dtype(np.float32)}


def test_one_sample_has_no_spread_and_stays_as_it_is():
    (one,) = samples(1)
    found = mean_and_std("MR", [one], one)
    assert list(found) == ["MR"]
    assert np.array_equal(found["MR"].voxels, one.voxels)
