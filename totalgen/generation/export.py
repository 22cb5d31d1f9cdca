"""What a generated study looks like on disk: NIfTI volumes, a preview, a rotating projection, and who it shows."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from totalgen.data.files import atomic
from totalgen.data.pictures import DISPLAYS, FUSED, PET_WINDOW, VIEWS, View, enlarged, grey, mip
from totalgen.data.text_files import read_json
from totalgen.data.volume import Volume, canonical, write_nifti

GIF_FRAMES = 24
GIF_FRAME_MS = 100
SCALE_MM = 100.0
WRITTEN = ("preview.png", "study.json", "mip.gif")  # of a study, besides its volumes


def write_study(
    folder: str | Path, volumes: Mapping[str, Volume], row: dict[str, Any],
    also: Callable[[Path], object] | None = None,
) -> None:  # fmt: skip
    """Write <folder>/<name>.nii.gz of every volume, preview.png, study.json and, of PET, mip.gif.

    The folder is written atomically. row: dict, a row of the cohort's manifest;  also: writes more into that folder.
    """
    with atomic(folder) as part:
        part.mkdir()
        for name, volume in volumes.items():
            write_volume(part, name, volume, row)
        write_preview(part / "preview.png", [(caption(row), volumes)])
        if "SUV" in volumes:
            write_mip_gif(part / "mip.gif", volumes["SUV"])
        if also is not None:
            also(part)
        (part / "study.json").write_text(json.dumps(row, indent=1))


def write_volume(folder: Path, name: str, volume: Volume, row: dict[str, Any]) -> None:
    """Write <folder>/<name>.nii.gz, whose header says what it shows and where it is from."""
    window = row.get(f"{name}_window")
    note = f"learnt {window}; {row['source']}" if window else f"{row['source']} (TotalGen)"
    write_nifti(folder / f"{name}.nii.gz", volume, note)


def write_manifest(outdir: str | Path) -> pd.DataFrame:
    """Collect every study.json of ours below ``outdir`` into manifest.csv, a cohort table; returns it."""
    again = "Remove its folder: the study is generated again."
    rows = [read_json(path, again) for path in sorted(Path(outdir).glob("*/study.json"))]
    table = pd.DataFrame([row for row in rows if {"subject", "source"} <= row.keys()])
    with atomic(Path(outdir) / "manifest.csv") as part:
        table.to_csv(part, index=False)
    return table


def caption(row: dict[str, Any]) -> str:
    """One line under a picture: who, where that is known, and what it is not."""
    if "sex" not in row:
        return f"{row['subject']} – {row['source']}"
    sex = {"F": "woman", "M": "man"}[row["sex"]]
    who = f"{sex}, {row['age_years']:g} y, {100 * row['height_m']:g} cm, {row['weight_kg']:g} kg"
    return f"{row['subject']}: {who} – {row['source']}"


def write_preview(path: str | Path, studies: Sequence[tuple[str, Mapping[str, Volume]]]) -> None:
    """One row of pictures per (caption, name → volume): the views of those volumes that DISPLAYS knows, then PET over
    CT; with sides, a scale bar of 10 cm and the ranges of values."""
    rows = [(text, _panels({name: canonical(v) for name, v in volumes.items()})) for text, volumes in studies]
    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(2.05 * columns, 4.0 * len(rows)), layout="constrained")
    strips = figure.subfigures(len(rows), 1, squeeze=False)
    for strip, (text, panels) in zip(strips[:, 0], rows, strict=True):
        strip.suptitle(text, fontsize=10)
        axes = strip.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, layers, view, size) in zip(axes, panels, strict=True):
            extent = (0, size[view.axes[0]], 0, size[view.axes[1]])  # mm, so that voxels of any shape look right
            shown = [axis.imshow(p, **drawn, extent=extent, interpolation="bilinear") for p, _, drawn in layers]
            (low, high), unit = layers[-1][1].window, layers[-1][1].unit
            axis.set_title(title, fontsize=9)
            bar = strip.colorbar(shown[-1], ax=axis, location="bottom", shrink=0.8, aspect=18, ticks=[low, high])
            bar.ax.set_xticklabels([f"{low:g}", f"{high:g} {unit}"], fontsize=7)
            _annotate(axis, view, extent)
    with atomic(path) as part:
        figure.savefig(part, dpi=100)


def _panels(volumes):
    """(title, layers, view, size in mm) of every picture of a study; layers: (picture, display, how it is drawn)."""
    panels: list[tuple[str, list[Any], View, np.ndarray]] = []
    for name in (name for name in volumes if name in DISPLAYS):
        display, volume = DISPLAYS[name], volumes[name]
        low, high = display.window
        colours = dict(cmap="gray_r" if display.inverted else "gray", vmin=low, vmax=high)
        for view in display.views:
            layers = [(VIEWS[view].of(volume.voxels), display, colours)]
            panels.append((f"{display.title}, {view}", layers, VIEWS[view], np.array(volume.shape) * volume.voxel_mm))
    if not all(name in volumes for name in FUSED):
        return panels
    below, above = (volumes[name] for name in FUSED)
    (low, high), (cold, hot) = (DISPLAYS[name].window for name in FUSED)
    for view in ("coronal", "sagittal"):
        pictures = [VIEWS[view].of(volume.voxels) for volume in (below, above)]
        opacity = np.clip((pictures[1] - cold) / (hot - cold) * 2, 0, 0.7)
        drawn = dict(cmap="gray", vmin=low, vmax=high), dict(cmap="hot", vmin=cold, vmax=hot, alpha=opacity)
        both: list[Any] = [(p, DISPLAYS[name], d) for p, name, d in zip(pictures, FUSED, drawn, strict=True)]
        panels.append((f"PET over CT, {view}", both, VIEWS[view], np.array(below.shape) * below.voxel_mm))
    return panels


def _annotate(axis, view, extent):
    """Sides of the patient, and a bar of SCALE_MM."""
    _, across, _, up = extent
    box = dict(facecolor="black", alpha=0.5, pad=1, edgecolor="none")
    for letter, place, side in zip(view.sides, (0.02, 0.98), ("left", "right"), strict=True):
        axis.text(place, 0.98, letter, transform=axis.transAxes, ha=side, va="top", fontsize=7, color="w", bbox=box)
    if across > 2 * SCALE_MM:
        axis.plot([0.04 * across, 0.04 * across + SCALE_MM], [0.03 * up] * 2, color="#33aaff", linewidth=2)
        x, y = 0.04 * across + SCALE_MM / 2, 0.04 * up
        axis.text(x, y, f"{SCALE_MM / 10:g} cm", ha="center", va="bottom", fontsize=6, color="#33aaff")
    axis.axis("off")


def write_mip_gif(path: str | Path, suv: Volume) -> None:
    """The PET projection, rotating once about the body axis."""
    angles = np.arange(GIF_FRAMES) * 360 / GIF_FRAMES
    frames = [enlarged(grey(mip(canonical(suv).voxels, angle), PET_WINDOW, inverted=True)) for angle in angles]
    with atomic(path) as part:
        imageio.imwrite(part, np.stack(frames), duration=GIF_FRAME_MS, loop=0)
