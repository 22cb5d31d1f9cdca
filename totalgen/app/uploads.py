"""Files that the page receives: one NIfTI file, or the DICOM files of a zip archive, of bounded size.

Members of an archive are written under names of our own, 00001.dcm and so on: no name of an archive becomes a path.
Hidden ones, such as those that a Mac adds, are left out.
"""

import gzip
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from totalgen.data.files import FULL
from totalgen.data.names import fault
from totalgen.errors import InputError

LARGEST_MIB = 512  # of a file as it is sent
LARGEST_UNPACKED_MIB = 2048  # of all that is in it
MOST_MEMBERS = 5000
MOST_UPLOADS = 40  # that wait for their job
BLOCK = 1 << 20
ID_BYTES = 8
SUFFIXES = (".nii", ".nii.gz", ".zip")
TOO_LARGE = f"is larger than {LARGEST_MIB} MiB. Crop it, or use the command line."
BOMB = f"unpacks to more than {LARGEST_UNPACKED_MIB} MiB. Crop it, or use the command line."


def is_upload(identity: object) -> bool:
    """Whether it can be the id that ``receive`` gave an upload."""
    return isinstance(identity, str) and re.fullmatch(rf"[0-9a-f]{{{2 * ID_BYTES}}}", identity) is not None


def checked_name(name: str) -> tuple[str, str]:
    """(stem, suffix) of the name of an upload. Raises InputError for one that cannot be that of a NIfTI or zip file."""
    suffix = next((each for each in reversed(SUFFIXES) if name.lower().endswith(each)), "")
    stem = name[: len(name) - len(suffix)]
    why = fault(stem) if suffix else f"does not end in {', '.join(SUFFIXES)}"
    if why is not None:
        raise InputError(f'"{name[:60]}" {why}. Choose a NIfTI file in mm, or a zip of one DICOM series.')
    return stem, suffix


async def receive(folder: Path, name: str, blocks: AsyncIterator[bytes]) -> Path:
    """Write an upload to <folder>/<new id>/; returns that folder, which then holds a file as it came.

    Raises InputError for a name that is not taken, for more than LARGEST_MIB and when MOST_UPLOADS are there, OSError
    when it cannot be written.
    """
    stem, suffix = checked_name(name)
    if sum(1 for _ in folder.iterdir()) >= MOST_UPLOADS:
        raise InputError(f"{MOST_UPLOADS} files wait for their jobs. Wait, or remove them from {folder.name}/.")
    place = folder / secrets.token_hex(ID_BYTES)
    place.mkdir()
    size = 0
    try:
        with (place / f"{stem}{suffix}").open("xb") as file:
            async for block in blocks:
                size += len(block)
                if size > LARGEST_MIB * BLOCK:
                    raise InputError(f"{name}: {TOO_LARGE}")
                file.write(block)
        if size == 0:
            raise InputError(f"{name}: is empty. Choose another.")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def unpack(place: Path) -> None:
    """Check what ``receive`` left in ``place``; a zip is replaced by a folder of its members.

    Raises InputError for what unpacks to too much, is damaged, or is a hostile archive, and OSError when a disk is
    FULL; ``place`` is removed then.
    """
    (path,) = place.iterdir()
    try:
        if path.suffix.lower() == ".zip":
            _unzip(path, place / path.stem)
            path.unlink()
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                _count(file, path.name)
    except Exception as error:  # zipfile, zlib, lzma and others each raise their own kinds for a damaged file
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        raise InputError(f"{path.name}: cannot be unpacked ({error}). Export it again.") from None


def _count(file, name, start=0, target=None):
    """``start`` and the bytes of ``file``, copied to ``target`` when given; InputError for too many."""
    while block := file.read(BLOCK):
        start += len(block)
        if start > LARGEST_UNPACKED_MIB * BLOCK:
            raise InputError(f"{name}: {BOMB}")
        if target is not None:
            target.write(block)
    return start


def _unzip(path, folder):
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not (member.is_dir() or _is_hidden(member))]
        if not members or len(members) > MOST_MEMBERS:
            raise InputError(f"{path.name}: holds {len(members)} files; 1 to {MOST_MEMBERS} are read. Zip one series.")
        for member in members:
            _check_member(member, path.name)
        folder.mkdir()
        size = 0
        for number, member in enumerate(members, start=1):
            suffix = ".dcm" if member.filename.lower().endswith(".dcm") else ""  # of others only DICOM files are read
            with archive.open(member) as file, (folder / f"{number:05}{suffix}").open("xb") as target:
                size = _count(file, path.name, size, target)


def _is_hidden(member):
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)


def _check_member(member, name):
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    outside = parts.is_absolute() or ".." in parts.parts or not parts.parts or ":" in parts.parts[0]
    kind = stat.S_IFMT(member.external_attr >> 16)
    why = "leads out of its folder" if outside else "is encrypted" if member.flag_bits & 1 else ""
    if kind not in (0, stat.S_IFREG):
        why = "is a link or device"
    if why:
        raise InputError(f"{name}: a file in it {why}. Zip the DICOM files of one series.")
