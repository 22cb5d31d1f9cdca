"""Grey pictures of volumes as radiologists view them: head up, front up, the patient's right on the viewer's left."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from scipy import ndimage

mpl.rcParams["text.parse_math"] = False  # names of subjects and cohorts are no mathematics

CT_WINDOW = (-300.0, 400.0)  # HU: soft tissue; bone and lung still differ
PET_WINDOW = (0.0, 7.0)  # SUV, shown inverted: dark is active


class Display(NamedTuple):
    """How a volume is shown. unit: of its values;  window: values from black to white, or white to black when
    ``inverted``;  views: of VIEWS, in order."""

    title: str
    unit: str
    window: tuple[float, float]
    inverted: bool
    views: tuple[str, ...]


def grey(values: np.ndarray, window: tuple[float, float], inverted: bool = False) -> np.ndarray:
    """Values → uint8 grey; ``inverted`` makes the upper end of the window black."""
    low, high = window
    level = np.clip((values - low) / (high - low), 0, 1)
    return (255 * (1 - level if inverted else level) + 0.5).astype(np.uint8)


def coronal(voxels: np.ndarray, y: int | None = None) -> np.ndarray:
    """[x, y, z] in RAS+ order → picture [rows, columns] of the coronal plane ``y`` (the middle when not given)."""
    y = voxels.shape[1] // 2 if y is None else y
    return voxels[::-1, y, ::-1].T


def sagittal(voxels: np.ndarray, x: int | None = None) -> np.ndarray:
    """[x, y, z] → picture of the sagittal plane ``x`` (the middle when not given), front to the left."""
    x = voxels.shape[0] // 2 if x is None else x
    return voxels[x, ::-1, ::-1].T


def axial(voxels: np.ndarray, z: int | None = None) -> np.ndarray:
    """[x, y, z] → picture of the axial plane ``z`` (the middle when not given), seen from the feet, front up."""
    z = voxels.shape[2] // 2 if z is None else z
    return voxels[::-1, ::-1, z].T


def mip(voxels: np.ndarray, degrees: float = 0.0) -> np.ndarray:
    """[x, y, z] → maximum-intensity projection along y, the patient turned by ``degrees`` about z."""
    if degrees:
        voxels = ndimage.rotate(voxels, degrees, axes=(0, 1), reshape=False, order=1)
    return voxels.max(1)[::-1, ::-1].T


class View(NamedTuple):
    """How a volume is looked at. of: voxels → picture;  axes: of the volume, across and up;  sides: letters at the left
    and at the right, for what of the patient is there."""

    of: Callable[[np.ndarray], np.ndarray]
    axes: tuple[int, int]
    sides: tuple[str, str]


VIEWS = {
    "coronal": View(coronal, (0, 2), ("R", "L")),
    "sagittal": View(sagittal, (1, 2), ("A", "P")),
    "projection": View(mip, (0, 2), ("R", "L")),
}
DISPLAYS: Mapping[str, Display] = {  # name of a volume → how it is shown
    "CT": Display("CT", "HU", CT_WINDOW, False, ("coronal", "sagittal")),
    "MR": Display("MR", "as trained", (0.0, 1300.0), False, ("coronal", "sagittal")),
    "SUV": Display("PET", "SUV", PET_WINDOW, True, ("coronal", "sagittal", "projection")),
}
FUSED = ("CT", "SUV")  # where both are there, the second is shown over the first, too


def study_strip(ct: np.ndarray, suv: np.ndarray) -> np.ndarray:
    """Coronal CT, coronal PET and PET MIP of one study ([x, y, z] each, HU and SUV) side by side, uint8."""
    return np.concatenate(
        [
            grey(coronal(ct), CT_WINDOW),
            grey(coronal(suv), PET_WINDOW, inverted=True),
            grey(mip(suv), PET_WINDOW, inverted=True),
        ],
        axis=1,
    )


def enlarged(picture: np.ndarray, least: int = 240) -> np.ndarray:
    """The picture repeated by a whole factor so that its height is at least ``least`` pixels."""
    factor = max(1, -(-least // picture.shape[0]))
    return picture.repeat(factor, 0).repeat(factor, 1)
