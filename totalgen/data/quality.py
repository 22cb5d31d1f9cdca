"""Whether a generated study is a body like those of the training: its mass, its organs, and where they may lie.

The reference is computed from a cohort by ``evaluation/reference_ranges.py`` and kept with the weights.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from totalgen.data.demographics import SEXES, Demographics
from totalgen.data.measures import mass_of_field_kg
from totalgen.data.organs import ORGANS
from totalgen.data.text_files import read_json
from totalgen.data.volume import Volume
from totalgen.errors import InputError

MASS = "mass_kg"
MEASURES = {"volume": ("volume", "mL"), "hu": ("median", "HU"), "suv": ("median", "g/mL")}  # of an organ → word, unit
# Of the width of a range, on both sides: of 78 phantoms, held against 222 others, 36 are inside all 46 ranges as they
# are, 65 with a tenth, 76 with a fifth.
MARGIN = 0.2
FORMAT_VERSION = 1


def study_figures(ct: Volume, suv: Volume, organs: Volume | None, window_hu: tuple[float, float]) -> dict[str, float]:
    """mass_kg, and "<organ>.volume", ".hu", ".suv" of every organ of ORGANS when there are ``organs``, on one grid.

    ct: HU, cut to ``window_hu``, so that a CT that was measured and one that was generated are measured alike.  The
    mass is that of the body in the field, by a density of 1 + HU / 1000 kg/L; 0 where there is no body. An organ that
    is not there has volume 0 and medians NaN.
    """
    hu = np.clip(ct.voxels, *window_hu)
    figures = {MASS: _mass_kg(Volume(hu, ct.affine), window_hu[0])}
    boxes = [] if organs is None else ndimage.find_objects(organs.voxels.astype(np.uint8))
    for name, label in ORGANS.items() if organs is not None else ():
        box = boxes[label - 1] if label <= len(boxes) else None
        found = dict(volume=0.0, hu=np.nan, suv=np.nan)
        if organs is not None and box is not None:
            mask = organs.voxels[box] == label
            medians = (float(np.median(values[box][mask])) for values in (hu, suv.voxels))
            found = dict(zip(MEASURES, (float(mask.sum() * organs.voxel_ml), *medians), strict=True))
        figures |= {f"{name}.{measure}": value for measure, value in found.items()}
    return figures


def _mass_kg(ct, low):
    try:
        return mass_of_field_kg(ct, low)
    except InputError:  # nothing is dense
        return 0.0


@dataclass(frozen=True)
class SexReference:
    """What the training cohort says of one sex.

    mass: intercept (kg), per_m and per_kg of the regression on height and weight, and the ``residual`` range in kg;
    organs: organ → measure → range;  subjects: how many it is of.
    """

    subjects: int
    mass: Mapping[str, Any]
    organs: Mapping[str, Mapping[str, tuple[float, float]]]

    def expected_kg(self, height_m: Any, weight_kg: Any) -> Any:
        """Mass of the field by the regression; numbers or arrays."""
        return self.mass["intercept"] + self.mass["per_m"] * height_m + self.mass["per_kg"] * weight_kg


@dataclass(frozen=True)
class Reference:
    """sexes: "F", "M" → what is known of it;  window_hu: of all CT;  sha256: of the file."""

    sexes: Mapping[str, SexReference]
    window_hu: tuple[float, float]
    sha256: str = ""

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """From a file of 3_Evaluations/6_reference_ranges.py. Raises InputError for another, and for one that lacks
        something that ``faults`` needs, or has no number there."""
        cure = "Make it with 3_Evaluations/6_reference_ranges.py."
        found = read_json(path, cure)
        try:
            if found["format_version"] > FORMAT_VERSION:
                raise InputError(f"{path}: is of format {found['format_version']}. Update totalgen.")
            window_hu = _range("window_hu", found["window_hu"])
            sexes = {sex: SexReference(**each) for sex, each in found["sexes"].items()}
            for sex, each in sexes.items():
                _check(sex, each)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: is no reference of this version ({error}). {cure}") from None
        return cls(sexes, window_hu, hashlib.sha256(Path(path).read_bytes()).hexdigest())

    def faults(self, person: Demographics, figures: Mapping[str, float]) -> list[str]:
        """In words, what of the figures of a study is not as in the training cohort; none: it passes.

        Organs are judged where figures has them. An organ may be empty where it was so in the training.
        """
        known = self.sexes[person.sex]
        expected = known.expected_kg(person.height_m, person.weight_kg)
        low, high = wider(known.mass["residual"])
        found = []
        if not low <= figures[MASS] - expected <= high:
            found.append(f"mass {figures[MASS]:.1f} kg, {expected + low:.1f} to {expected + high:.1f} in training")
        for organ, ranges in known.organs.items():
            if f"{organ}.volume" not in figures:
                continue
            if figures[f"{organ}.volume"] == 0:
                found += [f"{organ} empty"] if ranges["volume"][0] > 0 else []
                continue
            for measure, (low, high) in ranges.items():
                value, (low, high) = figures[f"{organ}.{measure}"], wider((low, high))
                if not low <= value <= high:
                    word, unit = MEASURES[measure]
                    found.append(f"{organ} {word} {_shown(value)} {unit}, {_shown(low)} to {_shown(high)} in training")
        return found


def wider(span: tuple[float, float]) -> tuple[float, float]:
    """A range of the training cohort with MARGIN on both sides: the next person may lie just outside."""
    low, high = span
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def _shown(number):
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _check(sex, known):
    """Raise KeyError, TypeError or ValueError unless all is there that Reference.faults takes of a sex."""
    if sex not in SEXES:
        raise ValueError(f'sex "{sex}"')
    for name in ("intercept", "per_m", "per_kg"):
        _number(f"{sex}.mass.{name}", known.mass[name])
    _range(f"{sex}.mass.residual", known.mass["residual"])
    for organ, ranges in known.organs.items():
        if organ not in ORGANS or "volume" not in ranges or not ranges.keys() <= MEASURES.keys():
            raise ValueError(f"{sex}.organs.{organ} has {', '.join(ranges)}")
        for measure, span in ranges.items():
            _range(f"{sex}.organs.{organ}.{measure}", span)


def _range(name, span):
    """(low, high). Raises TypeError or ValueError for what is no range of numbers."""
    low, high = (_number(name, value) for value in span)
    if low > high:
        raise ValueError(f"{name}: {low:g} is above {high:g}")
    return low, high


def _number(name, value):
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value} is no finite number")
    return float(value)
