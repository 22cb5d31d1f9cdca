"""A PET/CT of nobody as one DICOM study: CT and PET in one frame of reference, organ masks as a segmentation.

Every file says that it is synthetic: Synthetic Data (0008,001C) YES, patient name, comments. Dose, times and dates are
invented and fit each other, so that any software computes the SUV that was meant.
Source: DICOM PS3.3 (SOP Common C.12.1, Segmentation C.8.20), PS3.5 B.2 (UIDs made of UUIDs).
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from totalgen.data.demographics import Demographics
from totalgen.data.dicom_writer import HOUNSFIELD, PER_SLICE, uid_of, write_series
from totalgen.data.organs import ORGANS
from totalgen.data.scan_headers import ct_scan, pet_scan
from totalgen.data.volume import Volume, canonical

DOSE_BQ_PER_KG = 3.5e6
START = datetime(2000, 1, 3, 10, 0)  # nobody was scanned
MAKER, COMMENT = "TotalGen", "Synthetic image made by a generative model (TotalGen). Not a patient."
SERIES = {"CT": 2, "SUV": 3}
SEGMENTATION_NUMBER = 100


def write_synthetic(
    folder: Path, volumes: Mapping[str, Volume], person: Demographics, name: str, about: str, version: str
) -> None:
    """Write <folder>/{CT,PT}/1-###.dcm and, where there are ``organs``, <folder>/SEG/organs.dcm.

    volumes: CT (HU), SUV and perhaps organs, on one grid;  name: of the study, its Patient ID;  about: text that all
    UIDs follow from;  version: of the software.
    """
    common = _study(name, person, about, version)
    dose = person.weight_kg * DOSE_BQ_PER_KG
    activity, pet = pet_scan(volumes["SUV"], START, dose, person.weight_kg)
    parts = {"CT": (volumes["CT"], HOUNSFIELD, ct_scan(START)), "SUV": (activity, PER_SLICE, pet)}
    written = {}
    for key, (volume, scaling, complete) in parts.items():
        header = Dataset()
        header.update(common)
        modality = {"CT": "CT", "SUV": "PT"}[key]
        header.SeriesInstanceUID, header.SeriesNumber = uid_of(about, key), SERIES[key]
        header.SeriesDescription = f"Synthetic {modality}"
        header.ImageType = ["DERIVED", "PRIMARY", *(["AXIAL"] if key == "CT" else [])]
        written[key] = write_series(folder / modality, volume, header, scaling, [about, key], complete)
    if "organs" in volumes:
        _write_organs(folder / "SEG" / "organs.dcm", volumes["organs"], written["CT"], about, version)


def _study(name, person, about, version):
    ds = Dataset()
    ds.SpecificCharacterSet, ds.SyntheticData = "ISO_IR 192", "YES"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"Synthetic^{name}"[:64], name[:64], ""
    ds.PatientSex, ds.PatientAge = person.sex, f"{round(person.age_years):03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{person.height_m:.4g}", f"{person.weight_kg:.6g}"
    ds.PatientComments = ds.ImageComments = COMMENT
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "synthetic: nobody was imaged"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = uid_of(about, "study"), uid_of(about, "frame")
    ds.StudyDate, ds.StudyTime = f"{START:%Y%m%d}", f"{START:%H%M%S}"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription = "Synthetic PET/CT"
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = MAKER, MAKER, version
    ds.DerivationDescription = COMMENT
    ds.PositionReferenceIndicator, ds.PatientPosition = "", "HFS"
    ds.BodyPartExamined = "CHESTABDPELVIS"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    return ds


ORGAN, BONE = codes.SCT.Organ, codes.SCT.Bone
KINDS: Mapping[str, tuple[Code, Code]] = {  # name → property category, property type
    "spleen": (ORGAN, codes.SCT.Spleen),
    "kidney_right": (ORGAN, codes.SCT.Kidney),
    "kidney_left": (ORGAN, codes.SCT.Kidney),
    "liver": (ORGAN, codes.SCT.Liver),
    "stomach": (ORGAN, codes.SCT.Stomach),
    "pancreas": (ORGAN, codes.SCT.Pancreas),
    "urinary_bladder": (ORGAN, codes.SCT.Bladder),
    "sacrum": (BONE, codes.SCT.Sacrum),
    "heart": (ORGAN, codes.SCT.Heart),
    "scapula_left": (BONE, codes.SCT.Scapula),
    "scapula_right": (BONE, codes.SCT.Scapula),
    "clavicula_left": (BONE, codes.SCT.Clavicle),
    "clavicula_right": (BONE, codes.SCT.Clavicle),
    "hip_left": (BONE, codes.SCT.Hip),
    "hip_right": (BONE, codes.SCT.Hip),
}
SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}


def _write_organs(path, organs, ct_files, about, version):
    """A binary segmentation of the organs that are there, with references to the slices of the CT."""
    sources = [pydicom.dcmread(file) for file in ct_files]
    voxels = canonical(organs).voxels[::-1, ::-1, ::-1].transpose(2, 1, 0)  # slice, row, column, head first, as the CT
    algorithm = AlgorithmIdentificationSequence("TotalGen segmenter", codes.DCM.ArtificialIntelligence, version)
    found = {name: number for name, number in ORGANS.items() if (voxels == number).any()}
    if not found:
        return
    segments = [_segment(number, name, about, algorithm) for number, name in enumerate(found, start=1)]
    masks = np.stack([voxels == number for number in found.values()], axis=-1).astype(np.uint8)
    segmentation = Segmentation(
        sources, masks, SegmentationTypeValues.BINARY, segments, uid_of(about, "organs"), SEGMENTATION_NUMBER,
        uid_of(about, "organs", "instance"), 1, MAKER, MAKER, version, "0", content_label="ORGANS",
        content_description="Organs found by a network on a synthetic CT", series_description="Synthetic CT: organs",
    )  # fmt: skip
    segmentation.SyntheticData = "YES"
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid_of(about, "organs", "dimensions")  # the library's own is random
    for item in segmentation.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = f"{START:%Y%m%d%H%M%S}"
    for what in ("Content", "Series", "InstanceCreation"):
        setattr(segmentation, f"{what}Date", f"{START:%Y%m%d}")
        setattr(segmentation, f"{what}Time", f"{START:%H%M%S}")
    path.parent.mkdir(parents=True)
    segmentation.save_as(path)


def _segment(number, name, about, algorithm):
    category, kind = KINDS[name]
    side = SIDES.get(name.rpartition("_")[2])
    description = SegmentDescription(
        number, name, category, kind, SegmentAlgorithmTypeValues.AUTOMATIC, algorithm,
        tracking_uid=uid_of(about, "organ", name), tracking_id=name,
    )  # fmt: skip
    if side is not None:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = side.value, side.scheme_designator, side.meaning
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [item]
    return description
