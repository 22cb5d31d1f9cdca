"""The heart: its wall, the left ventricle with its thick myocardium, and the blood in the chambers."""

import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.phantom.canvas import Box, Canvas, level_for
from totalgen.phantom.frame import Frame
from totalgen.phantom.shapes import ellipsoid, rotated, union

HEART_AXIS = (-0.66, 0.55, -0.42)  # from base to apex: left, forward, down
Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]
Heart = tuple[Box, np.ndarray, Coordinates, Coordinates, float]  # the result of heart_shape


def heart_shape(
    canvas: Canvas, frame: Frame, shift: np.ndarray, cavity: np.ndarray, above: np.ndarray, volume_ml: float
) -> Heart:
    """The outer surface of the heart, grown or shrunk to its sampled volume.

    Returns (box, signed distance, coordinates relative to the centre, the same along the axis, growth in mm).
    """
    s = frame.scale
    centre = frame.point(-27, 20, 0.678) + shift
    box = canvas.box(centre - 110, centre + 110)
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    u, v, w = rotated(x, y, z, HEART_AXIS)
    taper = 1 - 0.0016 * u  # wide base, narrow apex
    ventricles = ellipsoid(u, v / taper, w / taper, np.array((66, 46, 46)) * s)
    atria = ellipsoid(x - 16 * s, y + 8 * s, z - 18 * s, np.array((44, 40, 42)) * s)
    shape = union(ventricles, atria, 24)
    allowed = (cavity[box] < -9) & (above[box] > 1.5)
    level = level_for(shape, allowed, canvas.count(volume_ml))
    sdf = np.maximum(shape - level, np.maximum(cavity[box] + 7, 1.5 - above[box]))
    return box, sdf.astype(np.float32), (x, y, z), (u, v, w), level


def paint_heart(canvas: Canvas, frame: Frame, heart: Heart) -> None:
    """Wall, left ventricle with its thick myocardium, and the blood of the other chambers."""
    s = frame.scale
    box, sdf, (x, y, z), (u, v, w), level = heart
    organ = ORGANS["heart"]
    canvas.paint(box, sdf, "heart wall", organ)
    grow = 1 + level / (60 * s)
    blood = sdf + 6 * s
    canvas.paint(box, blood, "blood", organ)
    lv_u, lv_v, lv_w = u - 14 * s * grow, v - 13 * s * grow, w + 3 * s
    left = ellipsoid(lv_u, lv_v, lv_w, np.array((50, 32, 34)) * s * grow)
    cut = -(lv_u + 26 * s * grow)  # the ventricle opens towards the base
    left = np.maximum(np.maximum(left, cut), sdf + 2.5)
    hollow = ellipsoid(lv_u + 5 * s, lv_v, lv_w, np.array((41, 18.5, 20.5)) * s * grow)
    canvas.paint(box, left, "myocardium", organ)
    canvas.paint(box, np.maximum(hollow, sdf + 4), "blood", organ)
    fat = np.abs(u + 16 * s) - 3.5 * s  # between atria and ventricles
    canvas.paint(box, np.maximum(np.maximum(fat, sdf), -(sdf + 8 * s)), "heart wall", organ, strength=0.8)
