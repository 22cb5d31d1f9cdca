"""What there is to learn: a task is a dataset of (target, condition channels), and a codec for the target.

Item ``n`` of a task depends on (seed, n) alone, never on what was asked before, so that training can stop after any
item and go on. Items are float32 tensors [channel, x, y, z]; the target is in process units (encoded by ``codec``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import zarr
from torch.utils.data import Dataset

from totalgen.data import intensity
from totalgen.data.archive import CHANNELS, Archive
from totalgen.data.conditions import (
    DEMOGRAPHICS,
    POSITION,
    UPSAMPLED,
    demographic_maps,
    destandardised,
    standardised,
)
from totalgen.data.demographics import Demographics
from totalgen.data.pictures import study_strip
from totalgen.data.resolution import FACTOR, PHASES, phase_offsets, position, upsample
from totalgen.errors import InputError
from totalgen.models.codec import Standardise

# Where patches are taken: weight of a start, from the share of the low-resolution voxels inside the patch that show
# body (CT above −200 HU) and of those that are hot (SUV above 4).
WEIGHTS: dict[str, Callable[[float, float], float] | None] = {
    "uniform": None,
    "body": lambda body, hot: 0.05 + body,
    "heat": lambda body, hot: 0.05 + body + 10 * hot,
}
STARTS = 4  # uniformly sampled, of which a weighted placement takes one
BODY_CT, HOT_PET = float(intensity.encode_ct(-200.0)), float(intensity.encode_pet(4.0))


class CascadeTask(Dataset):
    """What the two stages share: an archive, a split and the order of its subjects.

    partial: with the subjects whose scan shows only part of the torso.
    Raises InputError when the archive's shape is not ``shape``, or it has no subject of the split.
    """

    target: tuple[str, ...] = CHANNELS
    given: tuple[str, ...]
    space: tuple[int, ...]  # voxels of an item

    def __init__(
        self, archive: Archive, shape: Sequence[int], split: str = "train", seed: int = 0, partial: bool = False
    ):
        if archive.shape != tuple(shape):
            raise InputError(
                f"{archive.path}: holds volumes of {_x(archive.shape)} voxels, the preset expects {_x(shape)}. "
                f"Pack again with --shape {' '.join(map(str, shape))}, or choose another preset."
            )
        self.archive, self.shape, self.seed = archive, tuple(shape), seed
        self.subjects = archive.indices(split, partial)
        if not self.subjects:
            if cut := len(archive.indices(split, partial=True)):
                raise InputError(
                    f"{archive.path}: all {cut} subjects of split {split} show only part of the torso. "
                    "Train on them with --set partial_torsos=True."
                )
            raise InputError(f"{archive.path}: has no subject of split {split}. Pack a cohort that has some.")
        self._epoch, self._order = -1, np.array([], dtype=int)

    def __len__(self) -> int:
        return len(self.subjects) * PHASES

    def _encode_with(self, name):
        statistics = self.archive.statistics
        self.codec_parameters: dict[str, Any] = dict(mean=statistics[f"{name}_mean"], std=statistics[f"{name}_std"])
        self.codec = Standardise(**self.codec_parameters)

    def subject_of(self, n: int) -> int:
        """Row of the archive that item n shows: every subject once per epoch, in an order of its own."""
        epoch, place = divmod(n, len(self.subjects))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.subjects)
            self._epoch = epoch
        return int(self._order[place])

    def _random(self, n):
        return np.random.default_rng((self.seed, 1, n))

    def _read(self, array: zarr.Array, *index: Any) -> torch.Tensor:
        return torch.from_numpy(array[index].astype(np.float32))

    def demographics(self, n: int) -> Demographics:
        """Who item n shows."""
        return self.archive.demographics(self.subject_of(n))

    def picture(self, target: torch.Tensor, condition: torch.Tensor) -> np.ndarray:
        """One decoded item as a grey picture: CT, PET and PET projection."""
        volume = self.volume(target, condition).numpy()
        return study_strip(intensity.decode_ct(volume[0]), intensity.decode_pet(volume[1]))

    def volume(self, target: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """[2, x, y, z] in [0, 1] of a target in process units."""
        return self.codec.decode(target[None])[0]


class GlobalTask(CascadeTask):
    """Low-resolution volume of a random phase; condition: demographics."""

    given = DEMOGRAPHICS

    def __init__(
        self, archive: Archive, shape: Sequence[int], split: str = "train", seed: int = 0, partial: bool = False
    ):
        super().__init__(archive, shape, split, seed, partial)
        self.space = tuple(n // FACTOR for n in shape)
        self._encode_with("low")

    def __getitem__(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        subject = self.subject_of(n)
        low = self._read(self.archive.low(subject), int(self._random(n).integers(PHASES)))
        maps = demographic_maps(self.archive.demographics(subject), low.shape[1:])
        return self.codec.encode(low[None])[0], maps.contiguous()


class SuperResolutionTask(CascadeTask):
    """Patch of the residual I_HR − I_LU; condition: I_LU, demographics, position.

    target: "residual" (the paper) or "direct" (the released code: I_HR itself);  patch: voxels per axis;
    condition_noise: standard deviation of Gaussian noise on the standardised I_LU (conditioning augmentation);
    placement: a key of WEIGHTS: where in the volume patches are taken. "uniform" is the paper's; the others take one of
    STARTS uniform starts, weighted by what the low-resolution volume shows there. That volume is part of the condition,
    so what is learnt stays unbiased.
    """

    given = (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)

    def __init__(
        self, archive: Archive, shape: Sequence[int], patch: Sequence[int], split: str = "train", seed: int = 0,
        partial: bool = False, target: str = "residual", condition_noise: float = 0.0, placement: str = "uniform",
    ):  # fmt: skip
        super().__init__(archive, shape, split, seed, partial)
        if any(p > n for p, n in zip(patch, shape, strict=True)):
            raise InputError(f"patch {_x(patch)} is larger than the volume {_x(shape)}. Choose a smaller patch.")
        self.space, self.residual, self.condition_noise = tuple(patch), target == "residual", condition_noise
        self.placement = placement
        self._encode_with("residual" if self.residual else "low")

    def __getitem__(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        subject, random = self.subject_of(n), self._random(n)
        phase = int(random.integers(PHASES))
        low = self._read(self.archive.low(subject), phase)
        start = self._start(low, random)
        box = tuple(slice(s, s + p) for s, p in zip(start, self.space, strict=True))
        high = self._read(self.archive.high(subject), slice(None), *box)
        upsampled = upsample(low, phase_offsets(phase), start, self.space)
        target = self.codec.encode((high - upsampled if self.residual else high)[None])[0]
        seen = standardised(upsampled, self.archive.statistics)
        if self.condition_noise:
            seen = seen + self.condition_noise * torch.from_numpy(random.standard_normal(seen.shape, dtype=np.float32))
        maps = demographic_maps(self.archive.demographics(subject), self.space)
        return target, torch.cat([seen, maps, position(start, self.space, self.shape)])

    def _start(self, low, random):
        """First voxel of a patch along x, y and z."""
        ends, weight = list(zip(self.shape, self.space, strict=True)), WEIGHTS[self.placement]
        starts = [[int(random.integers(n - p + 1)) for n, p in ends] for _ in range(STARTS if weight else 1)]
        if weight is None:
            return starts[0]
        weights = []
        for start in starts:
            box = (slice(s // FACTOR, math.ceil((s + p) / FACTOR)) for s, p in zip(start, self.space, strict=True))
            ct, pet = low[(slice(None), *box)]
            weights.append(weight(float((ct > BODY_CT).float().mean()), float((pet > HOT_PET).float().mean())))
        return starts[int(random.choice(STARTS, p=np.array(weights) / sum(weights)))]

    def volume(self, target: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """[2, x, y, z] in [0, 1] of a patch: decoded target, plus the upsampled volume when it is a residual."""
        decoded = super().volume(target, condition)
        if not self.residual:
            return decoded
        return decoded + destandardised(condition[: len(UPSAMPLED)], self.archive.statistics)


def _x(shape):
    return "×".join(map(str, shape))
