"""The organs of the belly and the pelvis."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.phantom.canvas import Box, Canvas, level_for
from totalgen.phantom.frame import Frame
from totalgen.phantom.shapes import ellipsoid, intersection, rotated, smooth_field, tube, union
from totalgen.phantom.skeleton import SIDES, paint_tube

USUAL_HALF_WIDTH = {"M": 128, "F": 118}  # mm of the reference frame at the level of the pancreas
Jitter = Callable[..., np.ndarray]  # (standard deviation in mm, number of values = 3) → displacement in mm


def paint_bowel(canvas: Canvas, frame: Frame, belly: np.ndarray, rng: np.random.Generator, jitter: Jitter) -> None:
    """Small bowel in loops, large bowel around it, gas at the front."""
    s, length = frame.scale, frame.length_mm
    width, depth, middle = frame.cavity(0.28 * length)
    a, b, c = float(width) / s, float(depth) / s, float(middle) / s
    front = c + b
    corners: list[tuple[float, float, float]] = []
    flip = 1
    for f in np.arange(0.075, 0.40, 0.0385):
        for place in np.arange(front - 24, -4, -27):
            spread = (a - 38) * (0.55 if f < 0.12 else 0.92)
            knots = np.linspace(-1, 1, 7) * flip
            flip = -flip
            corners += [(k * spread, place, f) for k in knots]
    rows = frame.points(*corners)
    rows += rng.standard_normal(rows.shape).clip(-2, 2) * (7, 7, 9)
    low, high = rows.min(0) - 14, rows.max(0) + 14
    box = canvas.box(low, high)
    loops, _ = tube(*canvas.at(box), rows, 11.5 * s, step=4)
    loops = np.maximum(loops, belly[box] + 5)
    canvas.paint(box, loops, "bowel wall")
    content = smooth_field(rng, 30, canvas.axes_in(box))
    canvas.paint(box, loops + 3.0, "bowel content", strength=np.clip(0.6 + 0.5 * content, 0, 1))
    canvas.paint(box, np.maximum(loops + 4, (1.7 - content) * 12), "gas")

    flank = a - 20
    colon = frame.points(
        (flank - 14, c - 8, 0.16), (flank - 2, c - 22, 0.23), (flank - 2, c - 26, 0.31), (flank - 8, c - 8, 0.385),
        (flank - 40, front - 30, 0.375), (30, front - 22, 0.335), (-30, front - 20, 0.335),
        (-flank + 36, front - 34, 0.40), (-flank + 6, c - 8, 0.475), (-flank - 2, c - 28, 0.41),
        (-flank - 2, c - 30, 0.30), (-flank + 4, c - 22, 0.20), (-60, 20, 0.135), (-20, 30, 0.12), (12, 4, 0.14),
        (6, -40, 0.115), (0, -46, 0.05),
        (0, -32, -0.02),
    )  # fmt: skip
    colon += rng.standard_normal(colon.shape).clip(-2, 2) * (4, 4, 6)
    radii = np.array((27, 27, 24, 23, 22, 21, 21, 21, 20, 18, 16, 16, 16, 16, 16, 18, 20, 12)) * s
    low, high = colon.min(0) - 30, colon.max(0) + 30
    box = canvas.box(low, high)
    sdf, place = tube(*canvas.at(box), colon, radii)
    sdf = sdf + 2.6 * np.cos(place * 2 * np.pi * 46)  # haustra
    sdf = np.maximum(sdf, belly[box] + 3)
    axes = canvas.axes_in(box)
    canvas.paint(box, sdf, "bowel wall")
    lumps = smooth_field(rng, 9, axes)
    canvas.paint(box, sdf + 3, "stool", strength=np.clip(0.75 + 0.4 * lumps, 0, 1))
    filling = smooth_field(rng, 45, axes)
    height = (canvas.at(box)[1] - c * s) / (b * s)
    canvas.paint(box, np.maximum(sdf + 3.5, (0.95 - filling * 0.8 - 1.1 * height) * 12), "gas")


class Belly:
    """The space of the upper belly and what its organs share while they are painted.

    cavity, above: signed distances (mm) to the wall and to the diaphragm on the complete canvas;  volume_ml: organ
    → sampled volume;  jitter: function of a standard deviation (mm) that gives a displacement.
    """

    def __init__(
        self, canvas: Canvas, frame: Frame, volume_ml: Mapping[str, float], cavity: np.ndarray, above: np.ndarray,
        jitter: Jitter,
    ) -> None:  # fmt: skip
        self.canvas, self.frame, self.volume_ml, self.jitter = canvas, frame, volume_ml, jitter
        self.scale, self.space = frame.scale, np.maximum(cavity, above)
        self.width, self.depth, self.middle = (float(v) / frame.scale for v in frame.cavity(0.50 * frame.length_mm))
        self.stretch = self.width / USUAL_HALF_WIDTH[frame.sex]  # organs are further apart in wide bellies

    def place(self, x: float, y: float, f: float, std_mm: float) -> np.ndarray:
        """A random centre near a reference point (mm)."""
        return self.frame.point(x * self.stretch, y, f) + self.jitter(std_mm)

    def spine(self, f: float) -> float:
        """y of the spine at a fraction of the length, in mm of the reference man."""
        return float(self.frame.spine(f * self.frame.length_mm)) / self.scale

    def around(self, centre: np.ndarray, reach: float) -> tuple[Box, np.ndarray, np.ndarray, np.ndarray]:
        """(box, x, y, z relative to the centre)."""
        box = self.canvas.box(centre - reach, centre + reach)
        x, y, z = (c - m for c, m in zip(self.canvas.at(box), centre, strict=True))
        return box, x, y, z

    def along(
        self, points: Sequence[tuple[float, float, float]], radii: Sequence[float], reach: float
    ) -> tuple[Box, np.ndarray]:
        """(box, signed distance) of an organ along a line of reference points."""
        line = self.frame.points(*points) + self.jitter(4)
        box = self.canvas.box(line.min(0) - reach - 20, line.max(0) + reach + 20)
        return box, tube(*self.canvas.at(box), line, np.array(radii) * self.scale, reach=reach)[0]

    def grown(
        self, box: Box, shape: np.ndarray, gap_mm: float, volume_ml: float, organs: Sequence[str] = (),
        tissues: Sequence[str] = (),
    ) -> np.ndarray:  # fmt: skip
        """Signed distance of ``shape``, grown or shrunk to its volume.

        It keeps ``gap_mm`` from the wall and leaves out the ``organs`` and ``tissues`` that are already painted.
        """
        taken = np.isin(self.canvas.organs[box], [ORGANS[name] for name in organs])
        for tissue in tissues:
            taken |= self.canvas.mask(tissue)[box]
        level = level_for(shape, (self.space[box] < -gap_mm) & ~taken, self.canvas.count(volume_ml))
        return np.where(taken, np.float32(30), np.maximum(shape - level, self.space[box] + gap_mm))


def paint_upper_abdomen(
    canvas: Canvas, frame: Frame, volume_ml: Mapping[str, float], cavity: np.ndarray, above: np.ndarray, jitter: Jitter
) -> None:
    """Pancreas, stomach, spleen, kidneys and the liver, each grown or shrunk to its sampled volume."""
    belly = Belly(canvas, frame, volume_ml, cavity, above, jitter)
    _paint_pancreas(belly)
    _paint_stomach(belly)
    _paint_spleen(belly)
    share = 0.5 + 0.02 * jitter(1, 1)[0]
    for side, part in (("right", 1 - share), ("left", share)):
        _paint_kidney(belly, side, volume_ml["kidneys"] * part)
    _paint_liver(belly)


def _paint_pancreas(belly: Belly) -> None:
    front = belly.spine(0.46) + 50
    line = (
        (40, front - 8, 0.405), (26, front, 0.435), (0, front, 0.46), (-34, front - 6, 0.48),
        (-72 * belly.stretch, front - 28, 0.505),
    )  # fmt: skip
    box, shape = belly.along(line, (17, 13, 10, 10, 8), reach=30)
    sdf = belly.grown(box, shape, 3, belly.volume_ml["pancreas"])
    belly.canvas.paint(box, sdf, "pancreas", ORGANS["pancreas"])


def _paint_stomach(belly: Belly) -> None:
    """From under the left dome of the diaphragm across the spine; gas at the front, as the patient lies on the back."""
    canvas, organ, middle, wide = belly.canvas, ORGANS["stomach"], belly.middle, belly.stretch
    line = (
        (-64 * wide, middle - 4, 0.555), (-72 * wide, middle + 22, 0.50), (-52 * wide, middle + 46, 0.445),
        (-14, middle + 52, 0.418), (26, middle + 40, 0.425),
    )  # fmt: skip
    box, shape = belly.along(line, (36, 31, 24, 18, 11), reach=40)
    sdf = belly.grown(box, shape, 4, belly.volume_ml["stomach"], organs=("pancreas",))
    canvas.paint(box, sdf, "stomach wall", organ)
    canvas.paint(box, sdf + 5, "stomach content", organ)
    y = canvas.at(box)[1]
    if (sdf < -5).any():
        surface = np.quantile(y[sdf < -5], 0.72)
        canvas.paint(box, np.maximum(sdf + 5, surface - y), "gas", organ)


def _paint_spleen(belly: Belly) -> None:
    s, volume = belly.scale, belly.volume_ml["spleen"]
    box, x, y, z = belly.around(belly.place(-belly.width + 26, belly.middle - belly.depth + 44, 0.535, 5), 95)
    u, v, w = rotated(x, y, z, (0.25, -0.45, 0.85))
    size = s * (volume / 230) ** (1 / 3)
    body = ellipsoid(v, w, u, np.array((32, 42, 58)) * size)
    dent = ellipsoid(x - 44 * size, y - 24 * s, z + 4, np.array((42, 44, 60)) * size)  # made by stomach and kidney
    sdf = belly.grown(box, intersection(body, -dent, 10), 2.5, volume, organs=("stomach", "pancreas"))
    belly.canvas.paint(box, sdf, "spleen", ORGANS["spleen"])


def _paint_kidney(belly: Belly, side: str, volume: float) -> None:
    """A bean with cortex, medulla and a pelvis with tracer-rich urine; its ureter, and the adrenal gland above it."""
    canvas, s, sign, organ = belly.canvas, belly.scale, SIDES[side], ORGANS[f"kidney_{side}"]
    size = s * (volume / 170) ** (1 / 3)
    centre = belly.place(sign * 68, belly.spine(0.42) + 2, 0.415 if side == "right" else 0.435, 4)
    _paint_ureter(belly, centre + (-sign * 30 * size, 6 * s, -10), sign)
    adrenal = centre + np.array(((-sign * 26 * s, 10 * s, 52 * size), (-sign * 16 * s, 0, 40 * size)))
    paint_tube(canvas, adrenal, 4 * s, "adrenal")
    box, x, y, z = belly.around(centre, 85 * s)
    length = rotated(sign * x, y, z, (-0.24, -0.12, 0.96))[0]  # the upper pole is nearer to the spine and the back
    inward, across = 0.5 * y - 0.85 * sign * x, 0.5 * sign * x + 0.85 * y  # the hilum points inward and forward
    bend = 0.24 * z + 6 * s * ((z / (58 * s)) ** 2 - 0.5)
    bean = ellipsoid(inward + bend, across, length, np.array((30, 27, 58)) * size)
    sinus = ellipsoid(inward - 27 * size, across, length, np.array((20, 12, 22)) * size)
    shape = intersection(bean, -sinus, 8)
    sdf = belly.grown(box, shape, 0, volume, organs=("spleen", "stomach", "pancreas"), tissues=("marrow", "disc"))
    canvas.paint(box, sdf, "kidney cortex", organ)
    canvas.paint(box, sdf + 9 * size, "kidney medulla", organ)
    pelvis = ellipsoid(inward - 14 * size, across, length, np.array((12, 8, 16)) * size)
    canvas.paint(box, np.maximum(pelvis, sdf + 1.5), "urine", organ)


def _paint_ureter(belly: Belly, start: np.ndarray, sign: int) -> None:
    canvas, s = belly.canvas, belly.scale
    below = belly.frame.points(
        (sign * 34, belly.spine(0.30) + 30, 0.30), (sign * 42, 0, 0.15), (sign * 24, -4, 0.04)
    )  # fmt: skip
    points = np.vstack([start, below])
    box = canvas.box(points.min(0) - 4, points.max(0) + 4)
    sdf, along = tube(*canvas.at(box), points, 2.2 * s)
    phase = along * 2.3 + float(belly.jitter(0.5, 1)[0]) + 0.2 * sign
    canvas.paint(box, sdf, "muscle")
    canvas.paint(box, sdf, "ureter", strength=(0.5 + 0.5 * np.sin(2 * np.pi * phase)) ** 2)  # urine flows in waves


LIVER_VEINS = (  # two hepatic veins (a third would be too much at 4 mm) and two portal branches
    ((28, -2, 0.595), (52, 0, 0.57), (86, 4, 0.53)),
    ((26, 4, 0.60), (40, 30, 0.575), (62, 52, 0.54)),
    ((30, 20, 0.49), (54, 12, 0.52), (82, 6, 0.535), (104, 0, 0.50)),
    ((54, 12, 0.52), (72, 36, 0.515), (92, 52, 0.49)),
)


def _paint_liver(belly: Belly) -> None:
    """A wedge under the right dome of the diaphragm, with left lobe, gall bladder, portal vein and veins inside."""
    canvas, frame, s, wide, organ = belly.canvas, belly.frame, belly.scale, belly.stretch, ORGANS["liver"]
    volume = belly.volume_ml["liver"]
    centre = belly.place(belly.width - 62, belly.middle + 4, 0.535, 4)
    portal = frame.points(
        (6, belly.spine(0.46) + 56, 0.455), (18, belly.middle + 10, 0.475), (30, belly.middle + 20, 0.49)
    )
    paint_tube(canvas, portal, 6 * s, "blood")
    length = frame.length_mm
    box = canvas.box((-belly.width * s, -150 * s, 0.30 * length), (belly.width * s + 30, 220, 0.72 * length))
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    size = s * np.clip((volume / (1700 * s**3)) ** (1 / 3), 0.8, 1.3)
    right = ellipsoid(x, y, z, np.array((78, 92, 98)) * size)
    left = ellipsoid(x + 78 * s * wide, y - 42 * s, z - 22 * s, np.array((72, 36, 40)) * size)
    under = (0.22 * y - 0.62 * x - z - 62 * size) * 0.78  # the lower surface rises to the left and to the back
    porta = ellipsoid(x + 46 * s, y + 4 * s, z + 26 * s, np.array((24, 26, 13)) * s)
    gall = ellipsoid(x + 34 * s, y - 38 * s, z + 42 * s, np.array((15, 17, 27)) * s)
    canvas.paint(box, np.maximum(gall, belly.space[box] + 3), "gall bladder")
    shape = intersection(intersection(union(right, left, 30), under, 18), -porta, 12)
    sdf = belly.grown(
        box, shape, 1.5, volume, organs=("spleen", "kidney_right", "kidney_left", "stomach", "pancreas", "heart"),
        tissues=("cortical bone", "marrow", "disc", "blood", "gall bladder"),
    )  # fmt: skip
    canvas.paint(box, sdf, "liver", organ)
    inner = np.full(canvas.shape, 30, dtype=np.float32)
    inner[box] = sdf
    for vein_points in LIVER_VEINS:
        points = frame.points(*vein_points) * (wide, 1, 1)
        part = canvas.box(points.min(0) - 8, points.max(0) + 8)
        vein, _ = tube(*canvas.at(part), points, np.linspace(4.5, 2.5, len(points)) * s)
        canvas.paint(part, np.maximum(vein, inner[part] + 2), "liver vein", organ)


def paint_pelvic_organs(canvas: Canvas, frame: Frame, volume_ml: Mapping[str, float], jitter: Jitter) -> None:
    """Bladder, and the uterus or the prostate."""
    s = frame.scale
    size = (volume_ml["bladder"] / 150) ** (1 / 3)
    centre = frame.point(0, 26, 0.018) + jitter(3) + (0, 0, 18 * s * size)
    box = canvas.box(centre - 80, centre + 80)
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    if frame.sex == "F":
        uterus = ellipsoid(x, y + 36 * s, z - 12 * s, np.array((25, 20, 30)) * s)
        canvas.paint(box, uterus, "genital organ")
    else:
        prostate = ellipsoid(x, y + 4 * s, z + 30 * s * size + 12 * s, np.array((23, 17, 16)) * s)
        canvas.paint(box, prostate, "genital organ")
    shape = ellipsoid(x, y, z, np.array((40, 32, 30)) * s * size)
    sdf = shape - level_for(shape, np.ones(shape.shape, bool), canvas.count(volume_ml["bladder"]))
    canvas.paint(box, sdf, "bladder wall", ORGANS["urinary_bladder"])
    canvas.paint(box, sdf + 3, "bladder urine", ORGANS["urinary_bladder"])
