import numpy as np
import pydicom
import pytest

from totalgen.data.demographics import Demographics
from totalgen.phantom import make_subject
from totalgen.phantom.phantom_dicom import PET_BORDER, write_study

WOMAN = Demographics("F", 60, 1.65, 71.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(phantom, CT slices, PET slices), the slices as read from disk, feet first."""
    folder = tmp_path_factory.mktemp("dicom") / "PETCT_0123456789"
    subject = make_subject(WOMAN, seed=9, voxel_mm=8.0)
    write_study(folder, folder.name, subject, WOMAN, seed=9)
    slices = [pydicom.dcmread(path) for path in folder.glob("*/*/*.dcm")]
    slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
    return subject, [d for d in slices if d.Modality == "CT"], [d for d in slices if d.Modality == "PT"]


def ras(slices, convert):
    """Voxels [x, y, z] in RAS order: written columns go to the left and rows to the back."""
    return np.stack([convert(ds)[::-1, ::-1].T for ds in slices], axis=-1)


def seconds(clock):
    return int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + float(clock[4:])


def test_suv_computed_from_the_headers_is_that_of_the_phantom(study):
    subject, _, pet = study
    drug = pet[0].RadiopharmaceuticalInformationSequence[0]
    wait_s = seconds(pet[0].SeriesTime) - seconds(drug.RadiopharmaceuticalStartTime)
    left_bq = float(drug.RadionuclideTotalDose) * 0.5 ** (wait_s / float(drug.RadionuclideHalfLife))
    weight_g = float(pet[0].PatientWeight) * 1000
    suv = ras(pet, lambda ds: ds.pixel_array * float(ds.RescaleSlope) * weight_g / left_bq)
    b = PET_BORDER
    expected = subject.suv.voxels[:, :, :-1]
    step = expected.max(axis=(0, 1)) / 32767  # of the stored integers, per slice
    assert (abs(suv[b:-b, b:-b] - expected) <= 0.51 * step + 1e-6).all()
    suv[b:-b, b:-b] = 0
    assert not suv.any()


def test_hounsfield_units_are_restored_within_half_a_unit(study):
    subject, ct, _ = study
    hu = ras(ct, lambda ds: ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept))
    assert abs(hu - subject.ct.voxels).max() <= 0.5


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_geometry_puts_voxels_at_the_positions_given_by_the_affine(study, modality):
    subject, ct, pet = study
    slices, volume, border = (ct, subject.ct, 0) if modality == "CT" else (pet, subject.suv, PET_BORDER)
    i, j, k = 20, 25, 30
    ds = slices[k]
    assert np.allclose(ds.ImageOrientationPatient, [1, 0, 0, 0, 1, 0])
    row, column = ds.Rows - 1 - (j + border), ds.Columns - 1 - (i + border)
    left = ds.ImagePositionPatient[0] + column * ds.PixelSpacing[1]
    back = ds.ImagePositionPatient[1] + row * ds.PixelSpacing[0]
    assert (-left, -back, ds.ImagePositionPatient[2]) == pytest.approx(tuple(volume.world((i, j, k))), abs=1e-3)
    steps = np.diff([s.ImagePositionPatient[2] for s in slices])
    assert steps == pytest.approx(8.0, abs=1e-3)


def test_series_share_study_and_frame_but_not_grid_and_every_pet_slice_has_its_slope(study):
    _, ct, pet = study
    everything = ct + pet
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({getattr(ds, name) for ds in everything}) == 1
    assert len({ds.SOPInstanceUID for ds in everything}) == len(everything)
    assert {ds.SeriesInstanceUID for ds in ct}.isdisjoint({ds.SeriesInstanceUID for ds in pet})
    assert (ct[0].Columns, len(ct)) != (pet[0].Columns, len(pet))
    assert len({ds.RescaleSlope for ds in pet}) > 0.9 * len(pet)


def test_headers_contain_the_patient_and_the_tracer(study):
    _, ct, pet = study
    for ds in (ct[0], pet[0]):
        assert (ds.PatientSex, ds.PatientAge) == ("F", "060Y")
        assert (float(ds.PatientSize), float(ds.PatientWeight)) == (1.65, 71.5)
        assert "phantom" in ds.Manufacturer
        assert "phantom" in ds.ImageComments
        assert "phantom" in ds.SeriesDescription
    assert (pet[0].Units, pet[0].DecayCorrection) == ("BQML", "START")
    drug = pet[0].RadiopharmaceuticalInformationSequence[0]
    assert float(drug.RadionuclideHalfLife) == 6586.2
    assert drug.RadiopharmaceuticalCodeSequence[0].CodeValue == "35321007"  # fluorodeoxyglucose F-18


def test_each_bed_refers_to_the_start_of_the_scan(study):
    _, _, pet = study
    start = seconds(pet[0].SeriesTime)
    beds = {seconds(ds.AcquisitionTime) - start for ds in pet}
    assert len(beds) > 3
    assert min(beds) == 0
    for ds in pet:
        # acquisition − frame reference time + mean time within the frame (just under its middle) = start of the scan
        within = start - seconds(ds.AcquisitionTime) + float(ds.FrameReferenceTime) / 1000
        assert 59 < within < 60
        assert float(ds.DecayFactor) == pytest.approx(2 ** (float(ds.FrameReferenceTime) / 1000 / 6586.2))
