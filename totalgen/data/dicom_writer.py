"""Volumes as DICOM series of single slices, from any header and on any grid that slices can have.

Source: DICOM PS3.3, Image Plane Module: a slice has square angles, its neighbours may be shifted or tilted against it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid5

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from totalgen.data.volume import LPS, Volume, canonical
from totalgen.errors import InputError

SIGNED_MAX, UNSIGNED_MAX = 32767, 65535
SQUARE = 1e-4  # cosine between rows and columns that still counts as none


NAMESPACE = UUID("5d1c1f0e-3a0b-5c57-9a5b-6f0c6a8f1a11")  # of the UIDs of this project


def uid_of(*texts: str) -> UID:
    """A UID that follows from some texts alone: "2.25." and the number of a UUID of version 5 (PS3.5 B.2)."""
    return UID(f"2.25.{uuid5(NAMESPACE, chr(0).join(texts)).int}")


class Scaling(NamedTuple):
    """value = stored · slope + intercept, in 16 bits. slope: None for one per slice, as large as its values need."""

    slope: float | None
    intercept: float
    signed: bool


HOUNSFIELD = Scaling(1.0, -1024.0, signed=False)
PER_SLICE = Scaling(None, 0.0, signed=True)


def write_series(
    folder: Path, volume: Volume, header: Dataset, scaling: Scaling, entropy: Sequence[str],
    complete: Callable[[Dataset, int, np.ndarray], None] | None = None,
) -> list[Path]:  # fmt: skip
    """Write <folder>/1-###.dcm, head first, and return the paths.

    header: what all slices share: patient, study, series, SOPClassUID and Modality. Geometry, pixels and the identity
    of an instance are set here, whatever ``header`` says of them;  entropy: texts that its SOPInstanceUIDs follow from;
    complete(dataset, number, values): adds what else a slice needs, before its pixels; number counts from 1, values are
    [row, column].
    The voxels are reordered, never resampled: rows lead to the back and columns to the left, as near as the affine
    allows. What 16 bits cannot hold, such as CT below −1024 HU, is cut. Raises InputError for a grid whose rows are not
    square to its columns, and for values that are not finite.
    """
    if not np.isfinite(volume.voxels).all():
        raise InputError(f"{folder}: a voxel to be written as DICOM is not a finite number. Correct the volume.")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (geometry, values) in enumerate(planes(volume, folder), start=1):
        dataset = Dataset()
        dataset.update(header)
        dataset.update(geometry)
        dataset.InstanceNumber = number
        dataset.SOPInstanceUID = uid_of(*entropy, str(number))
        if complete is not None:
            complete(dataset, number, values)
        _put_pixels(dataset, values, scaling)
        paths.append(folder / f"1-{number:03d}.dcm")
        _save(dataset, paths[-1])
    return paths


def planes(volume: Volume, name: str | Path = "volume") -> Iterator[tuple[Dataset, np.ndarray]]:
    """(geometry, values [row, column]) of every slice along the axis nearest to that of the body, head first."""
    volume = canonical(volume)
    columns, rows, step = (LPS @ volume.affine[:3, :3] * [-1, -1, 1]).T  # per index, once x and y are reversed
    across, down = np.linalg.norm(columns), np.linalg.norm(rows)
    if abs(columns @ rows) > SQUARE * across * down:
        raise InputError(f"{name}: rows and columns of its slices are not square. Resample it to a plain grid first.")
    nx, ny, nz = volume.shape
    for k in reversed(range(nz)):
        geometry = Dataset()
        origin = LPS @ volume.world((nx - 1, ny - 1, k))
        geometry.ImagePositionPatient = [f"{v:.4f}" for v in origin]
        geometry.ImageOrientationPatient = [_number(v) for v in (*(columns / across), *(rows / down))]
        geometry.PixelSpacing = [f"{down:.6g}", f"{across:.6g}"]
        geometry.SliceThickness = f"{_thickness(columns, rows, step):.6g}"
        geometry.SliceLocation = f"{origin[2]:.4f}"
        geometry.Rows, geometry.Columns = ny, nx
        yield geometry, volume.voxels[::-1, ::-1, k].T


def _thickness(columns, rows, step):
    """Distance of neighbouring planes in mm, whatever their shift within the plane."""
    normal = np.cross(columns, rows)
    return abs(step @ normal) / np.linalg.norm(normal)


def _number(value):
    """At most 16 characters, the length of a DICOM number."""
    return 0.0 if abs(value) < 1e-9 else float(f"{value:.9f}")


def _put_pixels(dataset, values, scaling):
    slope, largest = scaling.slope, SIGNED_MAX if scaling.signed else UNSIGNED_MAX
    values = values.astype(np.float64) - scaling.intercept
    if slope is None:
        highest = np.abs(values).max()
        slope = float(f"{(highest or 1.0) / largest * (1 + 1e-6):.9g}")
    stored = np.clip(np.rint(values / slope), -largest - 1 if scaling.signed else 0, largest)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(scaling.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.9g}", f"{scaling.intercept:g}"
    dataset.PixelData = stored.astype("<i2" if scaling.signed else "<u2").tobytes()


def _save(dataset, path):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
