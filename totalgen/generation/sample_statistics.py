"""Mean and standard deviation of several samples of one volume, on the grid of what the user brought."""

from collections.abc import Iterable

import numpy as np

from totalgen.data.volume import Volume, resample


def mean_and_std(name: str, samples: Iterable[Volume], given: Volume) -> dict[str, Volume]:
    """dict of ``name``, the mean, and from two samples on of <name>_std, their standard deviation (divisor n − 1).

    Both on the grid of ``given``, 0 outside the samples. Each sample is brought there before they are compared: between
    voxels it is an average of them and varies less than they do. One is held at a time (Welford 1962).
    """
    mean, squares, count = np.zeros(given.shape), np.zeros(given.shape), 0
    for count, sample in enumerate(samples, start=1):
        there = sample.shape == given.shape and np.array_equal(sample.affine, given.affine)
        voxels = (sample if there else resample(sample, given.shape, given.affine, fill=0.0)).voxels
        step = voxels - mean
        mean += step / count
        squares += step * (voxels - mean)
    found = {name: mean} | ({f"{name}_std": np.sqrt(squares / (count - 1))} if count > 1 else {})
    return {key: Volume(voxels.astype(np.float32), given.affine) for key, voxels in found.items()}
