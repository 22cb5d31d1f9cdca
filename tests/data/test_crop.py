import numpy as np
import pytest

from totalgen.data.crop import axial_range, body_mask, crop_torso, fill_in_plane, window
from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume
from totalgen.errors import InputError

MM = 5.0


def torso(slices=120, sacrum=(20, 30), clavicles=(90, 94)):
    """(ct, suv, labels) of an elliptic cylinder with two lungs, on a table, off the centre of its grid."""
    shape = (80, 70, slices)
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    ct = np.full(shape, -1000, np.float32)
    ct[((x - 45) / 20) ** 2 + ((y - 36) / 14) ** 2 < 1] = 40
    for side in (35, 55):
        ct[((x - side) / 7) ** 2 + ((y - 36) / 9) ** 2 + ((z - 70) / 15) ** 2 < 1] = -850
    ct[15:75, 21, :] = 150  # a thin table, one voxel below the back
    labels = np.zeros(shape, np.uint8)
    if sacrum:
        labels[42:48, 28:32, slice(*sacrum)] = ORGANS["sacrum"]
    if clavicles:
        labels[30:44, 44:46, slice(*clavicles)] = ORGANS["clavicula_left"]
        labels[46:60, 44:46, slice(*clavicles)] = ORGANS["clavicula_right"]
    affine = np.diag([MM, MM, MM, 1.0])
    affine[:3, 3] = -210, -170, -333
    suv = np.where(ct > -500, 1, 0.1).astype(np.float32)
    return tuple(Volume(v, affine) for v in (ct, suv, labels))


def test_the_crop_reaches_from_sacrum_to_clavicles_with_a_margin():
    ct, suv, organs, report = crop_torso(*torso(), field_mm=300)
    assert ct.shape == suv.shape == organs.shape == (60, 60, 90)  # slices 20 − 8 … 94 + 8
    assert ct.world((0, 0, 0))[2] == pytest.approx(-333 + 12 * MM)
    assert report == dict(covers_torso=True, clavicles="whole", sacrum="whole", z_extent_mm=450.0, note="")


@pytest.mark.parametrize(("x", "said"), [(45, ""), (35, "% of the liver lie in air or lung: labels and CT may")])
def test_an_organ_without_air_that_lies_in_a_lung_is_doubted(x, said):
    ct, suv, labels = torso()
    labels.voxels[x - 2 : x + 3, 32:40, 60:80] = ORGANS["liver"]
    note = crop_torso(ct, suv, labels, field_mm=300)[3]["note"]
    assert said in note
    assert bool(note) == bool(said)


def test_crop_and_fill_keep_the_world_position_of_every_voxel():
    ct, suv, labels = torso()
    marked = Volume(ct.voxels.copy(), ct.affine)
    marked.voxels[50, 40, 60] = 777
    point = marked.world((50, 40, 60))
    for field_mm in (150, 300, 600):  # narrower than the body, wider, and wider than the scan
        out, *_ = crop_torso(marked, suv, labels, field_mm)
        assert out.world(np.argwhere(out.voxels == 777)[0]) == pytest.approx(point)


def test_the_body_is_in_the_middle_and_the_table_is_gone():
    ct, suv, _, _ = crop_torso(*torso(), field_mm=300)
    assert not (ct.voxels == 150).any()
    seen = np.argwhere(ct.voxels == 40)
    assert (seen.min(0) + seen.max(0))[:2] == pytest.approx([59, 59], abs=1.5)
    assert suv.voxels[0, 0].max() == 0
    assert suv.voxels.max() == 1
    assert ct.voxels[0, 0].max() == -1000


def test_lungs_belong_to_the_body():
    ct, _, _ = torso()
    mask = body_mask(ct)
    assert mask[ct.voxels == -850].all()
    assert mask[ct.voxels == 40].all()
    assert mask.mean() < 1.3 * (ct.voxels == 40).mean() + (ct.voxels == -850).mean()


def test_a_field_beyond_the_scan_is_filled_with_air_and_zero():
    ct, suv, organs, _ = crop_torso(*torso(), field_mm=600)
    assert ct.shape[:2] == (120, 120)
    assert ct.voxels[0].max() == -1000
    assert suv.voxels[0].max() == organs.voxels[0].max() == 0


def test_a_body_wider_than_the_field_is_noted():
    assert "cut at 150 mm" in crop_torso(*torso(), field_mm=150)[3]["note"]


@pytest.mark.parametrize(
    ("changes", "extent_slices", "note"),
    [
        (dict(sacrum=None), 102, "sacrum not fully"),
        (dict(clavicles=None), 108, "clavicles not fully"),
        (dict(sacrum=None, clavicles=None), 120, "clavicles not fully in the scan; sacrum not fully"),
        (dict(sacrum=(0, 9)), 102, "sacrum not fully"),
        (dict(clavicles=(117, 120)), 108, "clavicles not fully"),
    ],
)
def test_a_partial_torso_passes_with_a_note(changes, extent_slices, note):
    ct, _, _, report = crop_torso(*torso(**changes), field_mm=300)
    assert ct.shape[2] == extent_slices
    assert not report["covers_torso"]
    assert note in report["note"]


@pytest.mark.parametrize(("first", "short_mm", "state"), [(3, 25, "short"), (6, 10, "short"), (7, 5, "whole")])
def test_a_torso_whose_margin_is_beyond_the_scan_is_not_complete(first, short_mm, state):
    """Its extent would bend the line in height, and it would be stretched to the full axis; 5 mm are tolerated."""
    _, _, _, report = crop_torso(*torso(sacrum=(first, 12)), field_mm=300)
    assert report["sacrum"] == state
    assert report["covers_torso"] == (state == "whole")
    assert report["note"] == f"scan ends {short_mm} mm short of the margin below the sacrum"


def test_without_labels_the_whole_scan_is_kept():
    ct, suv, _ = torso()
    out, _, organs, report = crop_torso(ct, suv, None, field_mm=300)
    assert out.shape[2] == organs.shape[2] == 120
    assert organs.voxels.max() == 0
    assert report["note"] == "no organ labels: the whole scan is kept"


def test_a_stray_speck_does_not_lengthen_the_torso():
    _, _, labels = torso()
    labels.voxels[10, 10, 115] = ORGANS["clavicula_left"]
    assert axial_range(labels.voxels, MM)[:2] == (12, 102)


def test_labels_upside_down_are_refused():
    with pytest.raises(InputError, match="upside down"):
        crop_torso(*torso(sacrum=(110, 118), clavicles=(3, 6)), field_mm=300)


def test_grids_that_differ_are_refused():
    ct, suv, labels = torso()
    longer, rounded, elsewhere = suv.affine.copy(), suv.affine.copy(), suv.affine.copy()
    longer[2, 2] += 1e-2  # millimetres at the other end
    rounded[:3] += 1e-4
    elsewhere[0, 3] += 0.5 * MM
    for affine in (longer, elsewhere):
        with pytest.raises(InputError, match="SUV do not share"):
            crop_torso(ct, Volume(suv.voxels, affine), labels)
    crop_torso(ct, Volume(suv.voxels, rounded), labels)


def test_a_ct_without_a_body_is_refused():
    with pytest.raises(InputError, match="no body"):
        body_mask(Volume(np.full((9, 9, 9), -1000, np.float32), np.eye(4)))


def test_holes_are_filled_slice_by_slice_and_bays_are_not():
    mask = np.zeros((9, 9, 2), bool)
    mask[2:7, 2:7, :] = True
    mask[4, 4, :] = False
    bay = mask.copy()
    bay[4, 5:, 1] = False  # opens the hole in the second slice only
    assert fill_in_plane(mask).sum() == 50
    assert fill_in_plane(bay)[..., 0].sum() == 25
    assert np.array_equal(fill_in_plane(bay)[..., 1], bay[..., 1])


def test_a_window_next_to_the_volume_is_empty():
    volume = Volume(np.ones((4, 4, 4), np.float32), np.eye(4))
    assert window(volume, (10, 0, 0), (3, 3, 3), -1000).voxels.max() == -1000


def test_a_table_that_the_body_lies_on_is_cut_off_even_where_everything_dense_ends():
    voxels = np.full((60, 60, 20), -1000, np.float32)
    voxels[20:40, 11:35] = 40  # the body
    voxels[5:55, 9:11] = 100  # the table, 8 mm thick, and nothing dense beyond it
    mask = body_mask(Volume(voxels, np.diag([4.0, 4.0, 4.0, 1.0])))
    assert mask[20:40, 11:35].all()
    assert not mask[5:18].any()
    assert not mask[42:55].any()
