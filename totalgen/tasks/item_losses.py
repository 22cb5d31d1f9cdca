"""The denoising loss of chosen subjects at fixed noise levels: what a membership-inference attack looks at."""

from collections.abc import Sequence

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.models.processes import Denoiser
from totalgen.models.samplers import seeded_generator
from totalgen.tasks.task import Task

STREAM = 7  # of the random numbers that belong to these losses alone


@torch.no_grad()
def item_losses(
    denoiser: Denoiser, task: Task, archive: Archive, row: int, sigmas: Sequence[float], repeats: int, seed: int = 0
) -> np.ndarray:
    """[repeats, len(sigmas)]: the loss (Denoiser.loss, unweighted) of items of one row of an archive.

    Items and noise follow from (seed, repeat) alone, so that all rows are looked at in the same way.
    """
    device = next(denoiser.parameters()).device
    found = np.empty((repeats, len(sigmas)))
    for repeat in range(repeats):
        source, box = task.choose(archive, row, np.random.default_rng((seed, STREAM, repeat)))
        clean = task.codec.encode(task.clean(source, box)[None].to(device))
        condition = task.condition(source, box, device)[None]
        noise = torch.randn(clean.shape, generator=seeded_generator(seed, STREAM, repeat)).to(device)
        for column, sigma in enumerate(sigmas):
            level = torch.full((1,), float(sigma), device=device)
            found[repeat, column] = float(denoiser.loss(clean, condition, level, noise)[1])
    return found
