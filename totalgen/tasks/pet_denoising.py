"""Normal-dose PET from low-dose PET, of any tracer: patches, or axial slices, with noise added as they are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.doses import LOCAL_MM, NoiseModel, local_activity, thin
from totalgen.data.intensity import Encoding
from totalgen.data.pictures import PET_WINDOW, coronal, grey
from totalgen.errors import InputError
from totalgen.models.codec import Standardise
from totalgen.settings import PetDenoisingTaskSettings
from totalgen.tasks.task import Box, Task, check_voxels, measured_codec, sampled_start

BODY_SUV = 0.1


@dataclass
class LowDose:
    """A PET at a fraction ``dose`` of the normal dose, [1, *space], encoded; and while training the normal one."""

    low: torch.Tensor
    dose: float
    normal: torch.Tensor | None = None


class PetDenoisingTask(Task[LowDose]):
    """The normal-dose PET, or what is to be added to the low-dose one; condition: the low-dose PET, and its dose.

    A low dose is simulated as an item is loaded (doses.thin), from the noise-free PET where the archive has it.
    A residual is learnt in units of the noise that was added, √(1/dose − 1), so that all doses weigh the same.
    data: what the archive knows (Archive.data).
    """

    target = ("SUV",)

    def __init__(self, settings: PetDenoisingTaskSettings, data: dict[str, Any]):
        self.settings = settings
        self.shape = self.space = settings.patch
        self.given = ("low-dose SUV", "log10 dose") if settings.dose_channel else ("low-dose SUV",)
        self.residual = settings.target == "residual"
        self.model = NoiseModel(relative=settings.noise, fwhm_mm=settings.noise_fwhm_mm)
        self.encoding = Encoding(**data["encodings"]["SUV"])
        self.mean, self.std = (data["statistics"][f"volumes_{name}"][0] for name in ("mean", "std"))
        self.codec = Standardise([0.0], [1.0])

    def check(self, archive: Archive) -> None:
        if next(iter(archive.recipe.encodings), None) != "SUV" or archive.recipe.encodings["SUV"].kind != "linear":
            raise InputError(f"{archive.path}: holds no SUV to denoise. Pack it with --recipe doses.")
        check_voxels(archive, self.settings.voxel_mm, len(self.space))

    def prepare(self, archive: Archive, rows: Sequence[int]) -> None:
        self.codec = measured_codec(self, archive, rows)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[LowDose, Box]:
        volumes = archive.array(row, "volumes")
        window = (*self.space, 1)[:3]  # a slice is a volume of one
        dose = float(self.settings.doses[int(random.integers(len(self.settings.doses)))])

        def read(channel, start, size):
            box = Box(start, tuple(size))
            return self.encoding.decode(volumes[(channel, *box.slices)].astype(np.float32))

        def body(start):
            return 0.05 + float((read(0, start, window) > BODY_SUV).mean())

        start = sampled_start(volumes.shape[1:], window, random, body if self.settings.placement == "body" else None)
        normal = read(0, start, window)
        if "truth" in archive.recipe.encodings:
            activity = read(list(archive.recipe.encodings).index("truth"), start, window)
        else:
            margin = int(np.ceil(LOCAL_MM / self.settings.voxel_mm))
            before = [min(margin, s) for s in start]
            wide = [n + b + margin for n, b in zip(window, before, strict=True)]
            around = read(0, tuple(s - b for s, b in zip(start, before, strict=True)), wide)
            inside = tuple(slice(b, b + n) for b, n in zip(before, normal.shape, strict=True))
            activity = local_activity(around, self._voxel_mm)[inside]
        low = thin(normal, self._voxel_mm, dose, random, model=self.model, activity=activity)
        lack = [(0, n - m) for n, m in zip(window, normal.shape, strict=True)]  # of a volume smaller than a patch
        tensors = [
            torch.from_numpy(np.pad(self.encoding.encode(v), lack).astype(np.float32)).reshape(1, *self.space)
            for v in (low, normal)
        ]
        return LowDose(tensors[0], dose, tensors[1]), Box.whole(self.space)

    @property
    def _voxel_mm(self):
        return (self.settings.voxel_mm,) * 3

    def noise_scale(self, dose: float) -> float:
        """What a residual is divided by: standard deviation of the added noise over that of the normal dose."""
        return float(np.sqrt(1 / dose - 1)) if self.residual else 1.0

    def clean(self, source: LowDose, box: Box) -> torch.Tensor:
        assert source.normal is not None, "known while training"
        inside = (slice(None), *box.slices)
        normal = source.normal[inside]
        return (normal - source.low[inside]) / self.noise_scale(source.dose) if self.residual else normal

    def condition(self, source: LowDose, box: Box, device: torch.device | None = None) -> torch.Tensor:
        low = source.low[(slice(None), *box.slices)].to(device)
        channels = [(low - self.mean) / self.std]
        if self.settings.dose_channel:
            channels.append(torch.full_like(low, float(np.log10(source.dose))))
        return torch.cat(channels)

    def compose(self, decoded: torch.Tensor, source: LowDose, box: Box) -> torch.Tensor:
        if not self.residual:
            return decoded
        return decoded * self.noise_scale(source.dose) + source.low[(slice(None), *box.slices)].to(decoded.device)

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        suv = self.encoding.decode(volume[0].numpy())
        return grey(suv.T[::-1, ::-1] if suv.ndim == 2 else coronal(suv), PET_WINDOW, inverted=True)
