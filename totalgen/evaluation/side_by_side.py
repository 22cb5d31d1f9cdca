"""One coronal slice of a reference and its candidates side by side, their errors below: what tables do not show."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from totalgen.data.files import atomic
from totalgen.data.pictures import coronal
from totalgen.data.volume import read_nifti
from totalgen.evaluation.image_quality import reader_on_grid

ERROR_SHARE = 0.25  # of the range, the largest error that is told apart
COLUMN, DPI = 2.1, 110  # inches of a picture


def side_by_side(
    path: Path, reference: Path, candidates: Mapping[str, Path], value_range: tuple[float, float],
    maps: Mapping[str, Path] | None = None, inverted: bool = False, given: tuple[str, Path] | None = None,
) -> None:  # fmt: skip
    """A PNG: the coronal slice in which the reference has the largest sum, each volume within ``value_range``, and
    below it candidate − reference; then ``maps``, such as a standard deviation, with the same range as the errors.

    inverted: high values dark, as PET is shown;  given: name and file of what the candidates were made of, such as a
    CT, shown between its own 1st and 99th percentile where there are no maps. Raises InputError for other grids.
    """
    truth = read_nifti(reference)
    shown = np.clip(truth.voxels, *value_range)
    y = int(shown.sum((0, 2)).argmax())
    read = reader_on_grid(truth)
    volumes = {name: read(file).voxels for name, file in candidates.items()}
    extra = {name: read(file).voxels for name, file in (maps or {}).items()}
    spread = ERROR_SHARE * (value_range[1] - value_range[0])
    columns = len(volumes) + 1
    height = COLUMN * truth.shape[2] * truth.voxel_mm[2] / (truth.shape[0] * truth.voxel_mm[0])
    figure = Figure(figsize=(COLUMN * columns + 0.9, 2 * height + 0.7), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    aspect = truth.voxel_mm[2] / truth.voxel_mm[0]
    grey = dict(cmap="gray_r" if inverted else "gray", vmin=value_range[0], vmax=value_range[1], aspect=aspect)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, voxels) in zip(axes[0], [("reference", truth.voxels), *volumes.items()], strict=True):
        values = axis.imshow(coronal(voxels, y), **grey)
        axis.set_title(name, fontsize=9)
    for axis, voxels in zip(axes[1, 1:], volumes.values(), strict=True):
        errors = axis.imshow(coronal(voxels - truth.voxels, y), cmap="RdBu_r", vmin=-spread, vmax=spread, aspect=aspect)
    for axis, (name, voxels) in zip(axes[1, :1], extra.items(), strict=False):
        deviation = axis.imshow(coronal(voxels, y), cmap="magma", vmin=0, vmax=spread, aspect=aspect)
        axis.set_title(name, fontsize=9)
        figure.colorbar(deviation, ax=axis, location="left", shrink=0.6)
    if given is not None and not extra:
        image = coronal(read(given[1]).voxels, y)
        low, high = np.percentile(image, (1, 99))
        axes[1, 0].imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        axes[1, 0].set_title(given[0], fontsize=9)
    figure.colorbar(values, ax=axes[0], shrink=0.7)
    figure.colorbar(errors, ax=axes[1], shrink=0.7, label="difference from the reference")
    with atomic(path) as part:
        figure.savefig(part, dpi=DPI, format="png")
