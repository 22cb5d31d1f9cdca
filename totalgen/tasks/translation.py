"""MR from CT, of axial slices or of volumes: the MR of a patch, given its CT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.intensity import BODY_HU, Encoding
from totalgen.data.pictures import coronal
from totalgen.errors import InputError
from totalgen.models.codec import Standardise
from totalgen.settings import TranslationTaskSettings
from totalgen.tasks.task import Box, Task, check_voxels, measured_codec, sampled_start


@dataclass
class Pair:
    """An encoded CT [K, *space], and while training the encoded MR [1, *space] on its grid.

    K: 1, or of slices 1 + 2 · neighbours, from the lowest slice to the highest.
    """

    ct: torch.Tensor
    mr: torch.Tensor | None = None


class TranslationTask(Task[Pair]):
    """The MR of a patch of a volume, or of an axial slice; condition: its CT, and of slices that of the neighbours.

    data: what the archive knows (Archive.data).
    """

    target = ("MR",)

    def __init__(self, settings: TranslationTaskSettings, data: dict[str, Any]):
        self.settings = settings
        self.shape = self.space = settings.patch
        reach = range(-settings.neighbours, settings.neighbours + 1)
        self.given = tuple("CT" if step == 0 else f"CT, slice {step:+d}" for step in reach)
        self.ct, self.mr = (Encoding(**data["encodings"][name]) for name in ("CT", "MR"))
        self.mean, self.std = (data["statistics"][f"volumes_{name}"][0] for name in ("mean", "std"))
        self.codec = Standardise([0.0], [1.0])

    def check(self, archive: Archive) -> None:
        if tuple(archive.recipe.encodings) != ("CT", "MR"):
            raise InputError(f"{archive.path}: holds no pairs of CT and MR. Pack it with --recipe pairs.")
        if self.settings.target != "direct":
            raise InputError(f"target is {self.settings.target}; a CT is no MR to add to. Set it to direct.")
        check_voxels(archive, self.settings.voxel_mm, len(self.space))

    def prepare(self, archive: Archive, rows: Sequence[int]) -> None:
        self.codec = measured_codec(self, archive, rows)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Pair, Box]:
        volumes = archive.array(row, "volumes")
        window = (*self.space, 1)[:3]  # a slice is a volume of one

        def body(start):
            ct = self.ct.decode(volumes[(0, *Box(start, window).slices)].astype(np.float32))
            return 0.05 + float((ct > BODY_HU).mean())

        start = sampled_start(volumes.shape[1:], window, random, body if self.settings.placement == "body" else None)
        x, y, z = Box(start, window).slices
        if len(self.space) == 2:
            shown = np.array(neighbouring(volumes.shape[3], start[2], self.settings.neighbours))
            both = np.moveaxis(volumes[:, x, y, shown[0] : shown[-1] + 1], -1, 1)  # read no more than these slices
            tensors = [both[0, shown - shown[0]], both[1, [start[2] - shown[0]]]]
        else:
            tensors = [volumes[:1, x, y, z], volumes[1:, x, y, z]]
        lack = [(0, 0), *((0, n - m) for n, m in zip(self.space, tensors[0].shape[1:], strict=True))]
        given, wanted = (torch.from_numpy(np.pad(each, lack).astype(np.float32)) for each in tensors)
        return Pair(given, wanted), Box.whole(self.space)

    def clean(self, source: Pair, box: Box) -> torch.Tensor:
        assert source.mr is not None, "known while training"
        return source.mr[(slice(None), *box.slices)]

    def condition(self, source: Pair, box: Box, device: torch.device | None = None) -> torch.Tensor:
        return (source.ct[(slice(None), *box.slices)].to(device) - self.mean) / self.std

    def compose(self, decoded: torch.Tensor, source: Pair, box: Box) -> torch.Tensor:
        return decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        image = volume[0].numpy()
        image = image.T[::-1, ::-1] if image.ndim == 2 else coronal(image)
        return (255 * np.clip(image / 1.2, 0, 1)).astype(np.uint8)


def neighbouring(count: int, z: int, neighbours: int) -> list[int]:
    """Indices of slice z and of its neighbours, lowest first; beyond an end of the volume its last slice repeats."""
    return [int(k) for k in np.clip(np.arange(z - neighbours, z + neighbours + 1), 0, count - 1)]


def with_neighbours(ct: torch.Tensor, neighbours: int) -> torch.Tensor:
    """[x, y, z] → [1 + 2 · neighbours, x, y, z]: for every slice what the network of slices is shown of it."""
    shown = [neighbouring(ct.shape[2], z, neighbours) for z in range(ct.shape[2])]
    return ct[:, :, torch.tensor(shown)].permute(3, 0, 1, 2)
