import numpy as np
import pytest

from totalgen.data.dicom import read_series
from totalgen.data.pair import convert, on_one_grid
from totalgen.data.volume import Volume
from totalgen.errors import InputError

SOURCE = np.array([12.0, -23.0, 41.0])  # mm, RAS+: off every axis of symmetry


def turned(degrees, axes):
    matrix, angle = np.eye(3), np.radians(degrees)
    i, j = axes
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


# Directions of columns, rows and slices in RAS+: what scanners write, and what they seldom write.
POSES = {
    "head first supine": np.diag([-1.0, -1.0, 1.0]),
    "feet first supine": np.diag([1.0, -1.0, -1.0]),
    "head first prone": np.diag([1.0, 1.0, 1.0]),
    "slices written downwards": np.diag([-1.0, -1.0, -1.0]),
    "oblique": turned(20, (1, 2)) @ np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
}


def point_source(shape, spacing, pose, centre=(5.0, -10.0, 30.0)):
    """(voxels in 0…1, affine): a blob of 8 mm width at SOURCE, in a box around ``centre``."""
    affine = np.eye(4)
    affine[:3, :3] = pose * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return np.exp(-((world - SOURCE) ** 2).sum(-1) / (2 * 8.0**2)), affine


def centroid(volume, background):
    weight = np.where(volume.voxels - background > 0.05 * np.ptp(volume.voxels), volume.voxels - background, 0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), -1)
    return (volume.world(index) * weight[..., None]).sum((0, 1, 2)) / weight.sum()


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_a_point_stays_at_its_world_point_in_ct_and_pet(dicom, tmp_path, pose):
    blob, affine = point_source((50, 44, 36), (2.5, 2.9, 3.3), pose)
    ct_files = dicom.series(tmp_path / "ct", blob * 2000 - 1000, affine, "CT")
    blob, affine = point_source((30, 28, 26), (4.7, 4.1, 3.9), POSES["head first supine"])
    pet_files = dicom.series(tmp_path / "pet", blob * 20000, affine, "PT", **dicom.pet())
    ct, suv, _ = convert(pet_files, ct_files, 70.0, voxel_mm=3.0)
    assert np.array_equal(ct.affine, suv.affine)
    assert ct.shape == suv.shape
    assert np.abs(centroid(ct, -1000) - SOURCE).max() < 1.5  # half a voxel
    assert np.abs(centroid(suv, 0) - SOURCE).max() < 1.5


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_the_affine_of_a_series_leads_to_its_world_point(dicom, tmp_path, pose):
    blob, affine = point_source((30, 28, 26), (4.0, 4.5, 5.0), pose)
    volume, _ = read_series(dicom.series(tmp_path, blob * 20000, affine, "PT"))
    assert np.abs(centroid(volume, 0) - SOURCE).max() < 0.5


def test_the_grid_covers_where_both_reach_along_the_body():
    ct = Volume(np.zeros((20, 20, 30), np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))  # z faces −2.5 … 147.5
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[2, 3] = 60.0
    pet = Volume(np.ones((20, 20, 30), np.float32), affine)  # 57.5 … 207.5
    ct, pet = on_one_grid(ct, pet, 5.0)
    assert ct.shape == pet.shape == (20, 20, 18)
    assert pet.affine[2, 3] == pytest.approx(60.0)
    assert pet.voxels.min() == 1
    assert ct.voxels.min() == 0


def test_padding_does_not_bleed_and_outside_the_ct_is_air():
    voxels = np.full((20, 20, 10), -3024, np.float32)
    voxels[5:15, 5:15] = 100
    ct = Volume(voxels, np.diag([5.0, 5.0, 5.0, 1.0]))
    pet_affine = np.diag([5.0, 5.0, 5.0, 1.0])
    pet_affine[:2, 3] = -52.0
    out, _ = on_one_grid(ct, Volume(np.ones((40, 40, 10), np.float32), pet_affine), 3.0)
    assert out.voxels.min() == -1000
    assert out.voxels.max() == 100
    assert out.voxels[0, 0, 0] == -1000


def test_ct_and_pet_of_different_places_are_refused():
    far = np.diag([5.0, 5.0, 5.0, 1.0])
    far[2, 3] = 1000
    box = np.zeros((5, 5, 5), np.float32)
    with pytest.raises(InputError, match="do not overlap"):
        on_one_grid(Volume(box, np.diag([5.0, 5.0, 5.0, 1.0])), Volume(box, far), 2.0)


def test_an_impossible_suv_is_told(dicom, tmp_path):
    ct, pet = dicom.study(tmp_path)
    _, suv, report = convert(pet, ct, 70.0, voxel_mm=5.0)
    factor = 70000 / (350e6 * 2 ** (-3600 / 6586.2))
    assert float(report["suv_max_native"]) == pytest.approx(5000 * factor, rel=1e-3)
    assert suv.voxels.max() == pytest.approx(5000 * factor, rel=1e-5)
    assert report["warnings"] == ""
    assert "mean SUV" in convert(pet, ct, 7000.0, voxel_mm=5.0)[2]["warnings"]
    assert "SUVmax" in convert(pet, ct, 20.0, voxel_mm=5.0)[2]["warnings"]
