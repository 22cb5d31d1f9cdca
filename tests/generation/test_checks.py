"""Studies that fail the check are made again, by seeds that follow from the first, and never without a word."""

from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.organs import ORGANS
from totalgen.data.quality import Reference, SexReference
from totalgen.data.volume import Volume
from totalgen.errors import InputError
from totalgen.generation import export
from totalgen.generation.checks import PASSED, UNKNOWN, Checks, failed, reference_beside
from totalgen.generation.cohort import Request, generate_cohort, study_seed
from totalgen.generation.organ_export import OrganExport

WOMAN = dict(sex="F", age_years=60.0, height_m=1.65, weight_kg=66.0)
MAN = dict(WOMAN, sex="M")
LINE = dict(intercept=0.0, per_m=0.0, per_kg=0.0, residual=(10.0, 20.0))  # a mass of 8 to 22 kg passes
KNOWN = Reference({"F": SexReference(20, LINE, {})}, (-500.0, 500.0), "ab" * 32)
AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])
RESOURCE = Path(__file__).resolve().parents[2] / "Resource"
REQUESTS = [Request("a", WOMAN, 1), Request("b", WOMAN, 2)]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("write_preview", "write_mip_gif"):
        monkeypatch.setattr(export, name, lambda *_: None)  # they take most of the time, and are tested elsewhere


class Blocks:
    """A pipeline whose body is a block of water. lengths: seed → slices of it, 20×20 voxels of 1 mL each; else 40."""

    outputs = ("CT", "SUV")

    def __init__(self, **lengths):
        self.lengths = {int(seed.strip("s")): slices for seed, slices in lengths.items()}
        self.seeds = []

    def source(self, row):
        return Demographics.from_row(row)

    def doubts(self, source):
        return []

    def describe(self, source):
        return vars(source) | dict(source="blocks of phantom water")

    def run(self, source, seed=0, progress=iter):
        self.seeds.append(seed)
        ct = np.full((24, 24, 50), -1000, np.int16)
        ct[2:22, 2:22, : self.lengths.get(seed, 40)] = 0
        return dict(CT=Volume(ct, AFFINE), SUV=Volume(np.ones(ct.shape, np.float32), AFFINE))


def further(name, seed, attempt):
    return study_seed(seed, name, -attempt)


def test_a_study_that_passes_is_made_once(tmp_path, capsys):
    pipeline = Blocks()
    generate_cohort(pipeline, REQUESTS, tmp_path, "x", checks=Checks(reference=KNOWN, retry=2))
    table = pd.read_csv(tmp_path / "manifest.csv")
    assert pipeline.seeds == [1, 2]
    assert list(table["quality"]) == [f"{PASSED} without organs"] * 2
    assert list(table["attempts"]) == [1, 1]
    assert list(table["reference"]) == ["ab" * 32] * 2
    assert 16 < table["mass_kg"][0] < 18
    assert "Warning" not in capsys.readouterr().err


def test_a_study_that_fails_is_made_again_by_the_next_seed_and_is_done_then(tmp_path, capsys):
    pipeline = Blocks(s1=5)
    generate_cohort(pipeline, REQUESTS, tmp_path, "x", checks=Checks(reference=KNOWN, retry=2))
    assert pipeline.seeds == [1, further("a", 1, 1), 2]
    said = capsys.readouterr()
    seed = further("a", 1, 1)
    assert "Warning: a: attempt 1 fails the check (mass 2.3 kg, 8.0 to 22.0 in training)" in said.err
    assert f"; generated again with seed {seed}." in said.err
    assert "1 of 2 studies took several attempts, 2 together" in said.out
    table = pd.read_csv(tmp_path / "manifest.csv").set_index("subject")
    assert (table.loc["a", "seed"], table.loc["a", "seed_used"], table.loc["a", "attempts"]) == (1, seed, 2)
    before = (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns
    for checks in (Checks(reference=KNOWN, retry=2), Checks(reference=KNOWN), None):
        generate_cohort(pipeline, REQUESTS, tmp_path, "x", checks=checks)
    assert (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns == before


def test_a_study_that_never_passes_is_kept_with_its_faults(tmp_path, capsys):
    again = {f"s{further('b', 2, attempt)}": 5 for attempt in (1, 2)}
    generate_cohort(Blocks(s2=5, **again), REQUESTS, tmp_path, "x", checks=Checks(reference=KNOWN, retry=2))
    said = capsys.readouterr().err
    assert "b: attempt 3 fails the check" in said
    assert "; it is kept." in said
    assert "1 of 2 studies fail the quality check (b) and are kept" in said
    row = pd.read_csv(tmp_path / "manifest.csv").set_index("subject").loc["b"]
    assert row["quality"] == "mass 2.3 kg, 8.0 to 22.0 in training"
    assert row["attempts"] == 3
    assert (tmp_path / "b" / "CT.nii.gz").exists()
    assert "quality mass 2.3 kg" in (tmp_path / "index.html").read_text()


def test_attempts_may_be_asked_for_later_and_lead_to_the_same(tmp_path):
    at_once, later = tmp_path / "once", tmp_path / "later"
    seeds = []
    for retry in (0, 1):
        pipeline = Blocks(s1=5)
        generate_cohort(pipeline, REQUESTS, later, "x", checks=Checks(reference=KNOWN, retry=retry))
        seeds += [pipeline.seeds]
    assert seeds == [[1, 2], [further("a", 1, 1)]]  # what failed is not made again
    generate_cohort(Blocks(s1=5), REQUESTS, at_once, "x", checks=Checks(reference=KNOWN, retry=1))
    files = sorted(path.relative_to(at_once) for path in at_once.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(later) for path in later.rglob("*") if path.is_file())
    assert all((at_once / file).read_bytes() == (later / file).read_bytes() for file in files)


def test_another_reference_judges_what_is_there_again(tmp_path):
    heavy = SexReference(20, LINE | dict(residual=(50.0, 60.0)), {})
    stricter = Reference({"F": heavy}, (-500.0, 500.0), "cd" * 32)
    generate_cohort(Blocks(), REQUESTS, tmp_path, "x", checks=Checks(reference=KNOWN))
    before = (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns
    generate_cohort(Blocks(), REQUESTS, tmp_path, "x", checks=Checks(reference=stricter))
    table = pd.read_csv(tmp_path / "manifest.csv").set_index("subject")
    assert set(table["reference"]) == {"cd" * 32}
    assert "kg" in table.loc["a", "quality"]
    assert (table.loc["a", "attempts"], table.loc["a", "seed_used"]) == (1, 1)
    assert (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns == before


def test_organs_are_labelled_before_the_check_and_written(tmp_path):
    numbers = count()

    def label(name, ct):
        return Volume(np.full(ct.shape, next(numbers), np.uint8), ct.affine)

    spleen = dict(volume=(20000.0, 30000.0), hu=(-500.0, 0.0), suv=(1.0, 1.0))
    known = Reference({"F": SexReference(20, LINE, {"spleen": spleen})}, KNOWN.window_hu)
    checks = Checks(label, "somebody", known, retry=1)
    generate_cohort(Blocks(), REQUESTS[:1], tmp_path, "x", checks=checks)  # 0: nothing, 1: all of it is spleen
    row = pd.read_csv(tmp_path / "manifest.csv").iloc[0]
    assert (row["quality"], row["attempts"], row["segmenter"]) == (PASSED, 2, "somebody")
    assert (tmp_path / "a" / "organs.nii.gz").exists()


def label_all(name, ct):
    return Volume(np.full(ct.shape, ORGANS["spleen"], np.uint8), ct.affine)


def highest(folder, source, volumes, row):
    (folder / "highest.txt").write_text(f"{row['subject']} {volumes['SUV'].voxels.max():.0f}")


def listing(folder, source, volumes, row):
    (folder / "list").mkdir()
    (folder / "list" / "names.txt").write_text(f"{sorted(volumes)} {(folder / 'organs.csv').exists()}")


def test_what_is_asked_for_later_is_made_of_the_volumes_that_are_there(tmp_path):
    """As it would have been made at once, organs and what the check says of them included; nothing is sampled again."""
    pipeline, known, checks = Blocks(), Checks(reference=KNOWN), Checks(label_all, "somebody", KNOWN)
    exports = {"organs.csv": OrganExport(label_all, "somebody"), "highest.txt": highest, "list": listing}
    generate_cohort(Blocks(), REQUESTS, tmp_path / "once", "x", exports=exports, checks=checks)
    generate_cohort(pipeline, REQUESTS, tmp_path / "later", "x", checks=known)
    made = (tmp_path / "later/a/CT.nii.gz").read_bytes()
    generate_cohort(pipeline, REQUESTS, tmp_path / "later", "x", exports={"list": listing}, checks=known)
    assert "False" in (tmp_path / "later/a/list/names.txt").read_text()
    organs = ["organs.csv", "highest.txt"]  # what else is there is made again though not asked for:
    generate_cohort(pipeline, REQUESTS, tmp_path / "later", "x", exports=exports, checks=checks, asked=organs)
    assert "True" in (tmp_path / "later/a/list/names.txt").read_text()  # it shows what comes before it
    files = {path.relative_to(tmp_path / "once"): path for path in (tmp_path / "once").rglob("*") if path.is_file()}
    assert len(files) > 12
    for name, path in files.items():
        assert (tmp_path / "later" / name).read_bytes() == path.read_bytes(), name
    assert pipeline.seeds == [1, 2]
    assert (tmp_path / "later/a/CT.nii.gz").read_bytes() == made
    table = pd.read_csv(tmp_path / "later/manifest.csv")
    assert list(table["quality"]) == [PASSED] * 2
    others = Checks(label_all, "somebody else", KNOWN)
    with pytest.raises(InputError, match="a: was made with another segmenter"):
        generate_cohort(pipeline, REQUESTS, tmp_path / "later", "x", exports=exports, checks=others)


def test_an_export_that_nobody_asks_for_is_made_again_with_its_study_but_not_written_first(tmp_path):
    exports = {"highest.txt": highest}
    generate_cohort(Blocks(), REQUESTS, tmp_path, "x", exports=exports, asked=[])
    assert not (tmp_path / "a/highest.txt").exists()
    generate_cohort(Blocks(), REQUESTS, tmp_path, "x", exports=exports)
    (tmp_path / "a/SUV.nii.gz").unlink()
    generate_cohort(Blocks(), REQUESTS, tmp_path, "x", exports=exports, asked=[])
    assert (tmp_path / "a/highest.txt").exists()
    assert (tmp_path / "a/SUV.nii.gz").exists()


def test_what_is_not_finite_fails_without_a_reference():
    volumes = dict(CT=Volume(np.zeros((4, 4, 4)), AFFINE), SUV=Volume(np.full((4, 4, 4), np.nan), AFFINE))
    assert Checks().judged(None, volumes) == (["SUV not finite"], None)


@pytest.mark.parametrize("checks", [None, Checks(), Checks(reference=KNOWN, retry=1)])
def test_a_study_that_is_not_finite_is_not_done(tmp_path, capsys, checks):
    class Diverging(Blocks):
        def run(self, source, seed=0, progress=iter):
            volumes = super().run(seed=seed, source=source)
            if seed != 2:
                volumes["SUV"].voxels[3, 4, 5] = np.nan
            return volumes

    generate_cohort(Diverging(), REQUESTS, tmp_path, "x", checks=checks)
    assert not (tmp_path / "a").exists()
    assert "SUV: holds values that are not finite, and is not kept" in (tmp_path / "failures.csv").read_text()
    assert list(pd.read_csv(tmp_path / "manifest.csv")["subject"]) == ["b"]
    assert "it is kept" not in capsys.readouterr().err
    with pytest.raises(InputError, match="not finite"):
        generate_cohort(Diverging(), REQUESTS[:1], tmp_path, "x", checks=checks)


def test_somebody_of_whom_nothing_is_known_is_not_checked(tmp_path):
    generate_cohort(Blocks(), [Request("m", MAN, 1)], tmp_path, "x", checks=Checks(reference=KNOWN))
    generate_cohort(Blocks(), [Request("n", MAN, 1)], tmp_path, "x", checks=Checks())
    table = pd.read_csv(tmp_path / "manifest.csv")
    assert set(table["quality"]) == {UNKNOWN}
    assert not any(failed(row) for row in table.to_dict("records"))
    assert not failed(dict(quality=np.nan))


def test_the_shipped_weights_have_their_reference():
    known = reference_beside(RESOURCE / "demo-global-edm.safetensors")
    for sex in ("F", "M"):
        assert set(known.sexes[sex].organs) == set(ORGANS)
        assert known.sexes[sex].subjects > 50
    assert known.faults(Demographics("F", 60, 1.65, 66.0), {"mass_kg": 46.0}) == []  # of which 66 kg a torso has 70 %


def test_the_reference_is_the_one_beside_the_weights(tmp_path):
    assert reference_beside(tmp_path / "weights.safetensors") is None
    text = '{"format_version": 1, "window_hu": [-500, 500], "sexes": {}}'
    (tmp_path / "demo-reference.json").write_text(text)
    assert reference_beside(tmp_path / "weights.safetensors").window_hu == (-500, 500)
    (tmp_path / "reference.json").write_text(text)
    with pytest.raises(InputError, match="holds 2 references. Choose one with --reference"):
        reference_beside(tmp_path / "weights.safetensors")
    assert reference_beside(tmp_path / "weights.safetensors", tmp_path / "reference.json") is not None
