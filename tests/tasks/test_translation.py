"""CT to MR: training and inference see the same condition; a perfect prediction is the MR, or its latent."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from totalgen.data.archive import Archive, pack
from totalgen.data.made_with import RECORD, write_record
from totalgen.data.recipes import latents, pairs
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.schema import build
from totalgen.settings import RefinementTaskSettings, TranslationTaskSettings, VqvaeSettings
from totalgen.tasks.compression import CompressionTask
from totalgen.tasks.items import Items
from totalgen.tasks.refinement import Latents, RefinementTask
from totalgen.tasks.task import Box
from totalgen.tasks.translation import Pair, TranslationTask, neighbouring, with_neighbours
from totalgen.training.vqvae_training import describe_vqvae, train_vqvae
from totalgen.weights import load_weights

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three pairs of several shapes in which the MR follows from the CT, and latents of two channels."""
    root = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(0)
    for n, shape in enumerate([(20, 18, 22), (12, 30, 9), (16, 16, 16)]):
        ct = random.uniform(-1000, 900, shape).astype(np.float32)
        for name, voxels in (("CT", ct), ("MR", (ct + 1000) / 2)):
            write_nifti(root / "pairs" / f"s{n}" / f"{name}.nii.gz", Volume(voxels, AFFINE))
        for name in ("slices_0", "slices_1", "MR_0", "MR_1"):
            voxels = random.normal(2.0, 3.0, shape).astype(np.float32)
            write_nifti(root / "latents" / f"s{n}" / f"{name}.nii.gz", Volume(voxels, AFFINE))
    (root / "cohort.csv").write_text("subject,split\ns0,train\ns1,train\ns2,test\n")
    return root


def translation(root, **changes):
    archive = Archive(pack(root, pairs((-1000, 1000), 1000.0), overwrite=True)[0])
    task = TranslationTask(
        TranslationTaskSettings(**dict(voxel_mm=4.0, patch=(16, 16), placement="body") | changes), archive.data
    )
    items = Items(task, archive)
    task.prepare(archive, items.subjects)
    return items


@pytest.mark.parametrize(("patch", "neighbours"), [((16, 16), 0), ((16, 16), 1), ((16, 16, 16), 0)])
def test_a_perfect_prediction_is_the_mr(root, patch, neighbours):
    items = translation(root, patch=patch, neighbours=neighbours)
    for n in range(6):
        _, encoded, condition = items[n]
        assert encoded.shape == (1, *patch)
        assert condition.shape == (1 + 2 * neighbours, *patch) == (len(items.task.given), *patch)
        source, box = items.source(n)
        made = items.volume(n, encoded)
        assert torch.allclose(made, source.mr, atol=2e-3)
        ct, mr = (code.decode(v.numpy()) for code, v in ((items.task.ct, source.ct), (items.task.mr, made)))
        inside = source.mr[0] > 0  # where the volume is shorter than the patch there is nothing
        assert np.abs((ct[neighbours] + 1000) / 2 - mr[0])[inside.numpy()].max() < 3
        assert torch.equal(condition, items.task.condition(source, box))


def test_slices_are_shown_the_same_neighbours_in_training_and_later(root):
    items = translation(root, neighbours=2)
    archive, row = items.archive, items.subjects[0]
    whole = torch.from_numpy(archive.array(row, "volumes")[0].astype(np.float32))
    shown = with_neighbours(whole, 2)
    assert shown.shape == (5, *whole.shape)
    assert neighbouring(9, 0, 2) == [0, 0, 0, 1, 2]
    assert neighbouring(9, 8, 1) == [7, 8, 8]
    seen = 0
    for n in range(40):
        source, box = items.source(n)
        if items.row(n) != row:
            continue
        for z in range(whole.shape[2]):  # find the slice that was chosen, and compare its neighbours
            for x, y in np.ndindex(5, 3):
                if not torch.equal(whole[x : x + 16, y : y + 16, z], source.ct[2]):
                    continue
                later = Pair(shown[:, x : x + 16, y : y + 16, z])
                assert torch.equal(items.task.condition(later, box), items.task.condition(source, box))
                seen += 1
    assert seen > 5


@pytest.mark.parametrize("target", ["residual", "direct"])
def test_a_perfect_refinement_is_the_latent_mr(root, target):
    archive = Archive(pack(root, latents(2), overwrite=True)[0])
    task = RefinementTask(RefinementTaskSettings(patch=(16, 16, 16), target=target), archive.data)
    items = Items(task, archive)
    task.prepare(archive, items.subjects)
    assert task.given == ("slices_0", "slices_1")
    values = torch.stack([items[n][1] for n in range(60)])
    assert values.std((0, 2, 3, 4)) == pytest.approx(0.5, rel=0.1)
    for n in range(4):
        source, box = items.source(n)
        assert torch.allclose(items.volume(n, items[n][1]), source.mr, atol=1e-4)
        assert torch.equal(items[n][2], task.condition(Latents(source.slices), box))


def test_an_archive_of_latents_keeps_the_vqvae_that_made_them(root, tmp_path):
    root = shutil.copytree(root, tmp_path / "pairs")
    assert "vqvae" not in Archive(pack(root, latents(2), overwrite=True)[0]).data
    write_record(root / "latents" / RECORD, dict(vqvae="sha256 0", sources={}))
    assert Archive(pack(root, latents(2))[0]).data["vqvae"] == "sha256 0"


def test_a_vq_vae_sees_both_modalities(root):
    archive = Archive(pack(root, pairs((-1000, 1000), 1000.0), overwrite=True)[0])
    items = Items(CompressionTask((12, 12, 8)), archive)
    assert items[0][2].shape == (0, 12, 12, 8)
    highest = [float(items[n][1].max()) for n in range(30)]
    assert {value > 0.955 for value in highest} == {True, False} or np.ptp(highest) > 0


def test_a_vqvae_goes_on_from_weights_of_the_same_network(root, tmp_path):
    pack(root, pairs((-1000, 1000), 1000.0), overwrite=True)
    small = dict(patch=(8, 8, 8), channels=(4,), residual_layers=1, codes=16, code_channels=2)
    run = dict(batch=2, microbatch=2, items=2, rampup_items=1, loader_processes=0, checkpoint_steps=9, picture_steps=9)

    def train(name, first=None, begin=train_vqvae, **changes):
        settings = build(VqvaeSettings, small | run | dict(init_from=first, precision="float32") | changes)
        return begin(root, tmp_path / name, "small", settings)

    first = train("first")
    begun = load_weights(train("second", first, lr=1e-12))[0]
    kept = {name: value for name, value in load_weights(first)[0].items() if not name.startswith("quantizer")}
    assert all(torch.allclose(begun[name], value, atol=1e-5) for name, value in kept.items())
    for begin in (train_vqvae, describe_vqvae):
        with pytest.raises(InputError, match="differs in channels from what is trained"):
            train("third", first, begin, channels=(8,))
    stated = f'"initialised_from": "{hashlib.sha256(first.read_bytes()).hexdigest()}"'
    assert stated in train("new", first, describe_vqvae)
    assert stated in train("second", tmp_path / "lost", describe_vqvae)  # goes on from its own checkpoint


def test_what_is_no_pair_is_refused(root):
    archive = Archive(pack(root, latents(2), overwrite=True)[0])
    with pytest.raises(InputError, match="holds no pairs of CT and MR"):
        Items(CompressionTask((8, 8, 8)), archive)
    with pytest.raises(InputError, match="a CT is no MR to add to"):
        translation(root, target="residual")
    with pytest.raises(InputError, match=r"has voxels of 4×4 mm, the preset expects 2"):
        translation(root, voxel_mm=2.0)
    with pytest.raises(InputError, match="a network of volumes has none"):
        TranslationTaskSettings(patch=(8, 8, 8), neighbours=1)
    data = archive.data | dict(encodings={name: dict(kind="linear", low=0.0, high=1.0) for name in ("CT", "MR")})
    packed = Archive(pack(root, pairs((-1, 1), 1.0), overwrite=True)[0])
    with pytest.raises(InputError, match="holds no latents"):
        RefinementTask(RefinementTaskSettings(), data).check(packed)


def test_boxes_of_a_source_are_parts_of_its_condition(root):
    items = translation(root, patch=(16, 16, 16))
    source, _ = items.source(0)
    box = Box((2, 3, 4), (8, 7, 6))
    whole = items.task.condition(source, Box.whole((16,) * 3))
    assert torch.equal(items.task.condition(source, box), whole[(slice(None), *box.slices)])
