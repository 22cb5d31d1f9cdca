"""A complete torso, painted from the skin inwards.

The order matters: each tissue covers what was painted before it, so no voxel can belong to two organs.
"""

from collections.abc import Mapping

import numpy as np

from totalgen.phantom import skeleton
from totalgen.phantom.abdomen import paint_bowel, paint_pelvic_organs, paint_upper_abdomen
from totalgen.phantom.body import above_diaphragm, paint_body, paint_large_muscles, paint_lungs, superellipse_at
from totalgen.phantom.canvas import Canvas
from totalgen.phantom.frame import Frame
from totalgen.phantom.heart import heart_shape, paint_heart
from totalgen.phantom.shapes import intersection
from totalgen.phantom.vessels import paint_vessels


def paint_torso(
    canvas: Canvas, frame: Frame, volume_ml: Mapping[str, float], age_years: float, rng: np.random.Generator,
    variability: float,
) -> None:  # fmt: skip
    """Paint one torso.

    volume_ml: organ → sampled volume;  variability: 1 for a population, 0 to put every organ in its usual place.
    """

    def jitter(std_mm: float, size: int = 3) -> np.ndarray:
        """Random displacement of an organ (mm)."""
        return rng.standard_normal(size).clip(-2, 2) * std_mm * variability

    everywhere = tuple(slice(0, n) for n in canvas.shape)
    paint_body(canvas, frame, everywhere, age_years, rng)
    cavity, gauge = superellipse_at(canvas, everywhere, frame.cavity)
    above = above_diaphragm(canvas, frame, gauge, jitter(5, 2))
    belly = intersection(cavity, above, 6)
    canvas.paint(everywhere, belly, "visceral fat")
    heart = heart_shape(canvas, frame, jitter(4), cavity, above, volume_ml["heart"])
    paint_lungs(canvas, frame, cavity, above, heart, rng)
    chest = canvas.box((-260, -260, 0.40 * frame.length_mm), (260, 260, 1.02 * frame.length_mm))
    paint_large_muscles(canvas, frame)
    skeleton.paint_ribs(canvas, frame, (cavity[chest], chest))
    skeleton.paint_sternum(canvas, frame)
    skeleton.paint_shoulders(canvas, frame)
    skeleton.paint_pelvis(canvas, frame)
    skeleton.paint_spine(canvas, frame)
    paint_bowel(canvas, frame, belly, rng, jitter)
    paint_vessels(canvas, frame)
    paint_heart(canvas, frame, heart)
    paint_upper_abdomen(canvas, frame, volume_ml, cavity, above, jitter)
    paint_pelvic_organs(canvas, frame, volume_ml, jitter)
