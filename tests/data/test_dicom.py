import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from totalgen.data.dicom import find_series, read_series
from totalgen.errors import InputError

AFFINE = np.array([[-4.0, 0, 0, 50], [0, -4.0, 0, 60], [0, 0, 3.0, -20], [0, 0, 0, 1]])  # head-first supine


@pytest.fixture
def ramp():
    return np.arange(10 * 8 * 12).reshape(10, 8, 12).astype(float)


def test_slices_in_any_order_of_files_become_one_volume(dicom, tmp_path, ramp):
    names = [f"{n:02}.dcm" for n in np.random.default_rng(0).permutation(12)]
    files = dicom.series(tmp_path, ramp, AFFINE, "CT", names=names)
    volume, headers = read_series(sorted(files))
    assert np.array_equal(volume.voxels, ramp)
    assert volume.affine == pytest.approx(AFFINE)
    assert len(headers) == 12


def test_every_slice_has_its_own_rescale_slope(dicom, tmp_path, ramp):
    slopes = 0.5 + np.arange(12)
    voxels = np.round(ramp / slopes) * slopes  # what 16-bit steps of each slope can hold
    volume, _ = read_series(dicom.series(tmp_path, voxels, AFFINE, "PT", slopes=slopes))
    assert volume.voxels == pytest.approx(voxels)


def test_a_missing_slice_is_named(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    with pytest.raises(InputError, match=r"0006\.dcm: a slice is missing before it \(6\.00 mm"):
        read_series(files[:5] + files[6:])


def test_a_missing_last_slice_is_told_by_the_number_of_slices(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "PT", NumberOfSlices=12)
    with pytest.raises(InputError, match="11 of 12 slices"):
        read_series(files[:-1])


def test_two_different_slices_at_one_place_are_refused(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path / "a", ramp, AFFINE, "CT") + dicom.series(tmp_path / "b", ramp, AFFINE, "CT")
    with pytest.raises(InputError, match="one place"):
        read_series(files)


def test_an_exact_copy_of_a_slice_does_no_harm(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    shutil.copy(files[3], tmp_path / "copy.dcm")
    volume, _ = read_series([*files, tmp_path / "copy.dcm"])
    assert np.array_equal(volume.voxels, ramp)


def test_a_tilted_gantry_is_refused(dicom, tmp_path, ramp):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    with pytest.raises(InputError, match="tilted"):
        read_series(dicom.series(tmp_path, ramp, sheared, "CT"))


def test_compressed_pixels_are_rescaled_once(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT", intercept=-1024.0)
    expected, _ = read_series(files)
    for path in files:
        image = sitk.ReadImage(str(path))
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetFileName(str(path))
        writer.Execute(sitk.Cast(image, sitk.sitkInt16))
    volume, headers = read_series(files)
    assert headers[0].file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(volume.voxels, expected.voxels)


@pytest.mark.parametrize("share", [0.002, 0.4, 0.95])
def test_a_cut_file_is_found_and_the_others_are_read(dicom, tmp_path, ramp, share):
    voxels = np.kron(ramp, np.ones((8, 8, 1)))
    files = dicom.series(tmp_path, voxels, AFFINE, "CT")
    content = files[4].read_bytes()
    files[4].write_bytes(content[: int(len(content) * share)])
    (tmp_path / "notes.txt").write_text("not DICOM, and no failure")
    (series,), (damaged,) = find_series(tmp_path)
    assert len(series.files) == 11
    assert damaged.path == files[4]
    assert "cut" in damaged.why
    with pytest.raises(InputError, match=r"0004\.dcm"):
        read_series(files)


def test_series_without_a_uid_are_told_apart_by_number_and_folder(dicom, tmp_path, ramp):
    for folder, number in (("a", 1), ("a", 2), ("b", 2)):
        names = [f"{number}_{k}.dcm" for k in range(12)]
        tags = dict(SeriesInstanceUID="", SeriesNumber=number)
        dicom.series(tmp_path / folder, ramp, AFFINE, "CT", names=names, **tags)
    series, damaged = find_series(tmp_path)
    assert sorted(len(s.files) for s in series) == [12, 12, 12]
    assert damaged == []
