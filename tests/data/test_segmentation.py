import sys
from types import ModuleType

import nibabel
import numpy as np
import pytest

from totalgen.data.segmentation import given, on_grid_of, totalsegmentator
from totalgen.data.volume import Volume, write_nifti
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
