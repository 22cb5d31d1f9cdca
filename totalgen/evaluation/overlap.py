"""How well labels agree with the true ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from totalgen.data.files import forget_failures, record_failure
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.data.progress import progress
from totalgen.data.studies import read_studies
from totalgen.data.volume import Volume, read_labels, read_nifti
from totalgen.errors import InputError

STEP = "test_segmenter"  # name in failures.csv
TOLERANCE_MM = 3.0  # of surface Dice: surfaces as near as this agree
PERCENTILE = 95  # of the Hausdorff distance


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two boolean arrays; NaN when both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else float("nan")


def surface_distances(predicted: np.ndarray, truth: np.ndarray, voxel_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm of the surface voxels of each of two masks (bool, not empty) from the surface of the other."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, truth)]
    away = [ndimage.distance_transform_edt(~edge, sampling=voxel_mm) for edge in edges]
    return away[1][edges[0]], away[0][edges[1]]


def surface_agreement(
    predicted: np.ndarray, truth: np.ndarray, voxel_mm: np.ndarray, tolerance_mm: float = TOLERANCE_MM
) -> tuple[float, float]:
    """(Hausdorff distance in mm, the larger of the two 95 % ones; surface Dice: share of both surfaces that is within
    ``tolerance_mm`` of the other). (inf, 0) when one mask is empty, NaN when both are. Grids are rectangular."""
    if not (predicted.any() and truth.any()):
        both = not (predicted.any() or truth.any())
        return (np.nan, np.nan) if both else (np.inf, 0.0)
    ours, theirs = surface_distances(predicted, truth, voxel_mm)
    hausdorff = max(float(np.percentile(each, PERCENTILE)) for each in (ours, theirs))
    near = np.count_nonzero(ours <= tolerance_mm) + np.count_nonzero(theirs <= tolerance_mm)
    return hausdorff, near / (len(ours) + len(theirs))


def mask_agreement(predicted: Volume, truth: Volume) -> dict[str, float]:
    """<organ>_dice, <organ>_hd95_mm and <organ>_surface_dice of the measured organs that one of the two labels has."""
    found: dict[str, float] = {}
    for organ, ids in MEASURED.items():
        ours, theirs = (np.isin(volume.voxels, ids) for volume in (predicted, truth))
        if ours.any() or theirs.any():
            found[f"{organ}_dice"] = dice(ours, theirs)
            pair = surface_agreement(ours, theirs, truth.voxel_mm)
            found[f"{organ}_hd95_mm"], found[f"{organ}_surface_dice"] = pair
    return found


def read_labelled(folder: Path, masks: str = "organs") -> tuple[Volume, Volume]:
    """(CT, labels) of a study. Raises InputError when one cannot be read, or they lie on different grids."""
    ct, labels = read_nifti(folder / "CT.nii.gz"), read_labels(folder / f"{masks}.nii.gz")
    if not labels.same_grid(ct):
        raise InputError(
            f"{folder / masks}.nii.gz: its grid {labels.shape} is not that of the CT {ct.shape}. Make the masks again."
        )
    return ct, labels


def dice_of_split(
    root: str | Path, segment: Callable[[Volume], Volume], ids: list[int]
) -> tuple[dict[str, float], int]:
    """({organ: mean Dice}, subjects): the measured organs, kidneys together, then every one of ``ids`` by its name.

    root: cohort root;  segment: CT in HU → labels. A subject that cannot be read, or whose labels lie elsewhere, is
    listed in failures.csv.
    """
    studies = read_studies(root)
    studies = studies[studies["split"] == "test"] if "split" in studies else studies[:0]
    names = {number: name for name, number in ORGANS.items()}
    groups = {organ: numbers for organ, numbers in MEASURED.items() if set(numbers) <= set(ids)}
    groups |= {names.get(number, f"id {number}"): (number,) for number in ids}
    found: dict[str, list[float]] = {organ: [] for organ in groups}
    forget_failures(root, STEP)
    tested = 0
    for folder in progress(list(studies["folder"]), "test", "subject"):
        try:
            ct, truth = read_labelled(folder)
            predicted = segment(ct).voxels
        except InputError as error:
            record_failure(root, folder.name, STEP, error)
            continue
        tested += 1
        for organ, numbers in groups.items():
            found[organ].append(dice(np.isin(predicted, numbers), np.isin(truth.voxels, numbers)))
    present = {organ: values for organ, values in found.items() if not np.all(np.isnan(values))}
    return {organ: round(float(np.nanmean(values)), 4) for organ, values in present.items()}, tested
