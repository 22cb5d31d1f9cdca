"""The shape of a task: from a source and a box of voxels to what a network is given and what it is to predict.

A source is whatever a task needs to know of one subject: rows and arrays of an archive while training, what a user
brings (demographics, a volume) while generating. Both go through the same ``condition`` and ``compose``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.models.codec import Standardise

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


class Task(ABC, Generic[Source]):
    """One problem. Tensors are float32 without a batch axis, [channel, *box.shape].

    target, given: names of the channels of the target and of the condition;  shape: voxels of a complete volume;
    space: voxels of a training item;  codec: between data units and the space of the process.
    """

    target: tuple[str, ...]
    given: tuple[str, ...]
    shape: tuple[int, ...]
    space: tuple[int, ...]
    codec: Standardise
    codec_settings: dict[str, Any]

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.space)

    @abstractmethod
    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Source, Box]:
        """The source and the box of a training item of one subject of the archive."""

    @abstractmethod
    def clean(self, source: Source, box: Box) -> torch.Tensor:
        """What is to be predicted, in data units. Training only."""

    @abstractmethod
    def condition(self, source: Source, box: Box, device: torch.device | None = None) -> torch.Tensor:
        """What the network is given."""

    @abstractmethod
    def compose(self, decoded: torch.Tensor, source: Source, box: Box) -> torch.Tensor:
        """The volume of the box, encoded as the archive stores it, from a decoded prediction."""

    @abstractmethod
    def picture(self, volume: torch.Tensor) -> np.ndarray:
        """A composed item as a grey picture [rows, columns], uint8."""
