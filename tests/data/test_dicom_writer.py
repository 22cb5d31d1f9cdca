"""A volume written as a DICOM series is read back voxel by voxel at its place in the world."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage

from totalgen.data.dicom import read_series
from totalgen.data.dicom_writer import HOUNSFIELD, PER_SLICE, write_series
from totalgen.data.volume import Volume, canonical
from totalgen.errors import InputError

TURN = np.array([[0.9, -0.42, 0.1], [0.43, 0.9, -0.05], [-0.07, 0.09, 0.99]])
TURN = np.linalg.qr(TURN)[0] * -1  # close to the identity up to signs
GRIDS = {
    "plain": np.diag([2.0, 2.0, 3.0]),
    "left-handed": np.diag([-2.0, 2.0, 3.0]),
    "feet first": np.diag([2.0, 2.0, -3.0]),
    "oblique": TURN * [2.0, 2.5, 3.0],
    "axes in another order": np.array([[0, 0, 2.0], [3.0, 0, 0], [0, -1.5, 0]]),
    "tilted gantry": np.array([[2.0, 0, 0], [0, 2.0, 0.8], [0, 0, 3.0]]),
}


def header(modality):
    ds = Dataset()
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "A^B", modality
    ds.SOPClassUID = CTImageStorage if modality == "CT" else PositronEmissionTomographyImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    return ds


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_what_is_written_is_read_at_its_place(tmp_path, grid, modality):
    random = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = GRIDS[grid], (10, -20, 30)
    voxels = random.uniform(-1024, 3000, (7, 9, 5)) if modality == "CT" else random.gamma(0.5, 1000, (7, 9, 5))
    volume = Volume(voxels.astype(np.float32), affine)
    paths = write_series(
        tmp_path / "s", volume, header(modality), HOUNSFIELD if modality == "CT" else PER_SLICE, ["seed"]
    )
    found = canonical(read_series(paths)[0])
    truth = canonical(volume)
    assert found.shape == truth.shape
    assert np.allclose(found.affine, truth.affine, atol=2e-3)
    tolerance = 0.51 if modality == "CT" else 0.51 * voxels.max() / 32767
    assert np.abs(found.voxels - truth.voxels).max() <= tolerance


def test_instances_are_distinct_and_follow_from_the_entropy(tmp_path):
    volume = Volume(np.zeros((3, 3, 4), np.float32), np.eye(4))
    calls = []

    def complete(dataset, number, values):
        dataset.ImageComments = f"slice {number}"
        calls.append(values.shape)

    for name, entropy in (("a", ["x"]), ("b", ["x"]), ("c", ["y"])):
        write_series(tmp_path / name, volume, header("PT"), PER_SLICE, entropy, complete)
    uids = {n: [pydicom.dcmread(p).SOPInstanceUID for p in sorted((tmp_path / n).iterdir())] for n in "abc"}
    assert len(set(uids["a"])) == 4
    assert uids["a"] == uids["b"] != uids["c"]
    first = pydicom.dcmread(tmp_path / "a" / "1-001.dcm")
    assert (first.ImageComments, first.InstanceNumber) == ("slice 1", 1)
    assert float(first.ImagePositionPatient[2]) == 3  # the head first
    assert len(calls) == 12
    assert "SOPInstanceUID" not in header("PT")


def test_what_slices_cannot_hold_is_refused(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(InputError, match="rows and columns of its slices are not square"):
        write_series(tmp_path, Volume(np.zeros((3, 3, 3)), sheared), header("CT"), HOUNSFIELD, ["x"])
    with pytest.raises(InputError, match="not a finite number"):
        write_series(tmp_path, Volume(np.full((3, 3, 3), np.nan), np.eye(4)), header("CT"), HOUNSFIELD, ["x"])
