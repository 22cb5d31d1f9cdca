"""Whether a map of standard deviations says how large the errors are: predicted against observed, in bins."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from totalgen.data.files import atomic
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError

BINS = 12
COLUMNS = ("predicted", "observed", "voxels")


class Maps(NamedTuple):
    """Patterns of paths in which {} stands for the subject: the mean of ``samples`` samples and their standard
    deviation, to be compared with ``reference``."""

    reference: str
    mean: str
    std: str
    samples: int


def calibration(
    reference: np.ndarray, mean: np.ndarray, std: np.ndarray, samples: int, mask: np.ndarray, edges: np.ndarray
) -> pd.DataFrame:
    """Sums per bin of the predicted error, [len(edges) − 1] rows: predicted and observed squares, voxels.

    If the reference is one more draw from what the samples are drawn from, its expected squared distance from their
    mean is std² · (1 + 1/samples).
    """
    predicted = (std * np.sqrt(1 + 1 / samples))[mask]
    error = (mean.astype(np.float64) - reference)[mask]
    place = np.clip(np.digitize(predicted, edges) - 1, 0, len(edges) - 2)
    sums = [np.bincount(place, weights, len(edges) - 1) for weights in (predicted**2, error**2, None)]
    return pd.DataFrame(dict(zip(COLUMNS, sums, strict=True)))


def calibrate(maps: Maps, subjects: Sequence[str], outdir: Path, above: float | None = None) -> pd.DataFrame:
    """Write <outdir>/calibration.csv and .png, of all voxels of all subjects where the reference is above ``above``.

    Rows are bins of equal ratio of the predicted error; columns of COLUMNS: root mean squares and counts.
    Raises InputError when the files of a subject are on different grids, and for fewer than two samples.
    """
    if maps.samples < 2:
        raise InputError(f"samples is {maps.samples}; a standard deviation needs two. Denoise with --samples 8.")
    volumes = [[read_nifti(path.format(subject)) for path in maps[:3]] for subject in subjects]
    for subject, (reference, *others) in zip(subjects, volumes, strict=True):
        for other in others:
            if other.shape != reference.shape or not np.allclose(other.affine, reference.affine, atol=1e-2):
                raise InputError(f"{subject}: {other.shape} is not the grid of the reference {reference.shape}.")
    masks = [np.ones(r.shape, bool) if above is None else r.voxels > above for r, *_ in volumes]
    values = np.concatenate([std.voxels[mask] for (_, _, std), mask in zip(volumes, masks, strict=True)])
    low, high = np.percentile(values[values > 0], (0.5, 99.9)) * np.sqrt(1 + 1 / maps.samples)
    edges = np.geomspace(low, high, BINS + 1)
    parts = [
        calibration(reference.voxels, mean.voxels, std.voxels, maps.samples, mask, edges)
        for (reference, mean, std), mask in zip(volumes, masks, strict=True)
    ]
    table = pd.concat(parts).groupby(level=0).sum()
    table = table[table["voxels"] > 0]
    for name in COLUMNS[:2]:
        table[name] = np.sqrt(table[name] / table["voxels"])
    table["voxels"] = table["voxels"].astype(int)
    outdir.mkdir(parents=True, exist_ok=True)
    with atomic(outdir / "calibration.csv") as part:
        table.to_csv(part, index=False)
    _figure(outdir / "calibration.png", table, f"{len(volumes)} subjects, {maps.samples} samples")
    return table


def _figure(path, table, note):
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    ends = [table[list(COLUMNS[:2])].to_numpy().min(), table[list(COLUMNS[:2])].to_numpy().max()]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="calibrated")
    axes.plot(table["predicted"], table["observed"], "o-", color="#4477aa", label=note)
    axes.set(xscale="log", yscale="log", xlabel="predicted error", ylabel="observed error (root mean square)")
    axes.legend(frameon=False)
    with atomic(path) as part:
        figure.savefig(part, dpi=110)
