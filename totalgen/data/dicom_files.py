"""DICOM files below a folder: which there are, what one holds, and whether it is damaged."""

import io
import os
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from totalgen.data.enhanced import ENHANCED

warnings.filterwarnings("ignore", module="pydicom")  # they quote file names and header values, which may name a patient

IMAGES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.128": "PT", **ENHANCED}
BARE = (b"\x08\x00", b"\x02\x00")  # first bytes of a DICOM file without preamble: group 0008 or 0002
BRIEF_GROUPS, BRIEF_BYTES = (0x0008, 0x0010, 0x0012, 0x0020), 1024  # what is kept of a file that is neither CT nor PET
LARGEST_INFLATED_MIB = 1024  # of a deflated file: a CT of 2000 slices in one; pydicom holds all of it in memory
BLOCK = 1 << 20
DICOMDIR = "1.2.840.10008.1.3.10"  # lists other files
PACKED = re.compile(r"(?<!\.nii)\.(zip|7z|rar|tar|tgz|gz|bz2|xz|zst)$", re.IGNORECASE)
LOOP = "is a link to a folder that is read anyway, and is not followed. Take it away."
NO_FILE = "is a device or pipe, no file. Take it away."


@dataclass(frozen=True)
class Damaged:
    """A file that should be DICOM and cannot be used: path, why with its cure, and Patient ID and series UID if the
    header has them (or None)."""

    path: Path
    why: str
    patient: str | None
    series: str | None


def walk(folder: Path) -> tuple[list[Path], list[Damaged]]:
    """(files, damaged): the files below a folder (or the file itself), sorted, hidden ones left out, links followed;
    folders that cannot be opened, archives and what is no file, such as a device, count as damaged."""
    files: list[Path] = []
    damaged: list[Damaged] = []
    seen = {os.path.realpath(folder)}

    def reject(path, why):
        damaged.append(Damaged(Path(path), why, None, None))

    def closed(error):
        reject(error.filename, f"cannot be opened ({error.strerror}). Restore it.")

    def sort(path):
        packed = PACKED.search(path.name)
        if packed:
            reject(path, f"is a {packed[0]} file, whose content is not read. Unpack it.")
        elif path.exists() and not path.is_file():  # a FIFO would be waited for
            reject(path, NO_FILE)
        else:
            files.append(path)

    if not folder.is_dir():
        sort(folder)
        return files, damaged
    for place, folders, names in os.walk(folder, onerror=closed, followlinks=True):
        for name in list(folders):
            path = os.path.join(place, name)
            real = os.path.realpath(path)
            if real in seen or Path(os.path.realpath(place)).is_relative_to(real):  # read already, or above this place
                folders.remove(name)
                reject(path, LOOP)
            seen.add(real)
        for name in names:
            if not name.startswith("."):
                sort(Path(place) / name)
    return sorted(files), damaged


class _Bounded(io.BufferedReader):
    """A file that pydicom reads; what it reads to the end, it inflates: only data sets that are deflated.

    Raises ValueError for one that inflates to more than LARGEST_INFLATED_MIB; nothing of it is kept.
    """

    def read(self, size=-1):
        data = super().read(size)
        if size is None or size < 0:
            _check_inflated(data)
        return data


def _check_inflated(deflated):
    stream, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for start in range(0, len(deflated), BLOCK):
        left = deflated[start : start + BLOCK]
        while left and not stream.eof:
            count += len(stream.decompress(left, BLOCK))
            if count > LARGEST_INFLATED_MIB * BLOCK:
                raise ValueError(f"inflates to more than {LARGEST_INFLATED_MIB} MiB")
            left = stream.unconsumed_tail


def read_file(path: Path, pixels: bool = False) -> tuple[pydicom.Dataset | None, str | None]:
    """(dataset, why): pydicom Dataset, without its pixels unless ``pixels``; why is None, or states how the file is
    damaged.

    Both are None for a file that is not DICOM and does not claim to be. Of a file that is neither CT nor PET, only
    short elements are kept.
    """
    if path.exists() and not path.is_file():  # opening a FIFO would wait for its other end
        return None, NO_FILE.rstrip(".")
    try:
        size, opened = path.stat().st_size, _Bounded(path.open("rb", buffering=0))
    except OSError as error:
        return None, f"cannot be opened ({error.strerror})"
    with opened as file:
        start = file.read(132)
        named, bare = path.suffix.lower() == ".dcm", start[:2] in BARE
        if start[128:] != b"DICM" and not bare:
            return None, ("is no DICOM file" + ", or cut in its first bytes" * (len(start) < 132) if named else None)
        file.seek(0)
        try:
            dataset: Any = pydicom.dcmread(file, stop_before_pixels=not pixels, force=bare)
            dataset.buffer = None  # all that was deflated; nothing is left to read from it
            if str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
                return None, None
            left = len(dataset.get("PixelData", b"")) if pixels else size - file.tell()
            why = damage(dataset, left, "is cut in its header" + " or its pixels" * pixels)
            if why is None and str(dataset.SOPClassUID) not in IMAGES:
                dataset = brief(dataset)
        except Exception as error:  # pydicom raises many kinds for a broken file
            dataset, why = None, f"cannot be read as DICOM ({' '.join(str(error).split())[:120]})"
    if bare and (why is not None or not str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008.")):
        return None, (why or "is no DICOM file" if named else None)  # other kinds of files have the same first bytes
    return dataset, why


def damage(dataset: pydicom.Dataset, left: int, cut: str) -> str | None:
    """Why the file of a Dataset is damaged; None when it is not.

    left: bytes after its header, which are its pixels;  cut: the words for a file that ends too early.
    """
    kind, meta = str(dataset.get("SOPClassUID", "")), dataset.file_meta
    if not kind or (kind not in IMAGES and str(meta.get("MediaStorageSOPClassUID", "")) in IMAGES):
        return cut
    if kind not in IMAGES:
        return None
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        if not little:
            return "does not state how it is encoded (Transfer Syntax UID)"
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    syntax, needed = meta.TransferSyntaxUID, 1
    if syntax.is_deflated and cut.endswith("header"):  # a cut deflated file could not have been unpacked
        return None
    if left == 0 or "Rows" not in dataset:
        return cut
    if not syntax.is_compressed:
        bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
        needed = bits // 8 * int(dataset.get("SamplesPerPixel", 1)) * int(dataset.get("NumberOfFrames", 1) or 1)
    return f"is cut: {left} of {needed} bytes of pixels are left" if left < needed else None


def brief(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The short elements, which identify an object and its patient: raw data may have a hundred MiB of others."""
    kept = pydicom.Dataset()
    for tag in dataset.keys():  # noqa: SIM118 – iterating a Dataset reads its values, and a damaged one would end it
        item = dataset.get_item(tag)
        if tag.group in BRIEF_GROUPS and getattr(item, "length", 0) <= BRIEF_BYTES:
            kept[tag] = item
    return kept
