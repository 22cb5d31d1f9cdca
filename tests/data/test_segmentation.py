import re
import sys
from types import ModuleType

import nibabel
import numpy as np
import pytest

from totalgen.data.organs import ORGANS
from totalgen.data.segmentation import check_anatomy, given, on_grid_of, totalsegmentator
from totalgen.data.volume import Volume, read_labels, read_nifti, write_nifti
from totalgen.errors import InputError


def ct(mm=4.0):
    return Volume(np.zeros((30, 30, 30), np.float32), np.diag([mm, mm, mm, 1.0]))


def labels(mm=2.0, value=5):
    """A box from 40 to 80 mm along every axis."""
    voxels = np.zeros((60, 60, 60), np.uint8)
    voxels[20:40, 20:40, 20:40] = value
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = mm / 2 - 2.0  # outer faces coincide with those of ct()
    return Volume(voxels, affine)


def test_given_labels_come_to_the_grid_of_the_ct(tmp_path):
    write_nifti(tmp_path / "given" / "a" / "organs.nii.gz", labels())
    out = given(tmp_path)("a", ct())
    assert out.voxels.dtype == np.uint8
    assert out.shape == (30, 30, 30)
    assert set(np.unique(out.voxels)) == {0, 5}
    assert (out.voxels == 5).sum() * out.voxel_ml == pytest.approx(64.0)
    assert np.argwhere(out.voxels).min(0).tolist() == [10, 10, 10]


def test_a_subject_without_given_labels_is_an_error(tmp_path):
    with pytest.raises(InputError, match="organs.nii.gz: no such file"):
        given(tmp_path)("a", ct())


@pytest.mark.parametrize("value", [0.5, 118, -1])
def test_values_that_are_no_ids_are_refused(value):
    wrong = Volume(labels().voxels * np.float32(value), labels().affine)
    with pytest.raises(InputError, match="file: holds"):
        on_grid_of(ct(), Volume(np.where(labels().voxels, value, 0), wrong.affine), "file")


def test_labels_without_any_known_organ_are_refused():
    with pytest.raises(InputError, match="none of the organs"):
        on_grid_of(ct(), labels(value=90), "file")


def test_totalsegmentator_missing_is_an_error_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    with pytest.raises(InputError, match=r"pip install -e \.\[totalsegmentator\]"):
        totalsegmentator()


@pytest.mark.parametrize(("mm", "fast"), [(2.0, False), (4.0, True)])
def test_totalsegmentator_is_called_with_the_total_task(monkeypatch, mm, fast):
    calls = []

    def run(image, output, **options):
        calls.append(options)
        assert output is None
        return nibabel.Nifti1Image(np.flip(np.full(image.shape, 5, np.uint8), 0), image.affine)

    package, api = ModuleType("totalsegmentator"), ModuleType("totalsegmentator.python_api")
    api.totalsegmentator = run
    monkeypatch.setitem(sys.modules, "totalsegmentator", package)
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", api)
    out = totalsegmentator()("a", ct(mm))
    assert calls == [dict(ml=True, task="total", fast=fast, quiet=True)]
    assert (out.voxels == 5).all()
    assert np.array_equal(out.affine, ct(mm).affine)


@pytest.mark.parametrize(
    ("above", "below", "named"),
    [("liver", "heart", "heart"), ("sacrum", "liver", "liver"), ("heart", "clavicula_left", "clavicula_left")],
)
def test_organs_in_places_that_no_body_has_are_refused(above, below, named):
    """As with the ids of TotalSegmentator 1, where 51 is a vessel of the pelvis."""
    voxels = np.zeros((30, 30, 30), np.uint8)
    voxels[10:20, 10:20, 20:25], voxels[10:20, 10:20, 5:10] = ORGANS[above], ORGANS[below]
    with pytest.raises(InputError, match=rf"label {ORGANS[above]} \({above}\) lies above .*{named}"):
        on_grid_of(ct(), Volume(voxels, np.diag([4.0, 4, 4, 1])), "labels")
    turned = Volume(voxels[:, :, ::-1].copy(), np.diag([4.0, 4, 4, 1]))
    assert on_grid_of(ct(), turned, "labels").shape == (30, 30, 30)


BONES = dict(  # of an adult, mm: x from the left to the right, z to the head
    sacrum=(-40, 40, 0, 90), hip_left=(-140, -40, -50, 100), hip_right=(40, 140, -50, 100),
    scapula_left=(-180, -90, 380, 520), scapula_right=(90, 180, 380, 520),
    clavicula_left=(-160, -20, 500, 530), clavicula_right=(20, 160, 500, 530),
)  # fmt: skip
RIBS = dict(  # what the same ids are in TotalSegmentator 1: a vertebra, ribs of one side
    sacrum=(-20, 20, 260, 290), hip_left=(40, 140, 280, 300), hip_right=(42, 142, 260, 280),
    scapula_left=(30, 120, 440, 460), scapula_right=(34, 124, 420, 440),
    clavicula_left=(36, 130, 400, 420), clavicula_right=(38, 136, 380, 400),
)  # fmt: skip


def bones(boxes, *left_out):
    """Labels, 10 mm, of boxes (x, x, z, z) in mm, but for some organs."""
    voxels, affine = np.zeros((40, 6, 70), np.uint8), np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = -195, 0, -95
    for organ, (x0, x1, z0, z1) in boxes.items():
        if organ.rpartition("_")[0] not in left_out and organ not in left_out:
            voxels[(x0 + 200) // 10 : (x1 + 200) // 10, 2:4, (z0 + 100) // 10 : (z1 + 100) // 10] = ORGANS[organ]
    return Volume(voxels, affine)


def test_a_torso_has_its_sides_and_its_length():
    check_anatomy(bones(BONES), "labels")
    oblique = bones(BONES)
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    check_anatomy(Volume(oblique.voxels, turn @ oblique.affine), "labels")


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ((), "label 72 (scapula_right) does not lie to the right of label 71"),
        (("scapula",), "label 74 (clavicula_right) does not lie to the right of label 73"),
        (("scapula", "clavicula"), "label 78 (hip_right) does not lie to the right"),
        (("scapula", "clavicula_right", "hip"), "label 25 (sacrum) is less than 150 mm below label 73"),
    ],
)
def test_bones_of_another_numbering_are_known_by_side_and_distance(left_out, said):
    with pytest.raises(InputError, match=re.escape(said)):
        check_anatomy(bones(RIBS, *left_out), "labels")


def test_stray_voxels_of_a_network_prove_nothing():
    found = bones(BONES, "clavicula")
    found.voxels[20:22, 2:4, 5] = ORGANS["clavicula_left"]  # 4 mL at the sacrum
    check_anatomy(found, "labels")
    found.voxels[20:23, 2:4, 5] = ORGANS["clavicula_left"]
    with pytest.raises(InputError, match="sacrum"):
        check_anatomy(found, "labels")


def test_a_mirrored_affine_is_refused():
    whole = bones(BONES)
    with pytest.raises(InputError, match="does not lie to the right of"):
        check_anatomy(Volume(whole.voxels, np.diag([-1.0, 1, 1, 1]) @ whole.affine), "labels")


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_a_nifti_in_other_units_than_mm_is_refused(tmp_path, unit):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.diag([0.002, 0.002, 0.002, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=f"is in units of {unit}; mm are read"):
        read_nifti(tmp_path / "a.nii.gz")


def save(path, voxels, oriented=True):
    image = nibabel.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1]))
    if not oriented:
        image.set_qform(None, code=0)
        image.set_sform(None, code=0)
    nibabel.save(image, path)
    return path


def test_labels_near_whole_numbers_are_rounded_and_others_refused(tmp_path):
    voxels = np.zeros((4, 4, 4), np.float32)
    voxels[1] = 4.9999
    assert read_labels(save(tmp_path / "a.nii.gz", voxels)).voxels.max() == 5
    for value, words in ((2.4, "whole numbers"), (np.nan, "whole numbers"), (-1.0, "-1 to"), (300.0, "to 300")):
        voxels[2] = value
        with pytest.raises(InputError, match=words):
            read_labels(save(tmp_path / "b.nii.gz", voxels))


def test_a_nifti_without_orientation_is_refused_and_one_frame_is_a_volume(tmp_path):
    voxels = np.zeros((4, 4, 4, 1), np.float32)
    assert read_nifti(save(tmp_path / "a.nii.gz", voxels)).shape == (4, 4, 4)
    with pytest.raises(InputError, match="states no orientation"):
        read_nifti(save(tmp_path / "b.nii.gz", voxels, oriented=False))
    with pytest.raises(InputError, match="4 dimensions"):
        read_nifti(save(tmp_path / "c.nii.gz", np.zeros((4, 4, 4, 2), np.float32)))
