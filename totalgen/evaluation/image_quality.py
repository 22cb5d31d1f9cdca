"""How near volumes are to a reference volume: pairs of files, case by case and summed up with paired intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.metrics import structural_similarity

from totalgen.data.files import atomic, error_text, forget_failures, record_failure
from totalgen.data.measures import measure_study
from totalgen.data.organs import MEASURED
from totalgen.data.progress import progress
from totalgen.data.volume import Volume, read_labels, read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.overlap import mask_agreement
from totalgen.evaluation.sections import Score, Section, rows_of, write_section
from totalgen.evaluation.statistics import paired_interval

STEP = "image_quality"  # name in failures.csv
SSIM_WINDOW = 11  # voxels that its Gaussian of 1.5 voxels reaches
SHELL_MM = (4.0, 12.0)  # background of a sphere: voxels so far from its surface
METRICS = {  # column: (title, unit, which is better)
    "psnr_range": ("PSNR, peak = range", "dB", "high"),
    "psnr_max": ("PSNR, peak = case maximum", "dB", "high"),
    "ssim": ("SSIM", "", "high"),
    "mae": ("MAE", "", "low"),
    "nmae": ("NMAE", "", "low"),
    "slice_ratio": ("difference of neighbouring slices / the reference's", "", "near 1"),
}


class Files(NamedTuple):
    """Patterns of paths in which {} stands for the subject. mask, organs, spheres: None for none; masks: labels of
    candidates by their names, which are compared with ``organs``."""

    reference: str
    candidates: Mapping[str, str]
    mask: str | None = None
    organs: str | None = None
    spheres: str | None = None
    masks: Mapping[str, str] | None = None


def quality(
    reference: np.ndarray, candidate: np.ndarray, value_range: tuple[float, float], mask: np.ndarray
) -> dict[str, float]:
    """The columns of METRICS inside ``mask`` (bool), all arrays [x, y, z] in the same unit.

    value_range: (low, high) of what the volumes can show; its width is the peak of psnr_range and the dynamic range of
    SSIM, whose map is averaged over the mask.  psnr_max: the peak is the highest reference value in the mask.
    nmae: Σ|candidate − reference| / Σ|reference|;  slice_ratio: mean |difference of axial neighbours| over that of the
    reference: below 1 is blur along z, above it slices that do not fit.
    """
    span = value_range[1] - value_range[0]
    error = (candidate.astype(np.float64) - reference)[mask]
    mse, absolute = float(np.mean(error**2)), float(np.abs(error).mean())
    highest = float(reference[mask].max())
    result = dict(
        psnr_range=_decibel(span, mse), psnr_max=_decibel(highest, mse), ssim=float("nan"), slice_ratio=float("nan"),
        mae=absolute, nmae=absolute / float(np.abs(reference[mask]).mean(dtype=np.float64)),
    )  # fmt: skip
    both = mask[..., 1:] & mask[..., :-1]
    if both.any():
        own, true = (np.abs(np.diff(each.astype(float), axis=2))[both].mean() for each in (candidate, reference))
        result["slice_ratio"] = float(own / true) if true else float("nan")
    if min(reference.shape) >= SSIM_WINDOW:
        arrays = (a.astype(np.float64) for a in (reference, candidate))
        _, values = structural_similarity(
            *arrays, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        result["ssim"] = float(values[mask].mean())
    return result


def _decibel(peak, mse):
    return float(10 * np.log10(peak**2 / mse)) if mse > 0 else float("inf")


def organ_biases(reference: Volume, candidate: Volume, organs: Volume) -> dict[str, float]:
    """Columns <organ>_mean_% and <organ>_max_%, bias of SUVmean and SUVmax, and liver_cov, std over mean in the liver
    (its outermost two voxels left out)."""
    rows = [measure_study(volume, organs) for volume in (reference, candidate)]
    found: dict[str, float] = {}
    for true, made in zip(*rows, strict=True):
        for name in ("mean", "max"):
            change = 100 * (made[f"suv_{name}"] / true[f"suv_{name}"] - 1)
            found[f"{true['organ']}_{name}_%"] = float(change)
    liver = ndimage.binary_erosion(np.isin(organs.voxels, MEASURED["liver"]), iterations=2)
    if liver.any():
        inside = candidate.voxels[liver]
        found["liver_cov"] = float(inside.std() / inside.mean())
    return found


def sphere_recovery(reference: Volume, candidate: Volume, spheres: Volume) -> dict[str, float]:
    """Columns contrast_recovery, the mean over the spheres of (sphere − background) / the same of the reference, and
    small_contrast_recovery, of those under 1.5 mL. Empty without spheres."""
    labels, ratios, volumes = spheres.voxels, [], []
    for number in range(1, int(labels.max()) + 1):
        inside = labels == number
        if not inside.any():
            continue
        away = ndimage.distance_transform_edt(~inside, sampling=spheres.voxel_mm)
        shell = (away >= SHELL_MM[0]) & (away <= SHELL_MM[1]) & (labels == 0)
        contrasts = [float(v.voxels[inside].mean() - v.voxels[shell].mean()) for v in (candidate, reference)]
        ratios.append(contrasts[0] / contrasts[1])
        volumes.append(np.count_nonzero(inside) * spheres.voxel_ml)
    if not ratios:
        return {}
    found = dict(contrast_recovery=float(np.mean(ratios)))
    small = [ratio for ratio, volume in zip(ratios, volumes, strict=True) if volume < 1.5]
    return found | (dict(small_contrast_recovery=float(np.mean(small))) if small else {})


def measure_pairs(
    files: Files, subjects: Iterable[str], value_range: tuple[float, float], outdir: Path, above: float | None = None
) -> pd.DataFrame:
    """One row per subject and candidate; also written as <outdir>/cases.csv.

    above: without a mask file, the mask is where the reference is above this; without either, everything.
    A subject whose files cannot be compared is listed in <outdir>/failures.csv. Raises InputError when none is left.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    forget_failures(outdir, STEP)
    rows: list[dict[str, Any]] = []
    for subject in progress(list(subjects), "image quality", "subject"):
        try:
            rows += _case(files, subject, value_range, above)
        except InputError as error:
            record_failure(outdir, subject, STEP, error_text(error))
    if not rows:
        raise InputError(f"no subject could be compared; the reasons are in {outdir / 'failures.csv'}.")
    table = pd.DataFrame(rows)
    with atomic(outdir / "cases.csv") as part:
        table.to_csv(part, index=False)
    return table


def _case(files, subject, value_range, above):
    reference = read_nifti(files.reference.format(subject))
    on_grid = reader_on_grid(reference)
    mask = np.ones(reference.shape, bool)
    if files.mask is not None:
        mask = on_grid(files.mask.format(subject)).voxels > 0
    elif above is not None:
        mask = reference.voxels > above
    if not mask.any():
        raise InputError(f"{subject}: the mask is empty. Choose another.")
    labels = reader_on_grid(reference, read_labels)
    organs, spheres = (path and labels(path.format(subject)) for path in (files.organs, files.spheres))
    rows = []
    for name, pattern in files.candidates.items():
        candidate = on_grid(pattern.format(subject))
        row = dict(subject=subject, candidate=name) | quality(reference.voxels, candidate.voxels, value_range, mask)
        row |= organ_biases(reference, candidate, organs) if organs else {}
        row |= sphere_recovery(reference, candidate, spheres) if spheres else {}
        if organs and files.masks and name in files.masks:
            row |= mask_agreement(labels(files.masks[name].format(subject)), organs)
        rows.append(row)
    return rows


def reader_on_grid(
    reference: Volume, load: Callable[[str | Path], Volume] = read_nifti
) -> Callable[[str | Path], Volume]:
    """``load``, that raises InputError for a file on another grid than the reference's."""

    def read(path):
        volume = load(path)
        if volume.shape != reference.shape or not np.allclose(volume.affine, reference.affine, atol=1e-2):
            raise InputError(f"{path}: its grid {volume.shape} is not that of the reference {reference.shape}.")
        return volume

    return read


def summarise(cases: pd.DataFrame, outdir: Path) -> str:
    """The means over subjects as Markdown, also <outdir>/summary.md and, with intervals, <outdir>/summary.csv.

    Only subjects that every candidate has are counted. The interval is of the mean difference from the first
    candidate, by a bootstrap over subjects; * marks one that does not contain 0.
    """
    names = list(dict.fromkeys(cases["candidate"]))
    columns = [name for name in cases.columns if name not in ("subject", "candidate")]
    wide = cases.pivot(index="subject", columns="candidate", values=columns)
    complete = wide["mae"].dropna().index
    rows = []
    for column in columns:
        values = wide[column].loc[complete]
        for name in names:
            one, base = (values[each].to_numpy(float) for each in (name, names[0]))
            low, high = paired_interval(base, one) or (None, None)
            rows.append(
                dict(measure=column, candidate=name, n=int(np.isfinite(one).sum()), mean=_mean(one),
                     std=float(np.nanstd(one, ddof=1)) if np.isfinite(one).sum() > 1 else None,
                     difference=_mean(one - base), difference_low=low, difference_high=high)
            )  # fmt: skip
    summary = pd.DataFrame(rows)
    with atomic(outdir / "summary.csv") as part:
        summary.to_csv(part, index=False)
    _write_section(summary, names, len(complete), len(wide) - len(complete), outdir)
    text = _markdown(summary, columns, names, len(complete))
    with atomic(outdir / "summary.md") as part:
        part.write_text(text)
    return text


def _mean(values):
    """Of those that are numbers; NaN for none."""
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def _write_section(summary, names, count, incomplete, outdir):
    """The place of image quality in the report."""
    shown = dict(measure="measure", candidate="candidate", n="n", mean="mean", std="std")
    shown |= dict(difference_low=f"95 % of the difference from {names[0]}", difference_high="to")
    section = Section("Image quality against a reference volume", tables={"Per subject": rows_of(summary, shown)})
    found = summary.set_index(["measure", "candidate"])["mean"]
    limit = "an average over voxels: no statement about small lesions"
    limit += f"; {incomplete} subjects left out, not all candidates have them" if incomplete else ""
    for name in names:
        known = [(title, found.get((column, name))) for column, (title, _, _) in METRICS.items()]
        words = ", ".join(f"{title} {value:.4g}" for title, value in known if value is not None and np.isfinite(value))
        section.scores.append(Score(f"image quality: {name}", str(count), words, limit))
    write_section(outdir, section)


def _markdown(summary: pd.DataFrame, columns: Sequence[str], names: Sequence[str], count: int) -> str:
    lines = [f"|  | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for column in columns:
        title, unit, _ = METRICS.get(column, (column.replace("_", " "), "", ""))
        cells = []
        for name in names:
            row = summary[(summary["measure"] == column) & (summary["candidate"] == name)].iloc[0]
            clear = name != names[0] and row["difference_low"] is not None
            star = "\\*" if clear and row["difference_low"] * row["difference_high"] > 0 else ""
            spread = f" ± {row['std']:.2g}" if pd.notna(row["std"]) else ""
            cells.append(f"{row['mean']:.4g}{spread}{star}")
        lines.append(f"| {title}{f' ({unit})' if unit else ''} | {' | '.join(cells)} |")
    note = f"{count} subjects, mean ± standard deviation; \\*: 95 % interval of the paired difference from {names[0]}"
    return "\n".join([*lines, "", f"{note} without 0 (bootstrap over subjects).", ""])
