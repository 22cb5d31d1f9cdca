"""The MR of a phantom is its tissues' spin echo, and leaves CT and PET as they are."""

import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.organs import ORGANS
from totalgen.data.volume import read_nifti
from totalgen.phantom import make_subject, write_cohort
from totalgen.phantom.magnetic_resonance import FAT_SIGNAL, NOISE, TISSUES, Tissue, rician
from totalgen.phantom.uptake import attenuation

WOMAN = Demographics("F", 60, 1.65, 71.5)


@pytest.fixture(scope="module")
def subject():
    return make_subject(WOMAN, seed=3, voxel_mm=8.0, mr=True)


def test_ct_and_pet_do_not_change(subject):
    plain = make_subject(WOMAN, seed=3, voxel_mm=8.0)
    assert plain.mr is None
    for name in ("ct", "suv", "organs"):
        assert np.array_equal(getattr(plain, name).voxels, getattr(subject, name).voxels)
    assert np.array_equal(subject.mr.affine, subject.ct.affine)


def test_every_tissue_of_the_ct_has_relaxation_times():
    assert set(TISSUES) == set(attenuation(WOMAN, np.random.default_rng(0)))


def test_the_order_of_signals_is_that_of_t1_weighting(subject):
    def signal(organ):
        return float(np.median(subject.mr_truth.voxels[subject.organs.voxels == ORGANS[organ]]))

    fat = (subject.ct.voxels > -110) & (subject.ct.voxels < -95)
    assert np.median(subject.mr_truth.voxels[fat]) == pytest.approx(FAT_SIGNAL, rel=0.2)
    assert FAT_SIGNAL > signal("liver") > signal("spleen") > signal("urinary_bladder") > signal("heart") * 0.5
    assert Tissue(1.0, 500.0, 1e9).signal == pytest.approx(1 - np.exp(-1))


def test_noise_is_rician():
    random = np.random.default_rng(0)
    air, tissue = (rician(np.full((60, 60, 60), level, np.float32), random) for level in (0, 600))
    assert air.mean() == pytest.approx(NOISE * np.sqrt(np.pi / 2), rel=0.01)
    assert tissue.std() == pytest.approx(NOISE, rel=0.01)
    assert np.square(tissue).mean() == pytest.approx(600**2 + 2 * NOISE**2, rel=0.001)


def test_pairs_are_written_and_made_again_when_they_are_gone(tmp_path):
    write_cohort(tmp_path, 1, seed=2, voxel_mm=12.0, mr=True)
    files = {path.name for path in (tmp_path / "pairs/phantom_0001").iterdir()}
    assert files == {"CT.nii.gz", "MR.nii.gz", "truth.nii.gz", "organs.nii.gz"}
    before = read_nifti(tmp_path / "pairs/phantom_0001/MR.nii.gz").voxels
    for path in (tmp_path / "pairs/phantom_0001").iterdir():
        path.unlink()
    (tmp_path / "pairs/phantom_0001").rmdir()
    write_cohort(tmp_path, 1, seed=2, voxel_mm=12.0, mr=True)
    assert np.array_equal(read_nifti(tmp_path / "pairs/phantom_0001/MR.nii.gz").voxels, before)
