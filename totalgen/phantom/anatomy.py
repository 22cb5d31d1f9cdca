"""The soft tissues and organs of the torso, painted from the skin inwards.

Order matters: what is painted later covers what was there, so no voxel can belong to two organs.
"""

import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.phantom import skeleton
from totalgen.phantom.canvas import level_for
from totalgen.phantom.frame import POWER
from totalgen.phantom.shapes import SmoothField, ellipsoid, intersection, superellipse, tube, union
from totalgen.phantom.skeleton import SIDES, paint_tube

TEXTURE_BOX = (-300, -300, -250), (300, 300, 950)


def paint_torso(canvas, frame, volume_ml, age_years, rng, variability):
    """Paint one torso. canvas: Canvas;  frame: Frame;  volume_ml: dict of drawn organ volumes;  rng: numpy Generator."""

    def jitter(std_mm, size=3):
        """Displacement of an organ's place (mm)."""
        return rng.standard_normal(size).clip(-2, 2) * std_mm * variability

    whole = tuple(slice(0, n) for n in canvas.shape)
    _paint_body(canvas, frame, whole, age_years, rng)
    cavity, gauge = _superellipse_at(canvas, whole, frame.cavity)
    above = _above_diaphragm(canvas, frame, gauge, jitter(5, 2))
    belly = intersection(cavity, above, 6)
    canvas.paint(whole, belly, "visceral fat")
    heart = _heart_shape(canvas, frame, jitter(4), cavity, above, volume_ml["heart"])
    _paint_lungs(canvas, frame, cavity, above, heart, rng)
    chest = canvas.box((-260, -260, 0.40 * frame.length_mm), (260, 260, 1.02 * frame.length_mm))
    _paint_large_muscles(canvas, frame)
    skeleton.paint_ribs(canvas, frame, (cavity[chest], chest))
    skeleton.paint_sternum(canvas, frame)
    skeleton.paint_shoulders(canvas, frame, None)
    skeleton.paint_pelvis(canvas, frame)
    skeleton.paint_spine(canvas, frame)
    _paint_bowel(canvas, frame, belly, rng, jitter)
    _paint_heart(canvas, frame, heart)
    _paint_vessels(canvas, frame, jitter)
    _paint_upper_abdomen(canvas, frame, volume_ml, cavity, above, jitter)
    _paint_pelvic_organs(canvas, frame, volume_ml, jitter)


def _superellipse_at(canvas, box, section):
    """(distance, gauge) of the stacked cross-sections ``section`` (a method of Frame)."""
    x, y, z = canvas.at(box)
    width, depth, middle = (v.astype(np.float32) for v in section(canvas.axes[2][box[2]]))
    return superellipse(x, y - middle, width, depth, POWER)


def _paint_body(canvas, frame, whole, age_years, rng):
    """Skin, fat under it, breasts, muscle with fat between its bundles."""
    s, length = frame.scale, frame.length_mm
    skin, _ = _superellipse_at(canvas, whole, frame.skin)
    muscle, gauge = _superellipse_at(canvas, whole, frame.muscle)
    fat = frame.fat_mm
    x, y, z = canvas.at(whole)
    crotch = -0.075 * length
    thighs_muscle = np.full(canvas.shape, 99, dtype=np.float32)
    thighs_skin = thighs_muscle.copy()
    legs = canvas.box((-300, -300, -500), (300, 300, 0.02 * length))
    for sign in SIDES.values():
        lx, ly, lz = canvas.at(legs)
        distance, _ = superellipse(lx - sign * 92 * s, ly + 6 * s, 78 * s, 88 * s, 2.2)
        thighs_muscle[legs] = np.minimum(thighs_muscle[legs], distance)
        inner = min(0.6 * fat, 12)  # the thighs touch in the middle, whatever the fat
        distance, _ = superellipse(lx - sign * (92 * s + (fat * 0.8 - inner) / 2), ly + 6 * s,
                                   78 * s + (fat * 0.8 + inner) / 2, 88 * s + 0.8 * fat, 2.2)  # fmt: skip
        thighs_skin[legs] = np.minimum(thighs_skin[legs], distance)
    below = crotch - z[legs]
    skin[legs] = union(intersection(skin[legs], below, 30), thighs_skin[legs], 18)
    muscle[legs] = union(intersection(muscle[legs], below - 10, 20), thighs_muscle[legs], 8)
    cleft = canvas.box((-20, -300, -500), (20, 0, 0.13 * length))
    cx, cy, cz = canvas.at(cleft)
    width, depth, middle = (v.astype(np.float32) for v in frame.skin(canvas.axes[2][cleft[2]]))
    groove = np.maximum(np.abs(cx) * 1.0 - 4.0, cy - (middle - depth + 34))
    skin[cleft] = intersection(skin[cleft], -groove, 16)

    top = canvas.box((-300, -300, 0.78 * length), (300, 300, 1.5 * length))
    tx, ty, tz = canvas.at(top)
    for sign in SIDES.values():
        arm = frame.points((sign * 112, -24, 0.86), (sign * 160, -14, 0.965), (sign * 184, -8, 1.06), (sign * 198, -5, 1.25))
        sdf, _ = tube(tx, ty, tz, arm, np.array((44, 45, 40, 38)) * s, step=6, reach=60)
        muscle[top] = union(muscle[top], sdf, 40)
        skin[top] = union(skin[top], sdf - 3 - 0.45 * fat, 50)
        trapezius = frame.points((sign * 30, -50, 1.06), (sign * 80, -48, 0.97), (sign * 125, -45, 0.92))
        sdf, _ = tube(tx, ty, tz, trapezius, np.array((22, 26, 26)) * s, step=6, reach=60)
        muscle[top] = union(muscle[top], sdf, 25)
        skin[top] = union(skin[top], sdf - 2 - 0.35 * fat, 30)

    breasts = None
    if frame.sex == "F":
        size = np.clip(0.75 + 0.03 * (frame.bmi - 22), 0.55, 1.35)
        _, depth, middle = frame.muscle(0.72 * length)
        for sign in SIDES.values():
            box = canvas.box((-190, 0, 0.55 * length), (190, 260, 0.88 * length))
            bx, by, bz = canvas.at(box)
            centre = frame.point(sign * 88, 0, 0.715) + (0, float(middle + depth) * 0.86, 0)
            radii = np.array((74, 46, 66)) * s * size
            mound = ellipsoid(bx - centre[0], by - centre[1], bz - centre[2], radii)
            skin[box] = union(skin[box], mound, 30)
            gland = ellipsoid(bx - centre[0], by - centre[1] - 6 * s, bz - centre[2], radii * 0.55)
            breasts = (*(breasts or ()), (box, gland))
    canvas.paint(whole, skin, "skin")
    canvas.paint(whole, skin + 2.0, "subcutaneous fat")
    for box, gland in breasts or ():
        speckle = SmoothField(rng, 9, *TEXTURE_BOX)(*(v[b] for v, b in zip(canvas.axes, box, strict=True)))
        cover = np.clip(0.55 - age_years / 140 + 0.35 * speckle, 0, 1)
        canvas.paint(box, np.maximum(gland, 6 - np.abs(skin[box])), "gland", strength=cover)
    muscle = np.maximum(muscle, skin + 3.5)
    canvas.paint(whole, muscle, "muscle")
    # fat planes between the muscles: where a stretched random field crosses zero, more in the old and the obese
    field = SmoothField(rng, 26, *TEXTURE_BOX)(canvas.axes[0], canvas.axes[1], canvas.axes[2] * 0.35)
    plane = 0.06 + 0.10 * np.clip((age_years - 40) / 50, 0, 1) + 0.006 * np.clip(frame.bmi - 22, 0, 20)
    seam = np.clip(1.2 - np.abs(field) / plane, 0, 1)
    canvas.paint(whole, np.maximum(muscle + 3, -50 - muscle), "intermuscular fat", strength=0.75 * seam)


def _above_diaphragm(canvas, frame, gauge, shift):
    """Approximate signed distance to the diaphragm, positive towards the head. The right dome is the higher one."""
    s, length = frame.scale, frame.length_mm
    x, y, z = canvas.coordinates
    side = np.tanh(x / (35 * s))
    dome = (0.622 + 0.012 * side) * length + shift[0] + shift[1] * side
    dome = dome - 14 * s * np.exp(-((x / (32 * s)) ** 2))  # the heart rests on the tendon between the domes
    back = np.clip(-y / (90 * s), -0.6, 1)
    fall = (88 + 45 * back) * s * np.minimum(gauge, 1.15) ** 4
    return (z - (dome - fall)) * 0.72


def _paint_lungs(canvas, frame, cavity, above, heart, rng):
    """Two lungs either side of the mediastinum, denser towards the back, with vessels that thin out."""
    s, length = frame.scale, frame.length_mm
    box = canvas.box((-260, -260, 0.40 * length), (260, 260, 1.02 * length))
    x, y, z = canvas.at(box)
    heights = canvas.axes[2][box[2]]
    spine = frame.spine(heights).astype(np.float32)
    inside = intersection(cavity[box] + 1.5, 2 - above[box], 8)
    half = np.interp(heights / length, (0.5, 0.66, 0.74, 0.80, 0.88, 0.97), (22, 25, 30, 32, 32, 26)).astype(np.float32) * s
    reach = 42 * s
    column = np.abs(x) - half * np.clip(1.15 - (np.abs(y - spine - 58 * s) / (1.6 * reach)) ** 2, 0.12, 1)
    behind = np.sqrt(x * x + (y - spine) ** 2) - 30 * s
    mediastinum = union(np.minimum(column * 0.9, behind), _embed(canvas, heart, box) - 5, 14)
    apex = z - 0.972 * length
    lungs = intersection(intersection(inside, -mediastinum, 10), apex, 12)
    canvas.paint(box, intersection(cavity[box], -above[box], 4), "mediastinal fat")
    canvas.paint(box, lungs, "lung")
    axes = [v[b] for v, b in zip(canvas.axes, box, strict=True)]
    hilum = np.sqrt(((np.abs(x) - 40 * s) / 1.0) ** 2 + (y + 12 * s) ** 2 + (z - 0.755 * length) ** 2)
    for knot, width in ((30, 0.30), (17, 0.24)):
        a, b = SmoothField(rng, knot, *TEXTURE_BOX)(*axes), SmoothField(rng, knot, *TEXTURE_BOX)(*axes)
        thread = np.sqrt(a * a + b * b)
        width = width * np.clip(1.35 - hilum / (150 * s), 0.25, 1.2)
        canvas.paint(box, lungs + 1, "lung vessel", strength=np.clip(1.6 - 1.6 * thread / width, 0, 0.9))
    back = np.clip((-y / s + 10) / 110, 0, 1)
    canvas.paint(box, lungs, "dependent lung", strength=0.12 + 0.55 * back**2)


def _embed(canvas, part, box):
    """A signed distance known in part's box, on another box: far outside elsewhere."""
    inner, sdf = part[:2]
    whole = np.full(canvas.shape, 60, dtype=np.float32)
    whole[inner] = sdf
    return whole[box]


def _rotated(x, y, z, axis):
    """Coordinates along the unit vector ``axis`` and two directions across it (the last nearest to the head)."""
    axis = np.asarray(axis) / np.linalg.norm(axis)
    side = np.cross((0, 0, 1), axis)
    side /= np.linalg.norm(side)
    third = np.cross(axis, side)
    return tuple(x * v[0] + y * v[1] + z * v[2] for v in (axis, side, third))


HEART_AXIS = (-0.66, 0.55, -0.42)  # from base to apex: left, forward, down


def _heart_shape(canvas, frame, shift, cavity, above, volume_ml):
    """(box, signed distance) of the whole heart, grown to its drawn volume."""
    s, length = frame.scale, frame.length_mm
    centre = frame.point(-27, 20, 0.678) + shift
    box = canvas.box(centre - 110, centre + 110)
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    u, v, w = _rotated(x, y, z, HEART_AXIS)
    taper = 1 - 0.0016 * u  # wide base, narrow apex
    ventricles = ellipsoid(u, v / taper, w / taper, np.array((66, 46, 46)) * s)
    atria = ellipsoid(x - 16 * s, y + 8 * s, z - 18 * s, np.array((44, 40, 42)) * s)
    shape = union(ventricles, atria, 24)
    allowed = (cavity[box] < -9) & (above[box] > 1.5)
    level = level_for(shape, allowed, canvas.count(volume_ml))
    sdf = np.maximum(shape - level, np.maximum(cavity[box] + 7, 1.5 - above[box]))
    return box, sdf.astype(np.float32), (x, y, z), (u, v, w), level


def _paint_heart(canvas, frame, heart):
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
    fat = np.abs(u + 16 * s) - 3.5 * s  # the groove between atria and ventricles
    canvas.paint(box, np.maximum(np.maximum(fat, sdf), -(sdf + 8 * s)), "heart wall", organ, strength=0.8)


def _paint_large_muscles(canvas, frame):
    """Muscle beside the spine, psoas, buttock: inside the outline but outside the cavity they are muscle already."""
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


def _paint_bowel(canvas, frame, belly, rng, jitter):
    """Small bowel in loops, large bowel around it, gas rising to the front."""
    s, length = frame.scale, frame.length_mm
    width, depth, middle = frame.cavity(0.28 * length)
    a, b, c = float(width) / s, float(depth) / s, float(middle) / s
    front = c + b
    rows = []
    flip = 1
    for f in np.arange(0.075, 0.40, 0.0385):
        for layer in (0, 1, 2):
            spread = (a - 38) * (0.55 if f < 0.12 else 0.92)
            place = (front - 24, front - 52, front - 80)[layer] - (8 if f < 0.12 else 0)
            knots = np.linspace(-1, 1, 7) * flip
            flip = -flip
            rows += [(k * spread, place, f) for k in knots]
    rows = frame.points(*rows)
    rows += rng.standard_normal(rows.shape).clip(-2, 2) * (7, 7, 9)
    low, high = rows.min(0) - 14, rows.max(0) + 14
    box = canvas.box(low, high)
    loops, place = tube(*canvas.at(box), rows, 11.5 * s, step=4)
    room = belly[box] + 5
    loops = np.maximum(loops, room)
    canvas.paint(box, loops, "bowel wall")
    content = SmoothField(rng, 30, *TEXTURE_BOX)(*(v[i] for v, i in zip(canvas.axes, box, strict=True)))
    canvas.paint(box, loops + 3.0, "bowel content", strength=np.clip(0.6 + 0.5 * content, 0, 1))
    canvas.paint(box, np.maximum(loops + 4, 1.9 - content), "gas")

    flank = a - 20
    colon = frame.points(
        (flank - 14, c - 8, 0.16), (flank - 2, c - 22, 0.23), (flank - 2, c - 26, 0.31), (flank - 8, c - 8, 0.385),
        (flank - 40, front - 30, 0.375), (30, front - 22, 0.335), (-30, front - 20, 0.335),
        (-flank + 36, front - 34, 0.40), (-flank + 6, c - 8, 0.475), (-flank - 2, c - 28, 0.41), (-flank - 2, c - 30, 0.30),
        (-flank + 4, c - 22, 0.20), (-60, 20, 0.135), (-20, 30, 0.12), (12, 4, 0.14), (6, -40, 0.115), (0, -46, 0.05),
        (0, -32, -0.02),
    )  # fmt: skip
    colon += rng.standard_normal(colon.shape).clip(-2, 2) * (4, 4, 6) * (1 + 0 * colon)
    radii = np.array((27, 27, 24, 23, 22, 21, 21, 21, 20, 18, 16, 16, 16, 16, 16, 18, 20, 12)) * s
    low, high = colon.min(0) - 30, colon.max(0) + 30
    box = canvas.box(low, high)
    sdf, place = tube(*canvas.at(box), colon, radii)
    sdf = sdf + 2.6 * np.cos(place * 2 * np.pi * 46)  # haustra
    sdf = np.maximum(sdf, belly[box] + 3)
    axes = [v[i] for v, i in zip(canvas.axes, box, strict=True)]
    canvas.paint(box, sdf, "bowel wall")
    lumps = SmoothField(rng, 9, *TEXTURE_BOX)(*axes)
    canvas.paint(box, sdf + 3, "stool", strength=np.clip(0.75 + 0.4 * lumps, 0, 1))
    filling = SmoothField(rng, 45, *TEXTURE_BOX)(*axes)
    height = (canvas.at(box)[1] - c * s) / (b * s)
    canvas.paint(box, np.maximum(sdf + 3.5, (0.95 - filling * 0.8 - 1.1 * height) * 12), "gas")


def _paint_vessels(canvas, frame, jitter):
    """Aorta, great vessels, cava, pulmonary arteries, iliac vessels, trachea and main bronchi."""
    s, length = frame.scale, frame.length_mm

    def spine(f):
        return float(frame.spine(f * length)) / s

    def front_of_spine(f):
        return spine(f) + np.interp(f, (0.2, 0.5, 0.96), (18, 15, 11))

    descending = [(-22 if f > 0.5 else -10, front_of_spine(f) + (4 if f > 0.5 else 12), f) for f in (0.74, 0.64, 0.54, 0.44, 0.34, 0.275)]
    arch = frame.points((2, 22, 0.715), (12, 30, 0.765), (10, 22, 0.825), (-6, 0, 0.852), (-20, -22, 0.83), *descending)
    paint_tube(canvas, arch, np.array((16, 16, 15, 13.5, 13, 12.5, 12.5, 12, 11, 10, 9)) * s, "blood")
    cava = frame.points((24, 20, 0.725), (26, 14, 0.80), (22, 12, 0.86), (16, 14, 0.90))
    paint_tube(canvas, cava, np.array((11, 10, 10, 9)) * s, "blood")
    lower = frame.points((24, 4, 0.63), (24, -6, 0.585), *((20, front_of_spine(f) + 12, f) for f in (0.50, 0.40, 0.30, 0.265)))
    paint_tube(canvas, lower, np.array((12, 12, 11.5, 11, 11, 10)) * s, "blood")
    for sign in SIDES.values():
        iliac = frame.points(
            (sign * 5, front_of_spine(0.28) + 10, 0.275), (sign * 34, spine(0.21) + 26, 0.20), (sign * 60, 10, 0.13),
            (sign * 82, 50, 0.03), (sign * 84, 58, -0.15),
        )  # fmt: skip
        paint_tube(canvas, iliac, np.array((6.5, 6, 5.5, 5.5, 5)) * s, "blood")
        vein = iliac + np.array((-sign * 2, -13, 0)) * s
        paint_tube(canvas, vein, np.array((8, 7.5, 7, 6.5, 6)) * s, "blood")
        pulmonary = frame.points((-6, 22, 0.745), (sign * 18, -4, 0.765), (sign * 48, -16, 0.76), (sign * 66, -28, 0.735))
        paint_tube(canvas, pulmonary, np.array((13, 11, 8.5, 5)) * s, "blood")
        carotid = frame.points((sign * 8, 8, 0.855), (sign * 20, 4, 0.92), (sign * 27, -6, 1.0), (sign * 27, -8, 1.2))
        paint_tube(canvas, carotid, np.array((5.5, 5, 4.5, 4.5)) * s, "blood")
        jugular = carotid + np.array((sign * 10, 4, 0)) * s
        paint_tube(canvas, jugular, np.array((6, 6.5, 6.5, 6.5)) * s, "blood")
        subclavian = frame.points((sign * 24, 6, 0.90), (sign * 62, 6, 0.955), (sign * 110, -14, 0.955), (sign * 145, -30, 0.97))
        paint_tube(canvas, subclavian, np.array((7, 6.5, 6, 5)) * s, "blood")
        bronchus = frame.points((0, -14, 0.79), (sign * 20, -18, 0.772), (sign * 42, -22, 0.745))
        paint_tube(canvas, bronchus, np.array((10, 9, 7)) * s, "airway wall")
        paint_tube(canvas, bronchus, np.array((8, 7, 5)) * s, "gas")
        thyroid = frame.points((sign * 16, 6, 1.02), (sign * 17, 8, 1.055))
        paint_tube(canvas, thyroid, np.array((7, 7)) * s, "thyroid")
    gullet = frame.points(*((x, front_of_spine(f) + 6, f) for x, f in ((0, 1.15), (0, 0.96), (-3, 0.84), (-2, 0.74), (-12, 0.62), (-28, 0.575))))
    paint_tube(canvas, gullet, 8 * s, "bowel wall")
    trachea = frame.points(*((0, front_of_spine(f) + 19, f) for f in (1.2, 1.06, 0.95, 0.86)), (0, -13, 0.788))
    paint_tube(canvas, trachea, 11.5 * s, "airway wall")
    paint_tube(canvas, trachea, 9 * s, "gas")


def _paint_upper_abdomen(canvas, frame, volume_ml, cavity, above, jitter):
    """Pancreas, stomach, spleen, kidneys and the liver, each grown or shrunk to its drawn volume."""
    s, length = frame.scale, frame.length_mm
    width, depth, middle = (float(v) / s for v in frame.cavity(0.50 * length))
    stretch = width / (128 if frame.sex == "M" else 118)
    room = np.maximum(cavity, above)

    def place(x, y, f, std):
        return frame.point(x * stretch, y, f) + jitter(std)

    def spine(f):
        return float(frame.spine(f * length)) / s

    def grown(box, shape, gap, volume, keep=None):
        allowed = room[box] < -gap
        if keep is not None:
            allowed &= keep
        level = level_for(shape, allowed, canvas.count(volume))
        sdf = np.maximum(shape - level, room[box] + gap)
        return sdf if keep is None else np.where(keep, sdf, np.float32(30))

    fraction = spine(0.46)
    organ = ORGANS["pancreas"]
    head = frame.points((40, fraction + 42, 0.405), (26, fraction + 50, 0.435), (0, fraction + 50, 0.46), (-34, fraction + 44, 0.48),
                        (-72 * stretch, fraction + 22, 0.505))  # fmt: skip
    head = head + jitter(4)
    box = canvas.box(head.min(0) - 30, head.max(0) + 30)
    shape, _ = tube(*canvas.at(box), head, np.array((17, 13, 10, 10, 8)) * s, reach=30)
    canvas.paint(box, grown(box, shape, 3, volume_ml["pancreas"]), "pancreas", organ)

    organ = ORGANS["stomach"]
    bag = frame.points((-64 * stretch, middle - 4, 0.555), (-72 * stretch, middle + 22, 0.50), (-52 * stretch, middle + 46, 0.445),
                       (-14, middle + 52, 0.418), (26, middle + 40, 0.425))  # fmt: skip
    bag = bag + jitter(4)
    box = canvas.box(bag.min(0) - 60, bag.max(0) + 60)
    shape, _ = tube(*canvas.at(box), bag, np.array((36, 31, 24, 18, 11)) * s, reach=40)
    sdf = grown(box, shape, 4, volume_ml["stomach"])
    canvas.paint(box, sdf, "stomach wall", organ)
    canvas.paint(box, sdf + 5, "stomach content", organ)
    y = canvas.at(box)[1]
    inside = sdf < -5
    if inside.any():
        surface = np.quantile(y[inside], 0.72)
        canvas.paint(box, np.maximum(sdf + 5, surface - y), "gas", organ)

    organ = ORGANS["spleen"]
    centre = place(-width + 26, middle - depth + 44, 0.535, 5)
    box = canvas.box(centre - 95, centre + 95)
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    u, v, w = _rotated(x, y, z, (0.25, -0.45, 0.85))
    size = (volume_ml["spleen"] / 230) ** (1 / 3)
    body = ellipsoid(v, w, u, np.array((32, 42, 58)) * s * size)
    dent = ellipsoid(x - 44 * s * size, y - 24 * s, z + 4, np.array((42, 44, 60)) * s * size)
    shape = intersection(body, -dent, 10)
    stomach = canvas.organs[box] == ORGANS["stomach"]
    canvas.paint(box, grown(box, shape, 2.5, volume_ml["spleen"], ~stomach), "spleen", organ)

    share = 0.5 + 0.02 * jitter(1, 1)[0]
    for side, sign in SIDES.items():
        organ = ORGANS[f"kidney_{side}"]
        volume = volume_ml["kidneys"] * (share if side == "left" else 1 - share)
        size = (volume / 170) ** (1 / 3)
        level = 0.415 if side == "right" else 0.435
        centre = place(sign * 68, spine(0.42) + 2, level, 4)
        box = canvas.box(centre - 85 * s, centre + 85 * s)
        x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
        u, v, w = _rotated(sign * x, y, z, (-0.24, -0.12, 0.96))  # upper pole towards the spine and the back
        radii = np.array((30, 27, 58)) * s * size
        # v, w: across; the hilum looks to the middle and slightly forward
        inward, across = -(0.85 * sign * x - 0.5 * y), 0.5 * sign * x + 0.85 * y
        bean = ellipsoid(inward + 0.24 * z + 6 * s * ((z / (58 * s)) ** 2 - 0.5), across, u, radii)
        sinus = ellipsoid(inward - 27 * s * size, across, u, np.array((20, 12, 22)) * s * size)
        shape = intersection(bean, -sinus, 8)
        taken = (canvas.organs[box] == ORGANS["spleen"]) | (canvas.organs[box] == ORGANS["stomach"])
        sdf = grown(box, shape, 0, volume, ~taken)
        canvas.paint(box, sdf, "kidney cortex", organ)
        canvas.paint(box, np.maximum(sdf + 9 * s * size, -10 - sdf * 0), "kidney medulla", organ)
        pelvis = ellipsoid(inward - 14 * s * size, across, u, np.array((12, 8, 16)) * s * size)
        canvas.paint(box, np.maximum(pelvis, sdf + 1.5), "urine", organ)
        ureter = frame.points((sign * 40, spine(0.40) + 14, 0.405), (sign * 34, spine(0.30) + 30, 0.30), (sign * 42, 0, 0.15), (sign * 24, -4, 0.04))
        ureter[0] = centre + np.array((-sign * 30 * s * size, 6 * s, -10))
        paint_tube(canvas, ureter, 2.2 * s, "ureter")
        adrenal = np.array((centre + (-sign * 26 * s, 10 * s, 52 * s * size), centre + (-sign * 16 * s, 0, 40 * s * size)))
        paint_tube(canvas, adrenal, 4 * s, "adrenal")

    organ = ORGANS["liver"]
    centre = place(width - 62, middle + 4, 0.535, 4)
    box = canvas.box((-width * s, -150 * s, 0.30 * length), (width * s + 30, 220, 0.72 * length))
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    size = np.clip((volume_ml["liver"] / (1700 * s**3)) ** (1 / 3), 0.8, 1.3)
    right = ellipsoid(x, y, z, np.array((78, 92, 98)) * s * size)
    left = ellipsoid(x + 78 * s * stretch, y - 42 * s, z - 22 * s, np.array((72, 36, 40)) * s * size)
    shape = union(right, left, 30)
    under = (-z - 0.62 * x / 1.0 - 0.30 * (y - 10 * s)) * 0.8 - 26 * s * size  # the visceral surface rises to the left and front
    under = (-(z + 62 * s * size) + 0.62 * (-x) + 0.22 * (y - 0)) * 0.78
    shape = intersection(shape, under, 18)
    porta = ellipsoid(x + 50 * s, y + 6 * s, z + 14 * s, np.array((30, 34, 20)) * s)
    shape = intersection(shape, -porta, 14)
    taken = np.isin(canvas.organs[box], [ORGANS[n] for n in ("spleen", "kidney_right", "kidney_left", "heart")])
    taken |= canvas.mask("cortical bone")[box] | canvas.mask("marrow")[box] | canvas.mask("blood")[box]
    sdf = grown(box, shape, 1.5, volume_ml["liver"], ~taken)
    canvas.paint(box, sdf, "liver", organ)
    veins = (
        ((28, -2, 0.595), (52, 0, 0.57), (86, 4, 0.53)),
        ((26, 4, 0.60), (40, 30, 0.575), (62, 52, 0.54)),
        ((30, 20, 0.49), (54, 12, 0.52), (82, 6, 0.535), (104, 0, 0.50)),
        ((54, 12, 0.52), (72, 36, 0.515), (92, 52, 0.49)),
    )
    inner = np.full(canvas.shape, 30, dtype=np.float32)
    inner[box] = sdf
    for points in veins:
        points = frame.points(*points) * (stretch, 1, 1)
        part = canvas.box(points.min(0) - 8, points.max(0) + 8)
        vein, _ = tube(*canvas.at(part), points, np.linspace(4.5, 2.5, len(points)) * s)
        canvas.paint(part, np.maximum(vein, inner[part] + 2), "liver vein", organ)
    portal = frame.points((6, fraction + 56, 0.455), (18, middle + 10, 0.475), (30, middle + 20, 0.49))
    paint_tube(canvas, portal, 6 * s, "blood")


def _paint_pelvic_organs(canvas, frame, volume_ml, jitter):
    """Bladder, and the uterus or the prostate."""
    s = frame.scale
    size = (volume_ml["bladder"] / 150) ** (1 / 3)
    centre = frame.point(0, 26, 0.018) + jitter(3) + (0, 0, 18 * s * size)
    box = canvas.box(centre - 80, centre + 80)
    x, y, z = (c - m for c, m in zip(canvas.at(box), centre, strict=True))
    if frame.sex == "F":
        womb = ellipsoid(x, y + 36 * s, z - 12 * s, np.array((25, 20, 30)) * s)
        canvas.paint(box, womb, "uterus")
    else:
        gland = ellipsoid(x, y + 4 * s, z + 30 * s * size + 12 * s, np.array((23, 17, 16)) * s)
        canvas.paint(box, gland, "uterus")
    shape = ellipsoid(x, y, z, np.array((40, 32, 30)) * s * size)
    sdf = shape - level_for(shape, np.ones(shape.shape, bool), canvas.count(volume_ml["bladder"]))
    canvas.paint(box, sdf, "bladder wall", ORGANS["urinary_bladder"])
    canvas.paint(box, sdf + 3, "bladder urine", ORGANS["urinary_bladder"])
