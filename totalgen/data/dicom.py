"""DICOM on disk: which series lie in a folder, and one series as a Volume.

Headers are read, names and birth dates are never passed on.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from tqdm import tqdm

from totalgen.data.volume import Volume
from totalgen.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
IMAGES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
DICOMDIR = "1.2.840.10008.1.3.10"  # lists other files
SAME_PLACE_MM = 0.01  # slices nearer to each other are one place
SPACING_TOLERANCE = 0.1  # of the slice spacing; scanners round positions, a missing slice doubles it
TILT_MM = 0.5  # how far slice origins may leave a straight line along the normal


@dataclass
class Series:
    """uid: see series_uid;  header: pydicom Dataset of one slice, without pixels;  files: its slices;
    origins: [n] image positions, mm."""

    uid: str
    header: pydicom.Dataset
    files: list = field(default_factory=list)
    origins: list = field(default_factory=list)

    @property
    def study(self):
        return str(self.header.get("StudyInstanceUID", ""))

    @property
    def modality(self):
        return str(self.header.get("Modality", ""))

    @property
    def description(self):
        return " ".join(str(self.header.get("SeriesDescription", "") or "").split())

    @property
    def is_image(self):
        """Whether it is a stack of single-frame CT or PET images."""
        one_frame = int(self.header.get("NumberOfFrames", 1) or 1) == 1
        return str(self.header.get("SOPClassUID", "")) in IMAGES and one_frame and len(self.origins) == len(self.files)

    @property
    def folder(self):
        """The deepest folder that holds all its files."""
        parents = {path.parent for path in self.files}
        first = next(iter(parents))
        return next(up for up in (first, *first.parents) if all(p.is_relative_to(up) for p in parents))

    @property
    def box(self):
        """(low, high) corners, mm (LPS, [3] each), of the box around its slices."""
        header, origins = self.header, np.array(self.origins, float)
        row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        down, across = (float(v) for v in header.PixelSpacing)
        x, y = row * across * (header.Columns - 1), column * down * (header.Rows - 1)
        corners = np.concatenate([origins, origins + x, origins + y, origins + x + y])
        return corners.min(0), corners.max(0)


@dataclass(frozen=True)
class Damaged:
    """A DICOM file that cannot be used: path, why, and what its header still tells (or None)."""

    path: Path
    why: str
    patient: str | None
    series: str | None


def find_series(folder, show=False):
    """(series, damaged): every series below ``folder`` at any depth, and the DICOM files that are cut or broken.

    Files that are not DICOM are passed over, unless their name ends in .dcm.  show: with a progress bar.
    """
    series, damaged = {}, []
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in tqdm(files, desc="headers", unit="file", disable=None if show else True):
        header, why = read_header(path)
        if header is None and why is None:
            continue
        if why is not None:
            patient, uid = (header or {}).get("PatientID"), (header or {}).get("SeriesInstanceUID")
            damaged.append(Damaged(path, why, str(patient) if patient else None, str(uid) if uid else None))
            continue
        uid = series_uid(header, path)
        found = series.setdefault(uid, Series(uid, header))
        found.files.append(path)
        if "ImagePositionPatient" in header and "ImageOrientationPatient" in header:
            found.origins.append(tuple(float(v) for v in header.ImagePositionPatient))
    return list(series.values()), damaged


def series_uid(header, path):
    """Series Instance UID; without one, study, modality, series number and folder tell series apart."""
    uid = str(header.get("SeriesInstanceUID", "") or "")
    parts = (header.get("StudyInstanceUID"), header.get("Modality"), header.get("SeriesNumber"), path.parent.name)
    return uid or "/".join(str(part) for part in parts)


def read_header(path):
    """(header, why): pydicom Dataset without pixels; why is None, or says in what way the file is damaged.

    Both are None for a file that is not DICOM and does not claim to be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None, ("is no DICOM file, or cut in its first bytes" if path.suffix.lower() == ".dcm" else None)
        file.seek(0)
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception as error:  # pydicom raises many kinds for a broken file
            return None, f"cannot be read as DICOM ({' '.join(str(error).split())[:120]})"
        left = size - file.tell()
    kind = str(header.get("SOPClassUID", ""))
    if not kind:
        if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
            return None, None
        return header, "is cut in its header"
    if kind in IMAGES:
        needed = 1
        if not header.file_meta.TransferSyntaxUID.is_compressed and "Rows" in header:
            bits = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
            needed = bits // 8 * int(header.get("SamplesPerPixel", 1)) * int(header.get("NumberOfFrames", 1) or 1)
        if left == 0 or "Rows" not in header:
            return header, "is cut in its header"
        if left < needed:
            return header, f"is cut: {left} of {needed} bytes of pixels are left"
    return header, None


def read_series(files):
    """(volume, headers) of a single-frame series.

    volume: Volume of float32, [x, y, z] in the order columns, rows, slices along the normal, each slice with its own
    Rescale Slope and Intercept;  headers: list of Datasets without pixels, in slice order.
    The order of the files does not matter; an exact copy of a slice is left out.
    Raises InputError naming the file for cut pixel data, missing or doubled slices, changing orientation or size, and
    a tilted gantry.
    """
    slices = {}
    for path in map(Path, files):
        header, why = read_header(path)
        if header is None or why is not None:
            raise InputError(f"{path}: {why or 'is no DICOM file'}. Restore the file.")
        slices.setdefault(str(header.get("SOPInstanceUID", path)), (path, header))
    slices = list(slices.values())
    first = slices[0][1]
    for path, header in slices:
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            if tag not in header:
                raise InputError(f"{path}: {tag} is missing, so the slice has no place. Restore the file.")
        for tag in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            if not np.allclose(np.array(header[tag].value, float), np.array(first[tag].value, float), atol=1e-3):
                raise InputError(f"{path}: {tag} differs from the other slices. Export the series alone.")
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    slices.sort(key=lambda item: float(np.dot(normal, np.array(item[1].ImagePositionPatient, float))))
    step = slice_step(slices, normal)

    affine = np.eye(4)
    down, across = (float(v) for v in first.PixelSpacing)  # DICOM: distance between rows, then between columns
    affine[:3, :3] = np.stack([row * across, column * down, normal * step], axis=1)
    affine[:3, 3] = np.array(slices[0][1].ImagePositionPatient, float)
    voxels = np.empty((int(first.Columns), int(first.Rows), len(slices)), np.float32)
    for k, (path, _) in enumerate(slices):
        voxels[:, :, k] = read_pixels(path).T
    return Volume(voxels, LPS_TO_RAS @ affine), [header for _, header in slices]


def slice_step(slices, normal):
    """Distance in mm between neighbouring slices, sorted along ``normal``; checks that none is missing or doubled."""
    if len(slices) < 2:
        raise InputError(f"{slices[0][0]}: is the only slice of its series; a volume needs more. Restore the others.")
    origins = np.array([header.ImagePositionPatient for _, header in slices], float)
    gaps = np.diff(origins @ normal)
    step = float(np.median(gaps))
    for k, gap in enumerate(gaps):
        (before, _), (after, _) = slices[k], slices[k + 1]
        if gap < SAME_PLACE_MM:
            raise InputError(
                f"{before} and {after.name}: two different slices at one place. Export one time point of the series."
            )
        if abs(gap - step) > SPACING_TOLERANCE * step:
            what = "a slice is missing" if gap > step else "the slices are not evenly spaced"
            raise InputError(
                f"{after}: {what} before it ({gap:.2f} mm after {before.name}, elsewhere {step:.2f} mm). "
                "Restore the series."
            )
    promised = int(slices[0][1].get("NumberOfSlices", 0) or 0)
    if promised > len(slices):
        raise InputError(
            f"{slices[0][0].parent}: {len(slices)} of {promised} slices are there (Number of Slices). "
            "Restore the series."
        )
    step = float((origins[-1] - origins[0]) @ normal) / (len(slices) - 1)
    straight = origins[0] + np.arange(len(slices))[:, None] * step * normal
    off = float(np.linalg.norm(origins - straight, axis=1).max())
    if off > max(TILT_MM, SPACING_TOLERANCE * step):
        raise InputError(f"{slices[-1][0]}: lies {off:.1f} mm off the stack's axis; a tilted gantry is not read.")
    return step


def read_pixels(path):
    """[rows, columns] float32 of one slice, Rescale Slope and Intercept applied. Raises InputError naming the file."""
    try:
        header = pydicom.dcmread(path)
        if header.file_meta.TransferSyntaxUID.is_compressed:  # GDCM knows every kind, and rescales by itself
            return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0].astype(np.float32)
        stored = header.pixel_array
    except Exception as error:  # decoders raise many kinds for damaged data
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: its pixels cannot be read ({reason}). Restore the file.") from None
    slope = header.get("RescaleSlope", None)
    if slope is None:
        if header.get("Modality") == "PT":
            raise InputError(f"{path}: Rescale Slope (0028,1053) is missing, so its values have no unit.")
        slope = 1.0
    return (stored * float(slope) + float(header.get("RescaleIntercept", 0) or 0)).astype(np.float32)
