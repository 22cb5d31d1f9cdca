"""The layouts of the paper's Figures 2 and 3, of any generated cohort, and a diagram of the pipeline itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.organs import ORGANS
from totalgen.data.pictures import CT_WINDOW, PET_WINDOW, axial, coronal, grey, mip
from totalgen.data.resolution import FACTOR
from totalgen.data.studies import read_studies
from totalgen.data.surface import surface_picture
from totalgen.data.volume import read_labels, read_nifti
from totalgen.errors import InputError

ACROSS = 3  # studies of each sex in a row of figure 2
LEVELS = ("heart", "liver", "kidney_left")  # organs whose middle slices figure 3 shows
FALLBACK = {"heart": 0.72, "liver": 0.55, "kidney_left": 0.42}  # of the height of the field, without masks
BLUE, BROWN = "#33557a", "#a0601c"
WORDS = {"F": "woman", "M": "man"}


def body_mass_figure(root: str | Path, path: str | Path, masks: str = "organs") -> list[str]:
    """Figure 2: CT, PET and surfaces of a generated cohort, a row per sex, columns by body mass index.

    Of more than ACROSS studies of a sex those are shown whose body mass indices are spread most evenly. Returns the
    names of the studies shown.
    """
    studies = read_studies(root)
    studies["bmi"] = studies["weight_kg"] / studies["height_m"] ** 2
    rows = [spread_evenly(studies[studies["sex"] == sex].sort_values("bmi")) for sex in ("M", "F")]
    rows = [row for row in rows if len(row)]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(5.1 * columns, 3.2 * len(rows) + 0.3), layout="constrained")
    cells = figure.subfigures(len(rows), columns, squeeze=False, wspace=0.02)
    for row, line in zip(rows, cells, strict=True):
        for study, cell in zip(row.to_dict("records"), line[: len(row)], strict=True):
            cell.suptitle(f"{_person(study)}, BMI {study['bmi']:.1f}", fontsize=11)
            for axis, (title, picture) in zip(cell.subplots(1, 3), _views(study, masks).items(), strict=True):
                _show(axis, picture, title)
    figure.supxlabel(_origin(studies), fontsize=9)
    with atomic(path) as part:
        figure.savefig(part, dpi=100)
    return [name for row in rows for name in row["subject"]]


def spread_evenly(studies: pd.DataFrame) -> pd.DataFrame:
    """Up to ACROSS rows of a table that is sorted by its column bmi: the ends, and the nearest to even steps."""
    if len(studies) <= ACROSS:
        return studies
    steps = np.linspace(studies["bmi"].iloc[0], studies["bmi"].iloc[-1], ACROSS)
    nearest = {int(np.abs(studies["bmi"].to_numpy() - step).argmin()) for step in steps}
    return studies.iloc[sorted(nearest)]


def slices_figure(
    cohorts: Mapping[str, str | Path], path: str | Path, subject: str | None = None, masks: str = "organs"
) -> str:
    """Figure 3: the same slices of several cohorts side by side, CT above PET: coronal, and at LEVELS.

    cohorts: title → cohort root or generated folder, the real one first;  subject: who is in all of them; by default
    the first who is, or else the first of each.  Returns who is shown.
    """
    tables = {name: read_studies(root).set_index("subject", drop=False) for name, root in cohorts.items()}
    if not tables:
        raise InputError("figure 3 needs cohorts. Give NAME=FOLDER at least once.")
    shared = set.intersection(*(set(table.index) for table in tables.values()))
    if subject is not None and subject not in shared:
        raise InputError(f"{subject}: is not in all of {', '.join(tables)}. Shared are {_some(shared)}.")
    chosen = {name: subject or (min(shared) if shared else table.index[0]) for name, table in tables.items()}
    figure = Figure(figsize=(3.3 * len(tables), 9.5), layout="constrained")
    columns = figure.subfigures(1, len(tables), squeeze=False)[0]
    for (name, table), column in zip(tables.items(), columns, strict=True):
        study = table.loc[chosen[name]].to_dict()
        column.suptitle(f"{name}\n{_person(study)}", fontsize=11)
        ratios = [1.9] + [1.0] * len(LEVELS)
        axes = column.subplots(1 + len(LEVELS), 2, height_ratios=ratios)
        for axis, (title, picture) in zip(axes.T.ravel(), _slices(study, masks).items(), strict=True):
            _show(axis, picture, title)
    figure.supxlabel("; ".join(f"{name}: {_origin(table)}" for name, table in tables.items()), fontsize=8)
    with atomic(path) as part:
        figure.savefig(part, dpi=100)
    return ", ".join(sorted(set(map(str, chosen.values()))))


def pipeline_figure(root: str | Path, path: str | Path, subject: str | None = None) -> str:
    """How a study is made, with the pictures of one that was: demographics, global stage, super-resolution, outputs.

    root: a generated cohort;  subject: of it; by default the first. Returns who is shown.
    """
    studies = read_studies(root).set_index("subject", drop=False)
    if subject is not None and subject not in studies.index:
        raise InputError(f"{subject}: is not in {root}. There are {_some(studies.index)}.")
    study = studies.loc[subject or studies.index[0]].to_dict()
    ct, suv = (read_nifti(study["folder"] / f"{name}.nii.gz") for name in ("CT", "SUV"))
    random = np.random.default_rng(0)
    low = {name: volume.voxels[1::FACTOR, 1::FACTOR, 1::FACTOR] for name, volume in (("CT", ct), ("SUV", suv))}
    pictures = {
        "noise": grey(coronal(random.standard_normal(low["CT"].shape)), (-2.5, 2.5)),
        "low": np.hstack([grey(coronal(low["CT"]), CT_WINDOW), grey(coronal(low["SUV"]), PET_WINDOW, inverted=True)]),
        "high": np.hstack([grey(coronal(ct.voxels), CT_WINDOW), grey(mip(suv.voxels), PET_WINDOW, inverted=True)]),
        "surface": _views(study, "organs")["surfaces"],
    }
    figure = Figure(figsize=(12.4, 5.1))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 124), ylim=(0, 51))
    axis.axis("off")
    _boxes(axis)
    places = dict(noise=(20.5, 21, 8, 16), low=(43, 20, 14, 18), high=(75.5, 16, 21, 26), surface=(104, 16, 17, 26))
    for name, (x, y, wide, tall) in places.items():  # as those of the boxes
        inset = figure.add_axes((x / 124, y / 51, wide / 124, tall / 51))
        inset.imshow(pictures[name], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        inset.axis("off")
    axis.text(9, 30, f"sex {study['sex']}\nage {study['age_years']:g} y\nheight {100 * study['height_m']:g} cm\n"
              f"weight {study['weight_kg']:g} kg", ha="center", va="center", fontsize=11)  # fmt: skip
    axis.text(62, 0.8, f"Pictures: {study['subject']}, {_origin(studies)}", ha="center", fontsize=9, color="#555555")
    with atomic(path) as part:
        figure.savefig(part, dpi=100)
    return str(study["subject"])


STAGES: Sequence[tuple[float, float, str, str]] = (  # left, width, title, text of the boxes of the diagram
    (1, 16, "Demographics", "a row of a table,\na grid, or options"),
    (18.5, 12, "Noise", "of one seed\nfor each study"),
    (40, 20, "Low resolution", "CT and PET of the torso,\na quarter of the voxels\nalong each axis"),
    (73, 26, "Full resolution", "CT in HU, PET in SUV, length of the body\nbrought back: NIfTI, DICOM"),
    (102, 21, "Organs and check", "masks and their measures,\nmass and ranges of the training"),
)
ARROWS: Sequence[tuple[float, float, str]] = (  # from, to, what happens there
    (31, 39.5, "global\ndiffusion\nmodel"),
    (60.5, 72.5, "sr diffusion\nmodel,\nwindows with\noverlap"),
    (99.2, 101.8, ""),
)


def _boxes(axis):
    axis.text(62, 48.5, "From demographics to a PET/CT", ha="center", fontsize=14, weight="bold")
    for left, width, title, text in STAGES:
        colours: dict[str, Any] = dict(facecolor="#f4f6f9", edgecolor=BLUE)
        axis.add_patch(FancyBboxPatch((left, 9), width, 36, "round,pad=0.2,rounding_size=1.2", **colours))
        axis.text(left + width / 2, 43.3, title, ha="center", va="center", fontsize=11, weight="bold", color=BLUE)
        axis.text(left + width / 2, 12.3, text, ha="center", va="center", fontsize=8)
    for start, end, text in ARROWS:
        axis.add_patch(FancyArrowPatch((start, 29), (end, 29), arrowstyle="-|>", mutation_scale=14, color=BLUE))
        axis.text((start + end) / 2, 31, text, ha="center", va="bottom", fontsize=8.5)
    line: dict[str, Any] = dict(color=BROWN, linestyle="--", linewidth=1)
    axis.plot([9, 9, ARROWS[1][0] + 6], [8.6, 6, 6], **line)
    for start, end, _ in ARROWS[:2]:  # both models
        middle = (start + end) / 2
        axis.add_patch(FancyArrowPatch((middle, 6), (middle, 28.5), arrowstyle="-|>", mutation_scale=12, **line))
    axis.text(35.2, 3.6, "both conditioned on the demographics", ha="center", fontsize=8.5, color=BROWN)


def _views(study, masks):
    """title → picture of figure 2, each in pixels of the same size."""
    ct, suv, organs = _volumes(study, masks)
    pixels = surface_picture(ct, organs)
    found = {
        "CT": grey(coronal(ct.voxels), CT_WINDOW),
        "PET": grey(coronal(suv.voxels), PET_WINDOW, inverted=True),
    }
    return found | {"surfaces": pixels}


def _slices(study, masks):
    """title → picture of figure 3: of CT, then of PET."""
    ct, suv, organs = _volumes(study, masks)
    levels = {}
    for name in LEVELS:
        found_in = np.zeros(ct.shape[2], bool) if organs is None else (organs.voxels == ORGANS[name]).any((0, 1))
        slices = np.flatnonzero(found_in)
        levels[name] = int(np.median(slices)) if len(slices) else int(FALLBACK[name] * ct.shape[2])
    found = {}
    for title, volume, window, inverted in (("CT", ct, CT_WINDOW, False), ("PET", suv, PET_WINDOW, True)):
        found[f"{title}, coronal"] = grey(coronal(volume.voxels), window, inverted)
        for name, z in levels.items():
            found[f"{title}, {name.replace('_', ' ')}"] = grey(axial(volume.voxels, z), window, inverted)
    return found


def _volumes(study, masks):
    folder: Path = study["folder"]
    organs = folder / f"{masks}.nii.gz"
    ct, suv = (read_nifti(folder / f"{name}.nii.gz") for name in ("CT", "SUV"))
    return ct, suv, read_labels(organs) if organs.exists() else None


def _show(axis, picture, title):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    axis.set_title(title, fontsize=8, pad=2)
    axis.axis("off")


def _person(study):
    person = Demographics.from_row(study)
    return f"{WORDS[person.sex]}, {person.age_years:g} y, {100 * person.height_m:.4g} cm, {person.weight_kg:.4g} kg"


def _origin(studies):
    return " and ".join(sorted(set(studies["source"].astype(str)))) if "source" in studies else "source unknown"


def _some(names):
    return ", ".join(sorted(map(str, names))[:5]) + (", …" if len(names) > 5 else "") if len(names) else "none"
