"""What the slices of an invented CT and FDG PET state of their scan: doses, times and corrections that fit each other.

Source: DICOM PS3.3, CT Image (C.8.2.1), PET Series, Isotope and Image modules (C.8.9), NM/PET Patient Orientation
(C.8.4.6); PS3.16 CID 19, 20 and 21.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage

from totalgen.data.suv import F18_HALF_LIFE_S
from totalgen.data.volume import Volume

UPTAKE_S = 3600
BED_SECONDS, BED_MM, BED_OVERLAP_MM = 120, 216.0, 60.0

Complete = Callable[[Dataset, int, np.ndarray], None]


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def ct_scan(start: datetime) -> Complete:
    """What a CT slice states; start: of the PET that it belongs to."""
    scan = start - timedelta(minutes=2)

    def complete(ds, number, values):
        ds.SOPClassUID, ds.Modality = CTImageStorage, "CT"
        ds.KVP, ds.AcquisitionNumber, ds.ConvolutionKernel = "120", 1, "none"
        ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{scan:%Y%m%d}"
        ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{scan:%H%M%S}"
        ds.RescaleType = "HU"

    return complete


def pet_scan(suv: Volume, start: datetime, dose_bq: float, weight_kg: float) -> tuple[Volume, Complete]:
    """(activity in Bq/mL at ``start``, what a slice of it states), of a PET that is corrected for decay to its start.

    SUVbw = activity · weight in g / (dose · 2^(−uptake / half-life)).
    """
    decay = np.log(2) / F18_HALF_LIFE_S
    becquerel_per_suv = dose_bq * 2.0 ** (-UPTAKE_S / F18_HALF_LIFE_S) / (weight_kg * 1000)
    average_s = np.log(decay * BED_SECONDS / (1 - np.exp(-decay * BED_SECONDS))) / decay  # count rate at its mean
    drug = _fdg(dose_bq, start - timedelta(seconds=UPTAKE_S))
    slices, thickness = suv.shape[2], suv.voxel_mm[2]

    def complete(ds, number, values):
        # the bed starts at the thighs, so the activity in the bladder is still low
        from_feet = (slices - number) * thickness
        bed = int(from_feet // (BED_MM - BED_OVERLAP_MM))
        taken = start + timedelta(seconds=bed * BED_SECONDS)
        reference_s = bed * BED_SECONDS + average_s
        ds.SOPClassUID, ds.Modality = PositronEmissionTomographyImageStorage, "PT"
        ds.SeriesDate, ds.SeriesTime = f"{start:%Y%m%d}", f"{start:%H%M%S}.00"
        ds.AcquisitionDate = ds.ContentDate = f"{taken:%Y%m%d}"
        ds.AcquisitionTime = ds.ContentTime = f"{taken:%H%M%S}.00"
        ds.Units, ds.SUVType, ds.CountsSource, ds.DecayCorrection = "BQML", "BW", "EMISSION", "START"
        ds.SeriesType, ds.NumberOfSlices, ds.ImageIndex = ["WHOLE BODY", "IMAGE"], slices, number
        ds.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "RAN", "DECY"]
        ds.AttenuationCorrectionMethod, ds.ScatterCorrectionMethod, ds.RandomsCorrectionMethod = "none", "none", "NONE"
        ds.ReconstructionMethod, ds.CollimatorType = "none", "NONE"
        ds.ActualFrameDuration, ds.FrameReferenceTime = str(BED_SECONDS * 1000), f"{reference_s * 1000:.3f}"
        ds.DecayFactor = f"{np.exp(decay * reference_s):.8g}"
        ds.RadiopharmaceuticalInformationSequence = [drug]
        put_position(ds, "HFS")

    return Volume(suv.voxels.astype(np.float64) * becquerel_per_suv, suv.affine), complete


def _fdg(dose_bq, injection):
    drug = Dataset()
    drug.Radiopharmaceutical = "Fluorodeoxyglucose"
    drug.RadiopharmaceuticalStartTime = f"{injection:%H%M%S}.00"
    drug.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S}.00"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = str(round(dose_bq)), str(F18_HALF_LIFE_S)
    drug.RadionuclidePositronFraction = "0.967"
    drug.RadionuclideCodeSequence = [code("77004003", "SCT", "^18^Fluorine")]
    drug.RadiopharmaceuticalCodeSequence = [code("35321007", "SCT", "Fluorodeoxyglucose F^18^")]
    return drug


ENTRY = {"HF": ("102540008", "headfirst"), "FF": ("102541007", "feet-first")}  # CID 21
LYING = {  # CID 20
    "S": ("40199007", "supine"), "P": ("1240000", "prone"), "DR": ("102535000", "right lateral decubitus"),
    "DL": ("102536004", "left lateral decubitus"),
}  # fmt: skip


def put_position(ds: Dataset, position: str) -> None:
    """Put the codes of a position such as HFS into a PET header, which has them in its place (PS3.3 C.7.3.1, C.8.4.6);
    empty ones for a position that is not known."""
    entry, lying = ENTRY.get(position[:2]), LYING.get(position[2:])
    ds.pop("PatientPosition", None)
    ds.PatientOrientationCodeSequence = ds.PatientGantryRelationshipCodeSequence = []
    if entry and lying:
        recumbent = code("102538003", "SCT", "recumbent")
        recumbent.PatientOrientationModifierCodeSequence = [code(lying[0], "SCT", lying[1])]
        ds.PatientOrientationCodeSequence = [recumbent]
        ds.PatientGantryRelationshipCodeSequence = [code(entry[0], "SCT", entry[1])]
