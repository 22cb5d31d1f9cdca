"""DICOM series: which are in a folder, and one as a Volume.

Headers contain names and birth dates; ``identity`` decides what of them may be written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom

from totalgen.data.dicom_copies import difference
from totalgen.data.dicom_files import IMAGES, Damaged, read_file, walk
from totalgen.data.dicom_pixels import bare_pixels, rescale, stored_values
from totalgen.data.dicom_slices import Numbers, place, promised, stack
from totalgen.data.enhanced import frame_headers
from totalgen.data.header_numbers import stated
from totalgen.data.identity import is_deidentified
from totalgen.data.volume import Volume
from totalgen.errors import InputError, naming

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LOCALIZER = ".localizer"  # what is added to the UID of a series for its localizers, which are a series of their own
OTHER = ".other"  # the same for what is no image of a kind that is read, such as a screen page
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
        with naming(path):
            headers = split(dataset)
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
