"""Enhanced multi-frame PET and CT as classic single-frame headers, one per frame, so that one code reads both.

Source: DICOM PS3.3 C.7.6.16 (functional groups), C.8.22 (Enhanced PET), C.8.15 (Enhanced CT), C.8.9 (the classic PET
keywords); PS3.16 CID 84 and 85 (units).
"""

from pydicom.dataset import Dataset

from totalgen.data.suv import local_time
from totalgen.errors import InputError

ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"
ENHANCED = {
    ENHANCED_PET: "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",  # Legacy Converted Enhanced CT
}
UNITS = {  # UCUM code of Measurement Units → Units, SUV Type; the first that a frame states is taken
    "Bq/ml": ("BQML", None),
    "{SUVbw}g/ml": ("GML", "BW"),
    "{SUVlbm}g/ml": ("GML", "LBM"),
    "{SUVlbm(James128)}g/ml": ("GML", "LBMJAMES128"),
    "{SUVlbm(Janma)}g/ml": ("GML", "LBMJANMA"),
    "{SUVibw}g/ml": ("GML", "IBW"),
    "{SUVbsa}cm2/ml": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", None),
    "{propcounts}": ("PROPCNTS", None),
}
CORRECTED = {  # flag of the Enhanced PET Corrections module → word of Corrected Image
    "DecayCorrected": "DECY",
    "AttenuationCorrected": "ATTN",
    "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM",
    "GantryMotionCorrected": "MOTN",
    "PatientMotionCorrected": "PMOT",
    "CountLossNormalizationCorrected": "CLN",
    "RandomsCorrected": "RAN",
    "NonUniformRadialSamplingCorrected": "RADL",
    "SensitivityCalibrated": "DCAL",
    "DetectorNormalizationCorrection": "NORM",
}
PLACE = {
    "ImagePositionPatient": "Image Position (Patient) (0020,0032)",
    "ImageOrientationPatient": "Image Orientation (Patient) (0020,0037)",
    "PixelSpacing": "Pixel Spacing (0028,0030)",
}
BULKY = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelData", "NumberOfFrames")
BEQUEREL_FROM = 1e6  # a dose from here on is written in Bq, whatever the standard requires; no dose is 10⁶ MBq


def frame_headers(dataset: Dataset) -> list[Dataset]:
    """Classic headers of an image: a list of Datasets without pixels, one per frame in stored order.

    dataset: pydicom Dataset of an Enhanced or Legacy Converted Enhanced PET or CT, whose frames' functional groups are
    merged with what the file states once. Any other image is returned as [dataset].
    Elements the frames share are one object: replace them, do not assign to their value.
    Raises InputError naming the frame and what it lacks: its place, or a PET's scaling.
    """
    modality = ENHANCED.get(str(dataset.get("SOPClassUID", "")))
    if modality is None:
        return [dataset]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    promised = int(dataset.get("NumberOfFrames", 0) or 0)
    if not frames or len(frames) != promised:
        raise InputError(f"{promised} frames (0028,0008), but {len(frames)} described (5200,9230). Export it again.")
    common = Dataset()
    common.update({element.tag: element for element in dataset if element.keyword not in BULKY})
    if modality == "PT":
        _classic_pet(common)
    _lift(common, (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])
    headers = []
    for number, groups in enumerate(frames, 1):
        header = Dataset()
        header.update(common)
        _lift(header, groups)
        _classic_frame(header, modality)
        missing = [name for keyword, name in PLACE.items() if not header.get(keyword)]
        if modality == "PT" and header.get("RescaleSlope") is None:
            missing.append("Rescale Slope (0028,1053) or Real World Value Slope (0040,9225)")
        if missing:
            raise InputError(f"frame {number} has no {', no '.join(missing)}. Export the image again.")
        headers.append(header)
    return headers


def _lift(header, groups):
    """Put the elements of every functional group into the header itself; Real World Value Mapping may have several
    items and stays as it is. What a private group says means something to its maker alone."""
    for group in groups:
        if group.tag.is_private:
            continue
        if group.keyword == "RealWorldValueMappingSequence":
            header[group.tag] = group
        elif group.VR == "SQ" and group.value:
            header.update({element.tag: element for element in group.value[0]})


def _classic_pet(common):
    """Decay correction, corrections and dose, which the file states once, with the classic keywords."""
    decay = str(common.get("DecayCorrected", "") or "")
    if decay and not common.get("DecayCorrection"):
        common.add_new("DecayCorrection", "CS", {"YES": "START", "NO": "NONE"}.get(decay, decay))
    if "CorrectedImage" not in common:
        words = [word for flag, word in CORRECTED.items() if common.get(flag) == "YES"]
        if any(flag in common for flag in CORRECTED):
            common.add_new("CorrectedImage", "CS", words)
    drugs = common.get("RadiopharmaceuticalInformationSequence")
    if drugs and common.get("SOPClassUID") == ENHANCED_PET:  # C.8.22.4: in MBq; the classic module C.8.9.2: in Bq
        common.add_new("RadiopharmaceuticalInformationSequence", "SQ", [_in_bq(drug) for drug in drugs])


def _in_bq(drug):
    dose = drug.get("RadionuclideTotalDose")
    copied = Dataset()
    copied.update(drug)
    if dose is not None and float(dose) < BEQUEREL_FROM:
        copied.add_new("RadionuclideTotalDose", "DS", f"{float(dose) * 1e6:.10g}")
    return copied


def _classic_frame(header, modality):
    """Classic keywords for what the functional groups of a frame name differently."""
    if header.get("FrameType"):
        header.add_new("ImageType", "CS", header.FrameType)
    written = header.get("FrameAcquisitionDateTime")
    if not written and not header.get("AcquisitionTime"):
        written = header.get("AcquisitionDateTime")  # of the whole scan
    acquired = local_time(written, header.get("TimezoneOffsetFromUTC"))
    if acquired is not None:
        header.add_new("AcquisitionDate", "DA", f"{acquired:%Y%m%d}")
        header.add_new("AcquisitionTime", "TM", f"{acquired:%H%M%S.%f}")
    if header.get("FrameAcquisitionDuration") is not None:
        header.add_new("ActualFrameDuration", "IS", round(float(header.FrameAcquisitionDuration)))
    mappings = {_unit_code(item): item for item in header.get("RealWorldValueMappingSequence") or ()}
    if not mappings:
        return
    code = next((known for known in UNITS if known in mappings), next(iter(mappings)))
    its_unit = modality == "PT" and not header.get("Units")
    if its_unit:
        units, suv_type = UNITS.get(code, (code, None))
        # The code of an unknown unit is no legal CS; it is kept, so that the SUV code can name it in its error.
        header.add_new("Units", "CS" if code in UNITS else "LO", units)
        if suv_type:
            header.add_new("SUVType", "CS", suv_type)
    slope, intercept = mappings[code].get("RealWorldValueSlope"), mappings[code].get("RealWorldValueIntercept", 0)
    # The mapping starts from stored values (C.7.6.16.2.11). Where it gives the unit it gives the scale too; but a slope
    # of 1 together with another Rescale Slope refers to rescaled values.
    rescaled = header.get("RescaleSlope") is not None
    if slope is not None and (not rescaled or (its_unit and (slope, intercept) != (1, 0))):
        header.add_new("RescaleSlope", "DS", float(slope))
        header.add_new("RescaleIntercept", "DS", float(intercept))


def _unit_code(mapping):
    code = (mapping.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
    value = code.get("CodeValue") or code.get("LongCodeValue") or ""  # the latter from 17 characters on
    return str(value).replace("mL", "ml")  # UCUM knows both
