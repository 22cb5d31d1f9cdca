"""Is the body the one that was asked for: mass, length, positions of organs, and series of rising weight."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from totalgen.data.names import is_asked
from totalgen.data.organs import LANDMARKS
from totalgen.evaluation.design import PUBLISHED_DESIGN, SEX, Design
from totalgen.evaluation.measured_cohort import Cohort

FEWEST = 8  # subjects for the four coefficients of the regression
SERIES = 3  # different weights at one sex, age and height that make a series
IMPOSED_MM = 5.0  # an extent that scatters less about its line in height was made by that line
PERSON = ["sex", "age_years", "height_m"]


def mass_regression(bodies: pd.DataFrame) -> np.ndarray | None:
    """Coefficients of mass_kg on 1, male, height_m and weight_kg by least squares; that of male is 0 for one sex.

    None below FEWEST subjects, and where their columns do not determine the coefficients, as at one height only.
    """
    bodies = bodies[bodies["mass_kg"].notna()]
    x, y = _design_matrix(bodies), bodies["mass_kg"].to_numpy(float)
    used = np.array([True, bodies["sex"].nunique() > 1, True, True])
    if len(y) < FEWEST or np.linalg.matrix_rank(x[:, used]) < used.sum():
        return None
    coefficients = np.zeros(len(used))
    coefficients[used] = np.linalg.lstsq(x[:, used], y, rcond=None)[0]
    return coefficients


def _design_matrix(bodies):
    male = (bodies["sex"] == "M").to_numpy(float)
    return np.stack([np.ones(len(bodies)), male, *(bodies[c].to_numpy(float) for c in ("height_m", "weight_kg"))], 1)


def mass_agreement(reference: Cohort, other: Cohort) -> dict[str, Any]:
    """How the mass of the field follows the demographics, held against the reference's own regression.

    n: bodies;  without: studies in which there is none;  other_sex: bodies that are left out because the reference has
    nobody of their sex, so that its regression says nothing about them;  bias_kg, bias_percent: mean of measured −
    predicted;  scatter_kg: its standard deviation;  slope: of measured on predicted mass, 1 when heavier people are as
    much heavier;  spearman: of both. None where there are too few, or no regression.
    """
    coefficients, measured = mass_regression(reference.bodies), other.bodies[other.bodies["mass_kg"].notna()]
    known = reference.bodies.loc[reference.bodies["mass_kg"].notna(), "sex"]
    bodies = measured[measured["sex"].isin(known)]
    figures: dict[str, Any] = dict(cohort=other.name, n=len(bodies), without=len(other.bodies) - len(measured))
    figures |= dict(other_sex=len(measured) - len(bodies), bias_kg=None, bias_percent=None)
    figures |= dict(scatter_kg=None, slope=None, spearman=None)
    if coefficients is None or bodies.empty:
        return figures
    predicted, found = _design_matrix(bodies) @ coefficients, bodies["mass_kg"].to_numpy(float)
    error = found - predicted
    figures |= dict(bias_kg=float(error.mean()), bias_percent=float(100 * error.mean() / predicted.mean()))
    if len(found) > 2 and np.ptp(predicted) > 0 and np.ptp(found) > 0:
        slope = float(stats.linregress(predicted, found).slope)
        spearman = float(stats.spearmanr(predicted, found).statistic)
        figures |= dict(scatter_kg=float(error.std(ddof=1)), slope=slope, spearman=spearman)
    return figures


def weight_series(cohort: Cohort) -> list[dict[str, Any]]:
    """Every series of SERIES or more weights at one sex, age and height: does the mass rise with the weight?

    Only of studies whose demographics were asked for (``is_asked``): among a thousand patients dozens of trios agree in
    sex, age and height by chance, and are no series.
    monotonic: at every step;  kg_per_kg: slope of the mass of the field on the weight that was asked for.
    """
    found: list[dict[str, Any]] = []
    if cohort.bodies.empty:
        return found
    asked = cohort.bodies[cohort.bodies["subject"].map(is_asked).astype(bool)]
    for person, rows in asked.groupby(PERSON):
        means = rows.groupby("weight_kg")["mass_kg"].mean().sort_index()
        if len(means) < SERIES:
            continue
        slope = float(stats.linregress(means.index.to_numpy(float), means.to_numpy(float)).slope)
        place = dict(cohort=cohort.name, sex=SEX[person[0]][0], age_years=float(person[1]), height_m=float(person[2]))
        rising = bool((np.diff(means.to_numpy(float)) > 0).all())
        found.append(place | dict(weights=len(means), monotonic=rising, kg_per_kg=slope))
    return found


def extent_scatter_mm(cohort: Cohort) -> float | None:
    """Standard deviation of the axial extent about its line in height, mm; None below FEWEST subjects."""
    bodies = cohort.bodies
    if len(bodies) < FEWEST or np.ptp(bodies["height_m"]) == 0:
        return None
    x, y = bodies["height_m"].to_numpy(float), bodies["extent_mm"].to_numpy(float)
    line = stats.linregress(x, y)
    return float((y - line.slope * x - line.intercept).std(ddof=2))


def height_is_imposed(cohort: Cohort) -> bool | None:
    """Whether the length of a body was computed of its height, so that it proves nothing; None when unknown."""
    scatter = extent_scatter_mm(cohort)
    return None if scatter is None else scatter < IMPOSED_MM


def one_length(cohort: Cohort) -> bool:
    """Whether all volumes are equally long, as those on a padded axis z are: that says nothing about their bodies."""
    return bool(np.ptp(cohort.bodies["extent_mm"]) < IMPOSED_MM)


def positions(cohorts: Sequence[Cohort], design: Design = PUBLISHED_DESIGN) -> pd.DataFrame:
    """Height of the middle of every organ, and of the bones of LANDMARKS that the reference has, in the field (0 its
    lower end, 1 its upper): what is not imposed by the height.

    Columns cohort, sex, organ, n, mean, std, and difference_mm from the first cohort at its mean extent.
    """
    rows = []
    first = cohorts[0]
    bones = [bone for bone in LANDMARKS if bone in set(first.measured["organ"])]
    for sex in design.groups:
        bodies = first.bodies
        extent = float(bodies.loc[bodies["sex"] == sex, "extent_mm"].mean()) if len(bodies) else np.nan
        for organ in (*design.organs, *bones):
            base = first.values(sex, organ, "z_share") if "z_share" in first.measured else np.array([])
            for cohort in cohorts:
                found = cohort.values(sex, organ, "z_share") if "z_share" in cohort.measured else np.array([])
                both = len(found) and len(base) and cohort is not first and np.isfinite(extent)
                rows.append(
                    dict(
                        cohort=cohort.name, sex=SEX[sex][0], organ=organ, n=len(found),
                        mean=float(found.mean()) if len(found) else None,
                        std=cohort.spread(sex, organ, "z_share") if len(found) > 1 else None,
                        difference_mm=float((found.mean() - base.mean()) * extent) if both else None,
                    )
                )  # fmt: skip
    return pd.DataFrame(rows)
