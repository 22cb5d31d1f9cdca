"""Items of the cascade depend on their number alone, and training and generation see the same conditions."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from totalgen import settings
from totalgen.data.archive import Archive, pack
from totalgen.data.recipes import PetCt
from totalgen.data.resolution import phase_offsets, position
from totalgen.errors import InputError
from totalgen.settings import TaskSettings
from totalgen.tasks.items import Items
from totalgen.tasks.petct import TASKS, WEIGHTS, LowResolution, Person, SuperResolutionTask
from totalgen.tasks.task import Box

SHAPE, PATCH = (16, 16, 24), (8, 8, 12)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"), subjects=4)
    return Archive(pack(root, PetCt(shape=SHAPE))[0])


def make(archive, stage, seed=0, split="train", **changes):
    settings = TaskSettings(**dict(shape=SHAPE, patch=PATCH) | changes)
    return Items(TASKS[stage](settings, dict(template=None) | archive.data), archive, split, seed)


def test_items_depend_on_seed_and_number_alone(archive):
    one, two = (make(archive, "sr", seed=5) for _ in range(2))
    for n in (17, 0, 17, 4):
        assert all(torch.equal(x, y) for x, y in zip(one[n][1:], two[n][1:], strict=True))
    assert not torch.equal(make(archive, "sr", seed=6)[17][1], one[17][1])


def test_every_subject_comes_once_per_epoch(archive):
    items = make(archive, "global", seed=1)
    assert [sorted(items.row(n) for n in range(e * 3, e * 3 + 3)) for e in (0, 7)] == [[0, 1, 2]] * 2


def test_global_target_has_sigma_data_and_decodes_to_a_stored_phase(archive):
    items = make(archive, "global")
    targets = torch.stack([items[n][1] for n in range(60)])
    assert torch.allclose(targets.std((0, 2, 3, 4)), torch.full((2,), 0.5), rtol=0.15)
    volume, row = items.volume(3, items[3][1]).numpy(), items.row(3)
    assert min(np.abs(volume - archive.array(row, "low")[p].astype(np.float32)).max() for p in range(64)) < 1e-3


@pytest.mark.parametrize("target", ["residual", "direct"])
def test_sr_target_and_source_give_the_true_patch_back(archive, target):
    items = make(archive, "sr", target=target)
    _, box = items.source(8)
    truth = archive.array(items.row(8), "high")[(slice(None), *box.slices)].astype(np.float32)
    assert np.abs(items.volume(8, items[8][1]).numpy() - truth).max() < 1e-3


def test_the_condition_of_training_is_that_of_generation(archive):
    """A source as generation makes it, from demographics and a low-resolution volume alone."""
    for n in range(6):
        items = make(archive, "global")
        (trained, box), person = items.source(n), items.demographics(n)
        assert torch.equal(items[n][2], items.task.condition(Person(person), box))
        items = make(archive, "sr")
        trained, box = items.source(n)
        phase = next(p for p in range(64) if torch.equal(archive.tensor(items.row(n), "low", p), trained.low))
        made = LowResolution(items.demographics(n), trained.low, phase_offsets(phase))
        assert torch.equal(items[n][2], items.task.condition(made, box))


def test_the_condition_of_a_box_is_a_cut_of_that_of_the_volume(archive):
    items = make(archive, "sr")
    source, _ = items.source(2)
    all_of_it = items.task.condition(source, Box.whole(SHAPE))
    box = Box((3, 5, 7), (6, 7, 8))
    assert torch.allclose(items.task.condition(source, box), all_of_it[(slice(None), *box.slices)], atol=1e-6)


@pytest.mark.parametrize("stage", TASKS)
def test_channels_are_named(archive, stage):
    """A channel is an index with a name: another weight changes that of the weight, and no other."""
    items = make(archive, stage)
    source, box = items.source(0)
    condition = items.task.condition(source, box)
    assert len(items.task.given) == len(condition)
    assert len(items.task.target) == len(items[0][1])
    person = source.demographics
    source.demographics = type(person)(person.sex, person.age_years, person.height_m, person.weight_kg + 10)
    change = (items.task.condition(source, box) - condition).flatten(1).abs().amax(1)
    assert float(change[items.task.given.index("weight_kg / 100")]) == pytest.approx(0.1, abs=1e-6)
    assert int((change > 0).sum()) == 1


def test_conditioning_noise_changes_the_condition_and_leaves_the_target(archive):
    plain, noisy = (make(archive, "sr", condition_noise=c)[2] for c in (0.0, 0.3))
    assert torch.equal(plain[1], noisy[1])
    difference = noisy[2] - plain[2]
    assert float(difference[:2].std()) == pytest.approx(0.3, rel=0.1)
    assert float(difference[2:].abs().max()) == 0


def test_condition_channels_are_those_of_the_paper(archive):
    items = make(archive, "global")
    person, condition = items.demographics(0), items[0][2]
    assert condition[:, 0, 0, 0].tolist() == pytest.approx([1.7, 0.7, 0.6, float(person.sex == "M")])
    assert make(archive, "sr")[0][2].shape == (2 + 4 + 3, *PATCH)


def test_another_shape_than_the_preset_expects_is_refused_with_the_cure(archive):
    with pytest.raises(InputError, match=r"16×16×24 voxels, the preset expects 16×16×32.*--shape 16 16 32"):
        make(archive, "global", shape=(16, 16, 32))
    with pytest.raises(InputError, match="larger than the volume"):
        make(archive, "sr", patch=(32, 8, 8))


@pytest.mark.parametrize("placement", ["body", "heat"])
def test_placed_patches_lie_where_the_low_resolution_volume_shows_the_body_or_heat(archive, placement):
    """A body at the upper end of z, one hot voxel row in it: a weighted placement meets its own kind more often."""
    low = torch.zeros(2, *(n // 4 for n in SHAPE))
    low[0, :, :, 5:], low[1, 3, 3, 4:] = 1, 1

    def shown(**settings):
        settings = TaskSettings(shape=SHAPE, patch=PATCH, **settings)
        task = SuperResolutionTask(settings, dict(statistics=archive.statistics))
        boxes = [Box(task._start(low, np.random.default_rng(n)), PATCH) for n in range(400)]
        return sum(low[(0 if placement == "body" else 1, *box.coarser(4))].mean() for box in boxes)

    assert shown(placement=placement) > 1.3 * shown()


@pytest.mark.parametrize("stage", TASKS)
def test_emphasis_weighs_voxels_by_the_suv_that_the_condition_shows(archive, stage):
    items = make(archive, stage, emphasis=30.0, template=True)
    items.task.prepare(archive, archive.indices("train"))
    condition = torch.stack([items[n][2] for n in range(3)])
    shown = [items.task.template.of(items.demographics(n)) for n in range(3)] if stage == "global" else [
        source.upsampled(box) for source, box in map(items.source, range(3))
    ]  # fmt: skip
    expected = 1 + 30 * torch.stack(shown)[:, 1:].clamp(min=0)
    expected = expected / expected.mean((1, 2, 3, 4), keepdim=True)
    assert torch.allclose(items.task.weight(condition), expected, atol=1e-4)
    assert expected.max() > 2 * expected.min()
    assert make(archive, stage).task.weight(condition) is None


def test_a_patch_start_is_uniform_unless_weighted(archive):
    items, random = make(archive, "sr"), np.random.default_rng((0, 1, 3))
    random.integers(64)
    expected = [int(random.integers(n - p + 1)) for n, p in zip(SHAPE, PATCH, strict=True)]
    first = items[3][2][-3:, 0, 0, 0]
    assert torch.allclose(first, position(expected, PATCH, SHAPE)[:, 0, 0, 0])


@pytest.mark.parametrize("stage", TASKS)
def test_items_are_loaded_by_processes_that_inherit_nothing(archive, stage):
    """As on macOS and Windows, and on Linux from Python 3.14 on."""
    items = make(archive, stage)
    first = [items[n][1:] for n in range(4)]  # opens the archive's groups, which no process can be sent
    loaded = DataLoader(items, 2, sampler=range(4), num_workers=1, multiprocessing_context="spawn")
    for numbers, targets, conditions in loaded:
        for n, *item in zip(numbers.tolist(), targets, conditions, strict=True):
            assert all(torch.equal(here, there) for here, there in zip(first[n], item, strict=True))


def test_settings_name_every_stage_and_placement():
    assert tuple(TASKS) == settings.STAGES
    assert tuple(WEIGHTS) == settings.PLACEMENTS
