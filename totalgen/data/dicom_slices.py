"""Where the slices of a series lie, and whether they form a volume."""

from collections.abc import Sequence

import numpy as np
import pydicom

from totalgen.data.header_numbers import optional_number

PLANE = {"ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}  # tag → how many numbers
SAME_PLACE_MM = 0.05  # slices closer together than this are at the same place
SPACING_TOLERANCE = 0.1  # of the slice spacing; scanners round positions, a missing slice doubles it
OFF_LINE_MM = 0.5  # largest distance of a slice position from one straight line
SAME_PLANE = 1e-3  # cosines, mm
PERPENDICULAR = 0.01  # cosines; some headers round them to two decimals
Numbers = tuple[float, ...] | None  # None: the header does not state them


def place(header: pydicom.Dataset) -> tuple[Numbers, Numbers]:
    """(origin, plane) of a slice: tuples of Image Position (mm, LPS, [3]) and of the numbers of ``PLANE`` ([10]).

    Both are None when one of the tags is missing.
    """
    try:
        origin = tuple(float(v) for v in header.ImagePositionPatient)
        plane = tuple(float(v) for name in PLANE for v in np.atleast_1d(header[name].value))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None, None
    return (origin, plane) if (len(origin), len(plane)) == (3, sum(PLANE.values())) else (None, None)


def promised(header: pydicom.Dataset) -> int:
    """Number of Slices of a PET header, or 0."""
    return int(optional_number(header, "NumberOfSlices"))


def stack(
    origins: Sequence[Numbers], planes: Sequence[Numbers], promised: int = 0
) -> tuple[np.ndarray, np.ndarray | None, str, int | None]:
    """(order, step, why, k): how slices at these places form a volume, or why they do not.

    origins, planes: [n] as ``place`` gives them, in any order;  promised: Number of Slices, or 0.
    order: [n] indices of the slices along their normal;  step: [3] mm (LPS) from one slice to the next. It is not along
    the normal when the gantry is tilted.  why: "", or a text; then order[k] is the slice it describes, or k is None.
    """
    count, order = len(origins), np.arange(len(origins))
    known = [plane for plane in planes if plane is not None]
    if len(known) < count:
        return order, None, "its position, orientation or pixel spacing is missing or no numbers", planes.index(None)
    first = known[0]
    for k, plane in enumerate(known):
        if plane is not first and not np.allclose(plane, first, rtol=0, atol=SAME_PLANE):
            other = int(np.argmax(~np.isclose(plane, first, rtol=0, atol=SAME_PLANE)))
            name = [name for name, n in PLANE.items() for _ in range(n)][other]
            return order, None, f"{name} differs from the other slices", k
    row, column = np.reshape(first[:6], (2, 3))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=PERPENDICULAR):
        return order, None, "ImageOrientationPatient is no pair of perpendicular directions", None
    if count < 2:
        return order, None, "is the only slice of its series; a volume needs more", 0

    points = np.array(origins)
    along = points @ np.cross(row, column)
    order = np.argsort(along, kind="stable")
    points, gaps = points[order], np.diff(along[order])
    usual = float(np.median(gaps))
    doubled, uneven = gaps < SAME_PLACE_MM, abs(gaps - usual) > SPACING_TOLERANCE * usual
    if doubled.any():
        places = f"{count} slices at {count - doubled.sum()} places: several time points, gates or reconstructions"
        return order, None, f"two different slices at one place ({places})", int(doubled.argmax()) + 1
    if uneven.any():
        k = int(uneven.argmax())
        what = "a slice is missing" if gaps[k] > 1.5 * usual else "the slices are not evenly spaced"
        return order, None, f"{what} before it ({gaps[k]:.2f} mm, elsewhere {usual:.2f} mm)", k + 1
    if promised > count:
        return order, None, f"{count} of {promised} slices are there (Number of Slices)", None
    step = (points[-1] - points[0]) / (count - 1)
    off = np.linalg.norm(points - (points[0] + np.arange(count)[:, None] * step), axis=1)
    if off.max() > max(OFF_LINE_MM, SPACING_TOLERANCE * np.linalg.norm(step)):
        k = int(off.argmax())
        return order, None, f"lies {off[k]:.1f} mm off the straight line through the first and the last slice", k
    return order, step, "", None
