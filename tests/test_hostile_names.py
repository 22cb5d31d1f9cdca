"""Whatever names come in, by tables, masks, requests or files: nothing is written outside a root, nothing replaced."""

import contextlib
import os
import random
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from totalgen.data.demographics import read_cohort
from totalgen.data.files import append_rows, atomic
from totalgen.data.input_names import input_name
from totalgen.data.names import check_below, check_masks, matching
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.errors import InputError
from totalgen.generation.cohort import matched_requests
from totalgen.generation.people import parsed, requests_for

PARTS = (
    "..", ".", "/", "//", "\\", "~", "~root", "\0", "\n", "\r", "\t", " ", "", "a", "p1", "NA", "nan", "é", "患者",
    "\u202e",
    "\ufeff", "\ud800", "x" * 99, "y" * 300, "CON", "nul", "com1.txt", "C:", "*", "?", "[a]", "{}", "{0}",
    "{0.__class__}",
    "%2e%2e", "%s", "$HOME", "$(touch pwned)", "`touch pwned`", ";", "|", "&", "<", ">", "'", '"', ",", "-rf", "--root",
    "cohort", "manifest", "cohort.csv", "study.json", ".csv", ".json", ".zarr", ".nii.gz", "training.zarr",
    ".salt", ".lock",
    "etc/passwd", "given", "cropped", "../cropped", "CT", "SUV", "organs", "=", "=1+1", "@", "#", "0", "-1", "1e400",
    "True",
)  # fmt: skip
COUNT = 400  # of each of the kinds below; 2000 names in all
RANDOM = random.Random(18)
NAMES = ["".join(RANDOM.choices(PARTS, k=RANDOM.randint(1, 4))) for _ in range(COUNT)]


@pytest.fixture
def world(tmp_path):
    """world.root: a folder with files that are not ours around and in it; world.intact(): whether they are the same."""

    class World:
        root = tmp_path / "outer" / "root"

        def intact(self):
            around = {path for path in tmp_path.rglob("*") if self.root not in (path, *path.parents)}
            return around == self.around and all(path.read_text() == "kept" for path in self.files)

    world = World()
    world.root.mkdir(parents=True)
    world.files = [tmp_path / "outer" / "mine.txt", tmp_path / "mine.txt", world.root / "mine.txt"]
    world.files += [world.root / "given" / "p1" / "organs.nii.gz", tmp_path / "outer" / "p1" / "thesis.txt"]
    for path in world.files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    world.around = {path for path in tmp_path.rglob("*") if world.root not in (path, *path.parents)}
    return world


def table_with(path, name):
    row = dict(subject=name, sex="F", age_years=60, height_m=1.65, weight_kg=66)
    with contextlib.suppress(UnicodeEncodeError):
        pd.DataFrame([row]).to_csv(path, index=False)
        return path
    return None


def write(path):
    with atomic(path) as part:
        part.mkdir()
        (part / "CT").write_text("made")


def test_subjects_of_tables(world, capsys):
    accepted = 0
    for name in NAMES:
        table = table_with(world.root / "cohort.csv", name)
        if table is None:
            continue
        with contextlib.suppress(InputError):
            (subject,) = read_cohort(table)["subject"]
            accepted += 1
            (request,) = matched_requests(read_cohort(table), seed=1)
            assert request.name == subject
            done = (world.root / "results" / subject).is_dir
            for_each_subject(
                world.root, "step", [subject], lambda s: write(world.root / "results" / s), lambda s, done=done: done()
            )
            assert (world.root / "results" / subject).parent == world.root / "results"
            shutil.rmtree(world.root / "results" / subject)
        assert world.intact(), repr(name)
    assert 20 < accepted < COUNT


def test_subjects_of_other_tables(world):
    for name in NAMES:
        if table_with(world.root / "series.csv", name) is not None:
            with contextlib.suppress(InputError):
                for subject in read_table(world.root / "series.csv")["subject"]:
                    write(world.root / "results" / subject)
        assert world.intact(), repr(name)
    assert set(os.listdir(world.root)) <= {"mine.txt", "given", "series.csv", "results"}


def test_masks(world):
    (world.root / "cohort.csv").write_text("kept")
    for name in NAMES:
        with contextlib.suppress(InputError):
            append_rows(world.root / f"{check_masks(name)}.csv", [dict(subject="a")])
        assert world.intact(), repr(name)
        assert (world.root / "cohort.csv").read_text() == "kept"


def test_folders_below_a_root_and_names_of_files(world):
    for name in NAMES:
        with contextlib.suppress(InputError, ValueError, OSError):
            assert (world.root / check_below(name)).resolve().is_relative_to(world.root)
        with contextlib.suppress(InputError, ValueError, OSError):
            found = input_name(world.root / f"{name}.nii.gz", world.root)
            assert (world.root / found).parent == world.root
            assert found not in (".", "..")
        assert world.intact(), repr(name)


def test_people_and_patterns(world):
    for name in NAMES:
        with contextlib.suppress(InputError):
            people = parsed(f"sex={name} age=60 height_cm=165 weight_kg=66")
            for request in requests_for(people, None, None, 1, 1):
                write(world.root / request.name)
        with contextlib.suppress(InputError, ValueError, OSError):
            complete, _ = matching(f"{world.root}/{{}}/{name}")
            for subject in complete:
                assert (world.root / subject).parent == world.root
        assert world.intact(), repr(name)


def test_nothing_in_a_table_is_executed(world):
    """A formula, a command and a template stay text."""
    for name in ("=1+1", "$(touch pwned)", "`touch pwned`", "{0.__class__}", "a;touch pwned"):
        assert list(read_cohort(table_with(world.root / "cohort.csv", name))["subject"]) == [name]
    script = "from totalgen.data.demographics import read_cohort; read_cohort('cohort.csv')"
    subprocess.run([sys.executable, "-c", script], cwd=world.root, check=True)
    assert not list(world.root.rglob("pwned"))
