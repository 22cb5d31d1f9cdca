"""Every NIfTI file that is written says where its voxels are, their unit, range and origin, and how to show them."""

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from totalgen.data.ct_input import read_ct
from totalgen.data.pet_input import read_pet
from totalgen.data.pictures import DISPLAYS
from totalgen.data.volume import Volume, placement_doubts, read_nifti, write_nifti
from totalgen.errors import InputError


def header_of(path, voxels, affine=None, **options):
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    write_nifti(path, Volume(voxels, affine), **options)
    return nibabel.load(path).header


def ramp(dtype=np.float32, low=-1000, high=1500):
    return np.linspace(low, high, 24).reshape(2, 3, 4).astype(dtype)


def oblique():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -20, 170], degrees=True).as_matrix() @ np.diag([2, 2, 3])
    affine[:3, 3] = (-120, 40, 900)
    return affine


@pytest.mark.parametrize("affine", [None, oblique(), np.diag([-2.0, 2.0, 3.0, 1.0])], ids=["plain", "oblique", "left"])
def test_both_forms_are_scanner_coordinates_in_mm(tmp_path, affine):
    header = header_of(tmp_path / "CT.nii.gz", ramp(np.int16), affine)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-3)


def test_a_sheared_grid_has_no_qform(tmp_path):
    """A quaternion cannot state it, and a wrong one would be believed."""
    sheared = np.diag([2.0, 2.0, 3.0, 1.0])
    sheared[1, 2] = 0.8
    header = header_of(tmp_path / "CT.nii.gz", ramp(), sheared)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    assert np.allclose(read_nifti(tmp_path / "CT.nii.gz", reorder=False).affine, sheared)


@pytest.mark.parametrize(
    ("name", "voxels", "words", "window"),
    [
        ("CT", ramp(np.int16), "HU -1000 to 1500; from a phantom", DISPLAYS["CT"].window),
        ("SUV", ramp(low=0, high=12.5), "SUV g/mL 0 to 12.5; from a phantom", DISPLAYS["SUV"].window),
        ("SUV_0.1", ramp(low=0, high=12.5), "SUV g/mL 0 to 12.5; from a phantom", (0, 12.5)),
        ("MR", ramp(low=0, high=900), "MR signal 0 to 900; from a phantom", DISPLAYS["MR"].window),
        ("organs", ramp(np.uint8, 0, 117), "label 0 to 117; from a phantom", (0, 117)),
        ("other", ramp(low=0, high=2), "0 to 2; from a phantom", (0, 2)),
    ],
)
def test_unit_range_origin_and_window(tmp_path, name, voxels, words, window):
    header = header_of(tmp_path / f"{name}.nii.gz", voxels, note="from a phantom")
    assert header["descrip"].item().decode() == words
    assert (float(header["cal_min"]), float(header["cal_max"])) == window
    assert header.get_intent()[0] == ("label" if name == "organs" else "none")


def test_a_long_note_is_cut_between_characters(tmp_path):
    text = header_of(tmp_path / "CT.nii.gz", ramp(), note="é" * 80)["descrip"].item()
    assert 78 <= len(text) <= 79
    assert text.decode().endswith("é")


def test_a_fingerprint_is_of_voxels_and_place_and_not_of_the_file(tmp_path):
    voxels = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    volume, changed = Volume(voxels, np.eye(4)), voxels.copy()
    changed[1, 2, 3] += 1e-6
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii.gz", volume, note=name)
        assert read_nifti(tmp_path / f"{name}.nii.gz").sha256 == volume.sha256
    others = [Volume(changed, np.eye(4)), Volume(voxels, np.diag([1, 1, 1.01, 1])), Volume(voxels[::-1], np.eye(4))]
    others += [Volume(voxels.reshape(5, 4, 3), np.eye(4)), Volume(voxels.astype(np.float64), np.eye(4))]
    assert len({each.sha256 for each in (volume, *others)}) == 6


def two_forms(path, other, codes, voxels=None):
    """A file whose sform is oblique(), of the first of the codes, and whose qform is another."""
    image = nibabel.Nifti1Image(ramp() if voxels is None else voxels, oblique())
    image.set_sform(oblique(), code=codes[0])
    image.set_qform(other, code=codes[1])
    nibabel.save(image, path)
    return path


OTHERS = {
    "mirrored": oblique() @ np.diag([-1.0, 1, 1, 1]),
    "turned": oblique() @ np.diag([-1.0, -1, 1, 1]),
    "elsewhere": oblique() + np.outer([8, 0, 0, 0], [0, 0, 0, 1]),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_two_affines_of_one_space_that_differ_are_refused_and_of_two_spaces_doubted(tmp_path, other):
    with pytest.raises(InputError, match=r"sform and its qform, both of code 1, place its voxels up to .* mm apart"):
        read_nifti(two_forms(tmp_path / "same.nii.gz", other, (1, 1)))
    path = two_forms(tmp_path / "two.nii.gz", other, (2, 1))
    assert np.allclose(read_nifti(path, reorder=False).affine, oblique(), atol=1e-4)
    (doubt,) = placement_doubts(path)
    assert "its sform of code 2 and its qform of code 1 place its voxels up to" in doubt


def test_what_is_rounded_and_what_no_qform_can_say_is_no_contradiction(tmp_path):
    sheared = oblique()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    image = nibabel.Nifti1Image(np.zeros((20, 20, 20), np.float32), sheared)
    image.set_sform(sheared, code=1)
    image.set_qform(sheared, code=1, strip_shears=True)
    nibabel.save(image, tmp_path / "sheared.nii.gz")
    for path in (tmp_path / "sheared.nii.gz", two_forms(tmp_path / "a.nii.gz", oblique(), (1, 1))):
        assert placement_doubts(path) == []
        read_nifti(path)


def test_what_users_bring_is_read_with_that_doubt(tmp_path):
    body = np.full((12, 12, 12), -1000, np.float32)
    body[3:9, 3:9, 3:9] = 40
    for read, voxels in ((read_ct, body), (read_pet, np.ones((12, 12, 12), np.float32))):
        path = two_forms(tmp_path / "a.nii.gz", OTHERS["turned"], (2, 1), voxels)
        assert "the sform is used" in read(path).warnings[0]
