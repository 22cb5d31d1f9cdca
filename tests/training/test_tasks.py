"""A task's items depend on their number alone, and target plus condition give the volume back."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from totalgen.data.archive import Archive, pack
from totalgen.data.resolution import position
from totalgen.errors import InputError
from totalgen.training.loop import Numbered
from totalgen.training.tasks import GlobalTask, SuperResolutionTask

SHAPE, PATCH = (16, 16, 24), (8, 8, 12)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"), subjects=4)
    return Archive(pack(root, SHAPE)[0])


def test_items_depend_on_seed_and_number_alone(archive):
    one, two = (SuperResolutionTask(archive, SHAPE, PATCH, seed=5) for _ in range(2))
    for n in (17, 0, 17, 4):
        a, b = one[n], two[n]
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(SuperResolutionTask(archive, SHAPE, PATCH, seed=6)[17][0], one[17][0])


def test_every_subject_comes_once_per_epoch(archive):
    task = GlobalTask(archive, SHAPE, seed=1)
    assert [sorted(task.subject_of(n) for n in range(e * 3, e * 3 + 3)) for e in (0, 7)] == [[0, 1, 2]] * 2


def test_global_target_has_sigma_data_and_decodes_to_a_stored_phase(archive):
    task = GlobalTask(archive, SHAPE)
    targets = torch.stack([task[n][0] for n in range(60)])
    assert torch.allclose(targets.std((0, 2, 3, 4)), torch.full((2,), 0.5), rtol=0.15)
    subject = task.subject_of(3)
    volume = task.volume(*task[3]).numpy()
    assert min(np.abs(volume - archive.low(subject)[p].astype(np.float32)).max() for p in range(64)) < 1e-3


@pytest.mark.parametrize("target", ["residual", "direct"])
def test_sr_target_and_condition_give_the_true_patch_back(archive, target):
    task = SuperResolutionTask(archive, SHAPE, PATCH, target=target)
    subject, random = task.subject_of(8), np.random.default_rng((0, 1, 8))
    random.integers(64)
    start = [int(random.integers(s - p + 1)) for s, p in zip(SHAPE, PATCH, strict=True)]
    box = tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))
    truth = archive.high(subject)[(slice(None), *box)].astype(np.float32)
    assert np.abs(task.volume(*task[8]).numpy() - truth).max() < 1e-3


def test_conditioning_noise_changes_the_condition_and_leaves_the_target(archive):
    plain, noisy = (SuperResolutionTask(archive, SHAPE, PATCH, condition_noise=c) for c in (0.0, 0.3))
    assert torch.equal(plain[2][0], noisy[2][0])
    difference = noisy[2][1] - plain[2][1]
    assert float(difference[:2].std()) == pytest.approx(0.3, rel=0.1)
    assert float(difference[2:].abs().max()) == 0


def test_condition_channels_are_those_of_the_paper(archive):
    demographics, (_, condition) = GlobalTask(archive, SHAPE).demographics(0), GlobalTask(archive, SHAPE)[0]
    assert condition[:, 0, 0, 0].tolist() == pytest.approx([1.7, 0.7, 0.6, float(demographics.sex == "M")])
    assert SuperResolutionTask(archive, SHAPE, PATCH)[0][1].shape == (2 + 4 + 3, *PATCH)


def test_another_shape_than_the_preset_expects_is_refused_with_the_cure(archive):
    with pytest.raises(InputError, match=r"16×16×24 voxels, the preset expects 16×16×32.*--shape 16 16 32"):
        GlobalTask(archive, (16, 16, 32))
    with pytest.raises(InputError, match="larger than the volume"):
        SuperResolutionTask(archive, SHAPE, (32, 8, 8))


@pytest.mark.parametrize("placement", ["body", "heat"])
def test_placed_patches_lie_where_the_low_resolution_volume_shows_the_body_or_heat(archive, placement):
    """A body at the upper end of z, one hot voxel row in it: a weighted placement meets its own kind more often."""
    low = torch.zeros(2, *(n // 4 for n in SHAPE))
    low[0, :, :, 5:], low[1, 3, 3, 4:] = 1, 1

    def shown(**settings):
        task = SuperResolutionTask(archive, SHAPE, PATCH, **settings)
        starts = [task._start(low, np.random.default_rng(n)) for n in range(400)]
        boxes = [tuple(slice(s // 4, -(-(s + p) // 4)) for s, p in zip(start, PATCH, strict=True)) for start in starts]
        return sum(low[(0 if placement == "body" else 1, *box)].mean() for box in boxes)

    assert shown(placement=placement) > 1.3 * shown()


def test_a_patch_start_is_uniform_unless_told(archive):
    task, random = SuperResolutionTask(archive, SHAPE, PATCH), np.random.default_rng((0, 1, 3))
    random.integers(64)
    expected = [int(random.integers(n - p + 1)) for n, p in zip(SHAPE, PATCH, strict=True)]
    first = task[3][1][-3:, 0, 0, 0]
    assert torch.allclose(first, position(expected, PATCH, SHAPE)[:, 0, 0, 0])


@pytest.mark.parametrize("make", [GlobalTask, lambda archive, shape: SuperResolutionTask(archive, shape, PATCH)])
def test_items_are_loaded_by_processes_that_inherit_nothing(archive, make):
    """As on macOS and Windows, and on Linux from Python 3.14 on."""
    task = make(archive, SHAPE)
    first = [task[n] for n in range(4)]  # opens the archive's groups, which no process can be sent
    loaded = DataLoader(Numbered(task), 2, sampler=range(4), num_workers=1, multiprocessing_context="spawn")
    for numbers, targets, conditions in loaded:
        for n, *item in zip(numbers.tolist(), targets, conditions, strict=True):
            assert all(torch.equal(here, there) for here, there in zip(first[n], item, strict=True))
