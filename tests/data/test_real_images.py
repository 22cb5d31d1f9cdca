"""Resampling, labels and cropping on real images: 24 sarcoma patients (CT, PET in SUV), and a CT with organ labels."""

from pathlib import Path

import numpy as np
import pytest

from totalgen.data.crop import body_mask, crop_torso
from totalgen.data.organs import ORGANS
from totalgen.data.pair import on_one_grid
from totalgen.data.segmentation import on_grid_of
from totalgen.data.volume import Volume, read_nifti, resample

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PATIENTS = sorted(path for path in (DATA / "ibsi_sts").glob("STS_*"))
LABELLED = DATA / "totalsegmentator"


def images(patient):
    return {path.name.removesuffix(".nii.gz"): read_nifti(path) for path in patient.rglob("*.nii.gz")}


@pytest.mark.skipif(not PATIENTS, reason="the sarcoma patients are not next to the project")
@pytest.mark.parametrize("patient", PATIENTS, ids=lambda path: path.name)
def test_total_activity_and_tumour_survive_resampling(patient):
    found = images(patient)
    ct, pet, tumour = found["CT_image"], found["PET_image"], found["CT_mask"]
    inner = np.zeros_like(pet.voxels)  # the boxes are cut out of hot tissue, and a cut voxel has no defined volume
    inner[1:-1, 1:-1, 1:-1] = pet.voxels[1:-1, 1:-1, 1:-1]
    pet = Volume(inner, pet.affine)
    ct_2mm, suv_2mm = on_one_grid(ct, pet, 2.0)
    assert ct_2mm.shape == suv_2mm.shape
    assert suv_2mm.voxels.sum() * suv_2mm.voxel_ml == pytest.approx(pet.voxels.sum() * pet.voxel_ml, rel=0.01)

    mask = resample(tumour, suv_2mm.shape, suv_2mm.affine, 0, nearest=True).voxels > 0
    native = resample(tumour, pet.shape, pet.affine, 0, nearest=True).voxels > 0
    assert suv_2mm.voxels[mask].mean() == pytest.approx(pet.voxels[native].mean(), rel=0.06)  # a mask of 5 mm is coarse
    assert ct_2mm.voxels[mask].mean() == pytest.approx(ct.voxels[tumour.voxels > 0].mean(), abs=6)  # HU


@pytest.mark.skipif(not LABELLED.is_dir(), reason="the labelled CT is not next to the project")
def test_labels_of_totalsegmentator_lie_on_their_organs():
    ct = read_nifti(LABELLED / "example_ct.nii.gz")
    labels = on_grid_of(ct, read_nifti(LABELLED / "example_seg_fast_force_split.nii.gz"), "example")
    assert ct.voxels[labels.voxels == ORGANS["liver"]].mean() == pytest.approx(44.5, abs=0.1)
    suv = Volume(np.zeros(ct.shape, np.float32), ct.affine)
    _, _, cropped, report = crop_torso(ct, suv, labels)
    assert (report["covers_torso"], report["clavicles"], report["sacrum"]) == (False, "absent", "short")
    assert np.count_nonzero(cropped.voxels) == np.count_nonzero(labels.voxels)  # an abdomen fits into the field
    assert not (labels.voxels[~body_mask(ct)]).any()
