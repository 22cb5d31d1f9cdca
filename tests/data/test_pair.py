import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.dicom import read_series
from totalgen.data.pair import convert, on_one_grid, pair_doubts
from totalgen.data.study import read_study
from totalgen.data.volume import Volume, isotropic_grid
from totalgen.errors import InputError
from totalgen.phantom import make_subject

PERSON = Demographics("F", 60, 1.70, 70)
SOURCE = np.array([12.0, -23.0, 41.0])  # mm, RAS+: off every axis of symmetry


def turned(degrees, axes):
    matrix, angle = np.eye(3), np.radians(degrees)
    i, j = axes
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


SUPINE = np.diag([-1.0, -1.0, 1.0])  # LPS
# Directions of columns, rows and slices in RAS+: what scanners write, and what they seldom write.
POSES = {
    "head first supine": SUPINE,
    "head first prone": np.diag([1.0, 1.0, 1.0]),  # RAS
    "feet first supine": np.diag([1.0, -1.0, -1.0]),
    "feet first prone": np.diag([-1.0, 1.0, -1.0]),
    "on the right side": turned(90, (0, 1)) @ SUPINE,
    "slices written downwards": np.diag([-1.0, -1.0, -1.0]),  # DICOM sorts by position, so it is read head first
    "oblique": turned(20, (1, 2)) @ SUPINE,
    "oblique by two angles": turned(20, (1, 2)) @ turned(-15, (0, 2)) @ SUPINE,
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [-1.0, 0, 0], [0, -1.0, 0]]),
    "gantry tilted by 15°": SUPINE + [[0, 0, 0], [0, 0, np.tan(np.radians(15))], [0, 0, 0]],
    "gantry tilted by −20°": SUPINE + [[0, 0, 0], [0, 0, np.tan(np.radians(-20))], [0, 0, 0]],
    "tilted and oblique": turned(-10, (0, 1)) @ (SUPINE + [[0, 0, 0], [0, 0, np.tan(np.radians(15))], [0, 0, 0]]),
}
PAIRS = [(name, list(POSES)[(k + 5) % len(POSES)]) for k, name in enumerate(POSES)]  # each once as CT, once as PET


def field_of_view(shape, spacing, pose, centre=(5.0, -10.0, 30.0)):
    """(affine, world): of a box around ``centre``; world: [x, y, z, 3] mm of its voxels."""
    affine = np.eye(4)
    affine[:3, :3] = pose * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return affine, index @ affine[:3, :3].T + affine[:3, 3]


def blob(world, sigma_mm):
    """A Gaussian of height 1 at SOURCE."""
    return np.exp(-((world - SOURCE) ** 2).sum(-1) / (2 * sigma_mm**2))


def centroid(volume, background):
    weight = np.where(volume.voxels - background > 0.05 * np.ptp(volume.voxels), volume.voxels - background, 0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), -1)
    return (volume.world(index) * weight[..., None]).sum((0, 1, 2)) / weight.sum()


def point_errors_mm(dicom, folder, ct_pose, pet_pose):
    """Largest coordinate error (CT, PET) of a point source after reading and resampling to 3 mm."""
    affine, world = field_of_view((44, 40, 34), (2.9, 3.3, 3.7), POSES[ct_pose])
    ct_files = dicom.series(folder / "ct", blob(world, 8) * 2000 - 1000, affine, "CT")
    affine, world = field_of_view((30, 28, 26), (4.7, 4.1, 3.9), POSES[pet_pose])
    pet_files = dicom.series(folder / "pet", blob(world, 8) * 20000, affine, "PT", **dicom.pet())
    ct, suv, _ = convert(pet_files, ct_files, PERSON, voxel_mm=3.0)
    assert np.array_equal(ct.affine, suv.affine)
    assert ct.shape == suv.shape
    return np.abs(centroid(ct, -1000) - SOURCE).max(), np.abs(centroid(suv, 0) - SOURCE).max()


@pytest.mark.parametrize(("ct_pose", "pet_pose"), PAIRS)
def test_a_point_stays_at_its_world_point_in_ct_and_pet(dicom, tmp_path, monkeypatch, ct_pose, pet_pose):
    monkeypatch.setattr("totalgen.data.pair.check_hu", lambda ct: None)  # a point is no body
    assert max(point_errors_mm(dicom, tmp_path, ct_pose, pet_pose)) < 0.3  # a tenth of a voxel


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_the_affine_of_a_series_leads_to_its_world_point(dicom, tmp_path, pose):
    affine, world = field_of_view((30, 28, 26), (4.0, 4.5, 5.0), pose)
    volume, _ = read_series(dicom.series(tmp_path, blob(world, 8) * 20000, affine, "PT"))
    assert np.abs(centroid(volume, 0) - SOURCE).max() < 0.3


def activity_error(spacing, pose, grid_mm, sigma_mm):
    """Relative change of SUV · mL of a blob of uptake when it is resampled."""
    affine, world = field_of_view(np.ceil(150 / np.array(spacing)).astype(int), spacing, pose)
    pet = Volume(blob(world, sigma_mm).astype(np.float32), affine)
    out = on_one_grid(pet, pet, grid_mm)[1]
    return out.voxels.sum(dtype=float) * out.voxel_ml / (pet.voxels.sum(dtype=float) * pet.voxel_ml) - 1


SPACINGS = [(4.07, 4.07, 3.0), (2.73, 2.73, 3.27), (5.47, 5.47, 3.27), (4.0, 4.0, 5.0)]  # mm, of clinical PET
SOME = ["head first supine", "oblique by two angles", "gantry tilted by 15°", "coronal"]


@pytest.mark.parametrize("grid_mm", [2.0, 4.0])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("pose", SOME)
def test_total_activity_is_preserved(pose, spacing, grid_mm):
    assert abs(activity_error(spacing, POSES[pose], grid_mm, 8.0)) < 0.01


def volume_error(spacing, pose, grid_mm, radius_mm=40.0):
    """Relative error of a ball's volume on the grid, thresholded in the middle between air and tissue."""
    affine, world = field_of_view(np.ceil(160 / np.array(spacing)).astype(int), spacing, pose, centre=SOURCE + 1.3)
    depth = radius_mm - np.linalg.norm(world - SOURCE, axis=-1)
    edge = np.clip(0.5 + depth / max(spacing), 0, 1)  # partial volume
    ct = Volume((edge * 1040 - 1000).astype(np.float32), affine)
    out = on_one_grid(ct, Volume(edge.astype(np.float32), affine), grid_mm)[0]
    return (out.voxels > -480).sum() * out.voxel_ml / (4 / 3 * np.pi * radius_mm**3 / 1000) - 1


@pytest.mark.parametrize("grid_mm", [2.0, 4.0])
@pytest.mark.parametrize("spacing", [(1.37, 1.37, 3.27), (1.95, 1.95, 5.0), (4.07, 4.07, 2.0)], ids=str)
@pytest.mark.parametrize("pose", SOME)
def test_physical_volume_is_preserved(pose, spacing, grid_mm):
    assert abs(volume_error(spacing, POSES[pose], grid_mm)) < 0.01


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


def torso(x, y):
    return (x / 200) ** 2 + (y / 130) ** 2 < 1


SHAPES = {  # where there is somebody, x and y in mm
    "torso": torso,
    "arms beside the torso": lambda x, y: torso(x, y) | ((abs(x) - 250) ** 2 + y**2 < 35**2),
    "two legs": lambda x, y: (abs(x) - 100) ** 2 + y**2 < 80**2,
}


def pair(shape, shift_mm=(0, 0, 0), field_mm=600):
    """(CT, PET) of a body in 60 slices of 10 mm, the PET's field 640 mm wide; the CT may lie elsewhere."""
    volumes = []
    for width, inside, outside in ((field_mm, 40.0, -1000.0), (640, 0.8, 0.0)):
        affine = np.diag([10.0, 10.0, 10.0, 1.0])
        affine[:2, 3] = 5 - width / 2
        at = affine[0, 3] + 10 * np.arange(width // 10)
        plane = np.where(SHAPES[shape](at[:, None], at), inside, outside).astype(np.float32)
        volumes.append(Volume(np.repeat(plane[..., None], 60, axis=2), affine))
    ct, pet = volumes
    affine = ct.affine.copy()
    affine[:3, 3] += shift_mm
    return Volume(ct.voxels, affine), pet


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field_mm", [600, 440])  # the second cuts the arms
def test_a_ct_and_a_pet_that_lie_on_each_other_are_not_doubted(shape, field_mm):
    ct, pet = pair(shape, field_mm=field_mm)
    assert pair_doubts(ct, pet, *on_one_grid(ct, pet, 8.0)) == []


@pytest.mark.parametrize(
    ("shift_mm", "said"),
    [
        ((60, 0, 0), "% of the SUV lie in the body that the CT shows"),
        ((0, -60, 0), "% of the SUV lie in the body that the CT shows"),
        ((0, 0, 250), "CT and PET share 58 % of the shorter of them along the body"),
        ((0, 0, -250), "CT and PET share 58 % of the shorter of them along the body"),
    ],
)
def test_a_ct_and_a_pet_that_may_not_lie_on_each_other_are_doubted(shift_mm, said):
    ct, pet = pair("torso", shift_mm)
    (doubt,) = pair_doubts(ct, pet, *on_one_grid(ct, pet, 8.0))
    assert said in doubt
    assert "dose" not in doubt  # which may be right


@pytest.mark.parametrize("shift_mm", [(300, 0, 0), (0, 200, 0), (1000, 0, 0)])
def test_a_ct_that_shows_nobody_where_the_uptake_is_is_refused(shift_mm):
    ct, pet = pair("torso", shift_mm)
    with pytest.raises(InputError, match="CT and PET do not lie on each other") as error:
        pair_doubts(ct, pet, *on_one_grid(ct, pet, 8.0))
    assert "dose" not in str(error.value)


def test_a_study_whose_ct_lies_elsewhere_is_doubted(dicom, tmp_path):
    ct, pet = pair("torso", (60, 0, 0))
    pet_files = dicom.series(tmp_path / "pet", pet.voxels * 3000, pet.affine, "PT", **dicom.pet())
    ct_files = dicom.series(tmp_path / "ct", ct.voxels, ct.affine, "CT")
    assert "may not lie on each other" in convert(pet_files, ct_files, PERSON, voxel_mm=10.0)[2]["warnings"]


def test_an_impossible_suv_is_warned_of(dicom, tmp_path):
    ct, pet = dicom.study(tmp_path)
    _, suv, report = convert(pet, ct, PERSON, voxel_mm=5.0)
    factor = 70000 / (350e6 * 2 ** (-3600 / 6586.2))
    assert float(report["suv_max_native"]) == pytest.approx(5000 * factor, rel=1e-3)
    assert suv.voxels.max() == pytest.approx(5000 * factor, rel=1e-5)
    assert report["warnings"] == ""
    light = Demographics("F", 60, 1.70, 20)
    assert "SUVmax" in convert(pet, ct, light, voxel_mm=5.0)[2]["warnings"]
    ct, pet = dicom.study(tmp_path, "P2", **dicom.pet(RadionuclideTotalDose=10e6))  # a 35th of the dose
    assert "mean SUV" in convert(pet, ct, PERSON, voxel_mm=5.0)[2]["warnings"]


@pytest.mark.parametrize("voxel_mm", [0, -1, float("nan"), float("inf"), 1e9, 1e-3, "2", None])
def test_an_impossible_voxel_is_named_before_anything_is_read(tmp_path, voxel_mm):
    volume = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    for call in (
        lambda: read_study(tmp_path / "absent", voxel_mm=voxel_mm),
        lambda: make_subject(PERSON, 1, voxel_mm=voxel_mm),
        lambda: on_one_grid(volume, volume, voxel_mm),
        lambda: isotropic_grid(volume, voxel_mm),
    ):
        with pytest.raises(InputError, match=r"voxel_mm is .*; an edge from 0\.3 to 50 mm is possible"):
            call()
