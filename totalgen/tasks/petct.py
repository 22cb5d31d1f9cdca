"""The two stages of the PET/CT cascade."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data import intensity
from totalgen.data.archive import CHANNELS, Archive
from totalgen.data.conditions import DEMOGRAPHICS, POSITION, UPSAMPLED, demographic_maps, standardised
from totalgen.data.demographics import Demographics
from totalgen.data.pictures import study_strip
from totalgen.data.resolution import CENTRE, FACTOR, PHASES, phase_offsets, position, upsample
from totalgen.models.codec import Standardise
from totalgen.settings import TaskSettings
from totalgen.tasks.task import Box, Task

# Where patches are taken: weight of a start, from the share of the low-resolution voxels inside the patch that show
# body (CT above −200 HU) and of those that are hot (SUV above 4).
WEIGHTS: dict[str, Callable[[float, float], float] | None] = {
    "uniform": None,
    "body": lambda body, hot: 0.05 + body,
    "heat": lambda body, hot: 0.05 + body + 10 * hot,
}
STARTS = 4  # uniformly sampled, of which a weighted placement takes one
BODY_CT, HOT_PET = float(intensity.encode_ct(-200.0)), float(intensity.encode_pet(4.0))


@dataclass
class Person:
    """Source of the global stage. low: a low-resolution volume [2, x/4, y/4, z/4] in [0, 1], known while training."""

    demographics: Demographics
    low: torch.Tensor | None = None


@dataclass
class LowResolution:
    """Source of the sr stage: a low-resolution volume [2, x/4, y/4, z/4] in [0, 1] of a person.

    offsets: where its voxels are in their boxes (resolution.upsample);
    high: box → the full resolution there, known while training;  noise: what is added to the condition, or None.
    """

    demographics: Demographics
    low: torch.Tensor
    offsets: Sequence[float] = CENTRE
    high: Callable[[Box], torch.Tensor] | None = None
    noise: torch.Tensor | None = None
    _known: tuple[Box, torch.Tensor] | None = dataclasses.field(default=None, repr=False)

    def upsampled(self, box: Box, device: torch.device | None = None) -> torch.Tensor:
        """The volume interpolated to the full resolution, [2, *box.shape]; the last one is remembered."""
        if self._known is None or self._known[0] != box:
            low = self.low if device is None else self.low.to(device)
            self._known = box, upsample(low, self.offsets, box.start, box.shape)
        return self._known[1]


class GlobalTask(Task[Person]):
    """Low-resolution volume of a random phase; condition: demographics.

    data: dict with the ``statistics`` of the archive.
    """

    target, given = CHANNELS, DEMOGRAPHICS

    def __init__(self, settings: TaskSettings, data: dict[str, Any]):
        self.shape = self.space = tuple(n // FACTOR for n in settings.shape)
        statistics = data["statistics"]
        self.codec_settings = dict(mean=statistics["low_mean"], std=statistics["low_std"])
        self.codec = Standardise(**self.codec_settings)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Person, Box]:
        low = archive.tensor(row, "low", int(random.integers(PHASES)))
        return Person(archive.demographics(row), low), Box.whole(self.shape)

    def clean(self, source: Person, box: Box) -> torch.Tensor:
        assert source.low is not None, "known while training"
        return source.low[(slice(None), *box.slices)]

    def condition(self, source: Person, box: Box, device: torch.device | None = None) -> torch.Tensor:
        return demographic_maps(source.demographics, box.shape, device)

    def compose(self, decoded: torch.Tensor, source: Person, box: Box) -> torch.Tensor:
        return decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        return _picture(volume)


class SuperResolutionTask(Task[LowResolution]):
    """Patch of the residual I_HR − I_LU; condition: I_LU, demographics, position.

    settings: target "residual" (the paper) or "direct" (the released code: I_HR itself); condition_noise, the standard
    deviation of Gaussian noise on the standardised I_LU (conditioning augmentation); placement, a key of WEIGHTS:
    "uniform" is the paper's, the others take one of STARTS uniform starts, weighted by what the low-resolution volume
    shows there. That volume is part of the condition, so what is learnt stays unbiased.
    data: dict with the ``statistics`` of the archive.
    """

    target, given = CHANNELS, (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)

    def __init__(self, settings: TaskSettings, data: dict[str, Any]):
        self.settings, self.statistics = settings, data["statistics"]
        self.shape, self.space = settings.shape, settings.patch
        self.residual = settings.target == "residual"
        name = "residual" if self.residual else "low"
        self.codec_settings = dict(mean=self.statistics[f"{name}_mean"], std=self.statistics[f"{name}_std"])
        self.codec = Standardise(**self.codec_settings)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[LowResolution, Box]:
        phase = int(random.integers(PHASES))
        low = archive.tensor(row, "low", phase)
        box = Box(self._start(low, random), self.space)
        noise, size = self.settings.condition_noise, (len(UPSAMPLED), *self.space)
        source = LowResolution(
            archive.demographics(row), low, phase_offsets(phase),
            high=lambda box: archive.tensor(row, "high", slice(None), *box.slices),
            noise=noise * torch.from_numpy(random.standard_normal(size, dtype=np.float32)) if noise else None,
        )  # fmt: skip
        return source, box

    def _start(self, low, random):
        """First voxel of a patch along x, y and z."""
        ends, weight = list(zip(self.shape, self.space, strict=True)), WEIGHTS[self.settings.placement]
        count = STARTS if weight else 1
        starts = [tuple(int(random.integers(n - p + 1)) for n, p in ends) for _ in range(count)]
        if weight is None:
            return starts[0]
        weights = []
        for start in starts:
            ct, pet = low[(slice(None), *Box(start, self.space).coarser(FACTOR))]
            weights.append(weight(float((ct > BODY_CT).float().mean()), float((pet > HOT_PET).float().mean())))
        return starts[int(random.choice(STARTS, p=np.array(weights) / sum(weights)))]

    def clean(self, source: LowResolution, box: Box) -> torch.Tensor:
        assert source.high is not None, "known while training"
        high = source.high(box)
        return high - source.upsampled(box) if self.residual else high

    def condition(self, source: LowResolution, box: Box, device: torch.device | None = None) -> torch.Tensor:
        seen = standardised(source.upsampled(box, device), self.statistics)
        if source.noise is not None:
            seen = seen + source.noise
        maps = demographic_maps(source.demographics, box.shape, device)
        return torch.cat([seen, maps, position(box.start, box.shape, self.shape, device=device)])

    def compose(self, decoded: torch.Tensor, source: LowResolution, box: Box) -> torch.Tensor:
        return decoded + source.upsampled(box, decoded.device) if self.residual else decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        return _picture(volume)


STAGES: dict[str, type[GlobalTask] | type[SuperResolutionTask]] = {"global": GlobalTask, "sr": SuperResolutionTask}


def _picture(volume):
    """CT, PET and PET projection."""
    ct, pet = volume.numpy()
    return study_strip(intensity.decode_ct(ct), intensity.decode_pet(pet))
