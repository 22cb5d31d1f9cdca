"""How long a torso is: the axial extent of a cropped volume as a straight line in the height of its subject."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LinearRegression, RANSACRegressor

from totalgen.data.demographics import COVERAGE, HEIGHT_M
from totalgen.data.files import atomic
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

Numbers = TypeVar("Numbers", float, np.ndarray)

FEWEST = 10  # subjects below which a line is not fitted
CROPPED = (COVERAGE, "z_extent_mm")  # columns of crop.csv
ROWS = "fitted_to"  # in the file: rows_hash
HEIGHTS_APART_M = 0.05  # heights with a smaller range than this do not determine a slope


@dataclass(frozen=True)
class AxialExtent:
    """extent_mm = slope_mm_per_m · height_m + intercept_mm, with how it was fitted.

    n, n_inliers: subjects;  residual_std_mm: standard deviation of the inliers around the line;  residual_threshold_mm:
    distance from the line beyond which a subject is an outlier;  source: in words, what it was fitted to.
    """

    slope_mm_per_m: float
    intercept_mm: float
    n: int
    n_inliers: int | None
    residual_std_mm: float | None
    residual_threshold_mm: float | None
    source: str

    def mm(self, height_m: Numbers) -> Numbers:
        """Axial extent in mm of a torso cropped from clavicles to sacrum, for a height in m (number or array)."""
        return self.slope_mm_per_m * height_m + self.intercept_mm

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for JSON and for the configuration saved with weights."""
        return asdict(self)

    def check(self) -> "AxialExtent":
        """Itself. Raises InputError where a person would have no extent."""
        if not all(self.mm(height_m) > 0 for height_m in HEIGHT_M):
            extents = " and ".join(f"{self.mm(height_m):.0f} mm at {height_m:g} m" for height_m in HEIGHT_M)
            raise InputError(f"the line gives {extents}. Look at heights and extents in cohort.csv and crop.csv.")
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AxialExtent":
        """The inverse of to_dict."""
        return cls(**values)


# The line of the paper's released inference, in slices of 2 mm.
PUBLISHED_SLICES_PER_M, PUBLISHED_SLICES, PUBLISHED_SLICE_MM = 146.629, 110.419, 2.0
PUBLISHED = AxialExtent(
    slope_mm_per_m=PUBLISHED_SLICES_PER_M * PUBLISHED_SLICE_MM,
    intercept_mm=PUBLISHED_SLICES * PUBLISHED_SLICE_MM,
    n=565,
    n_inliers=None,
    residual_std_mm=None,
    residual_threshold_mm=None,
    source="published cohort (AutoPET, n = 565)",
)


def fit(height_m: ArrayLike, extent_mm: ArrayLike, source: str) -> AxialExtent:
    """RANSAC line through heights (m) and extents (mm), both [n], as an AxialExtent.

    The residual threshold is 2·1.4826·MAD of the absolute residuals of ordinary least squares, at least 1 mm (exact
    data would leave no tolerance for rounding); random_state 42 makes it repeatable. (The paper's released settings.)
    Raises InputError with the reason when the data do not determine a line.
    """
    height_m, extent_mm = np.asarray(height_m, float), np.asarray(extent_mm, float)
    order = np.lexsort((extent_mm, height_m))  # RANSAC samples by position: the line must not depend on the rows' order
    height_m, extent_mm = height_m[order], extent_mm[order]
    if len(height_m) < FEWEST:
        raise InputError(f"{len(height_m)} subjects show the whole torso; a line needs {FEWEST}. Add subjects.")
    if np.ptp(height_m) < HEIGHTS_APART_M:
        raise InputError(f"heights differ by {100 * np.ptp(height_m):.1f} cm only. Add shorter and taller subjects.")
    x = height_m[:, None]
    off = np.abs(extent_mm - LinearRegression().fit(x, extent_mm).predict(x))
    threshold = max(2 * 1.4826 * np.median(np.abs(off - np.median(off))), 1.0)
    try:
        ransac = RANSACRegressor(LinearRegression(), residual_threshold=threshold, random_state=42).fit(x, extent_mm)
    except ValueError as error:
        raise InputError(f"no line fits the extents ({error}). Look at the outliers in crop.csv.") from None
    inlier = ransac.inlier_mask_
    slope, intercept = float(ransac.estimator_.coef_[0]), float(ransac.estimator_.intercept_)
    if slope <= 0:
        raise InputError(f"the fitted slope is {slope:.0f} mm per m: taller is not longer. Look at crop.csv.")
    if inlier.sum() < max(len(x) / 3, 3):
        raise InputError(f"only {inlier.sum()} of {len(x)} subjects lie near one line. Look at crop.csv.")
    residual = extent_mm[inlier] - slope * height_m[inlier] - intercept
    return AxialExtent(
        slope_mm_per_m=slope,
        intercept_mm=intercept,
        n=len(x),
        n_inliers=int(inlier.sum()),
        residual_std_mm=float(residual.std(ddof=2)),  # two parameters were fitted
        residual_threshold_mm=float(threshold),
        source=source,
    ).check()


def read_axial_extent(path: str | Path) -> AxialExtent:
    """The AxialExtent of a JSON file. Raises InputError when it is missing, damaged or of nobody."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. Run 0_Preprocess/5_fit_axial_extent.py on its folder first.")
    try:
        about = read_json(path, "Run 0_Preprocess/5_fit_axial_extent.py.")
        line = AxialExtent.from_dict({name: value for name, value in about.items() if name != ROWS})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is not an axial extent ({error}). Run 0_Preprocess/5_fit_axial_extent.py.") from None
    try:
        return line.check()
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error} Run 0_Preprocess/5_fit_axial_extent.py again.") from None


def write_axial_extent(path: str | Path, line: AxialExtent, rows: pd.DataFrame | None = None) -> None:
    """Write an AxialExtent as JSON, atomically, with what tells the ``rows`` that it was fitted to."""
    about = {} if rows is None else {ROWS: rows_hash(rows)}
    with atomic(path) as part:
        part.write_text(json.dumps(line.to_dict() | about, indent=2) + "\n")


def rows_of_line(cohort: pd.DataFrame, crops: pd.DataFrame) -> pd.DataFrame:
    """The subjects that a line is fitted to: of split train, with the whole torso in the scan.

    cohort: of ``read_cohort``;  crops: the table crop.csv, with the columns CROPPED.
    """
    both = cohort.drop(columns=list(CROPPED), errors="ignore").merge(crops[["subject", *CROPPED]], on="subject")
    train = both["split"] == "train" if "split" in both else True
    return both[(both[COVERAGE].astype(str) == "True") & train]


def rows_hash(rows: pd.DataFrame) -> str:
    """What tells the subjects, heights and extents of ``rows_of_line`` from others, in whatever order."""
    numbers = [pd.to_numeric(rows[name], errors="coerce") for name in ("height_m", "z_extent_mm")]
    told = sorted(f"{s} {height:g} {mm:g}" for s, height, mm in zip(rows["subject"], *numbers, strict=True))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def warn_of_other_rows(root: Path, cohort: pd.DataFrame, crops: pd.DataFrame) -> None:
    """A line on standard error when <root>/axial_extent.json was fitted to other heights and extents than those of the
    tables. The published line was fitted to none of them, one of an earlier version does not say."""
    kept = read_json(root / "axial_extent.json").get(ROWS)
    if kept is None or not {*CROPPED, "subject"}.issubset(crops):
        return
    if kept != rows_hash(rows_of_line(cohort, crops)):
        click.echo(
            f"Warning: {root / 'axial_extent.json'}: was fitted to other heights or extents than are in cohort.csv "
            "and crop.csv. Run 0_Preprocess/5_fit_axial_extent.py again, and this step after it.", err=True,
        )  # fmt: skip


def scatter(path: str | Path, height_m: ArrayLike, extent_mm: ArrayLike, line: AxialExtent) -> None:
    """A PNG of the subjects (heights in m, extents in mm, both [n]) and the line, its outliers marked."""
    from matplotlib.figure import Figure  # slow to import, and only this figure needs it

    height_m, extent_mm = np.asarray(height_m, float), np.asarray(extent_mm, float)
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    out = np.zeros(len(height_m), bool)
    if line.residual_threshold_mm is not None:
        out = np.abs(extent_mm - line.mm(height_m)) > line.residual_threshold_mm
    axes.plot(height_m[~out], extent_mm[~out], "o", color="tab:blue", alpha=0.6, label="subjects")
    if out.any():
        axes.plot(height_m[out], extent_mm[out], "x", color="tab:red", label="outliers")
    ends = np.array([height_m.min() - 0.02, height_m.max() + 0.02]) if len(height_m) else np.array([1.5, 2.0])
    axes.plot(ends, line.mm(ends), color="black", label=f"{line.slope_mm_per_m:.1f} · h + {line.intercept_mm:.1f}")
    axes.set_xlabel("height (m)")
    axes.set_ylabel("axial extent, clavicles to sacrum (mm)")
    axes.set_title(line.source, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    with atomic(path) as part:
        figure.savefig(part, dpi=120)
