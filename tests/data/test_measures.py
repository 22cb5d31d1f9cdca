"""Organ volume and uptake of one study equal their formulas on any grid."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from totalgen.data.measures import PEAK_ML, mass_of_field_kg, measure_study, sphere_weights, suv_peak
from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume
from totalgen.errors import InputError

RADIUS_MM = 6.2035  # of 1 mL: (3000 / 4π)^(1/3)
TILT = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
AFFINES = {
    "isotropic": np.diag([2.0, 2.0, 2.0]),
    "anisotropic": np.diag([1.5, 2.5, 4.0]),
    "mirrored": np.diag([-2.0, 2.0, 3.0]),
    "oblique": TILT @ np.diag([1.5, 2.5, 4.0]),
    "sheared": np.array([[2.0, 0.5, 0.0], [0.0, 2.5, 0.7], [0.0, 0.0, 3.0]]),
}


def grid(axes, shape):
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ (np.array(shape) - 1) / 2  # world origin in the middle
    return affine


def ball(axes, radius_mm, shape=(56, 56, 56)):
    affine = grid(axes, shape)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(world, axis=-1) <= radius_mm, affine


def row_of(rows, organ):
    return next(row for row in rows if row["organ"] == organ)


@pytest.mark.parametrize("axes", AFFINES.values(), ids=AFFINES)
def test_the_volume_of_a_sphere_is_its_formula_on_any_grid(axes):
    radius_mm = 28.0
    mask, affine = ball(axes, radius_mm)
    organs = Volume(mask.astype(np.uint8) * ORGANS["liver"], affine)
    suv = Volume(np.ones(mask.shape, np.float32), affine)
    found = row_of(measure_study(suv, organs), "liver")["volume_l"]
    assert found == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1e6, rel=0.02)  # voxels count fully or not
    assert found == pytest.approx(mask.sum() * abs(np.linalg.det(axes)) / 1e6, rel=1e-9)


def test_kidneys_are_measured_together():
    organs = np.zeros((20, 20, 20), np.uint8)
    organs[2:6, 2:6, 2:6], organs[12:16, 2:6, 2:6] = ORGANS["kidney_right"], ORGANS["kidney_left"]
    suv = np.zeros(organs.shape, np.float32)
    suv[organs == ORGANS["kidney_right"]], suv[organs == ORGANS["kidney_left"]] = 2, 4
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    row = row_of(measure_study(Volume(suv, affine), Volume(organs, affine)), "kidneys")
    assert (row["volume_l"], row["suv_mean"], row["suv_max"]) == (pytest.approx(0.128), 3.0, 4.0)


def test_missing_and_tiny_organs_are_flagged_and_kept():
    organs = np.zeros((30, 30, 30), np.uint8)
    organs[:10, :10, :10] = ORGANS["liver"]  # 1000 voxels of 64 mm³ = 64 mL
    organs[20:29, 20:29, 20:29] = ORGANS["heart"]  # 729 voxels = 46.7 mL
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    rows = measure_study(Volume(np.ones(organs.shape, np.float32), affine), Volume(organs, affine))
    assert {row["organ"]: row["flag"] for row in rows} == {
        "liver": "", "heart": "tiny", "kidneys": "missing", "spleen": "missing",
    }
    assert row_of(rows, "heart")["suv_mean"] == 1
    assert row_of(rows, "spleen")["volume_l"] == 0
    assert np.isnan(row_of(rows, "spleen")["suv_max"])


@pytest.mark.parametrize("axes", AFFINES.values(), ids=AFFINES)
def test_the_peak_of_a_uniform_organ_is_its_value(axes):
    mask, affine = ball(axes, 20.0)
    suv = np.where(mask, 3.5, 0.2).astype(np.float32)
    assert suv_peak(Volume(suv, affine), mask) == pytest.approx(3.5, rel=1e-6)


@pytest.mark.parametrize("name", ["isotropic", "anisotropic", "oblique"])
def test_the_peak_of_one_hot_voxel_is_diluted_by_the_sphere(name):
    axes = AFFINES[name]
    mask, affine = ball(axes, 20.0)
    suv = np.ones(mask.shape, np.float32)
    suv[28, 28, 28] = 101  # this voxel is completely in the sphere: its share is its volume / 1 mL
    voxel_ml = abs(np.linalg.det(axes)) / 1000
    assert suv_peak(Volume(suv, affine), mask) == pytest.approx(1 + 100 * voxel_ml / PEAK_ML, rel=0.01)


def test_a_voxel_larger_than_the_sphere_is_its_own_peak():
    mask = np.zeros((5, 5, 5), bool)
    mask[1:4, 1:4, 1:4] = True
    suv = np.zeros(mask.shape, np.float32)
    suv[2, 2, 2] = 7
    assert suv_peak(Volume(suv, grid(np.eye(3) * 13.0, mask.shape)), mask) == pytest.approx(7)


def test_the_peak_at_the_face_of_the_image_averages_what_is_inside():
    suv = Volume(np.full((6, 6, 6), 2.0, np.float32), grid(np.eye(3) * 3.0, (6, 6, 6)))
    corner = np.zeros(suv.shape, bool)
    corner[0, 0, 0] = True
    assert suv_peak(suv, corner) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("axes", AFFINES.values(), ids=AFFINES)
def test_the_sphere_of_the_peak_holds_one_millilitre(axes):
    weights = sphere_weights(grid(axes, (3, 3, 3)))
    middle = tuple(n // 2 for n in weights.shape)
    # The middle voxel is completely inside, so its weight is its volume / that of the sphere.
    assert weights[middle] == pytest.approx(abs(np.linalg.det(axes)) / 1000 / PEAK_ML, rel=0.01)
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(weights, weights[::-1, ::-1, ::-1])


def test_grids_that_differ_are_refused():
    organs = Volume(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 2
    with pytest.raises(InputError, match="different grids"):
        measure_study(Volume(np.zeros((3, 3, 3), np.float32), moved), organs)


def test_the_mass_of_a_field_is_its_voxels_times_their_density():
    """A box of water with a core of lung: below the floor of −500 HU everything weighs half of water."""
    hu = np.full((20, 20, 20), -1000.0, np.float32)
    hu[4:16, 4:16, 2:18] = 0
    hu[8:12, 8:12, 6:14] = -850
    found = mass_of_field_kg(Volume(hu, np.diag([5.0, 5.0, 5.0, 1.0])))
    body, lung, voxel_l = 12 * 12 * 16, 4 * 4 * 8, 0.125 / 1000
    rim = 4 * 12 * 16 + 2 * 12 * 12  # one voxel of air on every side, which counts as half of water, too
    without = (body - 0.5 * lung) * voxel_l
    assert without < found < without + 0.5 * rim * voxel_l  # the mask's edges are round
    twice = mass_of_field_kg(Volume(hu, np.diag([10.0, 5.0, 5.0, 1.0])))
    assert twice == pytest.approx(2 * found)
    with pytest.raises(InputError, match="no body"):
        mass_of_field_kg(Volume(np.full((8, 8, 8), -1000.0), np.eye(4)))


def test_an_organ_with_an_suv_that_is_no_number_is_flagged():
    organs = np.zeros((16, 16, 16), np.uint8)
    organs[2:14, 2:14, 2:14] = ORGANS["liver"]
    suv = np.ones(organs.shape, np.float32)
    suv[5, 5, 5] = np.nan
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    row = measure_study(Volume(suv, affine), Volume(organs, affine))[0]
    assert row["flag"] == "not finite"
    assert np.isnan(row["suv_mean"])
    assert row["z_share"] == pytest.approx(0.5)
    assert row["voxel_mm"] == "4x4x4"


@pytest.mark.parametrize(("place", "flag"), [((2, 2, 2), ""), ((10, 10, 3), "not finite")])
def test_a_voxel_that_is_no_number_matters_to_the_peak_where_a_sphere_touches_it(place, flag):
    """Both voxels are outside the organ and in its box; the second is a voxel from its surface."""
    mask, affine = ball(np.eye(3) * 4.0, 26.0, (21, 21, 21))
    organs, suv = np.where(mask, ORGANS["liver"], 0).astype(np.uint8), np.where(mask, 3.0, 1.0).astype(np.float32)
    suv[10, 10, 10] = 9
    expected = row_of(measure_study(Volume(suv, affine), Volume(organs, affine)), "liver")
    suv[place] = np.inf
    found = row_of(measure_study(Volume(suv, affine), Volume(organs, affine)), "liver")
    assert found["flag"] == flag
    assert found["suv_mean"] == expected["suv_mean"]
    assert found["suv_peak"] == pytest.approx(np.nan if flag else expected["suv_peak"], nan_ok=True)
