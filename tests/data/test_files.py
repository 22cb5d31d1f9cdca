"""Outputs are complete or absent, and what a killed process left is removed."""

import contextlib
import multiprocessing
import os
import platform

import psutil

from totalgen.data.files import atomic, sweep


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


def test_a_folder_takes_the_place_of_a_filled_one(tmp_path):
    for content in ("old", "new"):
        with atomic(tmp_path / "study") as part:
            part.mkdir()
            (part / content).touch()
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


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
