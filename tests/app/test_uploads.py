"""Uploads are bounded, and no archive writes outside its folder or makes a link."""

import asyncio
import contextlib
import gzip
import resource
import shutil
import stat
import zipfile

import numpy as np
import pytest

from totalgen.app import uploads
from totalgen.app.uploads import checked_name, receive, unpack
from totalgen.errors import InputError


def received(folder, name, *blocks):
    async def stream():
        for block in blocks:
            yield block

    folder.mkdir(exist_ok=True)
    return asyncio.run(receive(folder, name, stream()))


def zipped(path, members):
    """members: (ZipInfo or name, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path.read_bytes()


def test_a_zip_becomes_a_folder_of_its_files_under_names_of_our_own(tmp_path):
    content = zipped(tmp_path / "a.zip", [("deep/IM0001", b"one"), ("page.html", b"<script>")])
    place = received(tmp_path / "uploads", "series.zip", content[:50], content[50:])
    unpack(place)
    assert {path.name: path.read_bytes() for path in (place / "series").iterdir()} == {
        "00001": b"one", "00002": b"<script>",
    }  # fmt: skip
    assert [path.name for path in place.iterdir()] == ["series"]


def test_what_a_mac_adds_is_left_out_and_what_is_no_dicom_may_lie_there(tmp_path):
    members = [("s/IM.DCM", b"one"), ("__MACOSX/s/._IM.DCM", b"x"), ("s/.DS_Store", b"x"), ("README.txt", b"read me")]
    place = received(tmp_path / "uploads", "series.zip", zipped(tmp_path / "a.zip", members))
    unpack(place)
    assert {path.name: path.read_bytes() for path in (place / "series").iterdir()} == {
        "00001.dcm": b"one", "00002": b"read me",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_of_any_kind_is_refused_in_one_line_and_removed(tmp_path, kind):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as archive:
        archive.writestr("IM1", rng.integers(0, 9, 500).astype(np.uint8).tobytes())
    whole = np.frombuffer((tmp_path / "a.zip").read_bytes(), np.uint8)
    refused = 0
    for _ in range(60):
        content = whole.copy()
        content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        place = received(tmp_path / "uploads", "a.zip", content.tobytes())
        with contextlib.suppress(InputError):  # and nothing else
            unpack(place)
        refused += not place.exists()
        shutil.rmtree(place, ignore_errors=True)
    assert refused > 30


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


HOSTILE = {
    "leads up": ([("../../x", b"")], "leads out of its folder"),
    "leads up with backslashes": ([("..\\..\\x", b"")], "leads out of its folder"),
    "absolute": ([("/etc/cron.d/x", b"")], "leads out of its folder"),
    "no name": ([(".", b"x")], "leads out of its folder"),
    "a dot alone": ([("./", b""), ("x/./y", b"x"), ("..", b"x")], "leads out of its folder"),
    "drive": ([("C:/x", b"")], "leads out of its folder"),
    "link": ([(link("x"), "/etc/passwd")], "is a link or device"),
    "bomb": ([("x", bytes(3 << 20))], "unpacks to more than"),
    "bomb of many": ([(f"{n}", bytes(1 << 20)) for n in range(3)], "unpacks to more than"),
    "too many": ([(f"{n}", b"x") for n in range(12)], "holds 12 files"),
    "empty": ([], "holds 0 files"),
}


@pytest.mark.parametrize(("members", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_removed(tmp_path, monkeypatch, members, words):
    monkeypatch.setattr(uploads, "LARGEST_UNPACKED_MIB", 2)
    monkeypatch.setattr(uploads, "MOST_MEMBERS", 10)
    place = received(tmp_path / "uploads", "a.zip", zipped(tmp_path / "a.zip", members))
    with pytest.raises(InputError, match=words):
        unpack(place)
    assert not place.exists()
    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "uploads"}


def test_what_is_no_archive_and_a_gzip_bomb_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST_UNPACKED_MIB", 2)
    for name, content, words in (
        ("a.zip", b"no archive", "cannot be unpacked"),
        ("a.nii.gz", b"no archive", "cannot be unpacked"),
        ("a.nii.gz", gzip.compress(bytes(3 << 20)), "unpacks to more than"),
        ("a.nii.gz", gzip.compress(bytes(1 << 20))[:-9], "cannot be unpacked"),
    ):
        place = received(tmp_path / "uploads", name, content)
        with pytest.raises(InputError, match=words):
            unpack(place)
        assert not place.exists()


def test_a_full_disk_is_no_damage_and_leaves_nothing(tmp_path):
    """The limit of this process's files stands for the disk's: the zip fits, and what is in it does not."""
    content = zipped(tmp_path / "a.zip", [("IM1", bytes(1 << 20))])
    place = received(tmp_path / "uploads", "a.zip", content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            unpack(place)
        assert not place.exists()
        with pytest.raises(OSError, match="File too large"):
            received(tmp_path / "uploads", "a.nii", bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_that_is_too_large_or_empty_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST_MIB", 1)
    for blocks, words in (([bytes(1 << 20), b"1"], "is larger than"), ([], "is empty")):
        with pytest.raises(InputError, match=words):
            received(tmp_path / "uploads", "a.nii", *blocks)
    assert not list((tmp_path / "uploads").iterdir())


def test_no_more_uploads_wait_than_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 1)
    received(tmp_path / "uploads", "a.nii", b"1")
    with pytest.raises(InputError, match="files wait for their jobs"):
        received(tmp_path / "uploads", "b.nii", b"1")


NAMES = ["", ".nii", "a.exe", "../a.nii", "a/b.nii", "a\\b.nii", "a\0.nii", "x" * 200 + ".nii", "con.nii"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_a_path_or_no_image_is_refused(name):
    with pytest.raises(InputError):
        checked_name(name)


def test_a_name_is_stem_and_suffix():
    assert checked_name("low dose.NII.GZ") == ("low dose", ".nii.gz")
    assert checked_name("a.nii.zip") == ("a.nii", ".zip")
