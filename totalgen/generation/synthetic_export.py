"""What is written beside the NIfTI files of a generated study on request: DICOM, and a rendering of its surfaces."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from totalgen.data.demographics import Demographics
from totalgen.data.surface import VIEWS, surface_picture
from totalgen.data.synthetic_dicom import write_synthetic
from totalgen.data.volume import Volume, read_labels
from totalgen.generation.export import caption


def write_dicom(folder: Path, person: Demographics, volumes: dict[str, Volume], row: dict[str, Any]) -> None:
    """An Export: <study>/dicom, with the organs that lie in the folder."""
    about = json.dumps(row, sort_keys=True)
    found = _with_organs(folder, volumes)
    write_synthetic(folder / "dicom", found, person, row["subject"], about, row["totalgen"])


def write_surface(folder: Path, person: Demographics, volumes: dict[str, Volume], row: dict[str, Any]) -> None:
    """An Export: <study>/surface.png, with the organs that lie in the folder."""
    organs = _with_organs(folder, volumes).get("organs")
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle(caption(row), fontsize=10)
    for axis, view in zip(figure.subplots(1, len(VIEWS)), VIEWS, strict=True):
        axis.imshow(surface_picture(volumes["CT"], organs, view))
        axis.set_title(f"from the {view}", fontsize=9)
        axis.axis("off")
    figure.savefig(folder / "surface.png", dpi=100)


def _with_organs(folder, volumes):
    """The volumes, with the organs that lie in the folder."""
    organs = folder / "organs.nii.gz"
    return {"organs": read_labels(organs)} | volumes if organs.exists() else volumes
