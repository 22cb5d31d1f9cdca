"""Overlap of labels with the true ones."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, moved, read_nifti, write_nifti
from totalgen.evaluation.overlap import dice, dice_of_split, mask_agreement, surface_agreement


def test_dice_is_its_formula():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[:4], b[2:8] = True, True
    assert dice(a, b) == 2 * 2 / (4 + 6)
    assert np.isnan(dice(a & ~a, b & ~b))


def test_labels_of_the_test_split_are_compared_organ_by_organ(cohort):
    truth = read_nifti(cohort / "cropped" / "s3" / "organs.nii.gz", np.uint8)
    half = truth.voxels.copy()
    liver = np.argwhere(half == ORGANS["liver"])
    half[tuple(liver[::2].T)] = 0
    ids = [ORGANS["liver"], ORGANS["spleen"]]
    found, subjects = dice_of_split(cohort, lambda ct: Volume(half, ct.affine), ids)
    assert subjects == 1
    assert found["spleen"] == 1
    assert found["liver"] == round(2 * (len(liver) // 2) / (len(liver) + len(liver) // 2), 4)
    assert "kidneys" not in found
    file = cohort / "cropped" / "s3" / "CT.nii.gz"
    ct = read_nifti(file)
    for other in (Volume(ct.voxels, moved(ct.affine, (0, 9, 0))), ct.crop((0, 0, 0), np.subtract(ct.shape, (0, 0, 1)))):
        write_nifti(file, other)
        assert dice_of_split(cohort, lambda ct: Volume(half, ct.affine), ids) == ({}, 0)
        assert "is not that of the CT" in (cohort / "failures.csv").read_text()
    file.unlink()
    assert dice_of_split(cohort, lambda ct: ct, ids) == ({}, 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI, within MONAI
@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (2.0, 1.5, 3.0)])
def test_surfaces_agree_with_monai(voxel_mm):
    random = np.random.default_rng(0)
    a, b = np.zeros((2, 20, 18, 16), bool)
    a[4:14, 5:12, 3:12] = True
    b[6:15, 4:12, 3:13] = True
    b[6:8] &= random.random((2, 18, 16)) > 0.3
    found = surface_agreement(a, b, np.array(voxel_mm), tolerance_mm=1.6)
    ours, theirs = (torch.from_numpy(mask[None, None]).float() for mask in (a, b))
    options = dict(include_background=True, spacing=voxel_mm)
    hausdorff = float(compute_hausdorff_distance(ours, theirs, percentile=95, **options))
    assert found[0] == pytest.approx(hausdorff, abs=1e-4)
    assert found[1] == pytest.approx(float(compute_surface_dice(ours, theirs, [1.6], **options)), abs=1e-5)


def test_an_organ_that_one_mask_lacks_is_infinitely_far(cohort):
    truth = read_nifti(cohort / "cropped" / "s3" / "organs.nii.gz", np.uint8)
    less = np.where(truth.voxels == ORGANS["spleen"], 0, truth.voxels)
    found = mask_agreement(Volume(less, truth.affine), truth)
    assert (found["spleen_dice"], found["spleen_hd95_mm"], found["spleen_surface_dice"]) == (0, np.inf, 0)
    assert (found["liver_dice"], found["liver_hd95_mm"], found["liver_surface_dice"]) == (1, 0, 1)
    assert all(np.isnan(value) for value in surface_agreement(less == 99, less == 98, truth.voxel_mm))
