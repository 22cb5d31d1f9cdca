"""A shaded picture of a body and its organs: for every pixel the first point that a ray meets, lit from the front.

Fields are smoothed masks; a surface lies where a field crosses LEVEL, between voxels. The body is drawn over the organs
as glass. No mesh is made.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from totalgen.data.crop import rough_body
from totalgen.data.intensity import CT
from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, canonical
from totalgen.errors import InputError

LEVEL = 0.5
PIXEL_MM = 2.0
SMOOTH_MM = 4.0  # of the masks: the surface of a voxel is no step
BONE_HU = 250.0  # what is denser is shown as bone
LIGHT = np.array([-0.35, 0.85, 0.4])  # to the light: left of the viewer, in front, above
SKIN = (0.86, 0.68, 0.58)
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "liver": (0.62, 0.25, 0.20), "heart": (0.85, 0.20, 0.25), "kidney_right": (0.85, 0.55, 0.15),
    "kidney_left": (0.85, 0.55, 0.15), "spleen": (0.50, 0.25, 0.55), "stomach": (0.45, 0.60, 0.35),
    "pancreas": (0.90, 0.80, 0.30), "urinary_bladder": (0.95, 0.85, 0.20),
}  # fmt: skip
BONE = (0.93, 0.90, 0.80)
VIEWS = ("front", "left", "back")  # where the viewer stands


def surface_picture(ct: Volume, organs: Volume | None = None, view: str = "front") -> np.ndarray:
    """[rows, columns, 3] uint8, PIXEL_MM a pixel, on white: the body of a CT (HU), its bones, and organs on its grid.

    Head up; from the front the patient's right is on the viewer's left. Raises InputError for a CT without a body.
    """
    if view not in VIEWS:
        raise InputError(f'view "{view}" is not known. Use one of {", ".join(VIEWS)}.')
    ct = canonical(ct)
    labels = np.zeros(ct.shape, np.uint8) if organs is None else canonical(organs).voxels
    soft = {name: ORGANS[name] for name in COLOURS}
    bones = [number for name, number in ORGANS.items() if name not in soft]
    inside = [(((ct.voxels > BONE_HU) & (labels == 0)) | np.isin(labels, bones), BONE)]
    inside += [(labels == number, COLOURS[name]) for name, number in soft.items()]
    body = rough_body(ct, CT.low)
    voxel_mm = ct.voxel_mm[[1, 0, 2]] if view == "left" else ct.voxel_mm
    skin = first_hit(seen_from(body, view), voxel_mm)
    nearest, picture = np.full(skin.shape, -np.inf), np.ones((*skin.shape, 3))
    for mask, colour in inside:
        depth = first_hit(seen_from(mask, view), voxel_mm)
        front = depth > nearest
        picture[front] = (shade(depth)[..., None] * colour)[front]
        nearest = np.maximum(nearest, depth)
    glass = np.where(np.isfinite(skin), 0.25 + 0.6 * (1 - _normal(skin)[1]) ** 2, 0)[..., None]  # denser where oblique
    picture = glass * shade(skin)[..., None] * SKIN + (1 - glass) * picture
    return (255 * np.clip(picture, 0, 1) + 0.5).astype(np.uint8)


def seen_from(voxels: np.ndarray, view: str) -> np.ndarray:
    """[x, y, z] in RAS+ order, turned so that the viewer is at the end of the second axis."""
    if view == "left":
        return voxels.transpose(1, 0, 2)[:, ::-1]
    return voxels[::-1, ::-1] if view == "back" else voxels


def first_hit(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """[rows, columns] distance in mm along the second axis, from its start, of the surface nearest to its end; −inf
    where the ray meets none.  mask: bool [x, y, z], turned by ``seen_from``;  voxel_mm: of its axes."""
    rows, columns = (max(1, round(n * mm / PIXEL_MM)) for n, mm in zip(mask.shape[::-2], voxel_mm[::-2], strict=True))
    found = np.full((rows, columns), -np.inf)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return found
    reach = np.ceil(2 * SMOOTH_MM / voxel_mm).astype(int)
    box = tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(boxes[0], reach, strict=True))
    field = ndimage.gaussian_filter(mask[box].astype(np.float32), SMOOTH_MM / voxel_mm)
    x = (np.arange(columns)[::-1] + 0.5) * PIXEL_MM / voxel_mm[0] - 0.5 - box[0].start  # from the right
    z = (np.arange(rows)[::-1] + 0.5) * PIXEL_MM / voxel_mm[2] - 0.5 - box[2].start
    inside_x, inside_z = ((v > -0.5) & (v < n - 0.5) for v, n in zip((x, z), field.shape[::2], strict=True))
    field = _interpolated(_interpolated(field, x[inside_x], 0), z[inside_z], 2)
    solid = field > LEVEL
    last = field.shape[1] - 1 - solid[:, ::-1].argmax(1)  # index of the hit along the ray
    behind = np.minimum(last + 1, field.shape[1] - 1)
    here, beyond = (np.take_along_axis(field, k[:, None], 1)[:, 0] for k in (last, behind))
    step = np.where(here > beyond, (here - LEVEL) / np.maximum(here - beyond, 1e-6), 0)
    hit = np.where(solid.any(1), (box[1].start + last + np.minimum(step, 1)) * voxel_mm[1], -np.inf)
    found[np.ix_(inside_z, inside_x)] = hit.T
    return found


def shade(depth: np.ndarray) -> np.ndarray:
    """Brightness 0 … 1 of the surface of a depth map (mm); 0 where there is none."""
    normal = _normal(depth)
    lit = np.clip(np.tensordot(LIGHT / np.linalg.norm(LIGHT), normal, 1), 0, 1)
    return np.where(np.isfinite(depth), 0.3 + 0.7 * lit, 0)


def _normal(depth):
    """[3, rows, columns] unit normals: right of the viewer, to the viewer, up; the depth is smoothed first."""
    known = np.isfinite(depth).astype(float)
    sigma = 1.5  # pixels: interpolation between voxels leaves facets
    weight = ndimage.gaussian_filter(known, sigma)
    smooth = ndimage.gaussian_filter(np.where(known > 0, depth, 0), sigma) / np.maximum(weight, 1e-6)
    down, right = (np.where(known > 0, slope, 0) / PIXEL_MM for slope in np.gradient(smooth))
    length = np.sqrt(1 + down**2 + right**2)
    return np.stack([-right, np.ones_like(right), down]) / length


def _interpolated(field, places, axis):
    """Linear interpolation along one axis, at voxel coordinates; the ends go on."""
    places = np.clip(places, 0, field.shape[axis] - 1)
    low = np.minimum(places.astype(int), max(field.shape[axis] - 2, 0))
    share = np.expand_dims((places - low).astype(np.float32), [k for k in range(3) if k != axis])
    high = np.minimum(low + 1, field.shape[axis] - 1)
    return field.take(low, axis) * (1 - share) + field.take(high, axis) * share
