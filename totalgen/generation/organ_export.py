"""Organ masks and their measures beside every generated study: organs.nii.gz and organs.csv."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class OrganExport:
    """What ``generate_cohort`` calls to write masks and organ table of a study.

    label: organs of a CT;  by: SHA-256 of the network, or the name of what labels.
    """

    label: Backend
    by: str

    def __call__(self, folder: Path, asked: Any, volumes: dict[str, Volume], row: dict[str, Any]) -> None:
        """Write organs.nii.gz and organs.csv; those of Checks are among the volumes, and written."""
        organs = volumes.get("organs")
        if organs is None:
            organs = self.label(row["subject"], volumes["CT"])
            write_nifti(folder / "organs.nii.gz", organs, NOTE)
        rows = [dict(subject=row["subject"], **each) for each in measure_study(volumes["SUV"], organs)]
        pd.DataFrame(rows).to_csv(folder / "organs.csv", index=False)


def organ_export(
    source: str | None, weights: Path, trained_on: Sequence[str] = (), device: torch.device | None = None
) -> OrganExport | None:
    """The export of a source of organs; None for source "none".

    source: of ORGAN_SOURCES; by default the network, which knows phantoms only, where the generator was ``trained_on``
    nothing else;  weights, device: of the network. Raises InputError when the source is not installed.
    """
    source = source or ("network" if set(trained_on) == {"phantom"} else "none")
    if source == "none":
        return None
    if source == "totalsegmentator":
        return OrganExport(totalsegmentator(), "TotalSegmentator")
    segmenter = Segmenter.load(weights, device)
    return OrganExport(lambda subject, ct: segmenter.run(ct)["organs"], segmenter.sha256)
