"""Outputs are complete or absent, and what a killed process left is removed."""

import contextlib
import fcntl
import multiprocessing
import os
import platform

import psutil
import pytest

from totalgen.data import files
from totalgen.data.files import atomic, locked, record_failure, sweep
from totalgen.data.identity import hidden_name
from totalgen.data.text_files import read_text
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


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_folder_is_never_lost_between_its_two_renames(tmp_path, end, monkeypatch):
    study, replace = tmp_path / "study", os.replace
    write_folder(study, CT="old")

    def first_rename_only(source, target):
        replace(source, target)
        if end == "kill":
            os._exit(9)
        monkeypatch.setattr(files.os, "replace", replace)
        raise KeyboardInterrupt

    def cut_off():
        monkeypatch.setattr(files.os, "replace", first_rename_only)
        write_folder(study, CT="new")

    if end == "kill":
        process = multiprocessing.get_context("fork").Process(target=cut_off)
        process.start()
        process.join()
        assert not study.exists()
        write_folder(tmp_path / "other", CT="beside it")
    else:
        with pytest.raises(KeyboardInterrupt):
            cut_off()
    assert (study / "CT").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_what_another_container_is_writing_is_not_swept(tmp_path, monkeypatch):
    with atomic(tmp_path / "CT.nii.gz") as part:
        part.write_text("half")
        monkeypatch.setattr(psutil, "pid_exists", lambda pid: False)  # its number means nothing here
        sweep(tmp_path)
        assert part.exists()
    assert (tmp_path / "CT.nii.gz").read_text() == "half"


def test_a_disk_without_locks_is_written_all_the_same(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os, "link", refuse)
    write_folder(tmp_path / "study", CT="new")
    hidden_name(tmp_path, "Ada", "")
    record_failure(tmp_path, "a", "crop", "why")
    with locked(tmp_path, "step crop"):
        assert "its disk has no locks (Function not implemented): start step crop" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"study", ".salt", "failures.csv"}


def begin_a_cohort(root, tag, barrier, names):
    barrier.wait()
    first = hidden_name(root, "HOSP-4711", "")
    for k in range(10):
        record_failure(root, f"{tag}{k}", tag, "why")
    names += [first, hidden_name(root, "HOSP-4711", "")]


def test_two_steps_that_begin_together_agree_on_names_and_list_all_failures(tmp_path):
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        names, barrier = manager.list(), context.Barrier(2)
        steps = [context.Process(target=begin_a_cohort, args=(tmp_path, tag, barrier, names)) for tag in ("a", "b")]
        for each in steps:
            each.start()
        for each in steps:
            each.join()
        assert len(names) == 4
        assert len(set(names)) == 1
    assert len(read_text(tmp_path / "failures.csv")) == 20
