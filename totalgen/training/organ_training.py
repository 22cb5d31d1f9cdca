"""Training the organ segmenter: Dice loss and cross-entropy through the loop that trains everything."""

import functools
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional

from totalgen import distributed
from totalgen.data.archive import Archive, pack
from totalgen.data.files import report_full_disk
from totalgen.data.recipes import ORGANS
from totalgen.models.organ_network import segmentation_network
from totalgen.models.precision import spoils_gradients
from totalgen.settings import SEGMENTER_STRIDE, SegmenterSettings
from totalgen.tasks.items import Items
from totalgen.tasks.organ_patches import SegmentationTask, anatomy
from totalgen.training.beginning import configure, initial_weights
from totalgen.training.loop import fit
from totalgen.training.objectives import Objective
from totalgen.weights import SEGMENTER_KIND

DEMO = dict(
    batch=2, microbatch=2, lr=0.003, lr_decay_steps=1000, rampup_items=200, ema=(0.10,), weights_dtype="float16",
    loader_processes=1, checkpoint_steps=50, snapshot_steps=500, picture_steps=500,
)  # fmt: skip
PRESETS = {  # of 1_Trainings/train_segmenter.py and 3_Evaluations/8_usefulness.py
    # name      items: patches of patch³ voxels   width
    "demo": dict(DEMO, items=7000, patch=48, channels=8),
    "smoke": dict(DEMO, items=8, patch=16, channels=2, rampup_items=2, loader_processes=0),  # seconds; for tests
}
BALANCED_UNTIL = 0.6  # share of the training over which rare classes weigh more in the cross-entropy


def train_segmenter(root: Path, outdir: Path, preset: str, settings: SegmenterSettings) -> Path:
    """Train on <root>/cropped/<subject>/{CT,organs}.nii.gz, packed into <root>/organs.zarr (see loop.fit).

    A subject that cannot be packed is listed in failures.csv and left out. Returns the path of the weights.
    Raises InputError for a cohort without masks, or an ``outdir`` that contains a run with other settings.
    """
    rank, _, _ = distributed.start(7, settings.compute.device)  # days: a cohort takes long to pack
    distributed.first(rank, lambda: pack(root, ORGANS))
    archive = Archive(root / f"{ORGANS.name}.zarr")
    found = anatomy(archive, archive.indices("train", partial=True))
    task = SegmentationTask(settings.patch, found["ids"])
    items = Items(task, archive, "train", settings.run.seed)
    configuration = configure(items, SEGMENTER_KIND, preset, settings, **found)
    torch.manual_seed(settings.run.seed)
    network = segmentation_network(settings.channels, 1 + len(found["ids"]))
    initial = initial_weights(settings.run.init_from, configuration, outdir, _decisive)
    if initial is not None:
        network.load_state_dict(initial)
    objective = Segmentation(network, torch.tensor(found["shares"]), settings.run.items)
    with report_full_disk(outdir):
        return fit(objective, items, outdir, configuration, settings)


def _decisive(configuration):
    """What weights must share with a training that starts from them."""
    return dict(channels=configuration["settings"]["channels"], ids=configuration["data"]["ids"])


class Segmentation(Objective):
    """Dice loss + cross-entropy: items are (classes, CT), extras how far the training is, 0…1.

    shares: of the voxels, per class;  count: items of the whole training.
    """

    shares: torch.Tensor

    def __init__(self, network: nn.Module, shares: torch.Tensor, count: int):
        super().__init__()
        self.model = self.network = network
        self.register_buffer("shares", shares)
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.extras = functools.partial(progress_of_item, count)

    def forward(self, *batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        classes, ct, progress = batch
        coarsest = ct[:, :, ::SEGMENTER_STRIDE]  # as long as what the coarsest convolutions see
        with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not spoils_gradients(coarsest)):
            logits = self.model(ct.to(memory_format=torch.channels_last_3d)).float()
        weights = class_weights(self.shares, float(progress.mean()))
        dice = self.dice(logits, classes)
        loss = dice + functional.cross_entropy(logits, classes[:, 0].long(), weight=weights)
        of_items = torch.ones(len(ct), device=ct.device)  # both terms are of the batch: every item has its mean
        return loss * of_items, dict(loss=loss.detach() * of_items, dice=1 - dice.detach() * of_items)

    def picture(self, items: Items, n: int, seed: int, device: torch.device) -> np.ndarray:
        _, classes, ct = items[n]
        found = self.model(ct[None].to(device)).argmax(1).float().cpu()
        return np.concatenate([items.task.picture(each) for each in (classes, found)], axis=1)


def progress_of_item(count: int, seed: int, n: int, target: torch.Tensor) -> tuple[torch.Tensor]:
    """Share of the training, 0…1, that lies before item n."""
    return (torch.tensor(n / count, dtype=torch.float64),)


def class_weights(shares: torch.Tensor, progress: float) -> torch.Tensor:
    """Weights of the classes in the cross-entropy: share^−½ at first, falling to 1 for all.

    At first, since a kidney fills half a percent of the voxels and would be learnt late; not at the end, since such
    weights make organs too large, and the volume will be measured.  shares: [classes];  progress: 0…1.
    """
    exponent = 0.5 * max(0.0, 1 - progress / BALANCED_UNTIL)
    weights = shares**-exponent
    return weights / (weights * shares).sum()  # mean weight of a voxel is 1
