"""The script of step 7: real PET of any grid gets lower doses, and only a PET does."""

import numpy as np
import pytest

from totalgen.data.doses import NoiseModel
from totalgen.data.volume import Volume, read_nifti, write_nifti


@pytest.fixture
def cohort(tmp_path):
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    write_nifti(tmp_path / "resampled/a/SUV.nii.gz", Volume(np.full((24, 22, 20), 2.3, np.float32), affine))
    write_nifti(tmp_path / "resampled/b/SUV.nii.gz", Volume(np.full((24, 22, 20), 9000, np.float32), affine))
    return tmp_path


def test_what_is_doubtful_is_said_and_what_is_no_suv_refused(cohort, script):
    for name, lowest in (("b", -1000), ("a", -1)):
        voxels = np.full((24, 22, 20), 2.3, np.float32)
        voxels[:4] = lowest
        write_nifti(cohort / f"resampled/{name}/SUV.nii.gz", Volume(voxels, np.eye(4)))
    result = script(7, "--root", cohort, "--dose", 0.1)
    assert "Warning: a: the lowest SUV is -1; negative voxels are kept as they are." in result.stderr
    assert "1 of 2 subjects failed (b)" in result.stderr
    assert "its values are -1000 to 2.3, which no SUV has" in (cohort / "failures.csv").read_text()


def test_lower_doses_have_the_excess_noise_and_no_bias(cohort, script):
    result = script(7, "--root", cohort, "--dose", 0.1, "--dose", 0.5)
    assert result.exit_code == 0, result.output
    assert "1 of 2 subjects failed (b)" in result.stderr  # activity, not SUV
    normal, low, half = (read_nifti(cohort / f"doses/a/{name}.nii.gz") for name in ("SUV", "SUV_0.1", "SUV_0.5"))
    assert np.array_equal(normal.voxels, np.full((24, 22, 20), 2.3, np.float32))
    for volume, dose in ((low, 0.1), (half, 0.5)):
        assert volume.voxels.mean() == pytest.approx(2.3, abs=0.05)
        expected = float(NoiseModel().std(np.array(2.3))) * (1 / dose - 1) ** 0.5
        assert volume.voxels.std() == pytest.approx(expected, rel=0.1)
    before = low.voxels
    assert "1 were done before" in script(7, "--root", cohort, "--dose", 0.1, "--dose", 0.5).output
    for path in (cohort / "doses/a").iterdir():
        path.unlink()
    script(7, "--root", cohort, "--dose", 0.1, "--seed", 2)
    assert not np.array_equal(read_nifti(cohort / "doses/a/SUV_0.1.nii.gz").voxels, before)


def test_another_voxel_size(cohort, script):
    script(7, "--root", cohort, "--dose", 0.1, "--voxel-mm", 6)
    assert read_nifti(cohort / "doses/a/SUV_0.1.nii.gz").voxel_mm == pytest.approx([6.0] * 3)


def test_a_dose_that_is_no_fraction_is_refused(cohort, script):
    result = script(7, "--root", cohort, "--dose", 4)
    assert result.exit_code == 2
    assert "give a fraction of the normal dose" in result.stderr
