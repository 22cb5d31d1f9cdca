"""A phantom subject as a PET/CT study in DICOM, with the layout of the public FDG-PET-CT-Lesions collection.

Values are stored as a scanner stores them: CT as 16-bit HU, PET as Bq/mL with one rescale slope per slice, corrected
for decay to the start of the scan, in two series of one frame of reference whose grids differ.
Source: DICOM PS3.3, CT Image and PET Image information objects.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from totalgen.data.demographics import Demographics
from totalgen.data.dicom_writer import HOUNSFIELD, PER_SLICE, uid_of, write_series
from totalgen.data.files import atomic
from totalgen.data.scan_headers import ct_scan, pet_scan
from totalgen.data.volume import Volume, moved
from totalgen.phantom.subject import PhantomSubject

DOSE_BQ_PER_KG = 3.5e6
PET_BORDER = 5  # voxels of air that the PET field has around the CT field
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
    study = f"{start:%m-%d-%Y}-NA-PET-CT torso phantom-{common.StudyInstanceUID[-5:]}"
    dose = round(demographics.weight_kg * DOSE_BQ_PER_KG * float(rng.uniform(0.9, 1.1)))
    activity, complete = pet_scan(_on_pet_grid(subject.suv), start, dose, demographics.weight_kg)
    ct = 2, "CT", subject.ct, HOUNSFIELD, ct_scan(start)
    pet = 5, "PET", activity, PER_SLICE, complete
    with atomic(folder) as part:
        for number, name, volume, scaling, complete in (ct, pet):
            header = Dataset()
            header.update(common)
            header.SeriesInstanceUID, header.SeriesNumber = uid_of(str(seed), name), number
            header.ImageType = ["ORIGINAL", "PRIMARY", *(["AXIAL"] if name == "CT" else [])]
            header.SeriesDescription = f"{name} torso phantom"
            place = part / study / f"{number}.000000-{name} torso phantom-{header.SeriesInstanceUID[-5:]}"
            write_series(place, volume, header, scaling, [str(seed), name], complete)


def _patient_and_study(patient, d, seed, start):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"Phantom^{patient}", patient, ""
    ds.PatientSex, ds.PatientAge = d.sex, f"{round(d.age_years):03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{d.height_m:.2f}", f"{d.weight_kg:.1f}"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", COMMENT
    ds.StudyInstanceUID = uid_of(str(seed), "study")
    ds.FrameOfReferenceUID = uid_of(str(seed), "frame")
    ds.StudyDate, ds.StudyTime = f"{start:%Y%m%d}", f"{start - timedelta(minutes=5):%H%M%S}"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription = "PET/CT torso phantom"
    ds.Manufacturer, ds.ManufacturerModelName = "TotalGen phantom", "Parametric torso"
    ds.ImageComments, ds.PositionReferenceIndicator = COMMENT, ""
    ds.PatientPosition, ds.BodyPartExamined = "HFS", "CHESTABDPELVIS"
    ds.LossyImageCompression = "00"
    return ds


def _on_pet_grid(volume):
    """The same voxels with a border of air in-plane and without the topmost slice: a PET field is not a CT field."""
    b = PET_BORDER
    voxels = np.pad(volume.voxels[:, :, :-1], ((b, b), (b, b), (0, 0)))
    return Volume(voxels, moved(volume.affine, (-b, -b, 0)))

