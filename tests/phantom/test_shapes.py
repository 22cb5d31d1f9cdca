import numpy as np
import pytest

from totalgen.phantom.canvas import Canvas, level_for
from totalgen.phantom.shapes import ellipsoid, intersection, rotated, smooth_field, superellipse, tube, union

GRID = np.meshgrid(*[np.linspace(-40, 40, 21, dtype=np.float32)] * 3, indexing="ij")


def test_distance_to_a_sphere_is_exact():
    x, y, z = GRID
    assert ellipsoid(x, y, z, (17, 17, 17)) == pytest.approx(np.sqrt(x**2 + y**2 + z**2) - 17, abs=0.01)


def test_superellipse_of_power_two_is_a_circle():
    x, y, _ = GRID
    distance, gauge = superellipse(x, y, 20, 20, power=2)
    assert distance == pytest.approx(np.hypot(x, y) - 20, abs=0.01)
    assert gauge == pytest.approx(np.hypot(x, y) / 20, abs=1e-3)


def test_smooth_union_and_intersection_enclose_the_sharp_ones_and_equal_them_far_away():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-50, 50, (2, 1000))
    assert (union(a, b, 10) <= np.minimum(a, b) + 1e-9).all()
    assert (intersection(a, b, 10) >= np.maximum(a, b) - 1e-9).all()
    far = abs(a - b) > 10
    assert union(a, b, 10)[far] == pytest.approx(np.minimum(a, b)[far])
    assert (np.minimum(a, b) - union(a, b, 10)).max() <= 2.5 + 1e-9  # a quarter of the blend, where a = b


def test_distance_to_a_straight_tube_is_the_distance_to_its_axis():
    x, y, z = GRID
    sdf, along = tube(x, y, z, [(0, 0, -60), (0, 0, 60)], 12, step=1, reach=200)
    assert sdf == pytest.approx(np.hypot(x, y) - 12, abs=0.15)  # axis sampled every millimetre: sqrt(r² + 0.5²) − r
    assert along == pytest.approx((z + 60) / 120, abs=0.01)


def test_rotated_coordinates_keep_lengths_and_point_along_the_axis():
    x, y, z = GRID
    u, v, w = rotated(x, y, z, (1, 2, 2))
    assert u**2 + v**2 + w**2 == pytest.approx(x**2 + y**2 + z**2, abs=1e-2)
    assert u == pytest.approx((x + 2 * y + 2 * z) / 3, abs=1e-4)


def test_a_smooth_field_has_unit_variance_and_is_the_same_function_on_every_grid():
    axes = [np.arange(-200.0, 200, 5)] * 3
    field = smooth_field(np.random.default_rng(1), 20, axes)
    assert abs(field.mean()) < 0.05  # some 8000 independent knots
    assert field.std() == pytest.approx(1, abs=0.05)
    again = smooth_field(np.random.default_rng(1), 20, [axes[0][10:40:3], axes[1][5:9], axes[2][::7]])
    assert again == pytest.approx(field[10:40:3, 5:9, ::7], abs=1e-4)


def test_an_organ_grows_to_exactly_the_wanted_number_of_voxels():
    x, y, z = GRID
    shape = ellipsoid(x, y, z + 0.37 * x, (10, 14, 9))
    allowed = y < 20
    for count in (50, 700, 2500):
        level = level_for(shape, allowed, count)
        assert abs(np.count_nonzero((shape < level) & allowed) - count) <= 4  # mirrored voxels share a value


def _canvas(voxel_mm=2.0):
    axes = [np.arange(-20.0, 20.1, voxel_mm)] * 3
    return Canvas(*axes, voxel_mm, np.random.default_rng(0), variability=0)


def test_later_layers_cover_earlier_ones_and_no_voxel_has_two_organs():
    canvas = _canvas()
    box = canvas.box((-20, -20, -20), (20, 20, 20))
    x, y, z = canvas.at(box)
    canvas.paint(box, ellipsoid(x, y, z, (15, 15, 15)), "liver", 5)
    canvas.paint(box, ellipsoid(x - 10, y, z, (8, 8, 8)), "spleen", 1)
    canvas.paint(box, ellipsoid(x, y, z, (4, 4, 4)), "gas")
    image = canvas.render({"liver": 100, "spleen": 120, "gas": -950}, background=-1000)
    inside_spleen = ellipsoid(x - 10, y, z, (8, 8, 8)) < -2
    inside_gas = ellipsoid(x, y, z, (4, 4, 4)) < -2
    assert (canvas.organs[inside_spleen & ~inside_gas & (np.hypot(np.hypot(x, y), z) > 7)] == 1).all()
    assert (canvas.organs[inside_gas] == 0).all()
    assert image[inside_gas] == pytest.approx(-950)
    assert image[0, 0, 0] == -1000
    assert np.array_equal(canvas.mask("gas"), canvas.tissue == canvas.names.index("gas"))


def test_edges_are_shared_between_tissues_in_proportion_to_their_cover():
    canvas = _canvas(1.0)
    box = canvas.box((-20, -20, -20), (20, 20, 20))
    x, y, z = canvas.at(box)
    canvas.paint(box, x - 0.0, "water")  # the face lies in the middle of the voxels at x = 0
    image = canvas.render({"water": 0.0}, background=-1000)
    profile = image[:, 5, 5]
    middle = np.argmin(abs(canvas.axes[0]))
    assert profile[middle] == pytest.approx(-500)
    assert profile[middle - 1] == pytest.approx(0)
    assert profile[middle + 1] == pytest.approx(-1000)
