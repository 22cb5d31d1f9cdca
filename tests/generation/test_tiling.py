"""Windows cover the volume, see their context, and a tiled denoiser is the denoiser."""

import itertools

import pytest
import torch

from totalgen.generation.tiling import TiledDenoiser, tiles, weights
from totalgen.models.networks import UNet
from totalgen.models.processes import Denoiser
from totalgen.models.samplers import sample


def along(size, length, context=0):
    """(start, stop, keep start, keep stop) of windows along one axis, as of the slabs of the cascade."""
    return [
        (t.box.start[0], t.box.start[0] + t.box.shape[0], t.kept.start[0], t.kept.start[0] + t.kept.shape[0])
        for t in tiles((size,), (length,), 2 * context)
    ]


@pytest.mark.parametrize(
    ("size", "length", "context"), [(384, 96, 0), (384, 96, 8), (128, 64, 8), (100, 32, 5), (48, 96, 8)]
)
def test_kept_parts_tile_the_volume_and_windows_stay_inside(size, length, context):
    found = along(size, length, context)
    assert [keep for _, _, keep, _ in found] == [0, *[stop for *_, stop in found[:-1]]]
    assert found[-1][3] == size
    for start, stop, keep_start, keep_stop in found:
        assert 0 <= start <= keep_start < keep_stop <= stop <= size
        assert stop - start == min(length, size)  # memory is bounded by the window


def test_inner_borders_have_the_context_on_both_sides():
    found = along(384, 96, 8)
    for (_, stop, _, keep_stop), (start, _, keep_start, _) in itertools.pairwise(found):
        assert stop - keep_stop >= 8
        assert keep_start - start >= 8


def test_no_context_gives_the_four_slabs_of_the_paper():
    assert [each[:2] for each in along(384, 96)] == [(0, 96), (96, 192), (192, 288), (288, 384)]


@pytest.mark.parametrize(
    ("size", "starts"), [(520, [0, 86, 172, 258, 344, 424]), (612, [0, 86, 172, 258, 344, 430, 516])]
)
def test_windows_of_the_published_denoiser(size, starts):
    assert [t.box.start[2] for t in tiles((192, 288, size), (192, 288, 96), (0, 0, 10))] == starts


def test_a_shift_moves_inner_borders_and_nothing_else():
    plain, shifted = ([t.kept.start[0] for t in tiles((128,), (32,), 16, shift=shift)] for shift in (0, 8))
    assert (plain, shifted) == ([0, 24, 40, 56, 72, 88, 104], [0, 16, 32, 48, 64, 80, 96, 112])


@pytest.mark.parametrize("shape", [(40, 33, 57), (16, 50, 16), (7, 5, 90)])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("shift", [0, 4])
def test_every_voxel_is_kept_once_on_three_axes(shape, stride, shift):
    count = torch.zeros(shape)
    for tile in tiles(shape, (16, 24, 32), 8, stride, shift):
        assert all(start % stride == 0 for start in tile.box.start)
        count[tile.kept.slices] += 1
        assert all(k >= 0 for k in (s.start for s in tile.kept_inside))
    assert (count == 1).all()


def test_an_overlap_that_leaves_no_progress_is_refused():
    with pytest.raises(ValueError, match="leaves no progress"):
        tiles((384,), (96,), 96)
    with pytest.raises(ValueError, match="leaves no progress"):
        tiles((384,), (96,), 94, 4)


def test_smooth_weights_have_the_sum_1_where_two_windows_meet():
    plan = tiles((50,), (20,), 5)
    total = torch.zeros(50)
    for tile in plan[:2]:
        total[tile.box.slices] += weights(tile, (50,), (5,), "smooth")
    assert torch.allclose(total[:30], torch.ones(30), atol=2e-3)


def untrained(dims=3, **changes):
    """A denoiser without attention, which would see everything, of any shape."""
    torch.manual_seed(0)
    settings = dict(channels=4, multipliers=(1,), blocks=1, attention=(), dims=dims, any_shape=True) | changes
    network = UNet(2 + 3, 2, **settings)
    network.out_gain.data.fill_(1)
    return Denoiser(network, "edm").eval()


@pytest.mark.parametrize(
    ("axes", "shape"), [(1, (6, 7, 83)), (2, (6, 61, 55)), (3, (47, 41, 43)), (3, (20, 60, 9))]
)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_tiled_is_whole_when_the_context_covers_what_the_network_sees(axes, shape, batch):
    """12 convolutions of 3 voxels see 12 to each side; 16 are discarded. Odd shapes, on one, two and three axes."""
    denoiser = untrained()
    z, condition = torch.randn(1, 2, *shape), torch.randn(1, 3, *shape)
    sigma = torch.tensor([0.7])
    window = tuple(n if axis < 3 - axes else 40 for axis, n in enumerate(shape))
    tiled = TiledDenoiser(denoiser, window, overlap=32, blend="keep", batch=batch)
    assert len(tiles(shape, window, 32)) > 1
    assert torch.allclose(tiled(z, sigma, condition), denoiser(z, sigma, condition), atol=2e-5)


@torch.no_grad()
def test_windows_at_multiples_of_the_stride_are_whole_for_a_network_that_halves():
    denoiser, shape = untrained(multipliers=(1, 1), blocks=1), (9, 5, 203)
    z, condition = torch.randn(1, 2, *shape), torch.randn(1, 3, *shape)
    sigma = torch.tensor([0.7])
    whole = denoiser(z, sigma, condition)
    for stride, equal in ((2, True), (1, False)):
        tiled = TiledDenoiser(denoiser, (9, 5, 121), (0, 0, 80), stride=stride, blend="keep")
        assert torch.allclose(tiled(z, sigma, condition), whole, atol=2e-5) == equal


@torch.no_grad()
def test_conditions_may_be_made_window_by_window_and_items_be_several():
    denoiser, shape = untrained(dims=2), (30, 44)
    z, condition = torch.randn(2, 2, *shape), torch.randn(2, 3, *shape)
    sigma = torch.tensor([0.7, 3.0])
    tiled = TiledDenoiser(denoiser, (16, 16), 6, batch=2)
    given = tiled(z, sigma, lambda tile: condition[(..., *tile.box.slices)])
    assert torch.allclose(given, tiled(z, sigma, condition), atol=2e-5)
    alone = TiledDenoiser(denoiser, (16, 16), 6)
    for n in range(2):
        assert torch.allclose(alone(z[n : n + 1], sigma[n : n + 1], condition[n : n + 1]), given[n : n + 1], atol=2e-5)


@torch.no_grad()
def test_every_sampler_takes_a_tiled_denoiser_and_a_tiled_guide():
    """The denoiser of Gaussian data knows no neighbours: tiled sampling equals sampling."""

    class Gaussian(torch.nn.Module):
        family = "edm"

        def forward(self, z, sigma, condition):
            return condition + (z - condition) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    noise, condition = torch.randn(1, 1, 9, 31), torch.randn(1, 1, 9, 31)
    tiled = TiledDenoiser(Gaussian(), (9, 12), (0, 5))
    for sampler in ("heun", "dpm_solver", "euler"):
        one, two = (
            sample(each, condition, noise, sampler, 6, guide=each, guidance=1.5) for each in (Gaussian(), tiled)
        )
        assert torch.allclose(one, two, atol=1e-4)


def test_an_unknown_blend_is_refused():
    with pytest.raises(ValueError, match="blend 'sharp' is not one of smooth, ramp, keep"):
        TiledDenoiser(torch.nn.Identity(), (8, 8), blend="sharp")
