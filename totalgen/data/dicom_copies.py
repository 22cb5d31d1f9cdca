"""Whether two files of one SOP Instance UID are copies of each other."""

import filecmp
from pathlib import Path

import numpy as np
import pydicom

from totalgen.data.dicom_files import read_file
from totalgen.data.dicom_pixels import bare_pixels, stored_values
from totalgen.data.header_numbers import named, stated

# What voxels, their unit and SUV depend on: copies of a slice agree in it, wherever both state it.
MEASURED = (
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "Units", "SUVType", "PatientWeight", "PatientSize"),
    *("DecayCorrection", "DecayFactor", "DecayCorrectionDateTime", "CorrectedImage", "TimezoneOffsetFromUTC"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
    *("FrameReferenceTime", "ActualFrameDuration", "RadiopharmaceuticalInformationSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
PHILIPS_GROUP = 0x7053  # factors of units that only Philips knows


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
