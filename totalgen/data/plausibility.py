"""Whether voxels can be what they claim: SUV by the conservation of the dose, HU by air and soft tissue, mm by size.

SUV is activity over dose per gram, so that a body in which all of the dose is seen has a mean SUV of 1: a wrong dose,
weight or time shows in the sum. A factor of 2, or an hour, is within what voiding and the field of view explain.
"""

import math
from pathlib import Path

import numpy as np

from totalgen.data.suv import F18_HALF_LIFE_S
from totalgen.data.volume import Volume
from totalgen.errors import InputError

SHARE = (1.15, 1.4)  # of the dose that is seen: above the first it is doubtful, above the second impossible
MEAN_SUV = (0.4, 1.6)  # of a body, usually 0.6 to 1.1: phantoms 0.58 to 0.78, an ACRIN torso 0.79
IMPOSSIBLE_MEAN_SUV = (0.2, 3.0)
USUAL = 0.8
WHOLE_L = 15.0  # of body in view: in less, a brain or a bladder may dominate
SUV_IMPOSSIBLE = 2000.0  # the highest voxel: above it is activity, not SUV
SUV_DOUBTFUL = 300.0  # the highest voxel: a very hot bladder, or no SUV
SUV_MAX_LOW = 1.0  # no FDG scan
MEAN_SUV_SMALL = (0.2, 20.0)  # of any part of a body, from legs to a brain: a wrong dose or weight
AIR_HU, AIR_QUANTILE = (-1100.0, -700.0), 0.005  # the darkest voxels of a CT are air, a real one of 4 mm has -891
SOFT_HU, SOFT_SHARE = (-200.0, 200.0), 0.02  # dense bone that is 1024 too low is less
DARK_HU = -300.0  # lungs, air and the rim of a body are darker
DENSE_HU, DENSE_SHARE = 600.0, 0.05  # bone and metal are less of a field of view
EDGE_MM = (0.1, 50.0)  # of a voxel of a person: photon-counting CT has 0.1 mm, and 50 mm show no organ
METRES_MM = 0.01  # below it an edge is in metres, of at most 10 mm, above it rather in centimetres, of at least 0.1 mm
SMALL_PET_MM = 0.8  # below the voxels of PET of people; in centimetres it is 8 mm
SMALL_FIELD_MM = 100.0  # across: a CT of a person in centimetres has 25 to 80, a wrist or an ear may
SAME_FACTOR = 0.2  # of a logarithm: how well a cause must explain a factor to be named


def suv_doubts(pet: Volume, weight_kg: float) -> list[str]:
    """Doubts about the SUV of a PET in its own field of view. Raises InputError when more than the dose is
    seen, or nothing."""
    highest = float(pet.voxels.max())
    if not np.isfinite(pet.voxels.sum(dtype=np.float64)) or highest <= 0:
        raise InputError("no voxel of the PET is above 0, or some are not finite. Export the series again.")
    share = float(pet.voxels.sum(dtype=np.float64)) * pet.voxel_ml / (1000 * weight_kg)
    doubts = []
    if share > SHARE[0]:
        text = f"{share:.2f} times the injected dose is in view{_cause(share / USUAL)}: check dose, weight and times"
        if share > SHARE[1]:
            raise InputError(f"{text} in the PET headers, and correct them.")
        doubts.append(text)
    if highest < SUV_MAX_LOW:
        doubts.append(f"SUVmax is {highest:.2f}: check weight, dose and times")
    return doubts


def check_suv(pet: Volume) -> None:
    """Raises InputError for values that no SUV has: activity, nothing above 0, or those of ``check_negative``."""
    highest = float(pet.voxels.max())
    if highest > SUV_IMPOSSIBLE:
        raise InputError(f"its highest value is {highest:.4g}, which is no SUV but perhaps Bq/mL. Convert it.")
    if highest <= 0:
        raise InputError("no voxel is above 0. Is it the right file?")
    check_negative(pet)


def check_negative(pet: Volume) -> None:
    """Raises InputError for negative values that no PET has, such as those of a CT.

    Noise of a reconstruction goes below 0, but as far above it, where uptake is added: no voxel is further below 0 than
    the highest is above. Their sum, which is of the dose in view, stays positive.
    """
    highest, lowest = float(pet.voxels.max()), float(pet.voxels.min())
    if lowest < -min(highest, SUV_DOUBTFUL):
        raise InputError(
            f"its values are {lowest:.4g} to {highest:.4g}, which no SUV has; a CT, or values without their rescale? "
            "Give a PET in SUV."
        )
    if pet.voxels.sum(dtype=np.float64) <= 0:
        raise InputError("the sum of its values is negative, which no SUV has; a CT? Give a PET in SUV.")


def check_edges(volume: Volume, path: str | Path) -> None:
    """Raises InputError that names ``path``, its file, for edges of voxels outside EDGE_MM: their unit is another."""
    low, high = float(volume.voxel_mm.min()), float(volume.voxel_mm.max())
    if low < EDGE_MM[0] or high > EDGE_MM[1]:
        unit = "micrometres" if low >= EDGE_MM[0] else "metres" if low < METRES_MM else "centimetres"
        raise InputError(
            f"{path}: its voxels have edges of {_edges(volume)} mm; {EDGE_MM[0]:g} to {EDGE_MM[1]:g} mm are read. "
            f"Is its affine in {unit}? Scale it to mm."
        )


def pet_edge_doubts(pet: Volume) -> list[str]:
    """Doubts about voxels that are smaller than those of any PET of people."""
    small = float(pet.voxel_mm.min()) < SMALL_PET_MM
    return [f"its voxels have edges of {_edges(pet)} mm: is its affine in cm?"] if small else []


def field_doubts(ct: Volume) -> list[str]:
    """Doubts about a CT that is narrower than a person, whose voxels in centimetres may pass for small ones."""
    _, width, _ = sorted(edge * number for edge, number in zip(ct.voxel_mm, ct.shape, strict=True))  # of any axes
    return [f"its field of view is {width:.3g} mm wide: is its affine in cm?"] if width < SMALL_FIELD_MM else []


def _edges(volume):
    return " × ".join(f"{edge:.3g}" for edge in volume.voxel_mm)


def body_doubts(suv: Volume, body: np.ndarray) -> list[str]:
    """Doubts about the mean SUV of a body, bool [x, y, z]. Raises InputError when it is impossible for a whole one."""
    if not body.any():
        return []
    mean, litres = float(suv.voxels[body].mean()), float(body.sum()) * suv.voxel_ml / 1000
    cause = _cause(mean / USUAL)
    text = f"mean SUV of the body is {mean:.3g}, usually 0.6 to 1.1{cause}: check dose, weight and times"
    if litres < WHOLE_L:
        return [] if MEAN_SUV_SMALL[0] <= mean <= MEAN_SUV_SMALL[1] else [text]
    if not IMPOSSIBLE_MEAN_SUV[0] <= mean <= IMPOSSIBLE_MEAN_SUV[1]:
        raise InputError(f"{text} in the PET headers, and correct them.")
    return [] if MEAN_SUV[0] <= mean <= MEAN_SUV[1] else [text]


def check_hu(ct: Volume) -> None:
    """Raises InputError for values that are not HU: no air near −1000, or no soft tissue near 0.

    Padding looks like air: where it is all that is dark and much is dense, the rescale was lost, and air is near 0.
    """
    air = float(np.quantile(ct.voxels, AIR_QUANTILE))
    if not AIR_HU[0] <= max(air, -1024.0) <= AIR_HU[1]:
        raise InputError(f"CT: its darkest values are {air:.0f}; air is -1000 HU. Export it in HU, with its rescale.")
    share = float(((ct.voxels > SOFT_HU[0]) & (ct.voxels < SOFT_HU[1])).mean())
    if share < SOFT_SHARE:
        raise InputError(f"CT: {100 * share:.1g} % of it is soft tissue near 0 HU. Export it in HU, with its rescale.")
    seen = ct.voxels[ct.voxels > max(ct.voxels.min(), AIR_HU[0])]
    dense = float((seen > DENSE_HU).mean())
    if dense > DENSE_SHARE and np.quantile(seen, AIR_QUANTILE) > DARK_HU:
        raise InputError(
            f"CT: only its padding is dark, and {100 * dense:.0f} % of the rest is above {DENSE_HU:g} HU, as of values "
            "stored without their rescale. Export it in HU."
        )


def _cause(factor):
    """In words, what makes SUV wrong by about this factor; "" when nothing common does."""
    powers = {10.0**n: f"a dose {10**n:,} times too small" for n in (1, 3, 6)}
    powers |= {10.0**-n: f"a dose {10**n:,} times too large" for n in (1, 3, 6)}
    units = {1e3: " (kBq, or GBq for MBq?)", 1e-3: " (mBq, or MBq for GBq?)", 1e6: " (MBq?)"}
    if factor <= 0:
        return ""
    near = min(powers, key=lambda each: abs(math.log(factor / each)))
    if abs(math.log(factor / near)) < 2 * SAME_FACTOR:
        return f", as by {powers[near]}{units.get(near, '')}"
    hours = round(math.log2(factor) * F18_HALF_LIFE_S / 3600)
    if 1 <= abs(hours) <= 5 and abs(math.log(factor) - hours * 3600 / F18_HALF_LIFE_S * math.log(2)) < SAME_FACTOR:
        return f", as by an injection {abs(hours)} h too {'early' if hours > 0 else 'late'} (a time zone?)"
    return ""

