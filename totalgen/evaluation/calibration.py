"""Whether a map of standard deviations says how large the errors are: predicted against observed, in bins.

Bins are of the local mean, not of the predicted error: the standard deviation of a few samples is itself noisy, so
voxels that are chosen for a large one have too large a one, and a model that is right would look wrong (observed over
predicted from 1.8 to 0.6, with 8 samples of one spread in twelve bins). Mean and standard deviation of normal samples
are independent of each other, so bins of the mean do not choose among the noise of the standard deviation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import ndimage

from totalgen.data.files import atomic
from totalgen.data.names import file_of
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.image_quality import reader_on_grid

SHARES = (*np.arange(0, 1, 0.1), 0.95, 0.99, 1)  # of the voxels, below the edges of the bins: finer for the highest
NEIGHBOURHOOD = 2.0  # voxels, of the Gaussian: the mean of a single voxel has a part in its own error
COLUMNS = ("mean", "predicted", "observed", "voxels")


class Maps(NamedTuple):
    """Patterns of paths in which {} stands for the subject: the mean of ``samples`` samples and their standard
    deviation, to be compared with ``reference`` where ``mask``, if there is one, is above 0."""

    reference: str
    mean: str
    std: str
    samples: int
    mask: str | None = None


def calibration(
    reference: np.ndarray, mean: np.ndarray, std: np.ndarray, level: np.ndarray, samples: int, edges: np.ndarray
) -> pd.DataFrame:
    """Sums per bin of ``level``, [len(edges) − 1] rows: level, predicted and observed squares, voxels.

    All arrays are of the same voxels. If the reference is one more draw from what the samples are drawn from, its
    expected squared distance from their mean is std² · (1 + 1/samples).
    """
    predicted = std.astype(np.float64) ** 2 * (1 + 1 / samples)
    error = mean.astype(np.float64) - reference
    place = np.clip(np.digitize(level, edges) - 1, 0, len(edges) - 2)
    sums = [np.bincount(place, weights, len(edges) - 1) for weights in (level, predicted, error**2, None)]
    return pd.DataFrame(dict(zip(COLUMNS, sums, strict=True)))


def calibrate(maps: Maps, subjects: Sequence[str], outdir: Path, above: float | None = None) -> pd.DataFrame:
    """Write <outdir>/calibration.csv and .png, of all voxels of all subjects in the mask, or without one where the
    reference is above ``above``.

    Rows are bins of the samples' mean in the NEIGHBOURHOOD, by the SHARES of voxels; columns of COLUMNS: mean, root
    mean squares and counts. Raises InputError when the files of a subject are on different grids, for voxels that are
    no numbers, when there are none to compare, and for fewer than two samples.
    """
    if maps.samples < 2:
        raise InputError(f"samples is {maps.samples}; a standard deviation needs two. Denoise with --samples 8.")
    voxels = [_compared(maps, subject, above) for subject in subjects]
    levels = np.concatenate([level for *_, level in voxels])
    if not len(levels):
        where = "in its mask" if maps.mask else f"above {above:g}"
        raise InputError(f"no voxel of {len(subjects)} subjects is {where}. Choose another mask.")
    edges = np.quantile(levels, SHARES)
    parts = [calibration(truth, mean, std, level, maps.samples, edges) for truth, mean, std, level in voxels]
    table = pd.concat(parts).groupby(level=0).sum()
    table = table[table["voxels"] > 0]
    table["mean"] /= table["voxels"]
    for name in ("predicted", "observed"):
        table[name] = np.sqrt(table[name] / table["voxels"])
    table["voxels"] = table["voxels"].astype(int)
    outdir.mkdir(parents=True, exist_ok=True)
    with atomic(outdir / "calibration.csv") as part:
        table.to_csv(part, index=False)
    _figure(outdir / "calibration.png", table, f"{len(subjects)} subjects, {maps.samples} samples")
    return table


def _compared(maps, subject, above):
    """Reference, mean, standard deviation and local mean of the voxels [n] of a subject that are compared."""
    reference, mean, std = volumes = [read_nifti(file_of(path, subject)) for path in maps[:3]]
    mask = np.ones(reference.shape, bool) if above is None else reference.voxels > above
    if maps.mask is not None:
        mask = reader_on_grid(reference)(file_of(maps.mask, subject)).voxels > 0
    for path, volume in zip(maps[:3], volumes, strict=True):
        if not volume.same_grid(reference):
            raise InputError(f"{subject}: {volume.shape} is not the grid of the reference {reference.shape}.")
        if not np.isfinite(volume.voxels[mask]).all():
            raise InputError(f"{file_of(path, subject)}: voxels that are compared are no numbers. Correct it.")
    local = ndimage.gaussian_filter(np.nan_to_num(mean.voxels, posinf=0.0, neginf=0.0), NEIGHBOURHOOD)
    return [values[mask] for values in (reference.voxels, mean.voxels, std.voxels, local)]


def _figure(path, table, note):
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    shown = table[(table["predicted"] > 0) & (table["observed"] > 0)]
    if len(shown):
        ends = [shown[["predicted", "observed"]].to_numpy().min(), shown[["predicted", "observed"]].to_numpy().max()]
        axes.plot(ends, ends, color="0.6", linewidth=1, label="calibrated")
        axes.plot(shown["predicted"], shown["observed"], "o-", color="#4477aa", label=f"{note}\nbins of the mean")
        axes.set(xscale="log", yscale="log")
        axes.legend(frameon=False)
    axes.set(xlabel="predicted error", ylabel="observed error (root mean square)")
    with atomic(path) as part:
        figure.savefig(part, dpi=110)
