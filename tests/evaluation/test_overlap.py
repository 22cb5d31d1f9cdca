"""Overlap of labels with the true ones."""

import numpy as np

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, read_nifti
from totalgen.evaluation.overlap import dice, dice_of_split


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
    (cohort / "cropped" / "s3" / "CT.nii.gz").unlink()
    assert dice_of_split(cohort, lambda ct: ct, ids) == ({}, 0)
