"""Do the volumes themselves look like the reference's: features, power spectra, histograms, each with its floor.

The floor is the same figure between two halves of the reference, at the same number of studies: what cannot be beaten.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import linalg

from totalgen.data.crop import body_mask
from totalgen.data.names import check_subjects
from totalgen.data.studies import read_studies
from totalgen.data.text_files import check_numbers, read_csv, spreadsheet_row
from totalgen.data.volume import Volume, check_finite, read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.figures import STYLES, write
from totalgen.evaluation.sections import Score, Section

REPEATS = 100  # random halves and subsets
FEWEST = 4  # studies of a half
COMPONENTS_PER_STUDY = 0.25  # principal components of the Fréchet distance: more have no covariance at this number
SAME_VOXELS = 0.01  # relative difference of their edges
BANDS = 12  # of the power spectrum, of equal width up to one cycle per two voxels
WINDOWS = {"CT": np.linspace(-500, 500, 51), "SUV": np.geomspace(0.1, 25, 51)}  # edges of the histograms
FEATURE, SPECTRUM, HISTOGRAM = "feature_", "spectrum_", "histogram_"  # beginnings of columns


def spectrum(volume: Volume) -> np.ndarray:
    """[BANDS] log10 of the mean power in shells of spatial frequency, 0 to one cycle per two of the largest voxels."""
    values = volume.voxels.astype(np.float32)
    power = np.abs(np.fft.rfftn(values - values.mean())) ** 2 / values.size
    axes = [np.fft.fftfreq(n, mm) for n, mm in zip(values.shape[:2], volume.voxel_mm, strict=False)]
    axes.append(np.fft.rfftfreq(values.shape[2], volume.voxel_mm[2]))
    radius = np.sqrt(sum(each**2 for each in np.meshgrid(*axes, indexing="ij")))
    edges = np.linspace(0, 0.5 / volume.voxel_mm.max(), BANDS + 1)
    shell = np.digitize(radius.ravel(), edges) - 1
    inside = (shell < BANDS) & (radius.ravel() > 0)
    sums, counts = (np.bincount(shell[inside], w, BANDS) for w in (power.ravel()[inside], None))
    return np.log10(np.maximum(sums / np.maximum(counts, 1), 1e-12))


def describe_study(ct: Volume, suv: Volume, features: Callable[[Volume], np.ndarray] | None) -> dict[str, float]:
    """One row of the table of a cohort: features of the CT, spectra of CT and SUV, and their histograms in the body.

    Raises InputError for a voxel that is no finite number: one makes every band of a spectrum NaN.
    """
    for name, volume in (("CT", ct), ("SUV", suv)):
        check_finite(f"{name}.nii.gz", volume)
    row: dict[str, float] = {}
    if features is not None:
        row |= {f"{FEATURE}{n}": float(value) for n, value in enumerate(features(ct))}
    body = body_mask(ct)
    cut = Volume(np.clip(ct.voxels, WINDOWS["CT"][0], WINDOWS["CT"][-1]), ct.affine)
    for name, volume in (("CT", cut), ("SUV", suv)):
        row |= {f"{SPECTRUM}{name}_{n}": float(value) for n, value in enumerate(spectrum(volume))}
        edges = WINDOWS[name]
        counts = np.histogram(np.clip(volume.voxels[body], edges[0], edges[-1]), edges)[0]
        row |= {f"{HISTOGRAM}{name}_{n}": float(v) for n, v in enumerate(counts / max(counts.sum(), 1))}
    return {name: float(f"{value:.6g}") for name, value in row.items()}


def check_voxels(cohorts: Mapping[str, str], split: str | None = None) -> None:
    """Raises InputError when the first CT of one cohort has other voxels than that of another: bands of the spectra are
    per voxel. cohorts: name → folder."""
    first: tuple[str, np.ndarray] | None = None
    for name, root in cohorts.items():
        paths = [folder / "CT.nii.gz" for folder in read_studies(root, split)["folder"]]
        if not (there := [path for path in paths if path.exists()]):
            continue
        found = read_nifti(there[0]).voxel_mm
        first = first or (name, found)
        if np.abs(found / first[1] - 1).max() > SAME_VOXELS:
            ours, theirs = ("×".join(f"{mm:g}" for mm in each) for each in (found, first[1]))
            raise InputError(f"{name}: has voxels of {ours} mm, {first[0]} of {theirs}. Resample one of the cohorts.")


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two normal distributions fitted to [n, values] (Dowson and Landau 1982; Heusel 2017)."""
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    one, two = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (a, b))
    root = linalg.sqrtm(one @ two)
    return float(apart + np.trace(one + two - 2 * np.real(root)))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / values + 1)³ (Gretton 2012; KID: Bińkowski
    2018); may be negative."""

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    n, m = len(a), len(b)
    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    own = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(own - 2 * ab.mean())


def spectral_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of the mean spectra [n, BANDS], in decibels."""
    return float(10 * np.abs(a.mean(0) - b.mean(0)).max())


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation of the mean histograms [n, bins]: the share of the voxels that would have to change their bin."""
    return float(np.abs(a.mean(0) - b.mean(0)).sum() / 2)


def read_features(files: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Features of another network, cohort → [subjects, features] in one order of columns. files: cohort → CSV.

    Raises InputError that names file, row and column for a cell that is no finite number, a subject that occurs twice,
    and a column that not all files have.
    """
    found: dict[str, pd.DataFrame] = {}
    for cohort, path in files.items():
        table = read_csv(path, dtype=dict(subject=str))
        names = tuple(name for name in table if name != "subject")
        if "subject" not in table or not names or table.empty:
            raise InputError(f"{path}: needs a column subject and columns of numbers. Correct the table.")
        if any(name.startswith("Unnamed: ") for name in names):
            raise InputError(f"{path}: has a column without a name. Name or remove it: every column counts.")
        check_subjects(table["subject"], path, unique=True)
        check_numbers(table, names, path)
        for name in names:
            if not (finite := np.isfinite(table[name].to_numpy(float))).all():
                row = int(finite.argmin())
                who = f"row {spreadsheet_row(table.index[row])} ({table['subject'].iloc[row]})"
                raise InputError(f"{path}: {who}: {name} is empty or not finite. Correct the table.")
        first = next(iter(found.values()), table.set_index("subject"))
        if odd := sorted(set(names) ^ set(first)):
            both = f"in this file or in {next(iter(files.values()))}, not in both"
            raise InputError(f"{path}: column {odd[0]} is {both}. Give the same columns.")
        found[cohort] = table.set_index("subject")[list(first)].astype(float)
    return found


def with_features(table: pd.DataFrame, features: pd.DataFrame, path: str) -> pd.DataFrame:
    """The table of a cohort with features of ``read_features``, from the file ``path``, in place of its own. Raises
    InputError for a subject that they lack."""
    if lacking := sorted(set(table["subject"]) - set(features.index)):
        raise InputError(f"{path}: lacks {lacking[0]} and {len(lacking) - 1} more. Add them.")
    own = table[[name for name in table.columns if not name.startswith(FEATURE)]]
    return own.merge(features.add_prefix(FEATURE), left_on="subject", right_index=True)


def columns_of(table: pd.DataFrame, begin: str) -> np.ndarray:
    """[n, values] of the columns with a beginning, in their order."""
    return table[[name for name in table.columns if name.startswith(begin)]].to_numpy(float)


def figures_of(reference: pd.DataFrame, candidate: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One row per figure: name, n, value and its standard deviation over random subsets, floor, floor_high (95 %),
    above_floor, which is None where one of these is no finite number.

    Every value is between n studies of each side, n half of the reference or the candidates, whichever is less.
    Raises InputError below FEWEST.
    """
    n = min(len(reference) // 2, len(candidate))
    if n < FEWEST:
        raise InputError(f"{len(reference)} reference studies and {len(candidate)} others: {2 * FEWEST} and {FEWEST} "
                         "are needed. Add some.")  # fmt: skip
    random = np.random.default_rng(seed)
    picks = [(random.permutation(len(reference)), random.permutation(len(candidate))[:n]) for _ in range(REPEATS)]
    rows = []
    for name, measure, begin in _measures(reference, candidate, n):
        base, made = columns_of(reference, begin), columns_of(candidate, begin)
        if begin == FEATURE:
            base, made = _components(base, made, n) if measure is frechet else _standardised(base, made)
        values = [measure(base[order[:n]], made[chosen]) for order, chosen in picks]
        floors = [measure(base[order[:n]], base[order[n : 2 * n]]) for order, _ in picks]
        value, high = float(np.mean(values)), float(np.percentile(floors, 95))
        rows.append(
            dict(
                figure=name, n=n, values=base.shape[1], value=value, std=float(np.std(values, ddof=1)),
                floor=float(np.mean(floors)), floor_high=high,
                above_floor=value > high if np.isfinite([value, high]).all() else None,
            )
        )  # fmt: skip
    return pd.DataFrame(rows)


def _measures(reference, candidate, n):
    if columns_of(reference, FEATURE).size and columns_of(candidate, FEATURE).size:
        yield "Fréchet distance of features", frechet, FEATURE
        yield "kernel distance of features", kernel_distance, FEATURE
    for name in WINDOWS:
        yield f"power spectrum of {name}, largest difference (dB)", spectral_distance, f"{SPECTRUM}{name}_"
        yield f"histogram of {name}, share of voxels", histogram_distance, f"{HISTOGRAM}{name}_"


def _standardised(base, made):
    mean, std = base.mean(0), base.std(0)
    std[std == 0] = 1
    return (base - mean) / std, (made - mean) / std


def _components(base, made, n):
    """Both on the first principal components of the reference."""
    base, made = _standardised(base, made)
    kept = max(1, int(COMPONENTS_PER_STUDY * n))
    axes = np.linalg.svd(base, full_matrices=False)[2][:kept]
    return base @ axes.T, made @ axes.T


def picture(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Mean spectra and histograms of cohorts, CT above SUV; a PNG."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    for (name, edges), row in zip(WINDOWS.items(), axes, strict=True):
        for number, (title, table) in enumerate(tables.items()):
            look = dict(ls=STYLES[number % len(STYLES)], label=f"{title} ({len(table)})")
            row[0].plot(range(1, BANDS + 1), 10 * columns_of(table, f"{SPECTRUM}{name}_").mean(0), **look)
            row[1].stairs(columns_of(table, f"{HISTOGRAM}{name}_").mean(0), edges, **look)
        row[0].set(title=f"{name}: power (dB)", xlabel=f"band of spatial frequency (1 to {BANDS}: half a cycle/voxel)")
        row[1].set(title=f"{name}: share of voxels in the body", yscale="log")
        row[1].set_xscale("log" if name == "SUV" else "linear")
    axes[0, 0].legend(frameon=False, fontsize=8)
    write(figure, path)


def fidelity_section(found: Mapping[str, pd.DataFrame], features: str, seed: int, figure: Path) -> Section:
    """The place in the report. found: candidate → figures_of;  features: what they are features of."""
    section = Section("Fidelity of volumes", figures={"Mean spectra and histograms": figure})
    section.notes = [
        f"Features: {features}. Random subsets by seed {seed}. Value and floor are between as many studies each; a "
        "value above the 95 % of the floor is a difference that two halves of the reference do not have."
    ]
    for name, table in found.items():
        rows = [list(table.columns), *([_text(value) for value in row] for row in table.itertuples(index=False))]
        section.tables[name] = rows
        for row in table.to_dict("records"):
            floor = f"floor {row['floor']:.3g} (95 % {row['floor_high']:.3g})"
            result = f"{row['value']:.3g} ± {row['std']:.2g}, {floor}"
            limit = "not tested: no finite number"
            if row["above_floor"] is not None:
                limit = "above the floor" if row["above_floor"] else "not above the floor: nothing seen at this number"
            section.scores.append(Score(f"{row['figure']}: {name}", f"{row['n']} of each", result, limit))
    return section


def _text(value):
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
