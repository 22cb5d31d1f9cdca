"""DICOM on disk: which series are in a folder, and one series as a Volume.

Headers contain names and birth dates; ``identity`` decides what of them may be written.
"""

import filecmp
import io
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from totalgen.data.enhanced import ENHANCED, frame_headers
from totalgen.data.header_numbers import named, number, optional_number, stated
from totalgen.data.identity import is_deidentified
from totalgen.data.intensity import AIR_HU
from totalgen.data.volume import Volume
from totalgen.errors import InputError

warnings.filterwarnings("ignore", module="pydicom")  # they quote file names and header values, which may name a patient

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
IMAGES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.128": "PT", **ENHANCED}
BARE = (b"\x08\x00", b"\x02\x00")  # first bytes of a DICOM file without preamble: group 0008 or 0002
BRIEF_GROUPS, BRIEF_BYTES = (0x0008, 0x0010, 0x0012, 0x0020), 1024  # what is kept of a file that is neither CT nor PET
LARGEST_INFLATED_MIB = 1024  # of a deflated file: a CT of 2000 slices in one; pydicom holds all of it in memory
BLOCK = 1 << 20
DICOMDIR = "1.2.840.10008.1.3.10"  # lists other files
PLANE = {"ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}  # tag → how many numbers
PIXELS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelData"),
)
# What voxels, their unit and SUV depend on: copies of a slice agree in it, wherever both state it.
MEASURED = (
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "Units", "SUVType", "PatientWeight", "PatientSize"),
    *("DecayCorrection", "DecayFactor", "DecayCorrectionDateTime", "CorrectedImage", "TimezoneOffsetFromUTC"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
    *("FrameReferenceTime", "ActualFrameDuration", "RadiopharmaceuticalInformationSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
PHILIPS_GROUP = 0x7053  # factors of units that only Philips knows
HU_TYPES = ("", "HU", "US")  # of a CT; where it is not stated, or unspecified, the values are HU (PS3.3 C.8.2.1)
OUTSIDE = {"CT": AIR_HU, "PT": 0.0}  # what padding becomes: HU, Bq/mL
PACKED = re.compile(r"(?<!\.nii)\.(zip|7z|rar|tar|tgz|gz|bz2|xz|zst)$", re.IGNORECASE)
LOOP = "is a link to a folder that is read anyway, and is not followed. Take it away."
NO_FILE = "is a device or pipe, no file. Take it away."
LOCALIZER = ".localizer"  # what is added to the UID of a series for its localizers, which are a series of their own
OTHER = ".other"  # the same for what is no image of a kind that is read, such as a screen page
SAME_PLACE_MM = 0.05  # slices closer together than this are at the same place
SPACING_TOLERANCE = 0.1  # of the slice spacing; scanners round positions, a missing slice doubles it
OFF_LINE_MM = 0.5  # largest distance of a slice position from one straight line
SAME_PLANE = 1e-3  # cosines, mm
PERPENDICULAR = 0.01  # cosines; some headers round them to two decimals
SLOPES = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))  # others give 0 or infinity as voxels

Numbers = tuple[float, ...] | None  # None: the header does not state them
Instance = tuple[str, int, Numbers]


@dataclass
class Series:
    """uid: see series_uid;  header: pydicom Dataset of one slice, without pixels;  deidentified: whether all its
    headers state it;  files: without exact copies;  instances, origins, planes: [count] of every slice (see
    ``instance`` and ``place``);  fault: why its files cannot be believed or read, or ""."""

    uid: str
    header: pydicom.Dataset
    deidentified: bool = True
    files: list[Path] = field(default_factory=list)
    instances: dict[Instance, Path] = field(default_factory=dict)  # → its file; a set that keeps the order
    origins: list[Numbers] = field(default_factory=list)
    planes: list[Numbers] = field(default_factory=list)
    fault: str = ""

    def add(self, path: Path, instance: Instance, origin: Numbers, plane: Numbers) -> None:
        """Add a slice, unless it is a copy of an earlier one. Another file that says it is the same is a fault."""
        if instance in self.instances:
            if instance[1] == 0 and self.is_image:  # all frames of a file at once
                self.fault = self.fault or difference(self.instances[instance], path)
            return
        self.instances[instance] = path
        if not self.files or self.files[-1] != path:
            self.files.append(path)
        if self.planes and self.planes[-1] == plane:
            plane = self.planes[-1]  # one tuple shared by all slices: a cohort has half a million
        self.origins.append(origin)
        self.planes.append(plane)

    @property
    def count(self) -> int:
        """Number of slices; the frames of a multi-frame file are counted, exact copies are not."""
        return len(self.planes)

    @property
    def study(self) -> str:
        return str(self.header.get("StudyInstanceUID", ""))

    @property
    def modality(self) -> str:
        return str(self.header.get("Modality", ""))

    @property
    def description(self) -> str:
        return " ".join(str(self.header.get("SeriesDescription", "") or "").split())

    @property
    def is_image(self) -> bool:
        """Whether it contains CT or PET images."""
        return str(self.header.get("SOPClassUID", "")) in IMAGES

    @property
    def problem(self) -> str:
        """Why its slices form no volume, or "". Uses the headers alone, and names no file."""
        if self.fault:
            return self.fault
        _, _, why, k = stack(self.origins, self.planes, promised(self.header))
        return why if k is None else f"slice {k + 1} of {self.count}: {why}"

    @property
    def folder(self) -> Path:
        """The deepest folder that contains all its files."""
        parents = {path.parent for path in self.files}
        first = next(iter(parents))
        return next(up for up in (first, *first.parents) if all(p.is_relative_to(up) for p in parents))

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) corners, mm (LPS, [3] each), of the box around its slices."""
        header, origins = self.header, np.array(self.origins, float)
        row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        down, across = (float(v) for v in header.PixelSpacing)
        x, y = row * across * (header.Columns - 1), column * down * (header.Rows - 1)
        corners = np.concatenate([origins, origins + x, origins + y, origins + x + y])
        return corners.min(0), corners.max(0)


class Slice(NamedTuple):
    """One slice while its series is read. frame: its number in the file;  pixels: see bare_pixels;  origin, plane: see
    place."""

    path: Path
    header: pydicom.Dataset
    frame: int
    pixels: pydicom.Dataset
    origin: Numbers
    plane: Numbers


@dataclass(frozen=True)
class Damaged:
    """A file that should be DICOM and cannot be used: path, why with its cure, and Patient ID and series UID if the
    header has them (or None)."""

    path: Path
    why: str
    patient: str | None
    series: str | None


def find_series(folder: str | Path) -> tuple[list[Series], list[Damaged]]:
    """(series, damaged): every series below ``folder`` at any depth, and the DICOM files that are damaged.

    Files that are not DICOM are ignored, unless their name ends in .dcm.  folder: or a single file.
    """
    series: dict[tuple[str, str], Series] = {}
    files, damaged = walk(Path(folder))
    for path in files:
        header, why = read_file(path)
        if why is not None:
            known = header or pydicom.Dataset()
            patient, uid = known.get("PatientID"), known.get("SeriesInstanceUID")
            texts = (f"{why}. Restore the file.", str(patient) if patient else None, str(uid) if uid else None)
            damaged.append(Damaged(path, *texts))
            continue
        if header is None:
            continue
        uid, fault, frames = series_uid(header, path), "", [header]
        if "LOCALIZER" in stated(header, "ImageType").upper():  # some scanners put it into the series of the slices
            uid += LOCALIZER
        if str(header.get("SOPClassUID", "")) not in IMAGES:
            uid += OTHER
        else:
            try:
                frames = split(header)
            except InputError as error:
                fault = str(error)
            except Exception as error:  # a header may contain anything
                fault = f"its header cannot be understood ({type(error).__name__})"
        # Two patients with the same series UID, which some anonymisers produce, are kept apart.
        found = series.setdefault((str(header.get("PatientID", "") or folder), uid), Series(uid, frames[0]))
        found.fault = found.fault or fault
        found.deidentified &= is_deidentified(header)
        for index, frame in enumerate(frames):
            origin, plane = place(frame)
            found.add(path, instance(frame, path, index, origin), origin, plane)
    return list(series.values()), damaged


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


def join(parts: Iterable[tuple[list[Series], list[Damaged]]]) -> tuple[list[Series], list[Damaged]]:
    """What ``find_series`` found in several folders or files, as if they were one: a series may be in more than one.

    Without a Patient ID only what lies in one folder is one series.
    """
    series: dict[tuple[str, str], Series] = {}
    damaged: list[Damaged] = []
    for found, bad in parts:
        damaged += bad
        for each in found:
            patient = str(each.header.get("PatientID", "") or each.files[0].parent)
            first = series.setdefault((patient, each.uid), each)
            if first is not each:
                first.fault = first.fault or each.fault
                first.deidentified &= each.deidentified
                for (key, path), origin, plane in zip(each.instances.items(), each.origins, each.planes, strict=True):
                    first.add(path, key, origin, plane)
    return list(series.values()), damaged


def series_uid(header: pydicom.Dataset, path: Path) -> str:
    """Series Instance UID; without one, study, modality, series number and folder distinguish series."""
    uid = str(header.get("SeriesInstanceUID", "") or "")
    parts = (header.get("StudyInstanceUID"), header.get("Modality"), header.get("SeriesNumber"), path.parent.name)
    return uid or "/".join(str(part) for part in parts)


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


def split(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    """[frames] headers of a CT or PET file, as of single-frame files, with the Modality of its kind where they state
    none. Raises InputError when it contains none."""
    if not dataset.get("Modality"):
        dataset.Modality = IMAGES[str(dataset.SOPClassUID)]
    high, stored = dataset.get("HighBit"), dataset.get("BitsStored")
    if high is not None and stored is not None and high != stored - 1:
        raise InputError(
            f"High Bit (0028,0102) is {high} with {stored} Bits Stored (0028,0101), so that its values are shifted. "
            f"Export the series with High Bit {stored - 1}."
        )
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1:
        raise InputError("colour pictures, not values in one unit. Choose another series.")
    headers, frames = frame_headers(dataset), int(dataset.get("NumberOfFrames", 1) or 1)
    if len(headers) != frames:
        raise InputError(f"{frames} frames in a file of a single-frame kind. Export them one by one.")
    return headers


def instance(header: pydicom.Dataset, path: Path, index: int, origin: Numbers) -> Instance:
    """A key that two slices share only if one is a copy of the other. Some anonymisers give all slices one UID."""
    return str(header.get("SOPInstanceUID", "") or path), index, origin


def difference(one: Path, other: Path) -> str:
    """Why the file ``other`` is no copy of ``one``, of the same SOP Instance UID; "" when it is. Names no file.

    A copy may be encoded otherwise and lack what the other states; it has the same voxels, and nothing that SUV depends
    on has another value (``MEASURED``).
    """
    if filecmp.cmp(one, other, shallow=False):
        return ""
    first, second = (read_file(path, pixels=True)[0] for path in (one, other))
    if first is None or second is None:
        return ""  # damaged since: said where it is read
    both = [name for name in MEASURED if stated(first, name) and stated(second, name)]
    what = next((named(name) for name in both if not same_value(first, second, name)), "")
    for tag in first.keys() & second.keys():
        if tag.group == PHILIPS_GROUP and str(first[tag].value) != str(second[tag].value):
            what = what or f"{tag}"
    if not what and not same_pixels(bare_pixels(first), bare_pixels(second)):
        what = "their pixels"
    cure = "neither is a copy of the other. Remove the one that is wrong"
    return f"two files have one SOP Instance UID and differ in {what}: {cure}" if what else ""


def same_value(one: pydicom.Dataset, other: pydicom.Dataset, keyword: str) -> bool:
    """Whether a tag says the same in both headers, however numbers are written."""
    try:
        return bool(one[keyword].value == other[keyword].value)
    except Exception:  # pydicom raises many kinds for a value that is not what its tag promises
        return stated(one, keyword) == stated(other, keyword)


def same_pixels(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    """Whether two ``bare_pixels`` hold the same stored values, however they are encoded."""
    if any(one.get(name) != other.get(name) for name in ("Rows", "Columns", "PixelRepresentation", "NumberOfFrames")):
        return False
    if one.PixelData == other.PixelData and one.file_meta.TransferSyntaxUID == other.file_meta.TransferSyntaxUID:
        return True
    frames = range(int(one.get("NumberOfFrames", 1) or 1))
    try:
        return all(np.array_equal(stored_values(one, frame), stored_values(other, frame)) for frame in frames)
    except Exception:  # decoders raise many kinds for damaged data
        return False


def place(header: pydicom.Dataset) -> tuple[Numbers, Numbers]:
    """(origin, plane) of a slice: tuples of Image Position (mm, LPS, [3]) and of the numbers of ``PLANE`` ([10]).

    Both are None when one of the tags is missing.
    """
    try:
        origin = tuple(float(v) for v in header.ImagePositionPatient)
        plane = tuple(float(v) for name in PLANE for v in np.atleast_1d(header[name].value))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None, None
    return (origin, plane) if (len(origin), len(plane)) == (3, sum(PLANE.values())) else (None, None)


def promised(header: pydicom.Dataset) -> int:
    """Number of Slices of a PET header, or 0."""
    return int(optional_number(header, "NumberOfSlices"))


def stack(
    origins: Sequence[Numbers], planes: Sequence[Numbers], promised: int = 0
) -> tuple[np.ndarray, np.ndarray | None, str, int | None]:
    """(order, step, why, k): how slices at these places form a volume, or why they do not.

    origins, planes: [n] as ``place`` gives them, in any order;  promised: Number of Slices, or 0.
    order: [n] indices of the slices along their normal;  step: [3] mm (LPS) from one slice to the next. It is not along
    the normal when the gantry is tilted.  why: "", or a text; then order[k] is the slice it describes, or k is None.
    """
    count, order = len(origins), np.arange(len(origins))
    known = [plane for plane in planes if plane is not None]
    if len(known) < count:
        return order, None, "its position, orientation or pixel spacing is missing or no numbers", planes.index(None)
    first = known[0]
    for k, plane in enumerate(known):
        if plane is not first and not np.allclose(plane, first, rtol=0, atol=SAME_PLANE):
            other = int(np.argmax(~np.isclose(plane, first, rtol=0, atol=SAME_PLANE)))
            name = [name for name, n in PLANE.items() for _ in range(n)][other]
            return order, None, f"{name} differs from the other slices", k
    row, column = np.reshape(first[:6], (2, 3))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=PERPENDICULAR):
        return order, None, "ImageOrientationPatient is no pair of perpendicular directions", None
    if count < 2:
        return order, None, "is the only slice of its series; a volume needs more", 0

    points = np.array(origins)
    along = points @ np.cross(row, column)
    order = np.argsort(along, kind="stable")
    points, gaps = points[order], np.diff(along[order])
    usual = float(np.median(gaps))
    doubled, uneven = gaps < SAME_PLACE_MM, abs(gaps - usual) > SPACING_TOLERANCE * usual
    if doubled.any():
        places = f"{count} slices at {count - doubled.sum()} places: several time points, gates or reconstructions"
        return order, None, f"two different slices at one place ({places})", int(doubled.argmax()) + 1
    if uneven.any():
        k = int(uneven.argmax())
        what = "a slice is missing" if gaps[k] > 1.5 * usual else "the slices are not evenly spaced"
        return order, None, f"{what} before it ({gaps[k]:.2f} mm, elsewhere {usual:.2f} mm)", k + 1
    if promised > count:
        return order, None, f"{count} of {promised} slices are there (Number of Slices)", None
    step = (points[-1] - points[0]) / (count - 1)
    off = np.linalg.norm(points - (points[0] + np.arange(count)[:, None] * step), axis=1)
    if off.max() > max(OFF_LINE_MM, SPACING_TOLERANCE * np.linalg.norm(step)):
        k = int(off.argmax())
        return order, None, f"lies {off[k]:.1f} mm off the straight line through the first and the last slice", k
    return order, step, "", None


def read_series(files: Iterable[str | Path]) -> tuple[Volume, list[pydicom.Dataset]]:
    """(volume, headers) of a CT or PET series; single-frame and multi-frame files are read alike.

    volume: Volume of float32, [x, y, z] in the order columns, rows, slices along the normal, each slice with its own
    Rescale Slope and Intercept, padding replaced (``OUTSIDE``);  headers: list of Datasets without pixels, in slice
    order. The affine of a tilted gantry is sheared.
    The order of the files does not matter; an exact copy of a slice is left out.
    Raises InputError naming the file for damaged pixel data and for slices that form no volume (see ``stack``).
    """
    slices: Any = {}
    for path in map(Path, files):
        dataset, why = read_file(path, pixels=True)
        if dataset is None or why is not None:
            raise InputError(f"{path}: {why or 'is no DICOM file'}. Restore the file.")
        pixels = bare_pixels(dataset)
        dataset.pop("PixelData", None)
        try:
            headers = split(dataset)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        for index, header in enumerate(headers):
            at = place(header)
            this = Slice(path, header, index, pixels, *at)
            earlier = slices.setdefault(instance(header, path, index, at[0]), this)
            if earlier is not this and index == 0 and (other := difference(earlier.path, path)):
                raise InputError(f"{path}: {other}.")
    if not slices:
        raise InputError("a series without files cannot be read. Run 1_dicom_to_metadata.py.")
    slices = list(slices.values())
    first = slices[0]
    order, step, why, k = stack([s.origin for s in slices], [s.plane for s in slices], promised(first.header))
    if why or step is None:
        where = first.path.parent if k is None else slices[order[k]].path
        raise InputError(f"{where}: {why}. Export the series again, complete and without others.")
    slices = [slices[k] for k in order]
    headers = [s.header for s in slices]

    *orientation, down, across, rows, columns = first.plane
    affine = np.eye(4)
    row, column = np.reshape(orientation, (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    affine[:3, :3] = np.stack([row * across, column * down, step], axis=1)  # Pixel Spacing: between rows comes first
    affine[:3, 3] = slices[0].origin
    voxels = np.empty((len(slices), int(rows), int(columns)), np.float32)
    for k in range(len(slices)):
        this, slices[k] = slices[k], None  # frees its stored values once they are converted
        try:
            rescale(this.header, stored_values(this.pixels, this.frame), out=voxels[k])
        except InputError as error:
            raise InputError(f"{this.path}: {error}") from None
        except Exception as error:  # decoders raise many kinds for damaged data
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{this.path}: its pixels cannot be read ({reason}). Restore the file.") from None
    return Volume(voxels.transpose(2, 1, 0), LPS_TO_RAS @ affine), headers


def bare_pixels(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A Dataset of the stored values and of what is needed to decode them, and nothing else."""
    bare = pydicom.Dataset()
    for name in PIXELS:
        if name in dataset:
            bare[name] = dataset[name]
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return bare


def stored_values(pixels: pydicom.Dataset, index: int) -> np.ndarray:
    """[rows, columns] integers of one frame of ``bare_pixels``, as stored: not rescaled."""
    if not pixels.file_meta.TransferSyntaxUID.is_compressed:
        return pixel_array(pixels, index=index)
    # GDCM decodes every kind, but rescales what it regards as CT or PET with one slope for all frames: it gets one
    # frame at a time, without a slope and without the patient.
    frames = int(pixels.get("NumberOfFrames", 1) or 1)
    alone = pydicom.Dataset()
    alone.update({element.tag: element for element in pixels if element.keyword not in ("NumberOfFrames", "PixelData")})
    alone.PhotometricInterpretation = "MONOCHROME2"  # how values are shown does not change them: GDCM would invert them
    alone.SOPClassUID, alone.SOPInstanceUID = SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    alone.PixelData = encapsulate([get_frame(pixels.PixelData, index, number_of_frames=frames)])
    alone.file_meta = pixels.file_meta
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        alone.save_as(path, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).reshape(pixels.Rows, pixels.Columns)


def rescale(header: pydicom.Dataset, stored: np.ndarray, out: np.ndarray) -> None:
    """Write the [rows, columns] stored values of a slice to ``out`` (float32) in its unit, padding replaced."""
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    modality = header.get("Modality")
    if slope is None:
        raise InputError("Rescale Slope (0028,1053) is missing, so its values have no unit. Export the series again.")
    if not SLOPES[0] <= slope <= SLOPES[1]:
        raise InputError(
            f"Rescale Slope (0028,1053) is {slope:g}, so its values are lost or inverted. Export the series again."
        )
    kind = stated(header, "RescaleType").upper()
    if modality == "CT" and kind not in HU_TYPES:
        raise InputError(f"Rescale Type (0028,1054) is {kind}, not HU. Export the series in HU.")
    np.multiply(stored, np.float32(slope), out=out)
    out += np.float32(intercept or 0)
    padded = padding(header, stored)
    if padded is not None:
        out[padded] = OUTSIDE[modality]


def padding(header: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """[rows, columns] bool, the pixels that Pixel Padding Value and Range Limit mark; None when there are none.

    They count only where a corner of the slice is marked: padding fills what lies outside a round field of view,
    and some headers name a value, such as 0, that is tissue.
    """
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    # A signed value may be written as unsigned, and the reverse: −2000 is 63536.
    limits = [np.int64(v).astype(stored.dtype) for v in (value, header.get("PixelPaddingRangeLimit", value))]
    padded = (stored >= min(limits)) & (stored <= max(limits))
    return padded if padded[[0, 0, -1, -1], [0, -1, 0, -1]].any() else None
