"""A PET as DICOM is the SUV that its headers say, on its own grid."""

import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.pet_input import read_pet
from totalgen.data.volume import canonical
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
