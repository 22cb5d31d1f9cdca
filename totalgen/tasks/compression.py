"""What the VQ-VAE learns from: patches of CT and of MR in turn, each to be made again from its latent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.pictures import coronal
from totalgen.errors import InputError
from totalgen.models.codec import Identity
from totalgen.tasks.task import Box, Task, sampled_start


@dataclass
class Image:
    """An encoded volume of either modality, [1, x, y, z]."""

    voxels: torch.Tensor


class CompressionTask(Task[Image]):
    """A patch of a CT or an MR, as often the one as the other, without a condition."""

    target, given = ("image",), ()

    def __init__(self, patch: Sequence[int]):
        self.shape = self.space = tuple(patch)
        self.codec = Identity()

    def check(self, archive: Archive) -> None:
        if tuple(archive.recipe.encodings) != ("CT", "MR"):
            raise InputError(f"{archive.path}: holds no pairs of CT and MR. Pack it with --recipe pairs.")

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Image, Box]:
        volumes = archive.array(row, "volumes")
        channel = int(random.integers(volumes.shape[0]))
        box = Box(sampled_start(volumes.shape[1:], self.space, random), self.space)
        values = volumes[(channel, *box.slices)].astype(np.float32)
        lack = [(0, n - m) for n, m in zip(self.space, values.shape, strict=True)]
        return Image(torch.from_numpy(np.pad(values, lack, mode="edge"))[None]), Box.whole(self.space)

    def clean(self, source: Image, box: Box) -> torch.Tensor:
        return source.voxels[(slice(None), *box.slices)]

    def condition(self, source: Image, box: Box, device: torch.device | None = None) -> torch.Tensor:
        return source.voxels.new_zeros((0, *box.shape))

    def compose(self, decoded: torch.Tensor, source: Image, box: Box) -> torch.Tensor:
        return decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        return (255 * np.clip(coronal(volume[0].numpy()), 0, 1)).astype(np.uint8)
