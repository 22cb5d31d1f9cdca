"""Outputs are complete or absent, and what a killed process left is removed."""

import contextlib
import multiprocessing
import os
import platform

import psutil
import pytest

from totalgen.data.files import atomic, sweep
from totalgen.errors import InputError


def test_a_file_appears_under_its_name_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with contextlib.suppress(KeyError), atomic(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with atomic(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_folder(path, **files):
    with atomic(path) as part:
        part.mkdir()
        for name, text in files.items():
            (part / name).write_text(text)


def test_a_folder_takes_the_place_of_one_of_its_kind(tmp_path):
    write_folder(tmp_path / "study", CT="old", organs="old")
    write_folder(tmp_path / "study", CT="new", organs="new", SUV="new")
    assert {p.name: p.read_text() for p in (tmp_path / "study").iterdir()} == dict(CT="new", organs="new", SUV="new")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["mine", ".", "mine/..", "out/.."])
def test_a_folder_with_other_files_is_never_replaced(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"would be lost|contains the place|not end in a name"):
        write_folder(tmp_path / name, CT="new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a file, where a folder is to be written"):
        write_folder(tmp_path / "file", CT="new")
    with pytest.raises(InputError, match="is a folder, where a file is"), atomic(tmp_path / "folder") as part:
        part.write_text("new")
    assert (tmp_path / "file").read_text() == "kept"
    assert (tmp_path / "folder").is_dir()


def write_and_die(path):
    with atomic(path) as part:
        part.write_text("half")
        os._exit(9)


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(tmp_path / "CT.nii.gz",))
    process.start()
    process.join()
    assert not psutil.pid_exists(process.pid)
    (left,) = tmp_path.iterdir()
    kept = [tmp_path / f".SUV.nii.gz.{platform.node()}-{os.getpid()}-x", tmp_path / ".CT.nii.gz.elsewhere-1-x"]
    for path in kept:
        path.mkdir()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert str(process.pid) in left.name
