"""The loop trains what is no diffusion model: a VQ-VAE, whose codebook is no gradient's business."""

import numpy as np
import pytest
import torch
from monai.networks.nets import VQVAE

from totalgen.data.archive import Archive, pack
from totalgen.data.recipes import PetCt
from totalgen.schema import build, to_dict
from totalgen.settings import TaskSettings, TrainingSettings
from totalgen.tasks.items import Items
from totalgen.tasks.petct import GlobalTask
from totalgen.training.loop import fit
from totalgen.training.objectives import Objective
from totalgen.weights import load_weights

SHAPE = (16, 16, 32)


class Compression(Objective):
    """Reconstruction and commitment of a VQ-VAE; the condition is not used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = self.network = VQVAE(
            3, 2, 2, channels=(8,), num_res_layers=1, num_res_channels=(8,), num_embeddings=16, embedding_dim=4,
            downsample_parameters=((2, 4, 1, 1),), upsample_parameters=((2, 4, 1, 1, 0),), decay=0.9,
        )  # fmt: skip
        self.extras = nothing

    def forward(self, *batch):
        target, _ = batch
        made, commitment = self.model(target)
        error = (made - target).square().flatten(1).mean(1)
        return error + commitment, dict(loss=error, commitment=commitment.expand(len(target)))

    def picture(self, items, n, seed, device):
        made = self.model(items[n][1][None])[0][0]
        return items.task.picture(items.volume(n, made.cpu()))


def nothing(seed, n, target):
    return ()


@pytest.fixture
def train(tmp_path, cropped_cohort):
    archive = Archive(pack(cropped_cohort(tmp_path, shape=SHAPE), PetCt(shape=SHAPE))[0])
    items = Items(GlobalTask(TaskSettings(shape=SHAPE), archive.data), archive)

    def run(name, count):
        settings = dict(items=count, batch=4, microbatch=4, lr=0.01, rampup_items=1, checkpoint_steps=2, ema=(0.1,))
        settings = build(TrainingSettings, settings | dict(loader_processes=0, precision="float32", picture_steps=6))
        about = dict(preset="vqvae", settings=to_dict(settings), channels={}, codec=items.task.codec.settings, data={})
        objective = Compression()
        return objective, load_weights(fit(objective, items, tmp_path / name, about, settings))[0]

    return run


def test_a_vq_vae_trains_and_goes_on_with_its_codebook(train, tmp_path):
    first = {name: value.clone() for name, value in Compression().model.state_dict().items()}
    straight, weights = train("straight", 40)
    train("stopped", 20)
    _, continued = train("stopped", 40)
    assert all(torch.equal(weights[name], continued[name]) for name in weights)
    learnt = {name for name, value in straight.model.named_parameters() if value.requires_grad}
    present = straight.model.state_dict()
    taken = set(weights) - learnt
    assert any("embedding" in name for name in taken)
    for name in taken:  # the codebook is that of the last step, and it moved
        assert torch.equal(weights[name], present[name]), name
    moved = [name for name in taken if not np.allclose(weights[name], first[name])]
    assert any("embedding" in name for name in moved)
    assert any(not torch.equal(weights[name], present[name]) for name in learnt)  # averaged
    assert list((tmp_path / "straight" / "samples").iterdir())
