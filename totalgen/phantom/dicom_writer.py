"""A phantom subject as a PET/CT study in DICOM, with the layout of the public FDG-PET-CT-Lesions collection.

Values are stored as a scanner stores them: CT as 16-bit HU, PET as Bq/mL with one rescale slope per slice, corrected
for decay to the start of the scan, in two series of one frame of reference whose grids differ.
Source: DICOM PS3.3, CT Image and PET Image information objects.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.volume import Volume, moved
from totalgen.phantom.subject import PhantomSubject

HALF_LIFE_S = 6586.2  # F-18
DOSE_BQ_PER_KG = 3.5e6
UPTAKE_S = 3600
BED_SECONDS, BED_MM, BED_OVERLAP_MM = 120, 216.0, 60.0
PET_BORDER = 5  # voxels of air that the PET field has around the CT field
CT_INTERCEPT = -1024
SIGNED_MAX = 32767
COMMENT = "Computer-generated phantom, not a patient (TotalGen)"


def write_study(
    folder: str | Path, patient: str, subject: PhantomSubject, demographics: Demographics, seed: int
) -> None:
    """Write <folder>/<date>-…/<series>/*.dcm, the complete folder atomically.

    patient: PatientID;  seed: identifiers, dose and times depend on it alone.
    Mapping back: SUVbw = (stored · slope) · weight_g / (dose · 2^(−(scan start − injection)/half-life)).
    """
    rng = np.random.default_rng((seed, 1))
    start = datetime(2003, 1, 6) + timedelta(
        days=int(rng.integers(0, 3000)), seconds=int(rng.integers(8 * 3600, 17 * 3600))
    )
    common = _patient_and_study(patient, demographics, seed, start)
    ct = _ct_slices(common, subject.ct, start)
    dose = round(demographics.weight_kg * DOSE_BQ_PER_KG * float(rng.uniform(0.9, 1.1)))
    pet = _pet_slices(common, subject.suv, start, dose, demographics.weight_kg)
    study = f"{start:%m-%d-%Y}-NA-PET-CT torso phantom-{common.StudyInstanceUID[-5:]}"
    with atomic(folder) as part:
        for number, name, slices in ((2, "CT", ct), (5, "PET", pet)):
            uid = generate_uid(entropy_srcs=[str(seed), name])
            place = part / study / f"{number}.000000-{name} torso phantom-{uid[-5:]}"
            place.mkdir(parents=True)
            for index, ds in enumerate(slices, start=1):
                ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = uid, number, index
                ds.SeriesDescription = f"{name} torso phantom"
                ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(seed), name, str(index)])
                _save(ds, place / f"1-{index:03d}.dcm")


def _patient_and_study(patient, d, seed, start):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"Phantom^{patient}", patient, ""
    ds.PatientSex, ds.PatientAge = d.sex, f"{round(d.age_years):03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{d.height_m:.2f}", f"{d.weight_kg:.1f}"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", COMMENT
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[str(seed), "study"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(seed), "frame"])
    ds.StudyDate, ds.StudyTime = f"{start:%Y%m%d}", f"{start - timedelta(minutes=5):%H%M%S}"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription = "PET/CT torso phantom"
    ds.Manufacturer, ds.ManufacturerModelName = "TotalGen phantom", "Parametric torso"
    ds.ImageComments, ds.PositionReferenceIndicator = COMMENT, ""
    ds.PatientPosition, ds.BodyPartExamined, ds.Laterality = "HFS", "CHESTABDPELVIS", ""
    return ds


def _slices(common, volume):
    """(Dataset with the geometry, pixels [row, column]) of every slice, head first; rows run back, columns left."""
    voxel = [float(v) for v in volume.voxel_mm]
    nx, ny, nz = volume.shape
    for k in reversed(range(nz)):
        ds = Dataset()
        ds.update(common)
        x, y, z = volume.world((nx - 1, ny - 1, k))
        ds.ImagePositionPatient = [f"{v:.4f}" for v in (-x, -y, z)]  # DICOM: LPS
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [f"{voxel[1]:.6g}", f"{voxel[0]:.6g}"]
        ds.SliceThickness, ds.SliceLocation = f"{voxel[2]:.6g}", f"{z:.4f}"
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = ny, nx
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.LossyImageCompression = "00"
        yield ds, volume.voxels[::-1, ::-1, k].T


def _ct_slices(common, volume, start):
    scan = start - timedelta(minutes=2)
    for ds, hu in _slices(common, volume):
        ds.SOPClassUID, ds.Modality = CTImageStorage, "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.KVP, ds.AcquisitionNumber, ds.ConvolutionKernel = "120", 1, "phantom"
        ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{scan:%Y%m%d}"
        ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{scan:%H%M%S}"
        ds.PixelRepresentation = 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", str(CT_INTERCEPT), "HU"
        ds.PixelData = np.clip(np.rint(hu) - CT_INTERCEPT, 0, 65535).astype("<u2").tobytes()
        yield ds


def _pet_slices(common, volume, start, dose, weight_kg):
    volume = _on_pet_grid(volume)
    decay = np.log(2) / HALF_LIFE_S
    at_start = dose * 2.0 ** (-UPTAKE_S / HALF_LIFE_S)
    becquerel_per_suv = at_start / (weight_kg * 1000)
    average_s = (
        np.log(decay * BED_SECONDS / (1 - np.exp(-decay * BED_SECONDS))) / decay
    )  # time within a frame at which the count rate is the average of the frame
    injection = start - timedelta(seconds=UPTAKE_S)
    drug = Dataset()
    drug.Radiopharmaceutical = "Fluorodeoxyglucose"
    drug.RadiopharmaceuticalStartTime = f"{injection:%H%M%S}.00"
    drug.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S}.00"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = str(dose), str(HALF_LIFE_S)
    drug.RadionuclidePositronFraction = "0.967"
    drug.RadionuclideCodeSequence = [_code("C-111A1", "SRT", "^18^Fluorine")]
    drug.RadiopharmaceuticalCodeSequence = [_code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")]
    thickness = volume.voxel_mm[2]
    for index, (ds, suv) in enumerate(_slices(common, volume), start=1):
        # the bed starts at the thighs, so the activity in the bladder is still low
        from_feet = (volume.shape[2] - index) * thickness
        bed = int(from_feet // (BED_MM - BED_OVERLAP_MM))
        taken = start + timedelta(seconds=bed * BED_SECONDS)
        reference_s = bed * BED_SECONDS + average_s
        ds.SOPClassUID, ds.Modality = PositronEmissionTomographyImageStorage, "PT"
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.SeriesDate, ds.SeriesTime = f"{start:%Y%m%d}", f"{start:%H%M%S}.00"
        ds.AcquisitionDate = ds.ContentDate = f"{taken:%Y%m%d}"
        ds.AcquisitionTime = ds.ContentTime = f"{taken:%H%M%S}.00"
        ds.Units, ds.SUVType, ds.CountsSource, ds.DecayCorrection = "BQML", "BW", "EMISSION", "START"
        ds.SeriesType, ds.NumberOfSlices, ds.ImageIndex = ["WHOLE BODY", "IMAGE"], volume.shape[2], index
        ds.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "RAN", "DECY"]
        ds.AttenuationCorrectionMethod, ds.CollimatorType = "CT phantom", "NONE"
        ds.ActualFrameDuration, ds.FrameReferenceTime = str(BED_SECONDS * 1000), f"{reference_s * 1000:.3f}"
        ds.DecayFactor = f"{np.exp(decay * reference_s):.8g}"
        ds.RadiopharmaceuticalInformationSequence = [drug]
        activity = suv.astype(np.float64) * becquerel_per_suv
        slope = f"{max(activity.max(), 1.0) / SIGNED_MAX * (1 + 1e-6):.9g}"  # at most 16 characters in a DICOM number
        ds.PixelRepresentation = 1
        ds.RescaleSlope, ds.RescaleIntercept = slope, "0"
        ds.PixelData = np.rint(activity / float(slope)).astype("<i2").tobytes()
        yield ds


def _on_pet_grid(volume):
    """The same voxels with a border of air in-plane and without the topmost slice: a PET field is not a CT field."""
    b = PET_BORDER
    voxels = np.pad(volume.voxels[:, :, :-1], ((b, b), (b, b), (0, 0)))
    return Volume(voxels, moved(volume.affine, (-b, -b, 0)))


def _code(value, scheme, meaning):
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def _save(ds, path):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)
