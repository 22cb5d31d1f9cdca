"""A CT in HU is read as it is; what is none is refused in one line that says what it may be."""

import numpy as np
import pytest

from totalgen.data.ct_input import read_ct
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError

AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 90], [0, 0, 3.0, -20], [0, 0, 0, 1]])


def phantom(shape=(12, 14, 13)):
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return np.where((at[:2] ** 2).sum(0) < 0.6, 40.0, -1000.0).astype(np.float32)


def refused(tmp_path, voxels, words):
    write_nifti(tmp_path / "bad.nii.gz", Volume(voxels.astype(np.float32), AFFINE))
    with pytest.raises(InputError, match=words):
        read_ct(tmp_path / "bad.nii.gz")


def test_what_is_no_ct_is_refused(tmp_path):
    ct = phantom()
    refused(tmp_path, ct + 1024, "no CT in HU; an MR, or values as stored, before the rescale intercept")
    refused(tmp_path, np.random.default_rng(0).random(ct.shape) * 900, "no CT in HU; an MR")
    refused(tmp_path, np.full(ct.shape, -1000.0), "no body")
    refused(tmp_path, np.where(ct > 0, np.nan, ct), "are not finite numbers")
    refused(tmp_path, ct[..., 0], "has 2 dimensions")
    with pytest.raises(InputError, match="no such file"):
        read_ct(tmp_path / "none.nii.gz")


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "metres"), (1e-2, "centimetres"), (1e3, "micrometres")])
def test_an_affine_that_is_not_in_mm_is_refused(tmp_path, factor, unit):
    write_nifti(tmp_path / "ct.nii.gz", Volume(phantom(), np.diag([factor * 4, factor * 4, factor * 3, 1])))
    with pytest.raises(InputError, match=f"ct.nii.gz: .*in {unit}"):
        read_ct(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize(("voxel_mm", "doubtful"), [((0.12, 0.12, 0.5), True), ((9, 9, 0.5), False)])
def test_a_ct_in_centimetres_whose_voxels_may_be_small_ones_is_doubted(tmp_path, voxel_mm, doubtful):
    """1.2 mm in centimetres are 0.12 mm, as a photon-counting CT may have; a thin slab is none of it."""
    write_nifti(tmp_path / "ct.nii.gz", Volume(phantom(), np.diag([*voxel_mm, 1])))
    assert any("is its affine in cm?" in each for each in read_ct(tmp_path / "ct.nii.gz").warnings) == doubtful


def test_metal_is_doubtful(tmp_path):
    ct = phantom()
    ct[6, 6, 6] = 12000
    write_nifti(tmp_path / "ct.nii.gz", Volume(ct, AFFINE))
    found = read_ct(tmp_path / "ct.nii.gz")
    assert np.array_equal(found.ct.voxels, ct)
    assert "check that it is HU" in found.warnings[-1]


def test_a_series_is_read_on_its_own_grid(tmp_path, dicom):
    ct = phantom()
    dicom.series(tmp_path / "p" / "ct", ct, AFFINE, "CT", PatientAge="060Y", PatientWeight=70.0)
    found = read_ct(tmp_path / "p")
    assert np.array_equal(found.ct.voxels, ct)
    assert np.allclose(found.ct.affine, AFFINE)
    assert len(found.headers) == ct.shape[2]
    assert found.values["weight_kg"] == 70.0
    dicom.series(tmp_path / "p" / "second", ct, AFFINE, "CT")
    with pytest.raises(InputError, match="holds 2 CT series .* Give the folder of one of them"):
        read_ct(tmp_path / "p")


def test_a_pet_is_no_ct(tmp_path, dicom):
    dicom.series(tmp_path / "pet", phantom() + 1000, AFFINE, "PT", slopes=[1.0] * 13, **dicom.pet())
    with pytest.raises(InputError, match="no CT can be used .*modality PT"):
        read_ct(tmp_path / "pet")
