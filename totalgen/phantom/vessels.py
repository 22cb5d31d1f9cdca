"""Great vessels, airways, oesophagus and thyroid."""

import numpy as np

from totalgen.phantom.canvas import Canvas
from totalgen.phantom.frame import Frame
from totalgen.phantom.skeleton import SIDES, paint_tube


def paint_vessels(canvas: Canvas, frame: Frame) -> None:
    """Aorta, great vessels, cava, pulmonary arteries, iliac vessels, trachea and main bronchi."""
    s, length = frame.scale, frame.length_mm

    def spine(f: float) -> float:
        return float(frame.spine(f * length)) / s

    def front_of_spine(f: float) -> float:
        return spine(f) + np.interp(f, (0.2, 0.5, 0.96), (18, 15, 11))

    descending = [
        (-22 if f > 0.5 else -10, front_of_spine(f) + (4 if f > 0.5 else 12), f)
        for f in (0.74, 0.64, 0.54, 0.44, 0.34, 0.275)
    ]
    arch = frame.points((2, 22, 0.715), (12, 30, 0.765), (10, 22, 0.825), (-6, 0, 0.852), (-20, -22, 0.83), *descending)
    paint_tube(canvas, arch, np.array((16, 16, 15, 13.5, 13, 12.5, 12.5, 12, 11, 10, 9)) * s, "blood")
    cava = frame.points((24, 20, 0.725), (26, 14, 0.80), (22, 12, 0.86), (16, 14, 0.90))
    paint_tube(canvas, cava, np.array((11, 10, 10, 9)) * s, "blood")
    lower = frame.points(
        (24, 4, 0.63), (24, -6, 0.585), *((20, front_of_spine(f) + 12, f) for f in (0.50, 0.40, 0.30, 0.265))
    )
    paint_tube(canvas, lower, np.array((12, 12, 11.5, 11, 11, 10)) * s, "blood")
    for sign in SIDES.values():
        iliac = frame.points(
            (sign * 5, front_of_spine(0.28) + 10, 0.275), (sign * 34, spine(0.21) + 26, 0.20), (sign * 60, 10, 0.13),
            (sign * 82, 50, 0.03), (sign * 84, 58, -0.15),
        )  # fmt: skip
        paint_tube(canvas, iliac, np.array((6.5, 6, 5.5, 5.5, 5)) * s, "blood")
        vein = iliac + np.array((-sign * 2, -13, 0)) * s
        paint_tube(canvas, vein, np.array((8, 7.5, 7, 6.5, 6)) * s, "blood")
        pulmonary = frame.points(
            (-6, 22, 0.745), (sign * 18, -4, 0.765), (sign * 48, -16, 0.76), (sign * 66, -28, 0.735)
        )
        paint_tube(canvas, pulmonary, np.array((13, 11, 8.5, 5)) * s, "blood")
        carotid = frame.points((sign * 8, 8, 0.855), (sign * 20, 4, 0.92), (sign * 27, -6, 1.0), (sign * 27, -8, 1.2))
        paint_tube(canvas, carotid, np.array((5.5, 5, 4.5, 4.5)) * s, "blood")
        jugular = carotid + np.array((sign * 10, 4, 0)) * s
        paint_tube(canvas, jugular, np.array((6, 6.5, 6.5, 6.5)) * s, "blood")
        subclavian = frame.points(
            (sign * 24, 6, 0.90), (sign * 62, 6, 0.955), (sign * 110, -14, 0.955), (sign * 145, -30, 0.97)
        )
        paint_tube(canvas, subclavian, np.array((7, 6.5, 6, 5)) * s, "blood")
        bronchus = frame.points((0, -14, 0.79), (sign * 20, -18, 0.772), (sign * 42, -22, 0.745))
        paint_tube(canvas, bronchus, np.array((10, 9, 7)) * s, "airway wall")
        paint_tube(canvas, bronchus, np.array((8, 7, 5)) * s, "gas")
        thyroid = frame.points((sign * 16, 6, 1.02), (sign * 17, 8, 1.055))
        paint_tube(canvas, thyroid, np.array((7, 7)) * s, "thyroid")
    oesophagus = frame.points(
        *(
            (x, front_of_spine(f) + 6, f)
            for x, f in ((0, 1.15), (0, 0.96), (-3, 0.84), (-2, 0.74), (-12, 0.62), (-28, 0.575))
        )
    )
    paint_tube(canvas, oesophagus, 8 * s, "bowel wall")
    trachea = frame.points(*((0, front_of_spine(f) + 19, f) for f in (1.2, 1.06, 0.95, 0.86)), (0, -13, 0.788))
    paint_tube(canvas, trachea, 11.5 * s, "airway wall")
    paint_tube(canvas, trachea, 9 * s, "gas")
