"""The archive stores what was cropped, its statistics are those of its volumes, and it appears whole or not at all."""

import numpy as np
import pandas as pd
import pytest

from totalgen.data.archive import Archive, fit_plane, pack
from totalgen.data.intensity import decode_ct, decode_pet, encode_ct
from totalgen.data.resolution import subsample
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError

SHAPE = (16, 16, 24)


def test_volumes_survive_the_archive(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, packed, failed = pack(tmp_path, SHAPE)
    archive = Archive(path)
    assert (packed, failed, archive.shape, archive.voxel_mm) == (3, 0, SHAPE, 6.0)
    ct = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "CT.nii.gz").voxels, -500, 500)
    suv = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz").voxels, 0, 25)
    assert np.abs(decode_ct(archive.high[1, 0].astype(np.float32)) - ct).max() < 0.5  # half a float16 step of 1000 HU
    assert np.abs(decode_pet(archive.high[1, 1].astype(np.float32)) / suv.clip(0.1) - suv / suv.clip(0.1)).max() < 0.01
    for phase in (0, 17, 63):
        assert np.array_equal(archive.low[1, phase], subsample(archive.high[1], phase))


def test_statistics_come_from_the_training_split_alone(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path = tmp_path / "cropped" / "s2" / "CT.nii.gz"  # the test subject, made unlike the others
    brighter = read_nifti(path)
    write_nifti(path, Volume(brighter.voxels + 1000, brighter.affine))
    archive = Archive(pack(tmp_path, SHAPE)[0])
    train = np.stack([archive.high[i].astype(np.float64) for i in archive.indices("train")])
    assert archive.indices("test") == [2]
    assert archive.statistics["low_mean"] == pytest.approx(train.mean((0, 2, 3, 4)).tolist(), abs=0.02)
    assert archive.statistics["low_std"] == pytest.approx(train.std((0, 2, 3, 4)).tolist(), rel=0.05)
    assert archive.statistics["residual_mean"] == pytest.approx([0, 0], abs=0.02)  # interpolation is unbiased


def test_packing_twice_changes_nothing_and_another_shape_is_refused(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, SHAPE)
    stamp = path.stat().st_mtime_ns
    assert pack(tmp_path, SHAPE)[1] == 3
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="--overwrite"):
        pack(tmp_path, (16, 16, 32))


def test_a_study_without_its_partner_is_listed_and_the_rest_is_packed(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    (tmp_path / "cropped" / "s0" / "SUV.nii.gz").unlink()
    path, packed, failed = pack(tmp_path, SHAPE)
    assert (packed, failed) == (2, 1)
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert failures["subject"].tolist() == ["s0"]
    assert "SUV.nii.gz: no such file" in failures["error"][0]
    assert [row["subject"] for row in Archive(path).subjects] == ["s1", "s2"]


def test_nothing_is_left_behind_when_every_study_fails(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    for path in tmp_path.glob("cropped/*/CT.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match="no study could be packed"):
        pack(tmp_path, SHAPE)
    assert not (tmp_path / "training.zarr").exists()
    assert not list(tmp_path.glob(".training*"))


def test_a_shape_that_cannot_be_subsampled_and_a_foreign_folder_are_refused(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    with pytest.raises(InputError, match="divisible by 4"):
        pack(tmp_path, (16, 18, 24))
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises(InputError, match="not a training archive"):
        Archive(tmp_path / "other.zarr")
    with pytest.raises(InputError, match="6_pack_training_set"):
        Archive(tmp_path / "missing.zarr")


def test_the_plane_is_cropped_and_padded_about_its_centre():
    volume = np.zeros((5, 9, 1))
    volume[2, 4] = 1
    fitted = fit_plane(volume, (9, 5), fill=-1)
    assert fitted.shape == (9, 5, 1)
    assert fitted[4, 2, 0] == 1
    assert (fitted[:2] == -1).all()
    assert encode_ct(-1000.0) == 0  # padding with air is 0 once encoded
