"""The outline of the body, its muscles, the diaphragm and the lungs."""

from collections.abc import Callable

import numpy as np

from totalgen.phantom.canvas import Box, Canvas
from totalgen.phantom.frame import POWER, Frame
from totalgen.phantom.heart import Heart
from totalgen.phantom.shapes import ellipsoid, intersection, smooth_field, superellipse, tube, union
from totalgen.phantom.skeleton import SIDES, paint_tube

Section = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]  # heights → half width, half depth, middle


def superellipse_at(canvas: Canvas, box: Box, section: Section) -> tuple[np.ndarray, np.ndarray]:
    """(distance, gauge) of the stacked cross-sections ``section`` (a method of Frame)."""
    x, y, z = canvas.at(box)
    width, depth, middle = (v.astype(np.float32) for v in section(canvas.axes[2][box[2]]))
    return superellipse(x, y - middle, width, depth, POWER)


def paint_body(canvas: Canvas, frame: Frame, whole: Box, age_years: float, rng: np.random.Generator) -> None:
    """Skin, fat under it, breasts, muscle with fat between its bundles. whole: the box of the complete canvas."""
    skin, _ = superellipse_at(canvas, whole, frame.skin)
    muscle, _ = superellipse_at(canvas, whole, frame.muscle)
    _add_legs(canvas, frame, skin, muscle)
    _add_shoulders(canvas, frame, skin, muscle)
    glands = _add_breasts(canvas, frame, skin) if frame.sex == "F" else []
    canvas.paint(whole, skin, "skin")
    canvas.paint(whole, skin + 2.0, "subcutaneous fat")
    for box, gland in glands:
        speckle = smooth_field(rng, 9, canvas.axes_in(box))
        cover = np.clip(0.55 - age_years / 140 + 0.35 * speckle, 0, 1)  # glands become fat with age
        canvas.paint(box, np.maximum(gland, 6 - np.abs(skin[box])), "gland", strength=cover)
    muscle = np.maximum(muscle, skin + 3.5)
    canvas.paint(whole, muscle, "muscle")
    # fat planes between the muscles: where a stretched random field crosses zero, more in the old and the obese
    field = smooth_field(rng, 26, (canvas.axes[0], canvas.axes[1], canvas.axes[2] * 0.35))
    plane = 0.06 + 0.10 * np.clip((age_years - 40) / 50, 0, 1) + 0.006 * np.clip(frame.bmi - 22, 0, 20)
    seam = np.clip(1.2 - np.abs(field) / plane, 0, 1)
    canvas.paint(whole, muscle + 3, "intermuscular fat", strength=0.75 * seam)


def _add_legs(canvas: Canvas, frame: Frame, skin: np.ndarray, muscle: np.ndarray) -> None:
    """End the trunk below the pelvis, add the thighs and separate the buttocks (in place)."""
    s, length, fat = frame.scale, frame.length_mm, frame.fat_mm
    box = canvas.box((-400, -400, -500), (400, 400, 0.02 * length))
    x, y, z = canvas.at(box)
    outward, inward = 0.8 * fat, min(0.6 * fat, 12)  # the thighs always touch in the middle
    legs_skin = legs_muscle = np.array(99, dtype=np.float32)
    for sign in SIDES.values():
        distance, _ = superellipse(x - sign * 92 * s, y + 6 * s, 78 * s, 88 * s, 2.2)
        legs_muscle = np.minimum(legs_muscle, distance)
        middle, half = 92 * s + (outward - inward) / 2, 78 * s + (outward + inward) / 2
        distance, _ = superellipse(x - sign * middle, y + 6 * s, half, 88 * s + outward, 2.2)
        legs_skin = np.minimum(legs_skin, distance)
    below = -0.075 * length - z
    skin[box] = union(intersection(skin[box], below, 30), legs_skin, 18)
    muscle[box] = union(intersection(muscle[box], below - 10, 20), legs_muscle, 8)
    box = canvas.box((-20, -400, -500), (20, 0, 0.13 * length))
    x, y, _ = canvas.at(box)
    _, depth, middle = (v.astype(np.float32) for v in frame.skin(canvas.axes[2][box[2]]))
    cleft = np.maximum(np.abs(x) - 4, y - (middle - depth + 34))
    skin[box] = intersection(skin[box], -cleft, 16)


def _add_shoulders(canvas: Canvas, frame: Frame, skin: np.ndarray, muscle: np.ndarray) -> None:
    """Raised arms that leave the field, and the slope from the neck (in place)."""
    s, fat = frame.scale, frame.fat_mm
    for sign in SIDES.values():
        sides = (-80, 400) if sign > 0 else (-400, 80)  # rounded edges go a little beyond the middle
        box = canvas.box((sides[0], -400, 0.78 * frame.length_mm), (sides[1], 400, 1.5 * frame.length_mm))
        arm = ((sign * 112, -24, 0.86), (sign * 160, -14, 0.965), (sign * 184, -8, 1.06), (sign * 198, -5, 1.25))
        trapezius = ((sign * 30, -50, 1.06), (sign * 80, -48, 0.97), (sign * 125, -45, 0.92))
        for line, radii, cover, fillets in (
            (arm, (44, 45, 40, 38), 3 + 0.45 * fat, (40, 50)),
            (trapezius, (22, 26, 26), 2 + 0.35 * fat, (25, 30)),
        ):
            sdf, _ = tube(*canvas.at(box), frame.points(*line), np.array(radii) * s, step=6, reach=60)
            muscle[box] = union(muscle[box], sdf, fillets[0])
            skin[box] = union(skin[box], sdf - cover, fillets[1])


def _add_breasts(canvas: Canvas, frame: Frame, skin: np.ndarray) -> list[tuple[Box, np.ndarray]]:
    """Both breasts, flattened as the patient lies (skin in place). Returns (box, signed distance) of their glands."""
    s = frame.scale
    size = s * np.clip(0.75 + 0.03 * (frame.bmi - 22), 0.55, 1.35)
    _, depth, middle = frame.muscle(0.72 * frame.length_mm)
    box = canvas.box((-220, 0, 0.55 * frame.length_mm), (220, 300, 0.88 * frame.length_mm))
    glands = []
    for sign in SIDES.values():
        centre = frame.point(sign * 88, 0, 0.715) + (0, 0.86 * float(middle + depth), 0)
        x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
        radii = np.array((74, 46, 66)) * size
        skin[box] = union(skin[box], ellipsoid(x, y, z, radii), 30)
        glands.append((box, ellipsoid(x, y - 6 * s, z, radii * 0.55)))
    return glands


def above_diaphragm(canvas: Canvas, frame: Frame, gauge: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Approximate signed distance to the diaphragm, positive towards the head. The right dome is the higher one."""
    s, length = frame.scale, frame.length_mm
    x, y, z = canvas.coordinates
    side = np.tanh(x / (35 * s))
    dome = (0.622 + 0.012 * side) * length + shift[0] + shift[1] * side
    dome = dome - 14 * s * np.exp(-((x / (32 * s)) ** 2))  # the heart lies on the tendon between the domes
    back = np.clip(-y / (90 * s), -0.6, 1)
    fall = (88 + 45 * back) * s * np.minimum(gauge, 1.15) ** 4
    return (z - (dome - fall)) * 0.72


def paint_lungs(
    canvas: Canvas, frame: Frame, cavity: np.ndarray, above: np.ndarray, heart: Heart, rng: np.random.Generator
) -> None:
    """A lung on each side of the mediastinum, denser towards the back, with vessels that become thinner outwards."""
    s, length = frame.scale, frame.length_mm
    box = canvas.box((-260, -260, 0.40 * length), (260, 260, 1.02 * length))
    x, y, z = canvas.at(box)
    heights = canvas.axes[2][box[2]]
    spine = frame.spine(heights).astype(np.float32)
    inside = intersection(cavity[box] + 1.5, 2 - above[box], 8)
    half = s * np.interp(heights / length, (0.5, 0.66, 0.74, 0.80, 0.88, 0.97), (22, 25, 30, 32, 32, 26))
    narrow = np.clip(1.15 - ((y - spine - 58 * s) / (67 * s)) ** 2, 0.12, 1)  # the lungs nearly touch in front
    column = np.abs(x) - half.astype(np.float32) * narrow
    behind = np.sqrt(x * x + (y - spine) ** 2) - 30 * s
    mediastinum = union(np.minimum(column * 0.9, behind), _embed(canvas, heart, box) - 5, 14)
    apex = z - 0.972 * length
    lungs = intersection(intersection(inside, -mediastinum, 10), apex, 12)
    canvas.paint(box, intersection(cavity[box], -above[box], 4), "mediastinal fat")
    canvas.paint(box, lungs, "lung")
    axes = canvas.axes_in(box)
    hilum = np.sqrt((np.abs(x) - 40 * s) ** 2 + (y + 12 * s) ** 2 + (z - 0.755 * length) ** 2)
    for knot, width in ((30, 0.30), (17, 0.24)):
        a, b = smooth_field(rng, knot, axes), smooth_field(rng, knot, axes)
        thread = np.sqrt(a * a + b * b)
        width = width * np.clip(1.35 - hilum / (150 * s), 0.25, 1.2)
        canvas.paint(box, lungs + 1, "lung vessel", strength=np.clip(1.6 - 1.6 * thread / width, 0, 0.9))
    back = np.clip((-y / s + 10) / 110, 0, 1)
    canvas.paint(box, lungs, "dependent lung", strength=0.12 + 0.55 * back**2)


def _embed(canvas: Canvas, part: Heart, box: Box) -> np.ndarray:
    """The signed distance of ``part`` (box, signed distance, …) in another box; 60 mm outside the box of the part."""
    inner, sdf = part[:2]
    everywhere = np.full(canvas.shape, 60, dtype=np.float32)
    everywhere[inner] = sdf
    return everywhere[box]


def paint_large_muscles(canvas: Canvas, frame: Frame) -> None:
    """Muscles next to the spine, psoas, iliacus. (Between the outline and the cavity everything is muscle already.)"""
    s, length = frame.scale, frame.length_mm
    for sign in SIDES.values():
        heights = np.array((0.14, 0.22, 0.35, 0.49, 0.65, 0.85))
        back = frame.spine(heights * length) / s
        side = np.array((26, 34, 37, 34, 28, 22))
        loins = frame.points(*((sign * a, b - 40, f) for a, b, f in zip(side, back, heights, strict=True)))
        paint_tube(canvas, loins, np.array((16, 23, 26, 22, 17, 12)) * s, "muscle")
        psoas = frame.points(
            (sign * 30, frame.spine(0.46 * length) / s - 4, 0.46), (sign * 40, frame.spine(0.36 * length) / s, 0.36),
            (sign * 50, frame.spine(0.25 * length) / s + 8, 0.25), (sign * 66, 6, 0.14), (sign * 84, 40, 0.04),
            (sign * 98, 8, -0.05),
        )  # fmt: skip
        paint_tube(canvas, psoas, np.array((8, 17, 23, 21, 18, 10)) * s, "muscle")
        iliacus = frame.points((sign * 92, -22, 0.23), (sign * 84, 2, 0.15), (sign * 84, 36, 0.06))
        paint_tube(canvas, iliacus, np.array((12, 15, 12)) * s, "muscle")
