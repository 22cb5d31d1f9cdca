"""How well labels agree with the true ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from totalgen.data.files import forget_failures, record_failure
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.data.progress import progress
from totalgen.data.studies import read_studies
from totalgen.data.volume import Volume, read_labels, read_nifti
from totalgen.errors import InputError

STEP = "test_segmenter"  # name in failures.csv


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two boolean arrays; NaN when both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else float("nan")


def dice_of_split(
    root: str | Path, segment: Callable[[Volume], Volume], ids: list[int], split: str = "test"
) -> tuple[dict[str, float], int]:
    """({organ: mean Dice}, subjects): the measured organs, kidneys together, then every one of ``ids`` by its name.

    root: cohort root;  segment: CT in HU → labels. A subject that cannot be read is listed in failures.csv.
    """
    studies = read_studies(root)
    studies = studies[studies["split"] == split] if "split" in studies else studies[:0]
    names = {number: name for name, number in ORGANS.items()}
    groups = {organ: numbers for organ, numbers in MEASURED.items() if set(numbers) <= set(ids)}
    groups |= {names.get(number, f"id {number}"): (number,) for number in ids}
    found: dict[str, list[float]] = {organ: [] for organ in groups}
    forget_failures(root, STEP)
    tested = 0
    for folder in progress(list(studies["folder"]), "test", "subject"):
        try:
            truth = read_labels(folder / "organs.nii.gz").voxels
            predicted = segment(read_nifti(folder / "CT.nii.gz")).voxels
        except InputError as error:
            record_failure(root, folder.name, STEP, error)
            continue
        tested += 1
        for organ, numbers in groups.items():
            found[organ].append(dice(np.isin(predicted, numbers), np.isin(truth, numbers)))
    present = {organ: values for organ, values in found.items() if not np.all(np.isnan(values))}
    return {organ: round(float(np.nanmean(values)), 4) for organ, values in present.items()}, tested
