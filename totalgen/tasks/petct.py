"""The two stages of the PET/CT cascade."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.conditions import (
    DEMOGRAPHICS,
    POSITION,
    TEMPLATE,
    UPSAMPLED,
    demographic_maps,
    destandardised,
    standardised,
)
from totalgen.data.demographics import Demographics
from totalgen.data.intensity import PET_CT, Encoding
from totalgen.data.pictures import study_strip
from totalgen.data.recipes import PetCt
from totalgen.data.resolution import CENTRE, FACTOR, PHASES, phase_offsets, position, upsample
from totalgen.errors import InputError
from totalgen.models.codec import Standardise
from totalgen.settings import TaskSettings
from totalgen.tasks.organ_calibration import OrganCalibration
from totalgen.tasks.task import Box, Task, sampled_start
from totalgen.tasks.template import Template

# Where patches are taken: weight of a start, from the share of the low-resolution voxels inside the patch that show
# body (CT above −200 HU) and of those that are hot (SUV above 4).
WEIGHTS: dict[str, Callable[[float, float], float] | None] = {
    "uniform": None,
    "body": lambda body, hot: 0.05 + body,
    "heat": lambda body, hot: 0.05 + body + 10 * hot,
}
BODY_HU, HOT_SUV = -200.0, 4.0
CHANNELS = tuple(PET_CT)


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
    _known: tuple[Any, torch.Tensor] | None = dataclasses.field(default=None, repr=False)

    def upsampled(self, box: Box, device: torch.device | None = None) -> torch.Tensor:
        """The volume interpolated to the full resolution, [2, *box.shape]; the last one is remembered."""
        asked = box, device
        if self._known is None or self._known[0] != asked:
            low = self.low if device is None else self.low.to(device)
            self._known = asked, upsample(low, self.offsets, box.start, box.shape)
        return self._known[1]


class CascadeTask(Task[Any]):
    """What both stages share. data: what the archive knows (Archive.data): its statistics and encodings.

    shown: the channels of the condition that show CT and SUV.
    """

    target = CHANNELS
    shown: tuple[str, ...]

    def __init__(self, settings: TaskSettings, data: dict[str, Any]):
        self.partial = settings.partial_torsos
        self.settings, self.statistics, self.encodings = settings, data["statistics"], encodings_of(data)

    def check(self, archive: Archive) -> None:
        recipe, asked = archive.recipe, self.settings
        if not isinstance(recipe, PetCt):
            raise InputError(f"{archive.path}: is packed for something else. Pack it with --recipe petct.")
        if recipe.shape != asked.shape:
            raise InputError(
                f"{archive.path}: holds volumes of {_x(recipe.shape)} voxels, the preset expects {_x(asked.shape)}. "
                f"Pack again with --shape {' '.join(map(str, asked.shape))}, or choose another preset."
            )
        if recipe.axial != asked.axial:
            raise InputError(
                f"{archive.path}: was packed with --axial {recipe.axial}, the preset expects {asked.axial}. "
                f"Pack it again, or choose another preset."
            )
        if any(p > n for p, n in zip(self.space, self.shape, strict=True)):
            wide = f"patch {_x(self.space)} is larger than the volume {_x(asked.shape)}"
            raise InputError(f"{wide}. Choose a smaller patch.")

    def weight(self, condition: torch.Tensor) -> torch.Tensor | None:
        """1 + emphasis · the encoded SUV that the condition shows, over its mean: of a low-resolution volume one voxel
        in five hundred is of the kidneys, and what they are would be learnt last."""
        if not self.settings.emphasis:
            return None
        first = self.given.index(self.shown[0])
        shown = destandardised(condition[:, first : first + len(self.shown)], self.statistics)
        weight = 1 + self.settings.emphasis * shown[:, self.target.index("SUV")].clamp(0, 1)[:, None]
        return weight / weight.mean((1, 2, 3, 4), keepdim=True)

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        """CT, PET and PET projection."""
        ct, suv = decoded_channels(volume.numpy(), self.encodings).values()
        return study_strip(ct, suv)


class GlobalTask(CascadeTask):
    """Low-resolution volume of a random phase; condition: demographics, and with ``settings.template`` the body to be
    expected of them (template.Template).
    """

    shown = TEMPLATE

    def __init__(self, settings: TaskSettings, data: dict[str, Any]):
        super().__init__(settings, data)
        self.shape = self.space = tuple(n // FACTOR for n in settings.shape)
        statistics = self.statistics
        self.codec = Standardise(statistics["low_mean"], statistics["low_std"])
        self.given = (*DEMOGRAPHICS, *TEMPLATE) if settings.template else DEMOGRAPHICS
        self.template: Template | None = None
        if settings.template and data["template"] is not None:
            self.template = Template.from_settings(data["template"], (len(CHANNELS), *self.space))
        self.organs: OrganCalibration | None = None  # measured once the network has learnt
        if "organs" in data:
            self.organs = OrganCalibration.from_settings(data["organs"], (len(CHANNELS), *self.space))

    def prepare(self, archive: Archive, rows: Sequence[int]) -> None:
        if self.settings.template:
            phases = (archive.tensor(row, "low", n % PHASES) for n, row in enumerate(rows))
            self.template = Template.fit(zip(map(archive.demographics, rows), phases, strict=True))
            self.measured = dict(template=self.template.settings)

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Person, Box]:
        low = archive.tensor(row, "low", int(random.integers(PHASES)))
        return Person(archive.demographics(row), low), Box.whole(self.shape)

    def clean(self, source: Person, box: Box) -> torch.Tensor:
        assert source.low is not None, "known while training"
        return source.low[(slice(None), *box.slices)]

    def condition(self, source: Person, box: Box, device: torch.device | None = None) -> torch.Tensor:
        maps = demographic_maps(source.demographics, box.shape, device)
        if not self.settings.template:
            return maps
        return torch.cat([maps, standardised(self._expected(source, box), self.statistics).to(maps.device)])

    def encoded_template(self, source: Person, box: Box, device: torch.device | None = None) -> torch.Tensor:
        """The body to be expected of a person, in process units: [2, *box]. device: that of the codec."""
        return self.codec.encode(self._expected(source, box)[None].to(device))[0]

    def _expected(self, source, box):
        if self.template is None:
            raise InputError("the weights lack the template that their settings name. Copy them again.")
        return self.template.of(source.demographics)[(slice(None), *box.slices)]

    def compose(self, decoded: torch.Tensor, source: Person, box: Box) -> torch.Tensor:
        return decoded


class SuperResolutionTask(CascadeTask):
    """Patch of the residual I_HR − I_LU; condition: I_LU, demographics, position.

    settings: target "residual" (the paper) or "direct" (the released code: I_HR itself); condition_noise, the standard
    deviation of Gaussian noise on the standardised I_LU (conditioning augmentation); placement, a key of WEIGHTS:
    "uniform" is the paper's, the others take one of STARTS uniform starts, weighted by what the low-resolution volume
    shows there. That volume is part of the condition, so what is learnt stays unbiased.
    """

    shown = UPSAMPLED
    given = (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)

    def __init__(self, settings: TaskSettings, data: dict[str, Any]):
        super().__init__(settings, data)
        self.shape, self.space = settings.shape, settings.patch
        self.residual = settings.target == "residual"
        name = "residual" if self.residual else "low"
        self.codec = Standardise(self.statistics[f"{name}_mean"], self.statistics[f"{name}_std"])

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
        weight = WEIGHTS[self.settings.placement]
        body_ct, hot_pet = self.encodings["CT"].encode(BODY_HU), self.encodings["SUV"].encode(HOT_SUV)

        if weight is None:
            return sampled_start(self.shape, self.space, random)

        def of(start):
            ct, pet = low[(slice(None), *Box(start, self.space).coarser(FACTOR))]
            return weight(float((ct > body_ct).float().mean()), float((pet > hot_pet).float().mean()))

        return sampled_start(self.shape, self.space, random, of)

    def clean(self, source: LowResolution, box: Box) -> torch.Tensor:
        assert source.high is not None, "known while training"
        high = source.high(box)
        return high - source.upsampled(box) if self.residual else high

    def condition(self, source: LowResolution, box: Box, device: torch.device | None = None) -> torch.Tensor:
        seen = standardised(source.upsampled(box, device), self.statistics)
        if source.noise is not None:
            seen = seen + source.noise.to(seen)
        maps = demographic_maps(source.demographics, box.shape, device)
        return torch.cat([seen, maps, position(box.start, box.shape, self.shape, device=device)])

    def compose(self, decoded: torch.Tensor, source: LowResolution, box: Box) -> torch.Tensor:
        return decoded + source.upsampled(box, decoded.device) if self.residual else decoded


TASKS: dict[str, type[GlobalTask] | type[SuperResolutionTask]] = {"global": GlobalTask, "sr": SuperResolutionTask}


def encodings_of(data: dict[str, Any]) -> dict[str, Encoding]:
    """channel → Encoding, from what is kept with an archive or weights; until 2026 there were no others."""
    return {name: Encoding(**code) for name, code in data["encodings"].items()} if "encodings" in data else PET_CT


def decoded_channels(volume: np.ndarray, encodings: dict[str, Encoding]) -> dict[str, np.ndarray]:
    """Encoded [channel, …] → channel name → values in their unit."""
    return {name: code.decode(values) for (name, code), values in zip(encodings.items(), volume, strict=True)}


def _x(shape):
    return "×".join(map(str, shape))
