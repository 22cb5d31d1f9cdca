"""What a generated study looks like on disk: NIfTI volumes, a preview, a rotating projection, and who it shows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from totalgen.data.files import atomic
from totalgen.data.pictures import CT_WINDOW, PET_WINDOW, axial, coronal, enlarged, grey, mip
from totalgen.data.volume import Volume, write_nifti

GIF_FRAMES = 24
GIF_FRAME_MS = 100


def write_study(folder: str | Path, ct: Volume, suv: Volume, row: dict[str, Any]) -> None:
    """Write <folder>/{CT,SUV}.nii.gz, preview.png, mip.gif and study.json; the folder is written atomically.

    ct, suv: Volumes (HU, SUV) on one grid;  row: dict, a row of the cohort's manifest.
    """
    with atomic(folder) as part:
        part.mkdir()
        write_nifti(part / "CT.nii.gz", ct)
        write_nifti(part / "SUV.nii.gz", suv)
        write_preview(part / "preview.png", [(caption(row), ct, suv)])
        write_mip_gif(part / "mip.gif", suv)
        (part / "study.json").write_text(json.dumps(row, indent=1))


def write_manifest(outdir: str | Path) -> pd.DataFrame:
    """Collect every study.json below ``outdir`` into manifest.csv, a cohort table; returns it."""
    rows = [json.loads(path.read_text()) for path in sorted(Path(outdir).glob("*/study.json"))]
    table = pd.DataFrame(rows)
    with atomic(Path(outdir) / "manifest.csv") as part:
        table.to_csv(part, index=False)
    return table


def caption(row: dict[str, Any]) -> str:
    """One line under a picture: who, and what it is not."""
    sex = {"F": "woman", "M": "man"}[row["sex"]]
    who = f"{sex}, {row['age_years']:g} y, {100 * row['height_m']:g} cm, {row['weight_kg']:g} kg"
    return f"{row['subject']}: {who} – {row['source']}"


def write_preview(path: str | Path, studies: Sequence[tuple[str, Volume, Volume]]) -> None:
    """One row of pictures per (caption, ct, suv): coronal CT, axial CT, coronal PET, PET projection."""
    figure = Figure(figsize=(10, 4.2 * len(studies)), layout="constrained")
    strips = figure.subfigures(len(studies), 1, squeeze=False)
    for strip, (text, ct, suv) in zip(strips[:, 0], studies, strict=True):
        strip.suptitle(text, fontsize=10)
        row = strip.subplots(1, 4)
        level = ct.shape[2] * 55 // 100  # about the dome of the liver to its middle
        width, depth, height = np.array(ct.shape) * ct.voxel_mm
        panels = [
            ("CT, coronal", grey(coronal(ct.voxels), CT_WINDOW), (width, height)),
            ("CT, axial", grey(axial(ct.voxels, level), CT_WINDOW), (width, depth)),
            ("PET, coronal (SUV 0–7)", grey(coronal(suv.voxels), PET_WINDOW, inverted=True), (width, height)),
            ("PET, projection (SUV 0–7)", grey(mip(suv.voxels), PET_WINDOW, inverted=True), (width, height)),
        ]
        for axes, (title, picture, size) in zip(row, panels, strict=True):
            extent = (0, size[0], 0, size[1])  # mm, so that voxels of any shape look right
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear")
            axes.set_title(title, fontsize=9)
            axes.axis("off")
    with atomic(path) as part:
        figure.savefig(part, dpi=110)


def write_mip_gif(path: str | Path, suv: Volume) -> None:
    """The PET projection, rotating once about the body axis."""
    angles = np.arange(GIF_FRAMES) * 360 / GIF_FRAMES
    frames = [enlarged(grey(mip(suv.voxels, angle), PET_WINDOW, inverted=True)) for angle in angles]
    with atomic(path) as part:
        imageio.imwrite(part, np.stack(frames), duration=GIF_FRAME_MS, loop=0)
