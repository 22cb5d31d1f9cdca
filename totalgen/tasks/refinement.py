"""The MR's latent volume from that of the stacked slices: how a 3-D model makes one volume of 2-D predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.pictures import coronal
from totalgen.errors import InputError
from totalgen.models.codec import Standardise
from totalgen.settings import RefinementTaskSettings
from totalgen.tasks.task import Box, Task, measured_codec, sampled_start


@dataclass
class Latents:
    """Latent volumes [D, x, y, z] of the stacked slices, and while training of the MR."""

    slices: torch.Tensor
    mr: torch.Tensor | None = None


class RefinementTask(Task[Latents]):
    """The latent MR, or its residual against the stacked slices; condition: the latter.

    data: what the archive knows (Archive.data).
    """

    def __init__(self, settings: RefinementTaskSettings, data: dict[str, Any]):
        self.settings = settings
        self.shape = self.space = settings.patch
        names = list(data["encodings"])
        self.count = len(names) // 2
        self.given, self.target = tuple(names[: self.count]), tuple(names[self.count :])
        self.residual = settings.target == "residual"
        mean, std = (torch.tensor(data["statistics"][f"volumes_{name}"][: self.count]) for name in ("mean", "std"))
        self.mean, self.std = (each.reshape(-1, 1, 1, 1) for each in (mean, std))
        self.codec = Standardise([0.0] * self.count, [1.0] * self.count)

    def check(self, archive: Archive) -> None:
        names = list(archive.recipe.encodings)
        if names[:1] != ["slices_0"] or len(names) % 2:
            raise InputError(f"{archive.path}: holds no latents. Run encode_latents.py and pack with --recipe latents.")

    def prepare(self, archive: Archive, rows: Sequence[int]) -> None:
        self.codec = measured_codec(self, archive, rows)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Latents, Box]:
        volumes = archive.array(row, "volumes")
        box = Box(sampled_start(volumes.shape[1:], self.space, random), self.space)
        values = volumes[(slice(None), *box.slices)].astype(np.float32)
        lack = [(0, 0), *((0, n - m) for n, m in zip(self.space, values.shape[1:], strict=True))]
        found = torch.from_numpy(np.pad(values, lack, mode="edge"))
        return Latents(found[: self.count], found[self.count :]), Box.whole(self.space)

    def clean(self, source: Latents, box: Box) -> torch.Tensor:
        assert source.mr is not None, "known while training"
        inside = (slice(None), *box.slices)
        return source.mr[inside] - source.slices[inside] if self.residual else source.mr[inside]

    def condition(self, source: Latents, box: Box, device: torch.device | None = None) -> torch.Tensor:
        values = source.slices[(slice(None), *box.slices)].to(device)
        return (values - self.mean.to(values)) / self.std.to(values)

    def compose(self, decoded: torch.Tensor, source: Latents, box: Box) -> torch.Tensor:
        return decoded + source.slices[(slice(None), *box.slices)].to(decoded) if self.residual else decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        image = coronal(volume[0].numpy())
        low, high = np.percentile(image, (1, 99))
        return (255 * np.clip((image - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)
