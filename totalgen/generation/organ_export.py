"""Organ masks and their measures beside every generated study: organs.nii.gz and organs.csv."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from totalgen.data.measures import measure_study
from totalgen.data.segmentation import Backend, totalsegmentator
from totalgen.data.volume import Volume, write_nifti
from totalgen.generation.segmenter import Segmenter

ORGAN_SOURCES = ("network", "totalsegmentator", "none")
NOTE = "Organ labels found on a generated CT (TotalGen)"


def organ_export(
    source: str | None, weights: Path, trained_on: Sequence[str] = (), device: torch.device | None = None
) -> Callable[[Path, Any, dict[str, Volume], dict[str, Any]], None] | None:
    """What ``generate_cohort`` calls to write masks and organ table of a study; None for source "none".

    source: of ORGAN_SOURCES; by default the network, which knows phantoms only, where the generator was ``trained_on``
    nothing else;  weights, device: of the network. Raises InputError when the source is not installed.
    """
    source = source or ("network" if set(trained_on) == {"phantom"} else "none")
    if source == "none":
        return None
    label = totalsegmentator() if source == "totalsegmentator" else _network(weights, device)

    def export(folder, asked, volumes, row):
        organs = label(row["subject"], volumes["CT"])
        write_nifti(folder / "organs.nii.gz", organs, NOTE)
        rows = [dict(subject=row["subject"], **each) for each in measure_study(volumes["SUV"], organs)]
        pd.DataFrame(rows).to_csv(folder / "organs.csv", index=False)

    return export


def _network(weights: Path, device: torch.device | None) -> Backend:
    segmenter = Segmenter.load(weights, device)
    return lambda subject, ct: segmenter.run(ct)["organs"]
