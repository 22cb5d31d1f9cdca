"""Bones: spine, ribs, sternum, shoulder girdle, pelvis, femora."""

import numpy as np
from numpy.typing import ArrayLike

from totalgen.data.organs import ORGANS
from totalgen.phantom.canvas import Box, Canvas
from totalgen.phantom.frame import Frame
from totalgen.phantom.shapes import ellipsoid, intersection, tube, union

SIDES = {"right": 1, "left": -1}  # of the patient; x grows to the right
CORTEX_MM = 3.0  # partial volume makes a 1–2 mm cortex look like this at 4 mm
# tops of the vertebrae as fractions of the length, from C5 down to the top of the sacrum
LUMBAR_TOP, THORAX_TOP, SACRUM_TOP = 0.493, 0.962, 0.19
VERTEBRAE = np.concatenate(
    [
        THORAX_TOP + 0.033 * np.arange(6, 0, -1),
        np.linspace(THORAX_TOP, LUMBAR_TOP, 13),
        np.linspace(LUMBAR_TOP, SACRUM_TOP, 6)[1:],
    ]
)[::-1]  # ascending boundaries
RIB_PITCH = (THORAX_TOP - LUMBAR_TOP) / 12
# where each bony rib ends and where its cartilage ends, as the angle from the spine (0) to the sternum (π)
RIB_END = np.pi * np.array([0.70, 0.72, 0.72, 0.72, 0.72, 0.71, 0.70, 0.66, 0.62, 0.56, 0.45, 0.32])
CARTILAGE_END = np.pi * np.array([0.93] * 7 + [0.84, 0.76, 0.68, 0.46, 0.33])


def paint_bone(canvas: Canvas, box: Box, sdf: np.ndarray, organ: int = 0, cortex_mm: float = CORTEX_MM) -> None:
    """Cortex outside, marrow inside."""
    canvas.paint(box, sdf, "cortical bone", organ)
    canvas.paint(box, sdf + cortex_mm, "marrow", organ)


def paint_tube(
    canvas: Canvas, points: np.ndarray, radius: ArrayLike, tissue: str | None = None, organ: int = 0,
    cortex_mm: float = CORTEX_MM,
) -> None:  # fmt: skip
    """A bone (tissue None) or a vessel around a polyline."""
    reach = np.max(radius)
    box = canvas.box(points.min(0) - reach, points.max(0) + reach)
    sdf, _ = tube(*canvas.at(box), points, radius)
    if tissue is None:
        paint_bone(canvas, box, sdf, organ, cortex_mm)
    else:
        canvas.paint(box, sdf, tissue, organ)


def paint_spine(canvas: Canvas, frame: Frame) -> None:
    """Vertebral bodies with discs, arches with canal and cord, spinous and transverse processes, C6 to L5."""
    s, length = frame.scale, frame.length_mm
    box = canvas.box((-50 * s, -135 * s, SACRUM_TOP * length), (50 * s, 5 * s, 1.2 * length))
    x, y, z = canvas.at(box)
    heights = canvas.axes[2][box[2]]
    f = z / length
    level = np.clip(np.searchsorted(VERTEBRAE, f) - 1, 0, len(VERTEBRAE) - 2)
    height = np.diff(VERTEBRAE)[level] * length
    place = (f - VERTEBRAE[level]) * length  # mm above the lower edge of this vertebra and the disc below it
    disc = 0.22 * height
    y = y - frame.spine(heights).astype(np.float32)
    lower = np.interp(heights / length, (0.19, 0.5, 0.96, 1.05), (1.0, 0.85, 0.62, 0.5)).astype(np.float32)
    a, b = 26 * s * lower, 18 * s * lower
    column = ellipsoid(x / a * 20, y / b * 20, 0 * z, (20, 20, 1e6)) * (a + b) / 40
    middle = (disc + height) / 2
    slab = np.abs(place - middle) - (height - disc) / 2
    waist = 2.0 * (1 - (np.abs(place - middle) / (height / 2)) ** 2)
    body = intersection(column + waist, slab, 4)
    arch_y = y + b + 8 * s
    ring = np.abs(np.sqrt(x * x + arch_y**2) - 11.5 * s) - 3.0 * s
    arch = np.maximum(ring, np.abs(place - 0.55 * height) - 0.33 * height)
    tip = arch_y + 12 * s
    drop = place - 0.5 * height + 0.45 * (-tip)  # spinous processes point down
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5 * s, np.abs(drop) - 0.3 * height), np.abs(tip + 13 * s) - 15 * s)
    wide = np.sqrt((place - 0.6 * height) ** 2 + (arch_y - 1) ** 2) - 5 * s
    transverse = np.maximum(wide, np.abs(x) - 38 * s * np.sqrt(lower))
    above = length * SACRUM_TOP - z
    canvas.paint(box, np.maximum(column, above), "disc")
    bone = np.maximum(union(union(body, arch, 3), union(spinous, transverse, 3), 3), above)
    paint_bone(canvas, box, bone, cortex_mm=2.6)
    canal = np.sqrt(x * x + arch_y**2) - 8.5 * s
    canvas.paint(box, np.maximum(canal, above), "cerebrospinal fluid")
    canvas.paint(box, np.maximum(canal + 3.5 * s, 0.46 * length - z), "cord")


def paint_ribs(canvas: Canvas, frame: Frame, wall: tuple[np.ndarray, Box]) -> None:
    """Twelve pairs, sloping down to the front, with costal cartilage. wall: (radial distance to the cavity, box)."""
    s, length = frame.scale, frame.length_mm
    distance, box = wall
    x, y, z = canvas.at(box)
    heights = canvas.axes[2][box[2]]
    a, b, middle = (v.astype(np.float32) for v in frame.cavity(heights))
    angle = np.arctan2(np.abs(x) / a, -(y - middle) / b)
    depth = (THORAX_TOP - z / length) / (THORAX_TOP - LUMBAR_TOP)  # 0 at the first rib, 1 at the last
    fall = (22 + 62 * np.clip(depth * 1.6, 0, 1)) * s
    rise = (34 * np.clip(depth * 1.5 - 0.35, 0, 1) * s) * np.clip((angle - 0.70 * np.pi) / (0.25 * np.pi), 0, 1)
    phase = (THORAX_TOP * length - z - fall * np.sin(angle / 2) ** 2 + rise) / (RIB_PITCH * length)
    number = np.clip(np.floor(phase), 0, 11).astype(np.int8)
    across = (phase - number - 0.5) * RIB_PITCH * length * 0.85
    radial = distance - 5.0 * s
    half = 6.6 * s, 3.9 * s
    rib = np.sqrt((across / half[0]) ** 2 + (radial / half[1]) ** 2)
    rib = (rib - 1) * 4.8 * s
    outside = np.where((phase < 0) | (phase > 12), 50, -50).astype(np.float32)
    radius = np.sqrt(x * x + (y - middle) ** 2)
    bony = np.maximum(np.maximum(rib, (angle - RIB_END[number].astype(np.float32)) * radius), outside)
    cartilage = np.maximum(np.maximum(rib, (angle - CARTILAGE_END[number].astype(np.float32)) * radius), outside)
    canvas.paint(box, cartilage, "cartilage")
    canvas.paint(box, bony, "rib")


def paint_sternum(canvas: Canvas, frame: Frame) -> None:
    """Manubrium and body, on the front of the rib cage."""
    s, length = frame.scale, frame.length_mm
    low, high = 0.665 * length, 0.93 * length
    heights = np.linspace(low, high, 9)
    _, depth, middle = frame.cavity(heights)
    front = middle + depth
    box = canvas.box((-32 * s, front.min() - 10, low), (32 * s, front.max() + 25, high))
    x, y, z = canvas.at(box)
    surface = np.interp(canvas.axes[2][box[2]], heights, front).astype(np.float32) + 5 * s
    half = np.interp(canvas.axes[2][box[2]] / length, (0.665, 0.70, 0.84, 0.86, 0.93), (7, 17, 15, 22, 28)) * s
    plate = np.maximum(np.abs(x) - half.astype(np.float32), np.abs(y - surface) - 6 * s)
    paint_bone(canvas, box, intersection(plate, np.abs(z - (low + high) / 2) - (high - low) / 2, 6), cortex_mm=2.4)


def paint_shoulders(canvas: Canvas, frame: Frame) -> None:
    """Clavicles, scapulae and humeral heads, arms raised. The clavicles' highest point is the length of the torso."""
    s, length = frame.scale, frame.length_mm
    _, depth, middle = frame.cavity(0.92 * length)
    front = float(middle + depth) / s
    for side, sign in SIDES.items():
        clavicle = frame.points(
            (sign * 20, front + 3, 0.93), (sign * 55, front + 6, 0.95), (sign * 95, front - 26, 0.972),
            (sign * 132, front - 48, 0.985),
        )  # fmt: skip
        clavicle[-1, 2] = length - 7 * s
        paint_tube(canvas, clavicle, np.array((9, 6.5, 6.5, 7)) * s, organ=ORGANS[f"clavicula_{side}"], cortex_mm=2.4)
        humerus = frame.points((sign * 164, -12, 0.972), (sign * 182, -8, 1.06), (sign * 192, -5, 1.2))
        paint_tube(canvas, humerus, np.array((21, 13, 12)) * s, cortex_mm=3.4)
        organ = ORGANS[f"scapula_{side}"]
        low = (min(sign * 40, sign * 160) * s, -130 * s, 0.68 * length)
        high = (max(sign * 40, sign * 160) * s, 0.0, 0.97 * length)
        box = canvas.box(low, high)
        x, y, z = canvas.at(box)
        out = sign * x / s
        up = z / length
        # the raised arm turns the blade: its lower angle swings outward
        inner = (60 + (0.93 - up) * 90) - out
        outer = out - (152 - (0.94 - up) * 190)
        edge = np.maximum(np.maximum(inner, outer) * s, np.maximum(0.71 - up, up - 0.945) * length)
        spread = np.clip(out - 60, 0, 110)
        blade = np.abs(y / s + 100 - 0.0052 * spread**2 - 34 * np.clip(up - 0.84, 0, 1)) * 0.85 * s - 4.2 * s
        canvas.paint(box, intersection(blade, edge, 3), "flat bone", organ)
        glenoid = frame.points((sign * 122, -48, 0.925), (sign * 142, -26, 0.955))
        paint_tube(canvas, glenoid, np.array((8, 13)) * s, organ=organ)
        ridge = frame.points((sign * 78, -101, 0.87), (sign * 120, -86, 0.93), (sign * 150, -52, 0.985))
        ridge[-1, 2] = min(ridge[-1, 2], length - 12 * s)
        paint_tube(canvas, ridge, np.array((4, 6, 7)) * s, organ=organ)


def paint_pelvis(canvas: Canvas, frame: Frame) -> None:
    """Sacrum, hip bones, femoral heads, necks and shafts. The lowest point of the sacrum is z = 0."""
    s, length = frame.scale, frame.length_mm
    wide = 1.04 if frame.sex == "F" else 1.0
    for side, sign in SIDES.items():
        organ = ORGANS[f"hip_{side}"]
        low = (min(sign * 25, sign * 150) * s * wide, -105 * s, 0.0)
        high = (max(sign * 25, sign * 150) * s * wide, 90 * s, 0.31 * length)
        box = canvas.box(low, high)
        x, y, z = canvas.at(box)
        u, v, up = sign * x / (s * wide), y / s, z / length
        # the wing: a blade from the sacroiliac joint to the front spine, leaning outward as it rises
        along = np.clip((v + 82) / 140, -0.2, 1.2)
        surface = 48 + 74 * np.clip(along, 0, 1.2) ** 0.75 - (0.235 - up) * 190 * (0.25 + 0.5 * along)
        crest = 0.272 - 0.16 * (along - 0.42) ** 2 - 0.03 * np.clip(along - 0.7, 0, 1)
        edge = np.maximum((up - crest) * length, np.maximum(-80 - v, v - 62) * s)
        edge = np.maximum(edge, (0.045 + 0.05 * np.abs(along - 0.55) - up) * length)
        wing = intersection((np.abs(u - surface) * 0.85 - 5.5) * s, edge, 5)
        paint_bone(canvas, box, wing, organ, 2.6)
        socket = frame.point(sign * 86 * wide, 4, 0.012)
        pieces = (
            ((socket + (0, -8 * s, 36 * s), frame.point(sign * 82 * wide, -4, 0.10)), (26, 15)),
            ((frame.point(sign * 66 * wide, 16, 0.02), frame.point(sign * 10, 60, -0.012)), (16, 10)),
            ((frame.point(sign * 10, 60, -0.012), frame.point(sign * 52 * wide, -12, -0.085)), (10, 8)),
            ((frame.point(sign * 72 * wide, -28, 0.03), frame.point(sign * 58 * wide, -38, -0.075)), (18, 15)),
        )
        for points, radius in pieces:
            paint_tube(canvas, np.array(points), np.array(radius) * s, organ=organ)
        box = canvas.box(socket - 36 * s, socket + 36 * s)
        x, y, z = canvas.at(box)
        ball = ellipsoid(x - socket[0], y - socket[1], z - socket[2], (33 * s,) * 3)
        cup = np.maximum(ball, (sign * (x - socket[0]) - 6 * s) * 0.8 - (z - socket[2]) * 0.6)
        paint_bone(canvas, box, cup, organ)
        canvas.paint(box, ball + 7.5 * s, "cartilage")
        femur = np.array(
            (socket, socket + (sign * 28 * s, -6 * s, -14 * s), socket + (sign * 52 * s, -12 * s, -32 * s),
             socket + (sign * 50 * s, -8 * s, -160 * s))
        )  # fmt: skip
        paint_tube(canvas, femur, np.array((17, 15, 19, 15)) * s, cortex_mm=3.4)
        box = canvas.box(socket - 25 * s, socket + 25 * s)
        x, y, z = canvas.at(box)
        paint_bone(canvas, box, ellipsoid(x - socket[0], y - socket[1], z - socket[2], (24 * s,) * 3), cortex_mm=2.4)
    box = canvas.box((-62 * s, -125 * s, 0), (62 * s, 0, SACRUM_TOP * length))
    x, y, z = canvas.at(box)
    heights = canvas.axes[2][box[2]]
    f = heights / length
    y = y - frame.spine(heights).astype(np.float32)
    half = np.interp(f, (0, 0.03, 0.10, 0.15, 0.19), (7, 17, 42, 56, 50)).astype(np.float32) * s * wide
    thick = np.interp(f, (0, 0.03, 0.10, 0.19), (6, 8, 14, 22)).astype(np.float32) * s
    bend = 6 * s * (x / half) ** 2  # concave towards the pelvis
    plate = ellipsoid(x / half * 20, (y + bend) / thick * 20, 0 * z, (20, 20, 1e6)) * (half + 3 * thick) / 80
    plate = np.maximum(plate, np.maximum(-z, z - SACRUM_TOP * length + 3))
    paint_bone(canvas, box, plate, ORGANS["sacrum"], 2.6)
