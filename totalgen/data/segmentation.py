"""Organ labels for a CT: those supplied with a cohort, or those that TotalSegmentator finds.

A backend is a function (subject, ct) → Volume of uint8 labels on the grid of ct, a Volume in HU.
"""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, canonical, read_nifti, resample
from totalgen.errors import InputError

Backend = Callable[[str, Volume], Volume]

LAST_ID = 117  # of TotalSegmentator's `total` task, version 2
FAST_MM = 3.0  # its `fast` network works at this voxel size: finer input than this deserves the full one


def given(root: str | Path) -> Backend:
    """Backend that takes ``<root>/given/<subject>/organs.nii.gz``, on any grid with a true affine."""

    def backend(subject, ct):
        path = Path(root) / "given" / subject / "organs.nii.gz"
        return on_grid_of(ct, read_nifti(path), path)

    return backend


def totalsegmentator() -> Backend:
    """Backend that calls TotalSegmentator (task `total`; its fast network for voxels of 3 mm and more).

    Raises InputError when it is not installed. Its weights are fetched from the web at the first call.
    """
    try:
        from totalsegmentator.python_api import totalsegmentator as run
    except ImportError:
        raise InputError(
            "the totalsegmentator backend is not installed. Install it with: pip install -e .[totalsegmentator]"
        ) from None

    def backend(subject, ct):
        fast = bool(ct.voxel_mm.max() >= FAST_MM)
        image = nibabel.Nifti1Image(ct.voxels, ct.affine)
        found = run(image, None, ml=True, task="total", fast=fast, quiet=True)
        labels = canonical(Volume(np.asarray(found.dataobj), found.affine))
        return on_grid_of(ct, labels, f"TotalSegmentator's labels of {subject}")

    return backend


def on_grid_of(ct: Volume, labels: Volume, name: str | Path) -> Volume:
    """Labels (Volume) on the grid of ct, nearest neighbour, as uint8; 0 where they do not reach.

    Raises InputError, naming ``name``, when the values are no ids of the `total` task or contain no organ used here.
    """
    ids = np.unique(labels.voxels)
    if not np.array_equal(ids, np.round(ids)) or ids[0] < 0 or ids[-1] > LAST_ID:
        raise InputError(
            f"{name}: holds {ids[0]:g} to {ids[-1]:g}; labels are whole ids from 0 to {LAST_ID} of TotalSegmentator's "
            "`total` task. Check that it is a label file."
        )
    if not np.isin(ids, list(ORGANS.values())).any():
        raise InputError(f"{name}: none of the organs used here is labelled ({', '.join(ORGANS)}). Check its ids.")
    labels = Volume(labels.voxels.astype(np.uint8), labels.affine)
    if labels.shape == ct.shape and np.allclose(labels.affine, ct.affine, atol=1e-3):
        return Volume(labels.voxels, ct.affine)
    return resample(labels, ct.shape, ct.affine, fill=0, nearest=True)
