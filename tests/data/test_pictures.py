"""Pictures are upright, with the sides of the patient where their letters say."""

import numpy as np
import pytest

from totalgen.data.pictures import VIEWS, coronal, mip, sagittal

SHAPE = (7, 6, 9)


def spot(x, y, z):
    voxels = np.zeros(SHAPE)
    voxels[x, y, z] = 1
    return voxels


@pytest.mark.parametrize(
    ("view", "place", "at"),
    [
        (coronal, (6, 3, 8), (0, 0)),  # the patient's right and head: upper left
        (coronal, (0, 3, 0), (8, 6)),
        (sagittal, (3, 5, 8), (0, 0)),  # front and head: upper left
        (sagittal, (3, 0, 0), (8, 5)),
        (mip, (6, 0, 8), (0, 0)),
    ],
)
def test_a_spot_is_shown_where_radiologists_look_for_it(view, place, at):
    picture = view(spot(*place))
    assert picture[at] == 1
    assert picture.sum() == 1


def test_views_name_the_sides_and_axes_that_they_show():
    for name, view in VIEWS.items():
        across, up = view.axes
        assert view.of(np.zeros(SHAPE)).shape == (SHAPE[up], SHAPE[across])
        assert view.sides == (("A", "P") if name == "sagittal" else ("R", "L"))
