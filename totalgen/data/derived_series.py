"""A volume made from a DICOM series, as a series of its own: a PET keeps dose, times and units, an MR is made of a CT.

What is copied from the source is listed here; nothing else is. Without the identity, dates are moved by a number of
days that only the salt tells (DICOM PS3.15 E.3.6, modified dates), so that what lies between them stays.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import MRImageStorage, PositronEmissionTomographyImageStorage

from totalgen.data import identity
from totalgen.data.dicom_writer import PER_SLICE, Scaling, uid_of, write_series
from totalgen.data.header_numbers import optional_number
from totalgen.data.scan_headers import put_position
from totalgen.data.suv import (
    GE_PRIVATE,
    GE_SCAN_DATETIME,
    PHILIPS_ACTIVITY,
    PHILIPS_PRIVATE,
    PHILIPS_SUV,
    private_text,
)
from totalgen.data.volume import Volume, canonical
from totalgen.errors import InputError

PATIENT_AND_STUDY = (  # copied only when the identity is kept
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "OtherPatientIDs", "EthnicGroup"),
    *("StudyInstanceUID", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "InstitutionName", "StationName", "DeviceSerialNumber"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
)
SERIES = (  # of the scan, of the patient's body and of each slice; of nobody
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "BodyPartExamined", "PatientPosition"),
    *("PatientSex", "PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC"),
)
PET_SERIES = (
    *("Units", "SUVType", "CountsSource", "SeriesType", "CorrectedImage", "DecayCorrection", "DecayFactor"),
    *("ReprojectionMethod", "RandomsCorrectionMethod", "AttenuationCorrectionMethod", "ScatterCorrectionMethod"),
    *("ReconstructionMethod", "ConvolutionKernel", "CollimatorType", "AcquisitionStartCondition"),
    *("ActualFrameDuration", "FrameReferenceTime", "DoseCalibrationFactor", "ScatterFractionFactor"),
    *("DeadTimeFactor", "AxialAcceptance", "AxialMash", "AcquisitionNumber"),
)
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
DATE_TIMES = ("AcquisitionDateTime", "DecayCorrectionDateTime")
DRUG = (
    *("Radiopharmaceutical", "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStopTime", "RadionuclideTotalDose"),
    *("RadionuclideHalfLife", "RadionuclidePositronFraction", "RadiopharmaceuticalVolume"),
    *("RadiopharmaceuticalSpecificActivity", "RadiopharmaceuticalRoute"),
)
DRUG_DATE_TIMES = ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStopDateTime")
POSITION = ("PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence")
NEEDED = (  # may be empty, not missing (PS3.3, type 2)
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
NEEDED_OF_PET = ("CorrectedImage", "CollimatorType", "AcquisitionDate", "AcquisitionTime", "ActualFrameDuration")
ENERGIES, LIMITS = "EnergyWindowRangeSequence", ("EnergyWindowLowerLimit", "EnergyWindowUpperLimit")
CODES = ("RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence")
MODIFIER = "PatientOrientationModifierCodeSequence"
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
BODY = {"PatientSex": "sex", "PatientAge": "age_years", "PatientSize": "height_m", "PatientWeight": "weight_kg"}
PRIVATE = (  # group, creator, element, value representation
    (0x0009, GE_PRIVATE, GE_SCAN_DATETIME, "DT"),
    (0x7053, PHILIPS_PRIVATE, PHILIPS_SUV, "DS"),
    (0x7053, PHILIPS_PRIVATE, PHILIPS_ACTIVITY, "DS"),
)


class Kind(NamedTuple):
    """What is made. scaling: None for ``one_slope``;  copied: keywords of the slices' headers;  word: for its
    description;  fixed: keyword → value."""

    sop_class: str
    modality: str
    scaling: Scaling | None
    copied: tuple[str, ...]
    word: str
    fixed: Mapping[str, Any]


PET = Kind(PositronEmissionTomographyImageStorage, "PT", PER_SLICE, (*SERIES, *PET_SERIES), "denoised", {})
MR = Kind(
    MRImageStorage, "MR", None, SERIES, "MR from CT",
    dict(ScanningSequence="RM", SequenceVariant="NONE", ScanOptions="", MRAcquisitionType="3D", RepetitionTime="",
         EchoTime="", EchoTrainLength=""),
)  # fmt: skip


class Original(NamedTuple):
    """The series that another volume is made of. grid: its volume;  headers: one per slice;  values: of the patient, as
    merge_demographics gives them;  factors: what its values were multiplied by, one per slice."""

    grid: Volume
    headers: tuple[Dataset, ...]
    values: Mapping[str, Any]
    factors: np.ndarray | None = None


FEWEST_STEPS, MOST_STEPS = 1000, 65_000  # of 16 bits, for the highest value of a series
REMOVED = "TotalGen: listed attributes kept, dates moved, ids replaced"  # at most 64 characters
SHIFT_DAYS = (365, 3650)


def one_slope(volume: Volume) -> Scaling:
    """Values from 0 in 16 bits: as they are where their highest has 1 000 steps and fits, otherwise by one slope."""
    highest = float(volume.voxels.max())
    if FEWEST_STEPS <= highest <= MOST_STEPS or not highest > 0:
        return Scaling(1.0, 0.0, signed=False)
    return Scaling(float(f"{highest / MOST_STEPS:.9g}"), 0.0, signed=False)


def write_derived(
    folder: Path, volume: Volume, original: Original, kind: Kind, description: str, root: Path, about: str,
    keep_identity: bool = False,
) -> list[Path]:  # fmt: skip
    """Write ``volume``, on the grid of the original, as <folder>/1-###.dcm; returns the paths.

    Values are divided by the original's factors: a PET in SUV is stored in the units of its source.
    description: how it was made, one line;  about: text that the series' UIDs follow from;  root: folder of the salt
    by which identifiers are replaced, unless ``keep_identity``: then the series is one more of the patient's study.
    Raises InputError when the original was not DICOM.
    """
    if not original.headers:
        raise InputError("DICOM can only be derived from DICOM: the input is another kind of file. Leave --dicom out.")
    if not volume.same_grid(original.grid):
        raise ValueError("the derived volume is not on the grid of its source")
    headers = _from_the_head(original)
    first = headers[0]
    names = [identity.salt(root), str(first.get("SeriesInstanceUID", "")), about, str(keep_identity)]
    patient = identity.whose(first)
    low, high = SHIFT_DAYS
    days = 0 if keep_identity else low + int(identity.hashed(root, "days", *patient), 16) % (high - low)
    subject = None if keep_identity else identity.hidden_name(root, *patient)
    common = _common(first, kind, description, names, subject)

    def complete(dataset, number, values):
        header = headers[number - 1]
        dataset.update(_copied(header, kind.copied))
        _dates(dataset, header, days)
        _body(dataset, original.values)
        if kind is PET:
            _private(dataset, header, days)
            _position(dataset, header)
            if windows := [_copied(item, LIMITS) for item in header.get(ENERGIES) or ()]:
                setattr(dataset, ENERGIES, Items(windows))
            drugs = [_drug(item, days) for item in header.get("RadiopharmaceuticalInformationSequence") or ()]
            dataset.RadiopharmaceuticalInformationSequence = Items(drugs)
            dataset.NumberOfSlices, dataset.ImageIndex = len(headers), number
        for keyword in (*NEEDED, *(NEEDED_OF_PET if kind is PET else ())):
            if keyword not in dataset:
                setattr(dataset, keyword, None)
        if keep_identity and headers[0] is not headers[-1] and header.get("SOPInstanceUID"):
            dataset.SourceImageSequence = [_reference(header)]

    voxels = volume.voxels
    if original.factors is not None:  # one per slice, the last axis
        voxels = voxels / original.factors.astype(np.float32)
    made = Volume(voxels, volume.affine)
    return write_series(folder, made, common, kind.scaling or one_slope(made), names, complete)


def _from_the_head(original):
    """The headers in the order in which slices are written. Those of slices that are not axial are one and the same."""
    step = original.grid.affine[:3, 2]
    if np.argmax(np.abs(step)) != 2:
        if original.factors is not None and np.ptp(original.factors) > 0:
            raise InputError("slices that are not axial have SUV factors of their own. Export the series as axial.")
        return [original.headers[0]] * canonical(original.grid).shape[2]
    return list(original.headers) if step[2] < 0 else list(reversed(original.headers))


def _common(first, kind, description, names, subject):
    """What all slices share. subject: the name that stands for the patient; None keeps the patient's own."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"  # Unicode: texts come from sources of any other
    if subject is None:
        ds.update(_copied(first, PATIENT_AND_STUDY))
    else:
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{subject}^", subject, ""
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", REMOVED
        ds.LongitudinalTemporalInformationModified = "MODIFIED"
        ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", "", "", ""
    study = [names[0], str(first.get("StudyInstanceUID", ""))]  # without ``about``: one study stays one
    which = dict(StudyInstanceUID="study", FrameOfReferenceUID=str(first.get("FrameOfReferenceUID", "")))
    for keyword in which.keys() - {element.keyword for element in ds}:  # hidden, or missing in the source
        setattr(ds, keyword, uid_of(*study, which[keyword]))
    ds.SOPClassUID, ds.Modality = kind.sop_class, kind.modality
    ds.SeriesInstanceUID = uid_of(*names, "series")
    ds.SeriesNumber = 1000 + int(optional_number(first, "SeriesNumber")) % 1000
    ds.SeriesDescription = kind.word
    if subject is None and first.get("SeriesDescription"):
        ds.SeriesDescription = f"{first.SeriesDescription} {kind.word}"[:64]
    ds.ImageType = ["DERIVED", "PRIMARY", *(["OTHER"] if kind is MR else [])]  # PS3.3 C.8.3.1.1.1
    ds.DerivationDescription = description[:1024]
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    for keyword, value in kind.fixed.items():
        setattr(ds, keyword, value)
    return ds


def _copied(header: Dataset, keywords: Sequence[str]) -> Dataset:
    found = Dataset()
    for keyword in keywords:
        if header.get(keyword) not in (None, "", []):
            found[keyword] = header[keyword]
    return found


def _dates(dataset, header, days):
    dataset.update(_copied(header, TIMES))
    for keyword in (*DATES, *DATE_TIMES):
        if header.get(keyword):
            setattr(dataset, keyword, _moved(str(header[keyword].value), days))


def _moved(text: str, days: int) -> str:
    """A date, or the date that a date-time begins with, so many days earlier. What is no date is left out."""
    if not days:
        return text
    try:
        moved = date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}") - timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return f"{moved:%Y%m%d}{text[8:]}"


def _position(dataset, header):
    """Codes of how the patient lay: those of the source, or of its Patient Position."""
    put_position(dataset, str(header.get("PatientPosition") or ""))
    for keyword in POSITION:
        found = []
        for item in header.get(keyword) or ():
            found.append(_copied(item, CODE))
            if modifiers := [_copied(each, CODE) for each in item.get(MODIFIER) or ()]:
                setattr(found[-1], MODIFIER, Items(modifiers))
        if found:
            setattr(dataset, keyword, Items(found))


def _body(dataset, values):
    """What other series of the study state of the body: the SUV was made with it."""
    for keyword, field in BODY.items():
        value = values.get(field)
        if value is not None and not dataset.get(keyword):
            number = f"{round(value):03d}Y" if field == "age_years" else f"{value:.6g}"
            setattr(dataset, keyword, value if field == "sex" else number)


def _drug(item, days):
    drug = _copied(item, DRUG)
    for keyword in DRUG_DATE_TIMES:
        if item.get(keyword):
            setattr(drug, keyword, _moved(str(item[keyword].value), days))
    for keyword in CODES:
        codes = [_copied(code, CODE) for code in item.get(keyword) or ()]
        if codes:
            setattr(drug, keyword, Items(codes))
    return drug


def _private(dataset, header, days):
    """The private elements that an SUV may depend on."""
    for group, creator, element, kind in PRIVATE:
        text = private_text(header, group, creator, element)
        if text:
            text = _moved(text, days) if kind == "DT" else text
            dataset.private_block(group, creator, create=True).add_new(element, kind, text)


def _reference(header):
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
