"""A PET as DICOM is the SUV that its headers say, on its own grid."""

import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.pet_input import read_pet
from totalgen.data.volume import Volume, canonical, write_nifti
from totalgen.errors import InputError
from totalgen.phantom import make_subject
from totalgen.phantom.phantom_dicom import PET_BORDER, write_study

WOMAN = Demographics("F", 60, 1.65, 71.5)


def test_a_pet_series_is_read_in_suv_and_keeps_its_headers(tmp_path):
    subject = make_subject(WOMAN, seed=3, voxel_mm=12.0)
    write_study(tmp_path / "p", "p", subject, WOMAN, seed=3)
    found = read_pet(tmp_path / "p")
    b = PET_BORDER
    voxels = canonical(found.suv).voxels[b:-b, b:-b]
    expected = subject.suv.voxels[:, :, :-1]
    assert np.abs(voxels - expected).max() < 1e-3 * expected.max()
    assert len(found.headers) == found.suv.shape[2] == len(found.factors)
    alone = next(path for path in (tmp_path / "p").glob("*/*PET*"))
    assert np.array_equal(read_pet(alone).suv.voxels, found.suv.voxels)  # without its CT
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no DICOM file. Give the folder of one PET series"):
        read_pet(tmp_path / "empty")


def test_an_affine_that_is_not_in_mm_is_refused_or_doubted(tmp_path):
    voxels = np.ones((4, 4, 4), np.float32)
    for name, edge in (("m", 4e-3), ("cm", 0.41), ("um", 400.0)):
        write_nifti(tmp_path / f"{name}.nii.gz", Volume(voxels, np.diag([edge] * 3 + [1.0])))
    for name, words in (("m", "in metres"), ("um", "in micrometres")):
        with pytest.raises(InputError, match=f"{name}.nii.gz: .*{words}"):
            read_pet(tmp_path / f"{name}.nii.gz")
    assert read_pet(tmp_path / "cm.nii.gz").warnings == (
        "its voxels have edges of 0.41 × 0.41 × 0.41 mm: is its affine in cm?",
    )
