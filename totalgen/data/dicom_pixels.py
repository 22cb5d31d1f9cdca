"""The voxels of slices: decoded, in their unit, padding replaced."""

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import SecondaryCaptureImageStorage

from totalgen.data.header_numbers import number, stated
from totalgen.data.intensity import AIR_HU
from totalgen.errors import InputError

PIXELS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelData"),
)
HU_TYPES = ("", "HU", "US")  # of a CT; where it is not stated, or unspecified, the values are HU (PS3.3 C.8.2.1)
OUTSIDE = {"CT": AIR_HU, "PT": 0.0}  # what padding becomes: HU, Bq/mL
SLOPES = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))  # others give 0 or infinity as voxels


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
