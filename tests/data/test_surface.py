"""A rendered surface lies where the mask ends, looks where it should, and shows what is in front."""

import numpy as np
import pytest

from totalgen.data.organs import ORGANS
from totalgen.data.surface import COLOURS, PIXEL_MM, first_hit, seen_from, shade, surface_picture
from totalgen.data.volume import Volume
from totalgen.errors import InputError

MM = np.array([4.0, 4.0, 6.0])


def ball(radius_mm=40.0):
    """A ball in the middle of 120×120×120 mm."""
    axes = [(np.arange(round(120 / mm)) + 0.5) * mm - 60 for mm in MM]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 < radius_mm**2


def test_the_depth_of_a_ball_is_that_of_its_front():
    depth = first_hit(ball(), MM)
    assert depth.shape == (60, 60)
    across = (np.arange(60) + 0.5) * PIXEL_MM - 60
    x, z = np.meshgrid(across, across)
    inside = x**2 + z**2 < 25**2  # mm: not where it is oblique
    front = 60 + np.sqrt(40**2 - x[inside] ** 2 - z[inside] ** 2)  # from the face of the first voxel
    assert np.abs(depth[inside] + MM[1] / 2 - front).max() < 3.0  # depth counts from the middle of voxel 0
    assert np.abs(depth[inside] + MM[1] / 2 - front).mean() < 1.0
    assert np.isinf(depth[x**2 + z**2 > 45**2]).all()


def test_a_ball_is_brightest_towards_the_light_and_dark_where_there_is_none():
    lit = shade(first_hit(ball(), MM))
    assert lit[:5].max() == 0
    upper_left, lower_right = lit[20, 20], lit[40, 40]
    assert upper_left > lower_right + 0.2


def test_every_view_has_the_sides_that_a_viewer_sees():
    """A mark at the right, in front and above: from the front it is at the left, from the left it is at the left."""
    mark = np.zeros((20, 20, 20), bool)
    mark[14:18, 14:18, 14:18] = True
    mm = np.array([6.0, 6.0, 6.0])
    for view, left, near in (("front", True, True), ("left", True, False), ("back", False, False)):
        depth = first_hit(seen_from(mark, view), mm)
        rows, columns = np.nonzero(np.isfinite(depth))
        assert (depth[rows, columns].mean() > 60) == near, view  # of 120 mm
        assert rows.mean() < 20, view  # of 60: above
        assert (columns.mean() < 30) == left, view


def test_a_mask_that_touches_the_border_and_an_empty_one():
    full, nothing = np.ones((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    assert np.isfinite(first_hit(full, MM)).all()
    assert np.isinf(first_hit(nothing, MM)).all()


def test_organs_in_front_hide_those_behind_and_shine_through_the_body():
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[4:36, 4:36, 2:38] = 0.0
    organs = np.zeros(hu.shape, np.uint8)
    organs[12:28, 20:28, 10:30] = ORGANS["liver"]
    organs[12:28, 8:14, 10:30] = ORGANS["spleen"]
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    ct, masks = Volume(hu, affine), Volume(organs, affine)
    pictures = {view: surface_picture(ct, masks, view) for view in ("front", "back")}
    middle = {view: picture[60, 60].astype(float) for view, picture in pictures.items()}

    def nearer(colour, name, other):
        hue = colour / colour.sum()
        return np.abs(hue - np.array(COLOURS[name]) / sum(COLOURS[name])).sum() < np.abs(
            hue - np.array(COLOURS[other]) / sum(COLOURS[other])
        ).sum()

    assert nearer(middle["front"], "liver", "spleen")
    assert nearer(middle["back"], "spleen", "liver")
    assert (pictures["front"][0, 0] == 255).all()
    bare = surface_picture(ct)
    assert bare.shape == pictures["front"].shape == (120, 120, 3)
    assert (bare[60, 60] > middle["front"]).all()


def test_another_view_is_refused():
    with pytest.raises(InputError, match='view "top" is not known'):
        surface_picture(Volume(np.zeros((4, 4, 4)), np.eye(4)), view="top")
