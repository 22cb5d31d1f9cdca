"""The archive stores what was cropped, its statistics are those of its volumes, and it is written atomically."""

import shutil

import numpy as np
import pandas as pd
import pytest
import zarr

from totalgen.data.archive import Archive, fit_grid, pack, statistics, verify_archive
from totalgen.data.intensity import decode_ct, decode_pet, encode_ct
from totalgen.data.resolution import subsample
from totalgen.data.subjects import put_column
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.settings import TaskSettings
from totalgen.tasks.items import Items
from totalgen.tasks.petct import GlobalTask

SHAPE = (16, 16, 24)


def test_volumes_survive_the_archive(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, packed, failed = pack(tmp_path, SHAPE)
    archive = Archive(path)
    assert (packed, failed, archive.shape, archive.voxel_mm) == (3, 0, SHAPE, 6.0)
    ct = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "CT.nii.gz").voxels, -500, 500)
    suv = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz").voxels, 0, 25)
    assert np.abs(decode_ct(archive.high(1)[0].astype(np.float32)) - ct).max() < 0.5  # half a float16 step of 1000 HU
    assert np.abs(decode_pet(archive.high(1)[1].astype(np.float32)) / suv.clip(0.1) - suv / suv.clip(0.1)).max() < 0.01
    for phase in (0, 17, 63):
        assert np.array_equal(archive.low(1)[phase], subsample(archive.high(1)[:], phase))


def test_statistics_come_from_the_training_split_alone(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path = tmp_path / "cropped" / "s2" / "CT.nii.gz"  # the test subject, made unlike the others
    brighter = read_nifti(path)
    write_nifti(path, Volume(brighter.voxels + 1000, brighter.affine))
    archive = Archive(pack(tmp_path, SHAPE)[0])
    train = np.stack([archive.high(i)[:].astype(np.float64) for i in archive.indices("train")])
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
    with pytest.raises(InputError, match="Step pack failed for all 3"):
        pack(tmp_path, SHAPE)
    assert not (tmp_path / "training.zarr").exists()


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
    fitted = fit_grid(volume, (9, 5), fill=-1)
    assert fitted.shape == (9, 5, 1)
    assert fitted[4, 2, 0] == 1
    assert (fitted[:2] == -1).all()
    assert encode_ct(-1000.0) == 0  # padding with air is 0 once encoded


def content(root):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "training.zarr").rglob("*") if p.is_file()}


def add_subject(root, name, split="train"):
    shutil.copytree(root / "cropped" / "s0", root / "cropped" / name)
    table = pd.read_csv(root / "cohort.csv")
    row = table.iloc[0].to_dict() | dict(subject=name, split=split)
    pd.concat([pd.DataFrame([row]), table]).to_csv(root / "cohort.csv", index=False)  # in front, as an A would sort


def test_adding_subjects_appends_and_touches_no_other(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    pack(tmp_path, SHAPE)
    before = content(tmp_path)
    add_subject(tmp_path, "a")
    path, packed, _ = pack(tmp_path, SHAPE)
    after = content(tmp_path)
    changed = {p for p in before if before[p] != after[p]}
    assert changed == {path / "zarr.json"}
    assert [row["subject"] for row in Archive(path).subjects] == ["s0", "s1", "s2", "a"]
    assert packed == 4
    shutil.rmtree(path)
    anew = Archive(pack(tmp_path, SHAPE)[0])
    assert anew.statistics["low_std"] == pytest.approx(Archive(path).statistics["low_std"])


def test_a_study_that_changed_is_encoded_again_and_a_split_only_noted(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, SHAPE)
    before = content(tmp_path)
    suv = read_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz")
    write_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz", Volume(suv.voxels / 2, suv.affine))
    table = pd.read_csv(tmp_path / "cohort.csv")
    table.loc[table["subject"] == "s0", "split"] = "test"
    table.to_csv(tmp_path / "cohort.csv", index=False)
    pack(tmp_path, SHAPE)
    changed = {p.relative_to(path).parts[0] for p, now in content(tmp_path).items() if before.get(p) != now}
    assert changed == {"s1", "zarr.json"}
    archive = Archive(path)
    assert archive.indices("train") == [1]
    assert decode_pet(archive.high(1)[1].astype(np.float32)) == pytest.approx(suv.voxels.clip(0, 50) / 2, abs=0.01)


def test_a_subject_that_left_the_cohort_requires_a_new_archive(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, SHAPE)
    table = pd.read_csv(tmp_path / "cohort.csv")
    table[table["subject"] != "s1"].to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(InputError, match="holds s1, who is not in the cohort"):
        pack(tmp_path, SHAPE)
    pack(tmp_path, SHAPE, overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == ["s0", "s2", "zarr.json"]


def test_a_damaged_voxel_does_not_match_the_checksum(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, SHAPE)
    assert verify_archive(tmp_path) == 3
    zarr.open_group(path / "s1", mode="r+")["low"][5, 0, 1, 1, 1] += 0.1
    with pytest.raises(InputError, match=r"s1 differ from their checksums"):
        verify_archive(tmp_path)


def test_a_subject_records_what_it_was_made_from(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    pd.DataFrame([dict(subject="s1", factor=0.5, warnings="")]).to_csv(tmp_path / "suv.csv", index=False)
    archive = Archive(pack(tmp_path, SHAPE)[0])
    made = archive.attributes(1)["provenance"]
    assert made["suv"] == dict(factor=0.5)
    assert made["files"]["CT"][0] == (tmp_path / "cropped" / "s1" / "CT.nii.gz").stat().st_size
    study = archive.high(1)[:].astype(np.float64)
    found = archive.attributes(1)["moments"]["low"]
    assert found[0] == pytest.approx(study.mean((1, 2, 3)), abs=0.02)
    assert found[1] == pytest.approx((study**2).mean((1, 2, 3)), abs=0.02)


def test_partial_torsos_are_packed_and_left_out_of_training(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path, subjects=4)
    put_column(tmp_path / "cohort.csv", "covers_torso", {"s0": False, "s1": True, "s3": False})
    archive = Archive(pack(tmp_path, SHAPE)[0])
    assert archive.indices("train") == [1, 2]  # of s2 nothing is known
    assert archive.indices("train", partial=True) == [0, 1, 2]
    assert archive.statistics == statistics([archive.attributes(i)["moments"] for i in (1, 2)])
    put_column(tmp_path / "cohort.csv", "covers_torso", dict.fromkeys(["s0", "s1", "s2", "s3"], False))
    archive = Archive(pack(tmp_path, SHAPE)[0])
    task = GlobalTask(TaskSettings(shape=SHAPE), dict(statistics=archive.statistics))
    with pytest.raises(InputError, match=r"all 3 subjects of split train show only part.*partial_torsos=True"):
        Items(task, archive, SHAPE)
    assert len(Items(task, archive, SHAPE, partial=True).subjects) == 3


@pytest.mark.parametrize("content", [b"", b"\x00" * 20], ids=["empty", "garbage"])
def test_a_broken_chunk_or_group_is_named_and_packed_again(tmp_path, cropped_cohort, content):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, SHAPE)
    before = Archive(path).high(1)[:]
    next(p for p in (path / "s1" / "high").rglob("*") if p.is_file() and p.name != "zarr.json").write_bytes(content)
    with pytest.raises(InputError, match="s1 differ"):
        verify_archive(tmp_path)
    (path / "s1" / "zarr.json").write_bytes(content)
    pack(tmp_path, SHAPE)
    assert verify_archive(tmp_path) == 3
    assert np.array_equal(Archive(path).high(1)[:], before)


def test_a_padded_axis_keeps_the_length_between_air(tmp_path, cropped_cohort):
    """The paper's text: nothing is stretched, so that the subject comes back voxel by voxel."""
    root = cropped_cohort(tmp_path)
    archive = Archive(pack(root, (16, 16, 32), axial="pad")[0])
    assert archive.axial == "pad"
    high = archive.high(0)[:].astype(np.float32)
    name = archive.subjects[0]["subject"]
    ct = read_nifti(root / "cropped" / name / "CT.nii.gz").voxels
    assert np.abs(high[0, :, :, 4:28] - encode_ct(ct)).max() < 1e-3
    assert (high[:, :, :, :4] == 0).all()
    assert (high[:, :, :, 28:] == 0).all()
    with pytest.raises(InputError, match="holds an axis z of --axial pad"):
        pack(root, (16, 16, 32))
    assert Archive(pack(root, (16, 16, 32), overwrite=True)[0]).axial == "stretch"
    with pytest.raises(InputError, match=r"has 24 slices, more than 20, and would be cut"):
        pack(root, (16, 16, 20), overwrite=True, axial="pad")


def test_an_archive_of_before_axial_was_kept_is_stretched(tmp_path, cropped_cohort):
    path, *_ = pack(cropped_cohort(tmp_path), SHAPE)
    group = zarr.open_group(path, mode="r+")
    attributes = dict(group.attrs)
    group.attrs.put({"schema" if k == "format_version" else k: v for k, v in attributes.items() if k != "axial"})
    assert Archive(path).axial == "stretch"
    assert Archive(path).shape == SHAPE
