"""The training items of any task: which subject, which part of it, and their order.

Item ``n`` depends on (seed, n) alone, never on what was asked before, so that training can stop after any item and go
on, and any process can load any item.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from totalgen.data.archive import Archive
from totalgen.data.demographics import Demographics
from totalgen.errors import InputError
from totalgen.tasks.task import Box, Task


class Items(Dataset):
    """Items (n, target in process units, condition), both float32 [channel, *task.space].

    Raises InputError when the archive does not suit the task (Task.check), lacks subjects of the split or is damaged.
    """

    def __init__(
        self, task: Task, archive: Archive, split: str = "train", seed: int = 0
    ):
        task.check(archive)
        self.task, self.archive, self.seed = task, archive, seed
        self.subjects = archive.indices(split, task.partial)
        if not self.subjects:
            if cut := len(archive.indices(split, partial=True)):
                raise InputError(
                    f"{archive.path}: all {cut} subjects of split {split} show only part of the torso. "
                    "Train on them with --set partial_torsos=True."
                )
            raise InputError(f"{archive.path}: has no subject of split {split}. Pack a cohort that has some.")
        archive.check(self.subjects)
        self._epoch, self._order = -1, np.array([], dtype=int)

    def row(self, n: int) -> int:
        """Row of the archive that item n shows: every subject once per epoch, in an order of its own."""
        epoch, place = divmod(n, len(self.subjects))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.subjects)
            self._epoch = epoch
        return int(self._order[place])

    def demographics(self, n: int) -> Demographics:
        """Who item n shows."""
        return self.archive.demographics(self.row(n))

    def __getitem__(self, n: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        source, box = self.source(n)
        target = self.task.codec.encode(self.task.clean(source, box)[None])[0]
        return n, target, self.task.condition(source, box).contiguous()

    def source(self, n: int) -> tuple[Any, Box]:
        """(source, box) of item n, as its task chose them."""
        return self.task.choose(self.archive, self.row(n), np.random.default_rng((self.seed, 1, n)))

    def volume(self, n: int, encoded: torch.Tensor) -> torch.Tensor:
        """The composed volume of item n for a target or a sample in process units."""
        return self.task.compose(self.task.codec.decode(encoded[None])[0], *self.source(n))
