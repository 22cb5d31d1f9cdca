"""The shape of a task: from a source and a box of voxels to what a network is given and what it is to predict.

A source is whatever a task needs to know of one subject: rows and arrays of an archive while training, what a user
brings (demographics, a volume) while generating. Both go through the same ``condition`` and ``compose``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.errors import InputError
from totalgen.models.codec import Codec, Standardise

Source = TypeVar("Source")


@dataclass(frozen=True)
class Box:
    """The voxels start ≤ index < start + shape of a volume, one number per axis."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Box":
        """All voxels of a volume."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def slices(self) -> tuple[slice, ...]:
        """To index an array with; channels come first: array[:, *box.slices]."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))

    def coarser(self, factor: int) -> Iterator[slice]:
        """Slices of the voxels, each ``factor`` times as long, that the box touches."""
        for s, n in zip(self.start, self.shape, strict=True):
            yield slice(s // factor, -(-(s + n) // factor))


VOXEL_TOLERANCE = 0.01  # relative
MEASURED_ITEMS = 64  # training patches that a codec's means and standard deviations are of
STARTS = 4  # uniformly sampled, of which a weighted placement takes one


def sampled_start(
    shape: Sequence[int], window: Sequence[int], random: np.random.Generator,
    weight: Callable[[tuple[int, ...]], float] | None = None,
) -> tuple[int, ...]:  # fmt: skip
    """First voxel of a window somewhere in a volume; 0 along an axis that is not longer than the window.

    weight: of a start; then one of STARTS uniform ones is taken, by their weights.
    """
    starts = [
        tuple(int(random.integers(max(n - w, 0) + 1)) for n, w in zip(shape, window, strict=True))
        for _ in range(STARTS if weight else 1)
    ]
    if weight is None:
        return starts[0]
    weights = np.array([weight(start) for start in starts])
    return starts[int(random.choice(STARTS, p=weights / sum(weights)))]


class Task(ABC, Generic[Source]):
    """One problem. Tensors are float32 without a batch axis, [channel, *box.shape].

    target, given: names of the channels of the target and of the condition;  shape: voxels of a complete volume;
    space: voxels of a training item;  codec: between data units and the space of the process;
    partial: learn also from scans that end within the torso;  measured: what ``prepare`` found, JSON values by name,
    which are kept with weights as data.
    """

    target: tuple[str, ...]
    given: tuple[str, ...]
    shape: tuple[int, ...]
    space: tuple[int, ...]
    codec: Codec
    partial: bool = True
    measured: Mapping[str, Any] = MappingProxyType({})

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.space)

    def check(self, archive: Archive) -> None:
        """InputError when an archive is not what the task learns from."""

    def prepare(self, archive: Archive, rows: Sequence[int]) -> None:
        """Before a training on these rows: what is measured on them, such as the codec."""

    @abstractmethod
    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Source, Box]:
        """The source and the box of a training item of one subject of the archive."""

    @abstractmethod
    def clean(self, source: Source, box: Box) -> torch.Tensor:
        """What is to be predicted, in data units. Training only."""

    @abstractmethod
    def condition(self, source: Source, box: Box, device: torch.device | None = None) -> torch.Tensor:
        """What the network is given."""

    def weight(self, condition: torch.Tensor) -> torch.Tensor | None:
        """How much each voxel counts in the loss, [B, 1, *box.shape], mean 1; None: all the same.

        condition: [B, K, *box.shape]. What depends on nothing else leaves what is learnt, the conditional mean,
        where it is.
        """
        return None

    @abstractmethod
    def compose(self, decoded: torch.Tensor, source: Source, box: Box) -> torch.Tensor:
        """The volume of the box, encoded as the archive stores it, from a decoded prediction."""

    @abstractmethod
    def picture(self, volume: torch.Tensor) -> np.ndarray:
        """A composed item as a grey picture [rows, columns], uint8."""


def measured_codec(task: Task[Source], archive: Archive, rows: Sequence[int]) -> Standardise:
    """The codec that standardises each channel of the target, measured on MEASURED_ITEMS patches of these rows."""
    random = np.random.default_rng(0)
    items = [task.choose(archive, rows[n % len(rows)], random) for n in range(MEASURED_ITEMS)]
    values = torch.stack([task.clean(*item) for item in items]).transpose(0, 1).flatten(1)
    mean, std = ([round(float(value), 6) for value in each] for each in (values.mean(1), values.std(1)))
    return Standardise(mean, std)


def check_voxels(archive: Archive, voxel_mm: float, axes: int) -> None:
    """Raises InputError when the first ``axes`` axes of a subject have other voxels than ``voxel_mm``."""
    for row, subject in enumerate(archive.subjects):
        edges = np.array(archive.attributes(row)["voxel_mm"])[:axes]
        if np.abs(edges / voxel_mm - 1).max() > VOXEL_TOLERANCE:
            found = "×".join(f"{edge:g}" for edge in edges)
            raise InputError(
                f"{archive.path}: {subject['subject']} has voxels of {found} mm, the preset expects {voxel_mm:g}. "
                "Resample the cohort, or --set voxel_mm."
            )
