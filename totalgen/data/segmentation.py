"""Organ labels for a CT: those supplied with a cohort, or those that TotalSegmentator finds.

A backend is a function (subject, ct) → Volume of uint8 labels on the grid of ct, a Volume in HU.
"""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, canonical, read_labels, resample
from totalgen.errors import InputError

Backend = Callable[[str, Volume], Volume]

BELOW = (  # organ, organ that lies nearer to the head in everybody
    ("liver", "heart"), ("sacrum", "liver"), ("sacrum", "heart"), ("urinary_bladder", "liver"),
    ("heart", "clavicula_left"), ("heart", "clavicula_right"), ("sacrum", "clavicula_left"),
    ("sacrum", "clavicula_right"),
)  # fmt: skip
PAIRS = ("scapula", "clavicula", "hip")  # bones with a left and a right one
APART_MM = 30.0  # at least, from the left to the right one; ribs of one side, which they are in version 1, are nearer
TORSO_MM = 150.0  # at least, from the sacrum to the clavicles, even of a child of 1 m
STRAY_ML = 5.0  # less is a network's mistake, or the rim of an organ at the end of a scan: it proves no numbering
AIR_HU, AIR_SHARE = -200.0, 0.1  # of an organ without air: 0.002 of a real one at any voxel size, 0.47 of one 80 mm off
SOLID = ("liver", "spleen", "heart")  # they lie beside the lungs, so that a shift puts them there
LAST_ID = 117  # of TotalSegmentator's `total` task, version 2
FAST_MM = 3.0  # its `fast` network works at this voxel size: finer input than this deserves the full one


def given_file(root: str | Path, subject: str) -> Path:
    """The labels that were supplied with a cohort."""
    return Path(root) / "given" / subject / "organs.nii.gz"


def given(root: str | Path) -> Backend:
    """Backend that takes ``<root>/given/<subject>/organs.nii.gz``, on any grid with a true affine."""

    def backend(subject, ct):
        path = given_file(root, subject)
        return on_grid_of(ct, read_labels(path), path)

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


def check_anatomy(labels: Volume, name: str | Path) -> None:
    """Raises InputError, naming ``name``, when organs lie where no body has them: ids of another numbering, such as
    those of TotalSegmentator 1, or an affine that is upside down or mirrored. labels: Volume of any axes."""
    names = {organ for pair in BELOW for organ in pair} | {f"{b}_{side}" for b in PAIRS for side in ("left", "right")}
    middle = {}
    for organ in sorted(names):
        where = np.argwhere(labels.voxels == ORGANS[organ])
        if len(where) * labels.voxel_ml > STRAY_ML:
            middle[organ] = labels.world(where.mean(0))
    cure = "Give the ids of TotalSegmentator's `total` task, version 2, on a correct affine."

    def called(organ):
        return f"label {ORGANS[organ]} ({organ})"

    for low, high in BELOW:
        if low in middle and high in middle and middle[low][2] >= middle[high][2]:
            raise InputError(f"{name}: {called(low)} lies above {called(high)}. {cure}")
    for bone in PAIRS:
        left, right = f"{bone}_left", f"{bone}_right"
        if left in middle and right in middle and middle[right][0] - middle[left][0] < APART_MM:
            raise InputError(f"{name}: {called(right)} does not lie to the right of {called(left)}. {cure}")
    for top in ("clavicula_left", "clavicula_right"):
        if top in middle and "sacrum" in middle and middle[top][2] - middle["sacrum"][2] < TORSO_MM:
            raise InputError(f"{name}: {called('sacrum')} is less than {TORSO_MM:g} mm below {called(top)}. {cure}")


def air_in_organs(ct: Volume, labels: np.ndarray) -> list[str]:
    """Doubts about labels [x, y, z] of organs that have no air, where the CT has: they may not lie on each other."""
    shares = {organ: ct.voxels[labels == ORGANS[organ]] < AIR_HU for organ in SOLID}
    return [
        f"{100 * air.mean():.0f} % of the {organ} lie in air or lung: labels and CT may not lie on each other"
        for organ, air in shares.items() if air.size * ct.voxel_ml > STRAY_ML and air.mean() > AIR_SHARE
    ]  # fmt: skip


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
    check_anatomy(labels, name)
    if not np.isin(ids, list(ORGANS.values())).any():
        raise InputError(f"{name}: none of the organs used here is labelled ({', '.join(ORGANS)}). Check its ids.")
    labels = Volume(labels.voxels.astype(np.uint8), labels.affine)
    if labels.same_grid(ct):
        return Volume(labels.voxels, ct.affine)
    return resample(labels, ct.shape, ct.affine, fill=0, nearest=True)
