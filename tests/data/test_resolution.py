"""Subsampling and interpolation respect the phase; the stretched axis comes back."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from totalgen.data.resolution import (
    CENTRE,
    PHASES,
    bilateral_filter,
    missing,
    phase_offsets,
    position,
    smoothed,
    stretch,
    subsample,
    upsample,
)


def ramp(shape, slope=(1.0, -2.0, 0.5)):
    grids = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    return sum(a * g for a, g in zip(slope, grids, strict=True))[None]


def test_the_64_phases_partition_the_volume():
    volume = torch.arange(8 * 12 * 16).reshape(1, 8, 12, 16)
    values = torch.cat([subsample(volume, phase).flatten() for phase in range(PHASES)])
    assert torch.equal(values.sort().values, volume.flatten())


@pytest.mark.parametrize("phase", [0, 27, 63])
def test_a_linear_ramp_survives_subsampling_and_upsampling_inside(phase):
    """Only a phase-true interpolation maps a ramp onto itself; a wrong phase shifts it."""
    volume = ramp((16, 20, 24))
    back = upsample(subsample(volume, phase), phase_offsets(phase), (0, 0, 0), volume.shape[1:])
    inside = (slice(None), *[slice(4, -4)] * 3)
    assert torch.allclose(back[inside], volume[inside], atol=1e-4)


def test_upsampled_volume_equals_the_samples_where_they_lie():
    volume = torch.randn(2, 16, 16, 16)
    back = upsample(subsample(volume, 37), phase_offsets(37), (0, 0, 0), (16, 16, 16))
    assert torch.allclose(subsample(back, 37), subsample(volume, 37), atol=1e-6)


def test_upsample_agrees_with_an_independent_interpolator():
    low = torch.randn(1, 5, 6, 7)
    at = np.stack(np.meshgrid(*[(np.arange(n * 4) - 1.5) / 4 for n in (5, 6, 7)], indexing="ij"))
    expected = ndimage.map_coordinates(low[0].numpy(), at, order=1, mode="nearest")
    assert np.allclose(upsample(low, CENTRE, (0, 0, 0), (20, 24, 28))[0], expected, atol=1e-5)


def test_a_patch_is_a_cut_of_the_whole():
    low = torch.randn(2, 4, 4, 4)
    whole = upsample(low, (1, 2, 3), (0, 0, 0), (16, 16, 16))
    assert torch.equal(upsample(low, (1, 2, 3), (3, 5, 7), (6, 7, 8)), whole[:, 3:9, 5:12, 7:15])


@pytest.mark.parametrize("offsets", [(0, 0, 0), (1, 2, 3), CENTRE])
def test_a_smooth_volume_lacks_what_was_taken_from_it(offsets):
    """What a field of low frequency took away comes back; the box of a patch and the whole agree inside."""
    at = np.stack(np.meshgrid(*[np.linspace(0, 2, n) for n in (48, 40, 56)], indexing="ij"))
    high = torch.from_numpy(np.stack([np.sin(at.sum(0)), np.cos(at.prod(0) / 3)])).float()
    places = np.stack(np.meshgrid(*[offset + np.arange(n) * 4 for offset, n in zip(offsets, (12, 10, 14), strict=True)],
                                  indexing="ij"))  # fmt: skip
    low = torch.from_numpy(np.stack([ndimage.map_coordinates(each, places, order=1) for each in high.numpy()]))
    assert missing(high, low, offsets, (0, 0, 0), 0.7).abs().max() < 1e-5  # it is what it was taken from
    taken = torch.from_numpy(0.3 + 0.1 * np.sin(at[:1] + 1)).float()
    lacking = missing(high - taken, low, offsets, (0, 0, 0), 0.7)
    assert (lacking - taken).abs().max() < 0.02
    inside = missing((high - taken)[:, 6:38, 3:36, 9:50], low, offsets, (6, 3, 9), 0.7)
    assert (inside - lacking[:, 6:38, 3:36, 9:50])[:, 12:-12, 12:-12, 12:-12].abs().max() < 1e-4


def test_a_smoothed_point_is_a_gaussian_and_a_constant_stays():
    point = torch.zeros(1, 25, 27, 29)
    point[0, 12, 13, 14] = 1
    expected = ndimage.gaussian_filter(point[0].numpy(), 1.5, mode="constant", truncate=8)
    assert np.abs(smoothed(point, 1.5)[0].numpy() - expected).max() < 1e-6
    assert torch.allclose(smoothed(torch.full((2, 4, 5, 6), 0.3), 1.5), torch.full((2, 4, 5, 6), 0.3))


def test_like_neighbours_become_even_and_a_border_stays():
    """Where all are alike it is a Gaussian of 27 voxels; a plateau keeps its level, and its noise goes."""
    random = np.random.default_rng(0)
    volume = random.uniform(0, 9, (7, 8, 9))
    near = np.exp(-(np.stack(np.meshgrid(*[[-1, 0, 1]] * 3)) ** 2).sum(0) / (2 * 1.5**2))
    sums = [ndimage.convolve(each, near, mode="constant") for each in (volume, np.ones_like(volume))]
    assert np.allclose(bilateral_filter(volume, 1.5, 1e9), sums[0] / sums[1])
    assert np.allclose(bilateral_filter(volume, 1.5, 1e-9), volume)
    plateaus = np.where(np.arange(8)[None, :, None] < 4, 1.0, 20.0) + np.zeros((7, 1, 9))
    assert np.allclose(bilateral_filter(plateaus, 1.5, 0.4), plateaus, rtol=1e-4)
    noisy = plateaus * random.uniform(0.9, 1.1, plateaus.shape)
    even = bilateral_filter(noisy, 1.5, 0.4)
    assert np.std(even / plateaus) < 0.3 * np.std(noisy / plateaus)
    assert (even / plateaus).mean() == pytest.approx(1, abs=0.01)


def test_a_box_between_low_resolution_voxels_lacks_nothing():
    assert not missing(torch.ones(2, 8, 8, 3), torch.zeros(2, 3, 3, 3), CENTRE, (0, 0, 6), 0.7).any()
    assert missing(torch.ones(2, 8, 8, 1), torch.zeros(2, 3, 3, 3), (0, 0, 0), (0, 0, 4), 0.7).any()


def test_what_is_missing_is_averaged_over_neighbours():
    low = torch.randn(1, 12, 12, 12)
    high = torch.zeros(1, 48, 48, 48)
    exact, smooth = (missing(high, low, (0, 0, 0), (0, 0, 0), width) for width in (1e-3, 1.5))
    assert torch.allclose(subsample(exact, 0), low, atol=1e-5)
    expected = ndimage.gaussian_filter(low[0].numpy(), 1.5, mode="constant", truncate=8)
    expected /= ndimage.gaussian_filter(np.ones((12, 12, 12)), 1.5, mode="constant", truncate=8)
    assert np.allclose(subsample(smooth, 0)[0], expected, atol=1e-5)


def test_position_runs_from_minus_one_to_one_and_patches_agree_with_the_whole():
    whole = position((0, 0, 0), (8, 10, 12), (8, 10, 12))
    assert whole[:, 0, 0, 0].tolist() == [-1, -1, -1]
    assert torch.allclose(whole[:, -1, -1, -1], torch.ones(3))
    assert torch.allclose(position((2, 3, 4), (4, 4, 4), (8, 10, 12)), whole[:, 2:6, 3:7, 4:8])


def test_stretching_there_and_back_keeps_a_smooth_volume_and_its_extent():
    z = np.linspace(0, 3, 120, dtype=np.float32)
    volume = np.sin(z)[None, None].repeat(2, 0)
    back = stretch(stretch(volume, 128), 120)
    assert back.shape == volume.shape
    assert np.abs(back - volume)[..., 2:-2].max() < 1e-3
    ramp = (np.arange(10, dtype=np.float32) + 0.5)[None, None] / 10  # face-to-face coordinates
    assert np.allclose(stretch(ramp, 20)[0, 0, 1:-1], (np.arange(20)[1:-1] + 0.5) / 20, atol=1e-6)
