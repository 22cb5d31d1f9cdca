"""The archive stores what was cropped, its statistics are those of its volumes, and it is written atomically."""

import shutil

import numpy as np
import pandas as pd
import pytest
import zarr

from totalgen.data.archive import Archive, pack, report_splits, verify_archive
from totalgen.data.intensity import CT, SUV, Encoding
from totalgen.data.recipes import ORGANS, PetCt, Volumes, doses, fit_grid, pairs, recipe_from, statistics
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
    path, packed, failed = pack(tmp_path, PetCt(shape=SHAPE))
    archive = Archive(path)
    assert (packed, failed, archive.recipe.shape, archive.data["voxel_mm"]) == (3, 0, SHAPE, 6.0)
    ct = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "CT.nii.gz").voxels, -500, 500)
    suv = np.clip(read_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz").voxels, 0, 25)
    stored = archive.tensor(1, "high").numpy()
    assert np.abs(CT.decode(stored[0]) - ct).max() < 0.5  # half a float16 step of 1000 HU
    assert np.abs(SUV.decode(stored[1]) / suv.clip(0.1) - suv / suv.clip(0.1)).max() < 0.01
    for phase in (0, 17, 63):
        assert np.array_equal(archive.array(1, "low")[phase], subsample(archive.array(1, "high")[:], phase))


def test_statistics_come_from_the_training_split_alone(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path = tmp_path / "cropped" / "s2" / "CT.nii.gz"  # the test subject, made unlike the others
    brighter = read_nifti(path)
    write_nifti(path, Volume(brighter.voxels + 1000, brighter.affine))
    archive = Archive(pack(tmp_path, PetCt(shape=SHAPE))[0])
    train = np.stack([archive.array(i, "high")[:].astype(np.float64) for i in archive.indices("train")])
    assert archive.indices("test") == [2]
    assert archive.statistics["low_mean"] == pytest.approx(train.mean((0, 2, 3, 4)).tolist(), abs=0.02)
    assert archive.statistics["low_std"] == pytest.approx(train.std((0, 2, 3, 4)).tolist(), rel=0.05)
    assert archive.statistics["residual_mean"] == pytest.approx([0, 0], abs=0.02)  # interpolation is unbiased


def test_packing_twice_changes_nothing_and_another_shape_is_refused(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, PetCt(shape=SHAPE))
    stamp = path.stat().st_mtime_ns
    assert pack(tmp_path, PetCt(shape=SHAPE))[1] == 3
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="--overwrite"):
        pack(tmp_path, PetCt(shape=(16, 16, 32)))


def test_a_study_without_its_partner_is_listed_and_the_rest_is_packed(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    (tmp_path / "cropped" / "s0" / "SUV.nii.gz").unlink()
    path, packed, failed = pack(tmp_path, PetCt(shape=SHAPE))
    assert (packed, failed) == (2, 1)
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert failures["subject"].tolist() == ["s0"]
    assert "SUV.nii.gz: no such file" in failures["error"][0]
    assert [row["subject"] for row in Archive(path).subjects] == ["s1", "s2"]


def test_nothing_is_left_behind_when_every_study_fails(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    for path in tmp_path.glob("cropped/*/CT.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match="Step pack_training failed for all 3"):
        pack(tmp_path, PetCt(shape=SHAPE))
    assert not (tmp_path / "training.zarr").exists()


def test_a_shape_that_cannot_be_subsampled_and_a_foreign_folder_are_refused(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    with pytest.raises(InputError, match="divisible by 4"):
        pack(tmp_path, PetCt(shape=(16, 18, 24)))
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
    assert CT.encode(-1000.0) == 0  # padding with air is 0 once encoded


def content(root):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "training.zarr").rglob("*") if p.is_file()}


def add_subject(root, name, split="train"):
    shutil.copytree(root / "cropped" / "s0", root / "cropped" / name)
    table = pd.read_csv(root / "cohort.csv")
    row = table.iloc[0].to_dict() | dict(subject=name, split=split)
    pd.concat([pd.DataFrame([row]), table]).to_csv(root / "cohort.csv", index=False)  # in front, as an A would sort


def test_adding_subjects_appends_and_touches_no_other(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    pack(tmp_path, PetCt(shape=SHAPE))
    before = content(tmp_path)
    add_subject(tmp_path, "a")
    path, packed, _ = pack(tmp_path, PetCt(shape=SHAPE))
    after = content(tmp_path)
    changed = {p for p in before if before[p] != after[p]}
    assert changed == {path / "zarr.json"}
    assert [row["subject"] for row in Archive(path).subjects] == ["s0", "s1", "s2", "a"]
    assert packed == 4
    shutil.rmtree(path)
    anew = Archive(pack(tmp_path, PetCt(shape=SHAPE))[0])
    assert anew.statistics["low_std"] == pytest.approx(Archive(path).statistics["low_std"])


def test_a_study_that_changed_is_encoded_again_and_a_split_only_noted(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, PetCt(shape=SHAPE))
    before = content(tmp_path)
    suv = read_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz")
    write_nifti(tmp_path / "cropped" / "s1" / "SUV.nii.gz", Volume(suv.voxels / 2, suv.affine))
    table = pd.read_csv(tmp_path / "cohort.csv")
    table.loc[table["subject"] == "s0", "split"] = "test"
    table.to_csv(tmp_path / "cohort.csv", index=False)
    pack(tmp_path, PetCt(shape=SHAPE))
    changed = {p.relative_to(path).parts[0] for p, now in content(tmp_path).items() if before.get(p) != now}
    assert changed == {"s1", "zarr.json"}
    archive = Archive(path)
    assert archive.indices("train") == [1]
    assert SUV.decode(archive.tensor(1, "high", 1).numpy()) == pytest.approx(suv.voxels.clip(0, 50) / 2, abs=0.01)


@pytest.mark.parametrize(("column", "value"), [("weight_kg", None), ("sex", "X"), ("sex", None), ("height_m", 170)])
def test_a_person_who_is_none_any_more_is_listed_and_not_learnt_from(tmp_path, cropped_cohort, column, value):
    """As one who is packed for the first time: trainings would end in a KeyError."""
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, PetCt(shape=SHAPE))
    table = pd.read_csv(tmp_path / "cohort.csv").astype({column: object})
    table.loc[table["subject"] == "s1", column] = value
    table.to_csv(tmp_path / "cohort.csv", index=False)
    assert pack(tmp_path, PetCt(shape=SHAPE))[1:] == (2, 1)
    assert [row["subject"] for row in Archive(path).subjects] == ["s0", "s2"]
    assert pd.read_csv(tmp_path / "failures.csv")["subject"].tolist() == ["s1"]


def test_a_subject_that_left_the_cohort_requires_a_new_archive(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, PetCt(shape=SHAPE))
    table = pd.read_csv(tmp_path / "cohort.csv")
    table[table["subject"] != "s1"].to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(InputError, match="holds s1, who is not in the cohort"):
        pack(tmp_path, PetCt(shape=SHAPE))
    pack(tmp_path, PetCt(shape=SHAPE), overwrite=True)
    assert sorted(p.name for p in path.iterdir()) == ["s0", "s2", "zarr.json"]


def test_a_damaged_voxel_does_not_match_the_checksum(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    path, *_ = pack(tmp_path, PetCt(shape=SHAPE))
    assert verify_archive(tmp_path / "training.zarr") == 3
    zarr.open_group(path / "s1", mode="r+")["low"][5, 0, 1, 1, 1] += 0.1
    with pytest.raises(InputError, match=r"s1 differ from their checksums"):
        verify_archive(tmp_path / "training.zarr")


def test_a_subject_records_what_it_was_made_from(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    pd.DataFrame([dict(subject="s1", factor=0.5, warnings="")]).to_csv(tmp_path / "suv.csv", index=False)
    archive = Archive(pack(tmp_path, PetCt(shape=SHAPE))[0])
    made = archive.attributes(1)["provenance"]
    assert made["suv"] == dict(factor=0.5)
    assert made["files"]["CT"][0] == (tmp_path / "cropped" / "s1" / "CT.nii.gz").stat().st_size
    study = archive.array(1, "high")[:].astype(np.float64)
    found = archive.attributes(1)["moments"]["low"]
    assert found[0] == pytest.approx(study.mean((1, 2, 3)), abs=0.02)
    assert found[1] == pytest.approx((study**2).mean((1, 2, 3)), abs=0.02)


def test_partial_torsos_are_packed_and_left_out_of_training(tmp_path, cropped_cohort, capsys):
    cropped_cohort(tmp_path, subjects=4)
    put_column(tmp_path / "cohort.csv", "covers_torso", {"s0": False, "s1": True, "s3": False})
    archive = Archive(pack(tmp_path, PetCt(shape=SHAPE))[0])
    assert archive.indices("train") == [1, 2]  # of s2 nothing is known
    assert archive.indices("train", partial=True) == [0, 1, 2]
    assert archive.statistics == statistics([archive.attributes(i)["moments"] for i in (1, 2)])
    report_splits(archive.path)
    assert "trainings learn from train, but for 1 that show part of a torso" in capsys.readouterr().out
    put_column(tmp_path / "cohort.csv", "covers_torso", dict.fromkeys(["s0", "s1", "s2", "s3"], False))
    archive = Archive(pack(tmp_path, PetCt(shape=SHAPE))[0])
    whole, every = (
        GlobalTask(TaskSettings(shape=SHAPE, partial_torsos=partial), archive.data) for partial in (False, True)
    )
    with pytest.raises(InputError, match=r"all 3 subjects of split train show only part.*partial_torsos=True"):
        Items(whole, archive)
    assert len(Items(every, archive).subjects) == 3


def a_chunk(path, subject="s1", array="high"):
    return next(p for p in sorted((path / subject / array).rglob("*")) if p.is_file() and p.name != "zarr.json")


def cut(path):
    chunk = a_chunk(path)
    chunk.write_bytes(chunk.read_bytes()[:-7])


def cut_in_an_earlier_version(path):
    del zarr.open_group(path / "s1", mode="r+").attrs["stored"]
    cut(path)


def other_shape(path):
    group = zarr.open_group(path / "s1", mode="r+")
    del group["high"]
    group.create_array("high", shape=(2, 8, 8, 8), dtype="float16")[:] = 0.5


def other_type(path):
    group = zarr.open_group(path / "s1", mode="r+")
    values = group["low"][:].astype(np.float64)
    del group["low"]
    group.create_array("low", shape=values.shape, dtype="float64")[:] = values


def larger_than_its_files(path):
    about = path / "s1" / "low" / "zarr.json"
    about.write_text(about.read_text().replace('"shape":[64,', '"shape":[640000000,').replace(
        '"shape": [\n    64,', '"shape": [\n    640000000,'))  # fmt: skip


DAMAGES = {  # what happened to subject s1 → what is said of it
    "a chunk is empty": (lambda path: a_chunk(path).write_bytes(b""), "they were cut"),
    "a chunk is cut": (cut, "they were cut"),
    "a chunk is cut, earlier version": (cut_in_an_earlier_version, "high of s1 cannot be read"),
    "a chunk is missing": (lambda path: a_chunk(path).unlink(), "they were cut"),
    "another shape": (other_shape, r"has high of \(2, 8, 8, 8\), float16, not \(2, 16, 16, 24\)"),
    "another type": (other_type, "float64, not .* float16"),
    "larger than its files": (larger_than_its_files, "has low of"),
    "an array is missing": (lambda path: shutil.rmtree(path / "s1" / "low"), "lacks low"),
    "its attributes are gone": (lambda path: (path / "s1" / "zarr.json").unlink(), "is missing"),
    "its attributes are garbage": (lambda path: (path / "s1" / "zarr.json").write_bytes(bytes(20)), "is missing"),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory, cropped_cohort):
    """A cohort that is packed, to copy."""
    root = cropped_cohort(tmp_path_factory.mktemp("packed"))
    pack(root, PetCt(shape=SHAPE))
    return root


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_subject_is_named_and_packed_again(tmp_path, packed, name):
    happen, words = DAMAGES[name]
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "training.zarr"
    before = Archive(path).array(1, "high")[:]
    others = (path / "s0" / "zarr.json").stat().st_mtime_ns
    happen(path)
    with pytest.raises(InputError, match="s1 differ"):
        verify_archive(path)
    with pytest.raises(InputError, match=f"s1.*{words}|{words}") as refusal:
        Archive(path).array(1, "high")[:]
    assert "s1" in str(refusal.value)
    assert "6_pack_training_set.py" in str(refusal.value)
    if name != "a chunk is cut, earlier version":  # length not known: noticed where it is read
        with pytest.raises(InputError, match="s1"):
            Items(GlobalTask(TaskSettings(shape=SHAPE), Archive(path).data), Archive(path))
    pack(tmp_path, PetCt(shape=SHAPE))
    assert verify_archive(path) == 3
    assert np.array_equal(Archive(path).array(1, "high")[:], before)
    assert (path / "s0" / "zarr.json").stat().st_mtime_ns == others  # only what was damaged is packed again


def test_an_archive_whose_statistics_are_not_finite_is_refused(tmp_path, packed):
    path = shutil.copytree(packed / "training.zarr", tmp_path / "training.zarr")
    group = zarr.open_group(path, mode="r+")
    group.attrs["statistics"] = dict(group.attrs["statistics"], low_mean=[float("nan"), 0.0])
    with pytest.raises(InputError, match="its statistics are not finite"):
        Archive(path)


def test_a_grid_smaller_than_the_bodies_says_what_is_lost(tmp_path, cropped_cohort, capsys):
    cropped_cohort(tmp_path)
    for n in (0, 1):
        body = np.full((16, 16, 24), -1000, np.float32)
        body[2:14, 4:12] = 40  # 12 voxels wide, of which 8 remain
        write_nifti(tmp_path / "cropped" / f"s{n}" / "CT.nii.gz", Volume(body, np.diag([6.0, 6, 6, 1])))
    ct = read_nifti(tmp_path / "cropped" / "s2" / "CT.nii.gz")
    write_nifti(tmp_path / "cropped" / "s2" / "CT.nii.gz", Volume(np.full_like(ct.voxels, -1000), ct.affine))
    pack(tmp_path, PetCt(shape=(8, 8, 24)))
    assert "cuts the bodies of 2 of 3 subjects, of s0 most (33.3 % of the voxels)" in capsys.readouterr().err
    pack(tmp_path, PetCt(shape=(16, 16, 24)), overwrite=True)
    assert "cuts" not in capsys.readouterr().err


def test_a_grid_that_no_machine_holds_is_refused(tmp_path, cropped_cohort):
    cropped_cohort(tmp_path)
    with pytest.raises(InputError, match=r"--shape 100000×100000×100000 needs about 4e\+07 GB of memory"):
        pack(tmp_path, PetCt(shape=(100_000,) * 3))
    assert not (tmp_path / "training.zarr").exists()


def test_volumes_whose_labels_have_another_grid_are_named(tmp_path):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    ct = np.where(np.arange(8) < 4, -1000.0, 40.0) * np.ones((6, 7, 8))
    for name, voxels in (("CT", ct.astype(np.float32)), ("organs", np.ones((6, 7, 8), np.uint8))):
        write_nifti(tmp_path / "cropped" / "a" / f"{name}.nii.gz", Volume(voxels, affine))
    pd.DataFrame([dict(subject="a", split="train")]).to_csv(tmp_path / "cohort.csv", index=False)
    path, *_ = pack(tmp_path, ORGANS)
    group = zarr.open_group(path / "a", mode="r+")
    del group["labels"]
    group.create_array("labels", shape=(1, 6, 7, 9), dtype="uint8")[:] = 1
    with pytest.raises(InputError, match=r"a has labels of \(1, 6, 7, 9\), uint8, not \(1, 6, 7, 8\)"):
        Archive(path).check([0])


def test_a_padded_axis_keeps_the_length_between_air(tmp_path, cropped_cohort):
    """The paper's text: nothing is stretched, so that the subject comes back voxel by voxel."""
    root = cropped_cohort(tmp_path)
    archive = Archive(pack(root, PetCt(shape=(16, 16, 32), axial="pad"))[0])
    assert archive.recipe.axial == "pad"
    high = archive.array(0, "high")[:].astype(np.float32)
    name = archive.subjects[0]["subject"]
    ct = read_nifti(root / "cropped" / name / "CT.nii.gz").voxels
    assert np.abs(high[0, :, :, 4:28] - CT.encode(ct)).max() < 1e-3
    assert (high[:, :, :, :4] == 0).all()
    assert (high[:, :, :, 28:] == 0).all()
    with pytest.raises(InputError, match="was packed with axial pad"):
        pack(root, PetCt(shape=(16, 16, 32)))
    assert Archive(pack(root, PetCt(shape=(16, 16, 32)), overwrite=True)[0]).recipe.axial == "stretch"
    with pytest.raises(InputError, match=r"has 24 slices, more than 20, and would be cut"):
        pack(root, PetCt(shape=(16, 16, 20), axial="pad"), overwrite=True)


def test_an_archive_of_before_axial_was_kept_is_stretched(tmp_path, cropped_cohort):
    path, *_ = pack(cropped_cohort(tmp_path), PetCt(shape=SHAPE))
    group = zarr.open_group(path, mode="r+")
    attributes = dict(group.attrs)
    del attributes["recipe"], attributes["format_version"]
    group.attrs.put(attributes | dict(schema=2, channels=["CT", "SUV"], shape=SHAPE))
    for subject in ("s0", "s1", "s2"):
        del zarr.open_group(path / subject, mode="r+").attrs["recipe"]
    stamp = (path / "s1" / "zarr.json").stat().st_mtime_ns
    assert Archive(path).recipe == PetCt(shape=SHAPE)
    pack(tmp_path, PetCt(shape=SHAPE))
    assert (path / "s1" / "zarr.json").stat().st_mtime_ns == stamp  # what was packed is kept
    assert dict(zarr.open_group(path, mode="r").attrs)["format_version"] == 3


def test_the_intensity_window_is_kept_and_decides_what_is_stored(tmp_path, cropped_cohort):
    root = cropped_cohort(tmp_path)
    wide = dict(CT=Encoding("window", -1000.0, 1000.0), SUV=Encoding("log", 0.0, 40.0))
    archive = Archive(pack(root, PetCt(shape=SHAPE, encodings=wide))[0])
    assert archive.recipe.encodings == wide
    assert archive.data["encodings"]["SUV"] == dict(kind="log", low=0.0, high=40.0)
    for channel, name, tolerance in ((0, "CT", 1.1), (1, "SUV", 0.1)):
        values = read_nifti(root / "cropped" / "s1" / f"{name}.nii.gz").voxels
        stored = archive.array(1, "high")[channel].astype(np.float64)
        expected = np.clip(values, wide[name].low, wide[name].high)
        assert np.abs(wide[name].decode(stored) - expected).max() < tolerance
    with pytest.raises(InputError, match="was packed with encodings.*--overwrite"):
        pack(root, PetCt(shape=SHAPE))


def test_the_affine_of_the_stored_grid_leads_back_to_the_world(tmp_path, cropped_cohort):
    """A linear ramp along z has, at every stored voxel, the value of that voxel's place in the world."""
    root = cropped_cohort(tmp_path)
    for axial, shape in (("stretch", (12, 20, 48)), ("pad", (12, 20, 32))):
        for name in ("CT", "SUV"):
            volume = read_nifti(root / "cropped" / "s1" / f"{name}.nii.gz")
            ramp = np.broadcast_to(np.arange(24) * 6.0, (16, 16, 24)).astype(np.float32)
            write_nifti(root / "cropped" / "s1" / f"{name}.nii.gz", Volume(ramp, volume.affine))
        archive = Archive(pack(root, PetCt(shape=shape, axial=axial), overwrite=True)[0])
        affine = np.array(archive.attributes(1)["affine"])
        ct = CT.decode(archive.array(1, "high")[0].astype(np.float64))
        for z in (10, 20, 30):
            at = (affine @ [3, 9, z, 1])[:3]
            if 0 < at[2] < 6 * 23:
                assert ct[3, 9, z] == pytest.approx(at[2], abs=0.6)
        assert (affine @ [0, 0, 0, 1])[:2].tolist() == [12, -12]  # two voxels are cut in x, two added in y


def volumes_cohort(root):
    """Three subjects without demographics, each on a grid of its own."""
    random = np.random.default_rng(0)
    for n, shape in enumerate([(5, 6, 7), (12, 3, 9), (1, 8, 8)]):
        affine = np.array([[0, -2, 0, n], [3, 0, 0, 2], [0, 0, 4, 1], [0, 0, 0, 1.0]])  # axes swapped, one reversed
        for name, values in (("low", 3.0), ("full", 300.0)):
            voxels = (values * random.random(shape)).astype(np.float32)
            write_nifti(root / "pairs" / f"s{n}" / f"{name}.nii.gz", Volume(voxels, affine))
        mask = Volume((random.random(shape) > 0.5).astype(np.uint8), affine)
        write_nifti(root / "pairs" / f"s{n}" / "mask.nii.gz", mask)
    (root / "cohort.csv").write_text("subject,split\ns0,train\ns1,train\ns2,test\n")
    unit = Encoding("linear", 0.0, 10.0)
    return Volumes("pairs", dict(low=unit, full=unit), labels=("mask",), folder="pairs")


def test_volumes_keep_their_own_grid_shape_and_values(tmp_path):
    recipe = volumes_cohort(tmp_path)
    path, packed, failed = pack(tmp_path, recipe)
    archive = Archive(path)
    assert (path.name, packed, failed) == ("pairs.zarr", 3, 0)
    assert archive.recipe == recipe == recipe_from(recipe.settings())
    for row in range(3):
        for channel, name in enumerate(("low", "full")):
            volume = read_nifti(tmp_path / "pairs" / f"s{row}" / f"{name}.nii.gz")
            stored = archive.tensor(row, "volumes", channel).numpy() * 10
            assert stored == pytest.approx(volume.voxels, rel=1e-3)  # 300 is 30 units: nothing is cut
            assert np.allclose(archive.attributes(row)["affine"], volume.affine)
        mask = read_nifti(tmp_path / "pairs" / f"s{row}" / "mask.nii.gz", np.uint8).voxels
        assert np.array_equal(archive.array(row, "labels")[0], mask)
        assert archive.attributes(row)["counts"]["mask"][1] == mask.sum()
    both = np.concatenate([archive.array(row, "volumes")[1].ravel().astype(float) for row in (0, 1)])
    means = [archive.array(row, "volumes")[1].astype(float).mean() for row in (0, 1)]
    assert archive.statistics["volumes_mean"][1] == pytest.approx(np.mean(means), rel=1e-3)
    assert archive.statistics["volumes_std"][1] == pytest.approx(both.std(), rel=0.05)
    assert verify_archive(path) == 3
    assert pack(tmp_path, recipe)[1] == 3


def test_volumes_of_two_grids_or_of_another_unit_are_listed(tmp_path):
    recipe = volumes_cohort(tmp_path)
    path = tmp_path / "pairs" / "s0" / "full.nii.gz"
    volume = read_nifti(path)
    write_nifti(path, Volume(volume.voxels * 1e5, volume.affine))
    path = tmp_path / "pairs" / "s2" / "mask.nii.gz"
    write_nifti(path, Volume(read_nifti(path, np.uint8).voxels, np.diag([2.0, 3, 4, 1])))
    assert pack(tmp_path, recipe)[1:] == (1, 2)
    reasons = pd.read_csv(tmp_path / "failures.csv").set_index("subject")["error"]
    assert "times what is stored as 1" in reasons["s0"]
    assert "differ in their grids" in reasons["s2"]


@pytest.mark.parametrize(("recipe", "name", "change", "words"), [
    (pairs((-1000, 1000), 1000), "CT", lambda hu: hu + 1024, "air is -1000 HU"),
    (doses(16, False, "pairs"), "SUV", lambda suv: 5000 * suv, "no SUV but perhaps Bq/mL"),
    (doses(16, True, "pairs"), "truth", lambda suv: 5000 * suv, "no SUV but perhaps Bq/mL"),
    (doses(16, False, "pairs"), "SUV", lambda suv: 200 * suv - 1000, "a CT, or values without their rescale"),
])  # fmt: skip
def test_what_is_no_hu_or_no_suv_is_listed_and_not_learnt_from(tmp_path, recipe, name, change, words):
    random, affine = np.random.default_rng(0), np.eye(4)
    for n in range(2):
        made = dict(CT=np.where(np.arange(8)[:, None, None] < 4, -1000, random.normal(40, 20, (8, 8, 8))))
        made |= {kind: random.gamma(1, 1, (8, 8, 8)) for kind in ("SUV", "truth", "MR")}
        made[name] = change(made[name]) if n else made[name]
        for kind in recipe.encodings:
            volume = Volume(made[kind].astype(np.float32), affine)
            write_nifti(tmp_path / "pairs" / f"s{n}" / f"{kind}.nii.gz", volume)
    (tmp_path / "cohort.csv").write_text("subject,split\ns0,train\ns1,train\n")
    assert pack(tmp_path, recipe)[1:] == (1, 1)
    reasons = pd.read_csv(tmp_path / "failures.csv").set_index("subject")["error"]
    assert f"{name}.nii.gz: " in reasons["s1"]
    assert words in reasons["s1"]


def test_two_archives_of_one_cohort_do_not_disturb_each_other(tmp_path, cropped_cohort):
    root = cropped_cohort(tmp_path)
    pack(root, PetCt(shape=SHAPE))
    with pytest.raises(InputError, match="Step pack_organs failed"):
        pack(root, ORGANS)  # there are no masks
    assert verify_archive(root / "training.zarr") == 3
    assert set(pd.read_csv(root / "failures.csv")["step"]) == {"pack_organs"}


def test_an_encoding_is_its_formula_and_comes_back():
    values = np.array([-1000.0, -500.0, 0.0, 300.0, 700.0])
    assert CT.encode(values).tolist() == [0, 0, 0.5, 0.8, 1]
    assert CT.decode(CT.encode(values)).tolist() == pytest.approx([-500, -500, 0, 300, 500])
    suv = np.array([0.0, 1.0, 25.0, 90.0])
    assert SUV.encode(suv).tolist() == pytest.approx([0, np.log(2) / np.log(26), 1, 1])
    assert SUV.decode(SUV.encode(suv)).tolist() == pytest.approx([0, 1, 25, 25])
    linear = Encoding("linear", 0.0, 4.0)
    assert linear.decode(linear.encode(np.array([-1.0, 9.0]))).tolist() == [-1, 9]
    with pytest.raises(InputError, match="the first is not below"):
        Encoding("window", 3.0, 3.0)
    with pytest.raises(InputError, match="is not known"):
        Encoding("square", 0.0, 1.0)
