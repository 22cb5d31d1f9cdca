"""Training the VQ-VAE: squared error of what it makes again, and the distance of latents from their codes."""

import json
from pathlib import Path

import numpy as np
import torch

from totalgen.data.archive import Archive, plain
from totalgen.data.files import report_full_disk
from totalgen.models.vqvae import VectorQuantised
from totalgen.settings import VqvaeSettings
from totalgen.tasks.compression import CompressionTask
from totalgen.tasks.items import Items
from totalgen.training.beginning import configure, initial_weights
from totalgen.training.loop import fit
from totalgen.training.objectives import Objective
from totalgen.weights import VQVAE_KIND


def train_vqvae(root: Path, outdir: Path, preset: str, settings: VqvaeSettings) -> Path:
    """Train on <root>/pairs.zarr (see loop.fit). Returns the path of the weights."""
    items, codec, configuration = _prepared(root, outdir, preset, settings)
    with report_full_disk(outdir):
        return fit(Compression(codec), items, outdir, configuration, settings)


def describe_vqvae(root: Path, outdir: Path, preset: str, settings: VqvaeSettings) -> str:
    """The configuration, the size of the network and the data it found, as text (see diffusion.describe)."""
    items, codec, configuration = _prepared(root, outdir, preset, settings)
    count = sum(parameter.numel() for parameter in codec.parameters())
    lines = [json.dumps(configuration, indent=1), f"parameters       {count:,} ({count / 1e6:.1f} M)"]
    return "\n".join([*lines, f"data             {items.archive.path}: {len(items.subjects)} training subjects"])


def _prepared(root, outdir, preset, settings):
    items = Items(CompressionTask(settings.patch), Archive(root / "pairs.zarr"), "train", settings.run.seed)
    configuration = configure(items, VQVAE_KIND, preset, settings)
    torch.manual_seed(settings.run.seed)
    codec = VectorQuantised(**settings.network)
    configuration["codec"] = codec.settings
    initial = initial_weights(settings.run.init_from, configuration, outdir, lambda found: plain(found["codec"]))
    if initial is not None:
        codec.network.load_state_dict(initial)
    return items, codec, configuration


class Compression(Objective):
    """Mean squared error + commitment: items are (image, nothing); the codebook follows the latents by itself."""

    def __init__(self, codec: VectorQuantised):
        super().__init__()
        self.model = self.network = codec.network
        self.extras = nothing

    def forward(self, *batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target, _ = batch
        with torch.autocast("cpu", enabled=False):  # MONAI looks codes up in float32 on CUDA alone
            made, commitment = self.model(target)
        error = (made.float() - target).square().flatten(1).mean(1)
        return error + commitment, dict(loss=error, commitment=commitment.expand(len(target)))

    def picture(self, items: Items, n: int, seed: int, device: torch.device) -> np.ndarray:
        image = items[n][1]
        made = self.model(image[None].to(device))[0][0].float().cpu()
        return np.concatenate([items.task.picture(each) for each in (image, made)], axis=1)


def nothing(seed: int, n: int, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """No random numbers belong to an item."""
    return ()
