"""Small DICOM series, written from world coordinates and independent of the code that reads them."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

REPOSITORY = Path(__file__).parents[2]
CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "PT": "1.2.840.10008.5.1.4.1.1.128"}
PERSON = dict(
    PatientID="P1", PatientName="Doe^Jane", PatientBirthDate="19500101", PatientSex="F", PatientIdentityRemoved="YES"
)


def pet_tags(**changes):
    """Header values of a plain FDG PET: 70 kg, 350 MBq at 08:00, scan at 09:00, decay-corrected to its start."""
    drug = dict(
        Radiopharmaceutical="Fluorodeoxyglucose",
        RadiopharmaceuticalStartTime="080000",
        RadionuclideTotalDose=350e6,
        RadionuclideHalfLife=6586.2,
    )
    tags = dict(
        Units="BQML",
        DecayCorrection="START",
        CorrectedImage=["DECY", "ATTN"],
        SeriesDate="20200101",
        SeriesTime="090000",
        AcquisitionDate="20200101",
        AcquisitionTime="090000",
        ActualFrameDuration=120000,
    )
    for name, value in changes.items():
        target = drug if name.startswith("Radi") else tags
        if value is None:
            target.pop(name, None)
        else:
            target[name] = value
    sequence = Dataset()
    for name, value in drug.items():
        setattr(sequence, name, value)
    return dict(tags, RadiopharmaceuticalInformationSequence=[sequence])


def header(**tags):
    """A Dataset with the given values."""
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_series(folder, voxels, affine, modality, slopes=None, intercept=0.0, per_slice=None, names=None, **tags):
    """Write stored = (voxels − intercept) / slope as one file per slice; returns the paths.

    voxels: [columns, rows, slices];  affine: to world mm, RAS+;  per_slice(k): dict of further values.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, float)
    spacing = np.linalg.norm(lps[:3, :2], axis=0)
    study, series = tags.pop("StudyInstanceUID", "1.2.3"), tags.pop("SeriesInstanceUID", pydicom.uid.generate_uid())
    paths = []
    for k in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CLASSES[modality]
        path = folder / (names[k] if names else f"{k:04}.dcm")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CLASSES[modality], pydicom.uid.generate_uid()
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, modality
        data.FrameOfReferenceUID, data.SeriesDescription, data.StudyDate = "1.2.9", modality, "20200101"
        data.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        data.ImagePositionPatient = [round(float(v), 6) for v in (lps @ [0, 0, k, 1])[:3]]
        data.PixelSpacing = [spacing[1], spacing[0]]
        slope = 1.0 if slopes is None else float(slopes[k])
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        stored = np.round((voxels[:, :, k].T - intercept) / slope).astype(np.int16)
        data.Rows, data.Columns = stored.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        for name, value in {**PERSON, **tags, **(per_slice(k) if per_slice else {})}.items():
            if value is None and name in data:
                delattr(data, name)
            elif value is not None:
                setattr(data, name, value)
        data.PixelData = stored.tobytes()
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@pytest.fixture
def dicom():
    """The functions above, for tests."""

    class Writers:
        series, pet, dataset = staticmethod(write_series), staticmethod(pet_tags), staticmethod(header)

        @staticmethod
        def study(root, subject="P1", slices=12, pet=None, ct=None, **tags):
            """A CT and a PET of a warm cylinder under <root>/dicom/<subject>; returns their paths. pet, ct: tags of one
            of the two."""
            x, y = np.meshgrid(np.arange(40) - 20, np.arange(40) - 20, indexing="ij")
            disc = np.repeat(((x**2 + y**2) < 200)[:, :, None], slices, axis=2)
            affine = np.diag([5.0, 5.0, 5.0, 1.0])
            affine[:3, 3] = -100, -100, 0
            person = dict(PatientID=subject, PatientAge="060Y", PatientWeight=70.0, StudyInstanceUID=f"1.2.{subject}1")
            person = {**person, "StudyInstanceUID": pydicom.uid.generate_uid(entropy_srcs=[subject]), **tags}
            below = Path(root) / "dicom" / subject / "study"
            ct = write_series(below / "ct", np.where(disc, 40, -1000), affine, "CT", **{**person, **(ct or {})})
            pet = {**pet_tags(), "PatientSize": 1.70, **person, **(pet or {})}
            pet = write_series(below / "pet", np.where(disc, 5000.0, 0), affine, "PT", slopes=[0.5] * slices, **pet)
            return ct, pet

    return Writers


@pytest.fixture
def script():
    """script(name, *arguments) → click's Result of a numbered preprocessing script."""

    def run(name, *arguments):
        import runpy

        path = next((REPOSITORY / "0_Preprocess").glob(f"{name}_*.py"))
        return CliRunner().invoke(runpy.run_path(str(path))["main"], [str(a) for a in arguments])

    return run
