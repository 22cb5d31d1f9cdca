import os
import pickle
import re
import shutil
import zlib

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from totalgen.data import dicom_files
from totalgen.data.dicom import find_series, join, read_series
from totalgen.data.dicom_files import read_file
from totalgen.data.metadata import scan
from totalgen.errors import InputError

AFFINE = np.array([[-4.0, 0, 0, 50], [0, -4.0, 0, 60], [0, 0, 3.0, -20], [0, 0, 0, 1]])  # head-first supine
ENHANCED = {
    "enhanced CT": ("CT", "1.2.840.10008.5.1.4.1.1.2.1"),
    "enhanced CT, converted": ("CT", "1.2.840.10008.5.1.4.1.1.2.2"),
    "enhanced PET": ("PT", "1.2.840.10008.5.1.4.1.1.130"),
    "enhanced PET, converted": ("PT", "1.2.840.10008.5.1.4.1.1.128.1"),
}


def edit(path, change):
    """Read a DICOM file, change(dataset), and write it back."""
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def merge(files, path, sop_class):
    """The slices ``files`` as one multi-frame file: what PS3.3 calls functional groups, in the order of ``files``."""
    slices = [pydicom.dcmread(file) for file in files]
    data = pydicom.dcmread(files[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    groups = dict(PlanePositionSequence=["ImagePositionPatient"])
    groups["PixelValueTransformationSequence"] = ["RescaleSlope", "RescaleIntercept"]
    shared = dict(PlaneOrientationSequence=["ImageOrientationPatient"], PixelMeasuresSequence=["PixelSpacing"])

    def functional(one, groups):
        whole = pydicom.Dataset()
        for name, tags in groups.items():
            group = pydicom.Dataset()
            for tag in tags:
                group[tag] = one[tag]
            setattr(whole, name, [group])
        return whole

    data.SharedFunctionalGroupsSequence = [functional(data, shared)]
    data.PerFrameFunctionalGroupsSequence = [functional(one, groups) for one in slices]
    for tag in sum([*groups.values(), *shared.values()], []):
        delattr(data, tag)
    data.NumberOfFrames, data.PixelData = len(slices), b"".join(one.PixelData for one in slices)
    data.save_as(path)
    return path


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
    voxels = np.round(ramp / slopes) * slopes  # what 16-bit steps of each slope can store
    volume, _ = read_series(dicom.series(tmp_path, voxels, AFFINE, "PT", slopes=slopes))
    assert volume.voxels == pytest.approx(voxels)


@pytest.mark.parametrize(("modality", "sop_class"), ENHANCED.values(), ids=ENHANCED)
def test_a_multi_frame_file_is_read_like_its_single_frames(dicom, tmp_path, ramp, modality, sop_class):
    slopes = 0.5 + np.arange(12)
    files = dicom.series(tmp_path / "single", ramp, AFFINE, modality, slopes=slopes, intercept=-5.0, **dicom.pet())
    expected, single = read_series(files)
    (tmp_path / "multi").mkdir()
    order = np.random.default_rng(0).permutation(12)
    path = merge([files[k] for k in order], tmp_path / "multi" / "all.dcm", sop_class)
    volume, headers = read_series([path])
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.array_equal(volume.affine, expected.affine)
    assert [h.RescaleSlope for h in headers] == list(slopes)
    assert [h.ImagePositionPatient for h in headers] == [h.ImagePositionPatient for h in single]
    (series,), _ = find_series(tmp_path / "multi")
    assert (series.count, series.is_image, series.problem) == (12, True, "")
    assert series.header.ImagePositionPatient == single[order[0]].ImagePositionPatient
    assert np.allclose(series.box, find_series(tmp_path / "single")[0][0].box)


def test_time_points_in_one_multi_frame_file_are_no_volume(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path / "single", ramp, AFFINE, "PT", **dicom.pet())
    (tmp_path / "multi").mkdir()
    path = merge(files * 3, tmp_path / "multi" / "all.dcm", ENHANCED["enhanced PET"][1])
    (series,), _ = find_series(tmp_path / "multi")
    assert series.count == 36
    assert "36 slices at 12 places" in series.problem
    with pytest.raises(InputError, match=r"all\.dcm: two different slices at one place"):
        read_series([path])


def test_a_missing_slice_is_named(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    with pytest.raises(InputError, match=r"0006\.dcm: a slice is missing before it \(6\.00 mm"):
        read_series(files[:5] + files[6:])


def moved_by(k, *mm):
    """A slice-wise change: slice k is written ``mm`` (LPS) away from its place."""

    def change(files):
        def shift(data):
            data.ImagePositionPatient = [a + b for a, b in zip(data.ImagePositionPatient, mm, strict=True)]

        edit(files[k], shift)

    return change


def tagged(k, **tags):
    """A slice-wise change: slice k is written with other values, or without those that are None."""

    def write(data):
        for name, value in tags.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)

    return lambda files: edit(files[k], write)


TURNED = [0.9848, 0.1736, 0, -0.1736, 0.9848, 0]  # by 10°
PROBLEMS = {  # what was done to a good series → what must be reported of it
    "a gap": (lambda files: files[5].unlink(), "a slice is missing before it (6.00 mm, elsewhere 3.00 mm)"),
    "uneven": (moved_by(5, 0, 0, 0.4), "not evenly spaced"),
    "nearer": (moved_by(5, 0, 0, -0.9), "not evenly spaced before it (2.10 mm"),
    "one doubled": (moved_by(5, 0, 0, 3.0), "one place (12 slices at 11 places"),
    "a bend": (moved_by(5, 0, 4.0, 0), "lies 4.0 mm off the straight line"),
    "another orientation": (tagged(5, ImageOrientationPatient=TURNED), "ImageOrientationPatient differs"),
    "another spacing": (tagged(5, PixelSpacing=[4.1, 4.1]), "PixelSpacing differs"),
    "no position": (tagged(5, ImagePositionPatient=None), "position, orientation or pixel spacing is missing"),
    "no orientation": (tagged(0, ImageOrientationPatient=None), "position, orientation or pixel spacing is missing"),
    "one left": (lambda files: [path.unlink() for path in files[1:]], "the only slice"),
    "promised": (tagged(0, NumberOfSlices=14), "12 of 14 slices"),
    "colour": (lambda files: [tagged(k, SamplesPerPixel=3, Rows=2)(files) for k in range(12)], "colour"),
    "frames, not enhanced": (tagged(0, NumberOfFrames=2, Rows=4), "2 frames in a file of a single-frame kind"),
}


@pytest.mark.parametrize(("change", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_slices_that_form_no_volume_are_found_by_their_headers_and_refused(dicom, tmp_path, ramp, change, words):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    assert find_series(tmp_path)[0][0].problem == ""
    change(files)
    files = [path for path in files if path.exists()]
    (series,), damaged = find_series(tmp_path)
    assert words in series.problem
    assert ".dcm" not in series.problem  # goes into a table that may leave the hospital
    assert damaged == []
    with pytest.raises(InputError) as error:
        read_series(files)
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_directions_that_are_not_perpendicular_are_refused(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT", ImageOrientationPatient=[0, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match="no pair of perpendicular directions"):
        read_series(files)


def test_positions_and_directions_rounded_to_two_decimals_do_no_harm(dicom, tmp_path, ramp):
    tilt = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    oblique = AFFINE.copy()
    oblique[:3, :3] = turn @ AFFINE[:3, :3] @ np.diag([1, 1, 0.2])  # slices of 0.6 mm

    def rounded(k):
        position = np.diag([-1, -1, 1]) @ (oblique[:3, :3] @ [0, 0, k] + oblique[:3, 3])
        return dict(ImagePositionPatient=[round(v, 2) for v in position])

    orientation = [round(v, 2) for v in (np.diag([-1, -1, 1]) @ turn @ np.diag([-1, -1, 1]))[:, :2].T.ravel()]
    files = dicom.series(tmp_path, ramp, oblique, "CT", per_slice=rounded, ImageOrientationPatient=orientation)
    volume, _ = read_series(files)
    corner = [9, 7, 11]
    assert np.array_equal(volume.voxels, ramp)
    assert volume.voxel_mm == pytest.approx([4, 4, 0.6], abs=0.002)  # 0.02 mm over eleven steps
    assert np.abs(volume.world(corner) - (oblique @ [*corner, 1])[:3]).max() < 0.2  # 0.005 of 36 mm


def test_a_missing_last_slice_is_found_by_the_number_of_slices(dicom, tmp_path, ramp):
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


def test_copies_are_not_counted_and_a_uid_shared_by_all_slices_is(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT", SOPInstanceUID="1.2.3")  # as some anonymisers leave it
    for k in (3, 4):
        shutil.copy(files[k], tmp_path / f"copy{k}.dcm")
    (series,), _ = find_series(tmp_path)
    assert (series.count, series.problem, len(series.files)) == (12, "", 12)
    volume, _ = read_series(sorted(tmp_path.iterdir()))
    assert np.array_equal(volume.voxels, ramp)


@pytest.mark.parametrize("shift_mm", [1.0, -0.8])  # per slice of 3 mm: gantry tilts of 18° and −15°
def test_a_tilted_gantry_shears_the_affine(dicom, tmp_path, ramp, shift_mm):
    sheared = AFFINE.copy()
    sheared[1, 2] = shift_mm
    volume, _ = read_series(dicom.series(tmp_path, ramp, sheared, "CT"))
    assert np.array_equal(volume.voxels, ramp)
    assert volume.affine == pytest.approx(sheared)
    assert volume.voxel_ml == pytest.approx(0.048)  # 4 · 4 · 3 mm³: shear moves, and does not grow


def compressed(stored, kind, folder):
    """(bytes, transfer syntax) of int16 pixels [rows, columns], by encoders that are not the reader's."""
    path = str(folder / "encoded.dcm")
    if kind == "JPEG-LS":  # nothing here writes it; pydicom brings this one image
        data = pydicom.dcmread(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False))
    elif kind == "RLE":
        data = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
        data.PixelData = stored.astype("<i2").tobytes()
        data.compress(pydicom.uid.RLELossless)
    else:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(kind)
        writer.SetFileName(path)
        writer.Execute(sitk.GetImageFromArray(stored[None]))
        data = pydicom.dcmread(path)
    return get_frame(data.PixelData, 0, number_of_frames=1), data.file_meta.TransferSyntaxUID


SYNTAXES = {
    "JPEG": pydicom.uid.JPEGLosslessSV1,
    "JPEG2000": pydicom.uid.JPEG2000Lossless,
    "JPEG-LS": pydicom.uid.JPEGLSLossless,
    "RLE": pydicom.uid.RLELossless,
}


@pytest.mark.parametrize("multi_frame", [False, True], ids=["single-frame", "multi-frame"])
@pytest.mark.parametrize("kind", SYNTAXES)
def test_compressed_pixels_are_rescaled_once_and_each_slice_by_its_own_slope(dicom, tmp_path, kind, multi_frame):
    image = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array.astype(np.int16)
    stored = [image if kind == "JPEG-LS" else np.roll(image, 7 * k, axis=0) - 500 for k in range(4)]
    slopes = 0.5 + np.arange(4)
    voxels = np.stack([values.T * slope - 1024 for values, slope in zip(stored, slopes, strict=True)], axis=2)
    files = dicom.series(tmp_path, voxels, AFFINE, "PT", slopes=slopes, intercept=-1024.0, **dicom.pet())
    assert np.array_equal(read_series(files)[0].voxels, voxels)
    frames = [compressed(values, kind, tmp_path)[0] for values in stored]
    if multi_frame:
        files, frames = [merge(files, tmp_path / "all.dcm", ENHANCED["enhanced PET"][1])], [frames]
    else:
        frames = [[frame] for frame in frames]
    for path, own in zip(files, frames, strict=True):

        def compress(data, own=own):
            data.file_meta.TransferSyntaxUID = SYNTAXES[kind]
            data.PixelData = encapsulate(own)

        edit(path, compress)
    volume, headers = read_series(files)
    assert np.array_equal(volume.voxels, voxels)
    assert compressed(image, kind, tmp_path)[1] == SYNTAXES[kind]
    assert [float(header.RescaleSlope) for header in headers] == list(slopes)


@pytest.mark.filterwarnings("ignore:End of file reached")
def test_a_cut_compressed_file_is_refused_by_name(dicom, tmp_path):
    image = np.random.default_rng(0).integers(0, 2000, (64, 64)).astype(np.int16)
    files = dicom.series(tmp_path, np.repeat(image.T[:, :, None], 4, axis=2), AFFINE, "CT")
    frame, syntax = compressed(image, "JPEG", tmp_path)

    def compress(data):
        data.file_meta.TransferSyntaxUID, data.PixelData = syntax, encapsulate([frame])

    edit(files[2], compress)
    assert read_series(files)[0].shape == (64, 64, 4)
    files[2].write_bytes(files[2].read_bytes()[: -len(frame) // 2])
    with pytest.raises(InputError, match=r"0002\.dcm: is cut in its header or its pixels"):
        read_series(files)


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_other_uncompressed_transfer_syntaxes_are_read(dicom, tmp_path, ramp, syntax):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT", PixelPaddingValue=0)  # stored at one corner of one slice
    expected, _ = read_series(files)
    assert expected.voxels[0, 0, 0] == -1000
    for path in files:
        data = pydicom.dcmread(path)
        if syntax == "ExplicitVRBigEndian":
            data.PixelData = data.pixel_array.astype(">i2").tobytes()
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        pydicom.dcmwrite(path, data, little_endian="Big" not in syntax, implicit_vr="Implicit" in syntax)
    (series,), damaged = find_series(tmp_path)
    assert damaged == []
    volume, _ = read_series(series.files)
    assert np.array_equal(volume.voxels, expected.voxels)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_deflated_file_is_refused_before_it_fills_the_memory(dicom, tmp_path, ramp, monkeypatch, pixels):
    path, *_ = dicom.series(tmp_path, ramp, AFFINE, "CT")
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.add_new(0x00091001, "OB", bytes(3 << 20))
    pydicom.dcmwrite(path, data, little_endian=True, implicit_vr=False)
    assert path.stat().st_size < 100_000
    header, why = read_file(path, pixels)
    assert (why, header.buffer) == (None, None)  # a header does not hold the whole file
    monkeypatch.setattr(dicom_files, "LARGEST_INFLATED_MIB", 2)
    monkeypatch.setattr(zlib, "decompress", None)
    assert read_file(path, pixels) == (None, "cannot be read as DICOM (inflates to more than 2 MiB)")


PADDING = {  # stored value at the corners, signed?, intercept, (VR, padding value, range limit) → HU there, HU inside
    "below air": (-2000, True, 0, ("SS", -2000, None), -1000, 40),
    "above air": (3000, True, 0, ("SS", 3000, None), -1000, 40),
    "−2000 written as unsigned": (-2000, False, 0, ("US", 63536, None), -1000, 40),
    "−2000 named with unsigned pixels": (-2000, False, 0, ("SS", -2000, None), -1000, 40),
    "63536 named with signed pixels": (-2000, True, 1500, ("US", 63536, None), -1000, 1540),
    "a range": (3050, True, 0, ("SS", 3000, 3100), -1000, 40),
    "a range in reverse order": (3050, True, 0, ("SS", 3100, 3000), -1000, 40),
    "outside the range": (3200, True, 0, ("SS", 3000, 3100), 3200, 40),
    "not named": (-2000, True, 0, None, -2000, 40),
    "named, but it is tissue": (-1000, True, 0, ("SS", 40, None), -1000, 40),
}


@pytest.mark.parametrize(("corner", "signed", "intercept", "tag", "outside", "inside"), PADDING.values(), ids=PADDING)
def test_padding_becomes_air_and_tissue_stays(dicom, tmp_path, corner, signed, intercept, tag, outside, inside):
    stored = np.full((8, 8, 3), 40.0)
    stored[[0, 0, -1, -1], [0, -1, 0, -1]] = corner
    tags = dict(PixelRepresentation=int(signed))
    files = dicom.series(tmp_path, stored + intercept, AFFINE, "CT", intercept=intercept, **tags)

    def name(data):
        for number, value in zip((0x00280120, 0x00280121), tag[1:], strict=True):
            if value is not None:
                data.add_new(number, tag[0], value)

    for path in files if tag else ():
        edit(path, name)
    volume, _ = read_series(files)
    assert set(volume.voxels[[0, 0, -1, -1], [0, -1, 0, -1]].ravel()) == {outside}
    assert set(volume.voxels[1:-1].ravel()) == {inside}


def test_padding_of_a_pet_is_no_activity(dicom, tmp_path):
    stored = np.full((8, 8, 3), 40.0)
    stored[0, 0] = -32768
    files = dicom.series(tmp_path, stored * 2, AFFINE, "PT", slopes=[2.0] * 3, PixelPaddingValue=-32768, **dicom.pet())
    volume, _ = read_series(files)
    assert volume.voxels[0, 0].tolist() == [0, 0, 0]
    assert volume.voxels[1, 0].tolist() == [80, 80, 80]


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


def test_series_without_a_uid_are_distinguished_by_number_and_folder(dicom, tmp_path, ramp):
    for folder, number in (("a", 1), ("a", 2), ("b", 2)):
        names = [f"{number}_{k}.dcm" for k in range(12)]
        tags = dict(SeriesInstanceUID="", SeriesNumber=number)
        dicom.series(tmp_path / folder, ramp, AFFINE, "CT", names=names, **tags)
    series, damaged = find_series(tmp_path)
    assert sorted(len(s.files) for s in series) == [12, 12, 12]
    assert damaged == []


def test_a_series_in_two_folders_is_one_and_its_copies_count_once(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path / "b", ramp, AFFINE, "CT")
    (tmp_path / "a").mkdir()
    for path in files[:5]:
        shutil.move(path, tmp_path / "a")
    shutil.copy(files[7], tmp_path / "a" / "copy.dcm")
    (series,), damaged = join([find_series(tmp_path / "a"), find_series(tmp_path / "b")])
    assert (series.count, len(series.files), series.problem, damaged) == (12, 12, "", [])
    assert np.array_equal(read_series(series.files)[0].voxels, ramp)


@pytest.mark.parametrize("number", ["P1", "", None])
@pytest.mark.parametrize("place", [".", "study", "study/pet"])
def test_the_files_of_one_folder_are_one_series_whoever_it_is(dicom, tmp_path, ramp, number, place):
    dicom.series(tmp_path / place, ramp, AFFINE, "CT", PatientID=number)
    (series,), damaged = scan(tmp_path)
    assert (series.count, series.problem, damaged) == (12, "", [])


def test_equal_series_of_nobody_in_two_folders_are_of_two_people(dicom, tmp_path, ramp):
    for folder in ("a", "b"):
        dicom.series(tmp_path / folder, ramp, AFFINE, "CT", PatientID="", SeriesInstanceUID="1.2.5")
    assert [series.count for series in scan(tmp_path)[0]] == [12, 12]


def test_a_file_cut_anywhere_in_its_header_is_damaged_and_never_ends_the_search(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "PT", PatientWeight=70, **dicom.pet())
    content = files[4].read_bytes()
    header = content.index(b"\xe0\x7f\x10\x00")  # pixels begin here
    for end in range(140, header + 8, 3):
        files[4].write_bytes(content[:end])
        (series,), damaged = find_series(tmp_path)
        assert [d.path for d in damaged] == [files[4]], end
        assert series.count == 11


def test_dicom_without_a_preamble_is_read_and_other_files_are_ignored(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    for path in files:
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        path.unlink()
        dataset.save_as(path.with_suffix(""), implicit_vr=False, little_endian=True)
    (tmp_path / "notes").write_bytes(b"\x08\x00 and some other text that begins like DICOM")
    (series,), damaged = find_series(tmp_path)
    assert damaged == []
    assert np.array_equal(read_series(series.files)[0].voxels, ramp)


def test_links_are_followed_once_and_a_closed_folder_is_reported(dicom, tmp_path, ramp, monkeypatch):
    dicom.series(tmp_path / "elsewhere", ramp, AFFINE, "CT")
    dicom.series(tmp_path / "dicom" / "closed", ramp, AFFINE, "CT")
    (tmp_path / "dicom" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dicom" / "loop").symlink_to(tmp_path / "dicom")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (series,), damaged = find_series(tmp_path / "dicom")
    assert series.count == 12
    loop = "is a link to a folder that is read anyway, and is not followed. Take it away."
    why = {d.path.name: d.why for d in damaged}
    assert why == {"closed": "cannot be opened (Permission denied). Restore it.", "loop": loop}


def test_of_what_is_no_image_only_short_elements_are_kept(dicom, tmp_path):
    raw = dicom.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.66", SOPInstanceUID="1.2", Modality="PT", PatientID="P1")
    raw.private_block(0x0009, "RAW", create=True).add_new(1, "OB", bytes(100_000))
    raw.file_meta = pydicom.dataset.FileMetaDataset()
    raw.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    raw.save_as(tmp_path / "raw.dcm", enforce_file_format=True)
    (series,), _ = find_series(tmp_path)
    assert series.header.PatientID == "P1"
    assert len(pickle.dumps(series)) < 10_000


@pytest.mark.parametrize(
    ("modality", "tags", "said"),
    [
        ("PT", dict(RescaleSlope=0), "Rescale Slope (0028,1053) is 0"),
        ("CT", dict(RescaleSlope=0), "Rescale Slope (0028,1053) is 0"),
        ("PT", dict(RescaleSlope=-0.5), "Rescale Slope (0028,1053) is -0.5, so its values are lost or inverted"),
        ("PT", dict(RescaleSlope="1e-50"), "Rescale Slope (0028,1053) is 1e-50"),  # 0 as float32
        ("PT", dict(RescaleSlope="1e40"), "Rescale Slope (0028,1053) is 1e+40"),  # infinite as float32
        ("CT", dict(RescaleSlope=None, RescaleIntercept=None), "Rescale Slope (0028,1053) is missing"),
        ("CT", dict(RescaleType="OD"), "Rescale Type (0028,1054) is OD, not HU"),
    ],
)
def test_values_without_a_usable_rescale_are_refused(dicom, tmp_path, ramp, modality, tags, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_series(dicom.series(tmp_path, ramp, AFFINE, modality, **tags))


@pytest.mark.parametrize("slope", [b"nan ", b"inf ", b"0,5 "])
def test_a_slope_that_is_no_finite_number_is_refused_by_its_tag(dicom, tmp_path, ramp, slope):
    files = dicom.series(tmp_path, ramp, AFFINE, "CT")
    tag = pydicom.tag.Tag("RescaleSlope")

    def broken(data):
        data[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(slope), slope, 0, False, True)

    edit(files[3], broken)
    with pytest.raises(InputError, match=r"Rescale Slope \(0028,1053\) is"):
        read_series(files)


@pytest.mark.parametrize("kind", SYNTAXES)
def test_an_inverted_grey_scale_does_not_change_values(dicom, tmp_path, kind):
    """MONOCHROME1 is how a picture is shown; compressed or not, the numbers are the same."""
    image = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array.astype(np.int16)
    voxels = np.repeat(image.T[:, :, None], 4, axis=2).astype(float)
    files = dicom.series(tmp_path, voxels, AFFINE, "PT", PhotometricInterpretation="MONOCHROME1", **dicom.pet())
    assert np.array_equal(read_series(files)[0].voxels, voxels)
    for path in files:

        def compress(data):
            data.file_meta.TransferSyntaxUID = SYNTAXES[kind]
            data.PixelData = encapsulate([compressed(image, kind, tmp_path)[0]])

        edit(path, compress)
    assert np.array_equal(read_series(files)[0].voxels, voxels)


def test_archives_and_pipes_are_named_and_not_waited_for(dicom, tmp_path):
    ct, _ = dicom.study(tmp_path)
    for name in ("study.zip", "slice.dcm.gz"):
        (ct[0].parent / name).write_bytes(b"PK")
    os.mkfifo(ct[0].parent / "pipe")
    series, damaged = find_series(tmp_path)
    assert sorted(each.count for each in series) == [12, 12]
    assert {file.path.name: file.why for file in damaged} == {
        "study.zip": "is a .zip file, whose content is not read. Unpack it.",
        "slice.dcm.gz": "is a .gz file, whose content is not read. Unpack it.",
        "pipe": "is a device or pipe, no file. Take it away.",
    }


def test_archives_pipes_and_loops_anywhere_below_dicom_are_failures_of_step_1(dicom, tmp_path, script):
    """Nothing waits for a pipe; what lies directly in dicom/ counts, too."""
    dicom.study(tmp_path)
    below = tmp_path / "dicom"
    for folder in (below, below / "P1"):
        (folder / f"of-{folder.name}.zip").write_bytes(b"PK")
        os.mkfifo(folder / f"pipe-{folder.name}")
    (below / "P1" / "back").symlink_to(below)
    (below / "P1" / "organs.nii.gz").write_bytes(b"no archive of DICOM")
    result = script(1, "--root", tmp_path)
    assert result.exit_code == 0, result.output
    errors = dict(row.split(": ", 1) for row in pd.read_csv(tmp_path / "failures.csv")["error"])
    assert {path.removeprefix("dicom/"): error.split()[2] for path, error in errors.items()} == {
        "#2": ".zip", "#3": "device",  # of nobody who is known to be de-identified
        "P1/of-P1.zip": ".zip", "P1/pipe-P1": "device",
        "P1/back": "link",
    }  # fmt: skip
    assert list(pd.read_csv(tmp_path / "cohort.csv")["subject"]) == ["P1"]


def test_a_whole_file_of_another_kind_is_not_called_cut(tmp_path):
    (tmp_path / "notes.dcm").write_text("notes " * 100)
    (_, (file,)) = find_series(tmp_path)
    assert file.why == "is no DICOM file. Restore the file."


def philips(data, factor):
    data.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0, "DS", factor)


CONTRADICTIONS = {
    "slope": lambda data: setattr(data, "RescaleSlope", 3 * data.RescaleSlope),
    "dose": lambda data: setattr(data.RadiopharmaceuticalInformationSequence[0], "RadionuclideTotalDose", 1e8),
    "weight": lambda data: setattr(data, "PatientWeight", 55),
    "scan": lambda data: setattr(data, "AcquisitionTime", "000001"),
    "Philips": lambda data: philips(data, "2"),
    "pixels": lambda data: setattr(data, "PixelData", data.PixelData[2:] + data.PixelData[:2]),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
@pytest.mark.parametrize("name", ["0.dcm", "zz.dcm"])  # whichever is read first
def test_a_file_that_says_it_is_another_and_is_none_is_refused(dicom, tmp_path, ramp, what, name):
    files = dicom.series(tmp_path, ramp, AFFINE, "PT", PatientWeight=70, **dicom.pet())
    if what == "Philips":
        edit(files[3], lambda data: philips(data, "1"))
    shutil.copy(files[3], tmp_path / name)
    edit(tmp_path / name, CONTRADICTIONS[what])
    (series,), _ = find_series(tmp_path)
    assert "two files have one SOP Instance UID and differ in" in series.problem
    assert "Remove the one that is wrong" in series.problem
    with pytest.raises(InputError, match="two files have one SOP Instance UID"):
        read_series(sorted(tmp_path.glob("*.dcm")))


def test_values_that_are_not_at_the_lowest_bits_are_refused(dicom, tmp_path, ramp):
    """As left-aligned ones: 12 bits at the top of 16 would be read 16 times too large."""
    files = dicom.series(tmp_path, 2 * ramp, AFFINE, "CT")
    for path in files:
        edit(path, lambda data: setattr(data, "BitsStored", 12))
    (series,), _ = find_series(tmp_path)
    assert "High Bit (0028,0102) is 15 with 12 Bits Stored (0028,0101)" in series.problem
    with pytest.raises(InputError, match=r"0028,0102.*Export the series with High Bit 11"):
        read_series(files)
    for path in files:
        edit(path, lambda data: setattr(data, "HighBit", 11))
    assert np.array_equal(read_series(files)[0].voxels, 2 * ramp)


def test_a_copy_may_lack_what_the_other_states_and_be_encoded_otherwise(dicom, tmp_path, ramp):
    files = dicom.series(tmp_path, ramp, AFFINE, "PT", PatientWeight=70, **dicom.pet())
    for k, change in enumerate([
        lambda data: delattr(data, "RadiopharmaceuticalInformationSequence"),
        lambda data: setattr(data, "InstitutionName", "elsewhere"),
        lambda data: setattr(data, "RescaleSlope", f"{float(data.RescaleSlope):.6e}"),
        lambda data: data.compress(pydicom.uid.RLELossless, generate_instance_uid=False),
    ]):  # fmt: skip
        shutil.copy(files[k], tmp_path / f"copy{k}.dcm")
        edit(tmp_path / f"copy{k}.dcm", change)
    (series,), _ = find_series(tmp_path)
    assert (series.count, series.problem) == (12, "")
    assert np.array_equal(read_series(sorted(tmp_path.glob("*.dcm")))[0].voxels, read_series(files)[0].voxels)
