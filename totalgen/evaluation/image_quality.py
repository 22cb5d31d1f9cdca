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
from totalgen.data.names import file_of
from totalgen.data.organs import MEASURED
from totalgen.data.progress import progress
from totalgen.data.volume import Volume, read_labels, read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.overlap import mask_agreement
from totalgen.evaluation.sections import Score, Section, rows_of, write_section
from totalgen.evaluation.statistics import paired_mean_interval

STEP = "image_quality"  # name in failures.csv
SSIM_WINDOW = 11  # voxels that its Gaussian of 1.5 voxels reaches
FEWEST_PAIRS = 6  # with fewer no difference gets a star
SHELL_MM = (4.0, 12.0)  # background of a sphere: voxels so far from its surface
METRICS = {  # column: (title, unit, which is better)
    "psnr_range": ("PSNR, peak = range", "dB", "high"),
    "psnr_max": ("PSNR, peak = case maximum", "dB", "high"),
    "ssim": ("SSIM", "", "high"),
    "mae": ("MAE", "", "low"),
    "nmae": ("NMAE", "", "low"),
    "slice_ratio": ("difference of neighbouring slices / the reference's", "", "near 1"),
}
UNDEFINED = {  # ending of a column: when it has no value
    "psnr_max": "the reference's maximum is not above 0",
    "ssim": f"fewer than {SSIM_WINDOW} voxels along an axis, or voxels beside the mask are no numbers",
    "nmae": "the reference is 0 throughout",
    "slice_ratio": "the reference does not change along z",
    "_%": "the reference's SUV is 0 throughout the organ, or an SUV in it is no number",
    "liver_cov": "the candidate's mean in the liver is not above 0",
    "contrast_recovery": "a sphere of the reference has no contrast, or no background around it",
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
    reference: below 1 is blur along z, above it slices that do not fit.  NaN: not defined, for the reasons of
    UNDEFINED. The voxels in the mask must be finite.
    """
    span = value_range[1] - value_range[0]
    error = (candidate.astype(np.float64) - reference)[mask]
    mse, absolute = float(np.mean(error**2)), float(np.abs(error).mean())
    highest = float(reference[mask].max())
    result = dict(
        psnr_range=_decibel(span, mse), psnr_max=_decibel(highest, mse), ssim=float("nan"), slice_ratio=float("nan"),
        mae=absolute, nmae=_ratio(absolute, np.abs(reference[mask]).mean(dtype=np.float64)),
    )  # fmt: skip
    both = mask[..., 1:] & mask[..., :-1]
    if both.any():
        own, true = (np.abs(np.diff(each.astype(float), axis=2))[both].mean() for each in (candidate, reference))
        result["slice_ratio"] = _ratio(own, true)
    if min(reference.shape) >= SSIM_WINDOW:
        arrays = (a.astype(np.float64) for a in (reference, candidate))
        with np.errstate(invalid="ignore"):  # beside the mask voxels may be infinite
            _, values = structural_similarity(
                *arrays, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
            )
        result["ssim"] = float(values[mask].mean())
    return result


def _decibel(peak, mse):
    """Infinite without an error, NaN without a peak."""
    if not peak > 0:
        return float("nan")
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))


def _ratio(value, base):
    """NaN for a base of 0."""
    return float(value / base) if base else float("nan")


def organ_biases(reference: Volume, candidate: Volume, organs: Volume) -> dict[str, float]:
    """Columns <organ>_mean_% and <organ>_max_%, bias of SUVmean and SUVmax of the organs that are there, and liver_cov,
    std over mean in the liver (its outermost two voxels left out). NaN: not defined, see UNDEFINED."""
    rows = [measure_study(volume, organs) for volume in (reference, candidate)]
    found: dict[str, float] = {}
    for true, made in zip(*rows, strict=True):
        for name in ("mean", "max") if true["flag"] != "missing" else ():
            found[f"{true['organ']}_{name}_%"] = 100 * (_ratio(made[f"suv_{name}"], true[f"suv_{name}"]) - 1)
    liver = ndimage.binary_erosion(np.isin(organs.voxels, MEASURED["liver"]), iterations=2)
    if liver.any():
        inside = candidate.voxels[liver]
        found["liver_cov"] = float(inside.std() / inside.mean()) if inside.mean() > 0 else float("nan")
    return found


def sphere_recovery(reference: Volume, candidate: Volume, spheres: Volume) -> dict[str, float]:
    """Columns contrast_recovery, the mean over the spheres of (sphere − background) / the same of the reference, and
    small_contrast_recovery, of those under 1.5 mL. Empty without spheres. NaN: not defined, see UNDEFINED."""
    labels, ratios, volumes = spheres.voxels, [], []
    for number in range(1, int(labels.max()) + 1):
        inside = labels == number
        if not inside.any():
            continue
        away = ndimage.distance_transform_edt(~inside, sampling=spheres.voxel_mm)
        shell = (away >= SHELL_MM[0]) & (away <= SHELL_MM[1]) & (labels == 0)
        contrasts = [float(v.voxels[inside].mean() - _mean(v.voxels[shell])) for v in (candidate, reference)]
        ratios.append(_ratio(*contrasts))
        volumes.append(np.count_nonzero(inside) * spheres.voxel_ml)
    if not ratios:
        return {}
    found = dict(contrast_recovery=float(np.mean(ratios)))
    small = [ratio for ratio, volume in zip(ratios, volumes, strict=True) if volume < 1.5]
    return found | (dict(small_contrast_recovery=float(np.mean(small))) if small else {})


def measure_pairs(
    files: Files, subjects: Iterable[str], value_range: tuple[float, float], outdir: Path, above: float | None = None
) -> pd.DataFrame:
    """One row per subject and candidate; also written as <outdir>/cases.csv. note: which measures are NaN, and why.

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
    reference = read_nifti(file_of(files.reference, subject))
    on_grid = reader_on_grid(reference)
    mask = np.ones(reference.shape, bool)
    if files.mask is not None:
        mask = on_grid(file_of(files.mask, subject)).voxels > 0
    elif above is not None:
        mask = reference.voxels > above
    if not mask.any():
        raise InputError(f"{subject}: the mask is empty. Choose another.")
    _require_numbers(reference.voxels, mask, file_of(files.reference, subject))
    labels = reader_on_grid(reference, read_labels)
    organs, spheres = (path and labels(file_of(path, subject)) for path in (files.organs, files.spheres))
    rows = []
    for name, pattern in files.candidates.items():
        candidate = on_grid(file_of(pattern, subject))
        _require_numbers(candidate.voxels, mask, file_of(pattern, subject))
        row = dict(subject=subject, candidate=name) | quality(reference.voxels, candidate.voxels, value_range, mask)
        row |= organ_biases(reference, candidate, organs) if organs else {}
        row |= sphere_recovery(reference, candidate, spheres) if spheres else {}
        if organs and files.masks and name in files.masks:
            row |= mask_agreement(labels(file_of(files.masks[name], subject)), organs)
        row["note"] = "; ".join(f"{name}: {_why(name)}" for name, value in row.items() if value != value)
        rows.append(row)
    return rows


def _require_numbers(voxels, mask, path):
    wrong = np.count_nonzero(~np.isfinite(voxels[mask]))
    if wrong:
        raise InputError(f"{path}: {wrong} of the voxels that are compared are no numbers. Correct it, or mask them.")


def _why(measure):
    return next(reason for ending, reason in UNDEFINED.items() if measure.endswith(ending))


def reader_on_grid(
    reference: Volume, load: Callable[[str | Path], Volume] = read_nifti
) -> Callable[[str | Path], Volume]:
    """``load``, that raises InputError for a file on another grid than the reference's."""

    def read(path):
        volume = load(path)
        if not volume.same_grid(reference):
            raise InputError(f"{path}: its grid {volume.shape} is not that of the reference {reference.shape}.")
        return volume

    return read


def summarise(cases: pd.DataFrame, outdir: Path, left_out: int = 0) -> str:
    """The means over subjects as Markdown, also <outdir>/summary.md and, with intervals, <outdir>/summary.csv.

    A measure counts subjects for whom every candidate that has it has a value. n, mean, std: of those that are finite;
    infinite: how many are not, as the Hausdorff distance of an organ that was not found, or the PSNR of an identical
    volume. The difference, from the first candidate, has a 95 % interval by Student's t of the pairs, and * marks one
    without 0 of FEWEST_PAIRS or more; there is none where a value is infinite, since leaving such a pair out would
    favour who failed.  left_out: subjects that could not be compared.
    """
    names = list(dict.fromkeys(cases["candidate"]))
    columns = [name for name in cases.columns if name not in ("subject", "candidate", "note")]
    wide = cases.pivot(index="subject", columns="candidate", values=columns)
    rows = [row for column in columns for row in _rows(column, {name: wide[column][name] for name in names})]
    summary = pd.DataFrame(rows)
    with atomic(outdir / "summary.csv") as part:
        summary.to_csv(part, index=False)
    _write_section(summary, names, len(wide), left_out, outdir)
    text = _markdown(summary, columns, names, len(wide), left_out) + _undefined(cases)
    with atomic(outdir / "summary.md") as part:
        part.write_text(text)
    return text


def _rows(measure, candidates):
    """Rows of the summary for one measure. candidates: name → [subjects]."""
    values = {name: series.to_numpy(float) for name, series in candidates.items()}
    first = next(iter(values.values()))
    has_it = [each for each in values.values() if not np.isnan(each).all()]
    shared = ~np.isnan(has_it).any(axis=0) if has_it else np.zeros(len(first), bool)
    for name, every in values.items():
        infinite = int(np.isinf(every).sum())
        one, base = every[shared], first[shared]
        finite = one[np.isfinite(one)]
        row = dict(measure=measure, candidate=name, n=len(finite), infinite=infinite, mean=_mean(finite),
                   std=float(finite.std(ddof=1)) if len(finite) > 1 else None,
                   difference=None, difference_low=None, difference_high=None)  # fmt: skip
        if not (infinite or np.isinf(first).any()) and np.isfinite(one - base).all() and len(one):
            row["difference"] = _mean(one - base)
            row["difference_low"], row["difference_high"] = paired_mean_interval(base, one) or (None, None)
        yield row


def _mean(values):
    """NaN for none."""
    return float(np.mean(values)) if len(values) else float("nan")


def _write_section(summary, names, count, left_out, outdir):
    """The place of image quality in the report."""
    shown = dict(measure="measure", candidate="candidate", n="n", infinite="infinite", mean="mean", std="std")
    shown |= dict(difference_low=f"95 % of the difference from {names[0]}", difference_high="to")
    section = Section("Image quality against a reference volume", tables={"Per subject": rows_of(summary, shown)})
    found = summary.set_index(["measure", "candidate"])["mean"]
    limit = "an average over voxels: no statement about small lesions"
    limit += f"; {left_out} subjects could not be compared, see failures.csv" if left_out else ""
    for name in names:
        known = [(title, found.get((column, name))) for column, (title, _, _) in METRICS.items()]
        words = ", ".join(f"{title} {value:.4g}" for title, value in known if value is not None and np.isfinite(value))
        section.scores.append(Score(f"image quality: {name}", str(count), words, limit))
    write_section(outdir, section)


def _markdown(
    summary: pd.DataFrame, columns: Sequence[str], names: Sequence[str], count: int, left_out: int
) -> str:
    lines = [f"|  | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for column in columns:
        title, unit, _ = METRICS.get(column, (column.replace("_", " "), "", ""))
        rows = summary[summary["measure"] == column].set_index("candidate")
        cells = [_cell(rows.loc[name], count, name != names[0]) for name in names]
        lines.append(f"| {title}{f' ({unit})' if unit else ''} | {' | '.join(cells)} |")
    note = f"{count} subjects, mean ± standard deviation; \\*: 95 % interval of the paired difference from {names[0]}"
    note += f" without 0 (Student's t), from {FEWEST_PAIRS} pairs on"
    note += f"; {left_out} more could not be compared, see failures.csv" if left_out else ""
    return "\n".join([*lines, "", f"{note}.", ""])


def _cell(row, count, compared):
    low, high = row["difference_low"], row["difference_high"]
    clear = compared and row["n"] >= FEWEST_PAIRS and pd.notna(low) and low * high > 0
    text = f"{row['mean']:.4g}" if row["n"] else "–"
    text += f" ± {row['std']:.2g}" if pd.notna(row["std"]) else ""
    text += "\\*" if clear else ""
    doubts = [f"n = {row['n']}"] if row["n"] != count else []
    doubts += [f"{row['infinite']} infinite"] if row["infinite"] else []
    return text + (f" ({', '.join(doubts)})" if doubts else "")


def _undefined(cases):
    """Why measures have no value in some subjects, a line each."""
    notes = cases.get("note", [])
    reasons = dict.fromkeys(reason for note in notes for reason in str(note).split("; ") if reason)
    return "".join(f"Not defined in some subjects (cases.csv): {reason}.\n" for reason in reasons)
