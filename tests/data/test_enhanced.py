import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from totalgen.data.enhanced import frame_headers
from totalgen.errors import InputError

PET, LEGACY_PET = "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"
CT, LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def mapping(unit, slope, intercept=0.0):
    value = {"CodeValue" if len(unit) <= 16 else "LongCodeValue": unit}
    code = item(CodingSchemeDesignator="UCUM", CodeMeaning=unit, **value)
    return item(
        RealWorldValueSlope=slope, RealWorldValueIntercept=intercept, MeasurementUnitsCodeSequence=[code], LUTLabel="x"
    )


def image(sop_class, shared=(), frames=({}, {}, {}), **tags):
    """An enhanced image: functional groups as dicts of sequence → item; positions at z 10, 13, 16 … mm, not sorted."""
    modality = "PT" if sop_class in (PET, LEGACY_PET) else "CT"
    places = [10 + 3 * ((k + 1) % len(frames)) for k in range(len(frames))]
    shared = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": item(PixelSpacing=[4.5, 4.0], SliceThickness=3.0),
        **dict(shared),
    }
    frames = [
        {"PlanePositionSequence": item(ImagePositionPatient=[-5, 7, z]), **groups}
        for z, groups in zip(places, frames, strict=True)
    ]
    dataset = item(
        SOPClassUID=sop_class,
        SOPInstanceUID="1.2.3.4",
        SeriesInstanceUID="1.2.3",
        Modality=modality,
        PatientID="P1",
        PatientSex="F",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        Rows=2,
        Columns=2,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
        NumberOfFrames=len(frames),
        SharedFunctionalGroupsSequence=[groups(shared)],
        PerFrameFunctionalGroupsSequence=[groups(frame) for frame in frames],
        PixelData=np.zeros((len(frames), 2, 2), np.uint16).tobytes(),
        **tags,
    )
    dataset["PixelData"].VR = "OW"
    return dataset


def groups(by_name):
    return item(**{name: value if isinstance(value, list) else [value] for name, value in by_name.items()})


def slope(value, intercept=0.0):
    return {"PixelValueTransformationSequence": item(RescaleSlope=value, RescaleIntercept=intercept, RescaleType="US")}


def content(time, **values):
    return {"FrameContentSequence": item(FrameAcquisitionDateTime=f"20200101{time}", **values)}


def test_a_single_frame_stays_as_it_is(dicom):
    dataset = dicom.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.128", **dicom.pet())
    assert frame_headers(dataset) == [dataset]


def test_what_a_private_group_says_is_not_taken_for_the_frame():
    dataset = image(CT, shared=slope(1, -1024))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", [item(RescaleIntercept=0, ImagePositionPatient=[0, 0, 0])])
    headers = frame_headers(dataset)
    assert [header.RescaleIntercept for header in headers] == [-1024] * 3
    assert sorted(header.ImagePositionPatient[2] for header in headers) == [10, 13, 16]


@pytest.mark.parametrize("sop_class", [PET, LEGACY_PET, CT, LEGACY_CT])
def test_each_frame_gets_its_own_place_scale_and_time_and_what_all_share(sop_class):
    frames = [
        {**slope(s), **content(time, FrameAcquisitionDuration=120000.4)}
        for s, time in ((2.0, "090000.500"), (3.5, "090200"), (0.125, "090400"))
    ]
    headers = frame_headers(image(sop_class, frames=frames, FrameOfReferenceUID="1.2.9"))
    assert [list(h.ImagePositionPatient) for h in headers] == [[-5, 7, 13], [-5, 7, 16], [-5, 7, 10]]
    assert [float(h.RescaleSlope) for h in headers] == [2.0, 3.5, 0.125]
    assert [h.AcquisitionTime for h in headers] == ["090000.500000", "090200.000000", "090400.000000"]
    for header in headers:
        assert (header.AcquisitionDate, header.ActualFrameDuration) == ("20200101", 120000)
        assert list(header.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert (list(header.PixelSpacing), header.SliceThickness) == ([4.5, 4.0], 3.0)
        assert (header.PatientSex, header.FrameOfReferenceUID, header.Rows) == ("F", "1.2.9", 2)
        assert "PixelData" not in header
        assert "PerFrameFunctionalGroupsSequence" not in header


def test_a_file_gives_the_same_headers_as_the_dataset_it_was_written_from(tmp_path):
    dataset = image(PET, frames=[slope(2.0), slope(3.0)], DecayCorrected="YES")
    dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x09, "DS", "2.5")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = PET, "1.2.3.4"
    dataset.save_as(tmp_path / "pet.dcm", enforce_file_format=True)
    read = pydicom.dcmread(tmp_path / "pet.dcm", stop_before_pixels=True)
    assert frame_headers(read) == frame_headers(dataset)
    assert frame_headers(read)[1].private_block(0x7053, "Philips PET Private Group")[0x09].value == 2.5


def test_the_value_of_a_frame_is_preferred_to_that_of_all_frames():
    shared = {**slope(1.0), "PETFrameTypeSequence": item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])}
    own = {**slope(4.0), "PETFrameTypeSequence": item(FrameType=["DERIVED", "PRIMARY", "VOLUME", "NONE"])}
    first, second = frame_headers(image(PET, shared, [{}, own]))
    assert (first.ImageType[0], float(first.RescaleSlope)) == ("ORIGINAL", 1.0)
    assert (second.ImageType[0], float(second.RescaleSlope)) == ("DERIVED", 4.0)


UNITS = {
    "Bq/ml": ("BQML", None),
    "Bq/mL": ("BQML", None),
    "{SUVbw}g/ml": ("GML", "BW"),
    "{SUVlbm}g/ml": ("GML", "LBM"),
    "{SUVlbm(James128)}g/ml": ("GML", "LBMJAMES128"),
    "{SUVlbm(Janma)}g/ml": ("GML", "LBMJANMA"),
    "{SUVibw}g/ml": ("GML", "IBW"),
    "{SUVbsa}cm2/ml": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", None),
    "kBq/ml": ("kBq/ml", None),  # unknown here: passed on by its code
}


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_the_mapping_becomes_units_and_suv_type(unit):
    (header,) = frame_headers(image(PET, {"RealWorldValueMappingSequence": mapping(unit, 2.5)}, [{}]))
    assert (header.Units, header.get("SUVType")) == UNITS[unit]
    assert float(header.RescaleSlope) == 2.5


def test_of_several_mappings_the_activity_is_taken():
    mappings = [mapping("{SUVbw}g/ml", 0.001), mapping("Bq/ml", 2.5, -7.0), mapping("{counts}", 1.0)]
    (header,) = frame_headers(image(PET, {"RealWorldValueMappingSequence": mappings}, [{}]))
    assert (header.Units, float(header.RescaleSlope), float(header.RescaleIntercept)) == ("BQML", 2.5, -7.0)


@pytest.mark.parametrize(
    ("sop_class", "rescale", "mapped", "tags", "taken"),
    [
        (PET, 1.0, 2.5, {}, 2.5),  # the transformation has no unit, the mapping starts from stored values
        (PET, 9.0, 2.5, {}, 2.5),
        (PET, 2.5, 1.0, {}, 2.5),  # the mapping starts from rescaled values
        (LEGACY_PET, 2.5, 9.0, dict(Units="BQML"), 2.5),  # Units is of the rescaled value, as in the classic image
        (CT, 1.0, 9.0, {}, 1.0),
    ],
)
def test_where_two_scales_are_stated_the_one_with_the_unit_is_taken(sop_class, rescale, mapped, tags, taken):
    shared = {**slope(rescale), "RealWorldValueMappingSequence": mapping("Bq/ml", mapped)}
    (header,) = frame_headers(image(sop_class, shared, [{}], **tags))
    assert float(header.RescaleSlope) == taken


def test_flags_of_the_corrections_become_words():
    flags = dict(DecayCorrected="YES", AttenuationCorrected="YES", ScatterCorrected="NO", RandomsCorrected="YES")
    tags = dict(flags, DecayCorrectionDateTime="20200101090000")
    header = frame_headers(image(PET, slope(1.0), **tags))[0]
    assert list(header.CorrectedImage) == ["DECY", "ATTN", "RAN"]
    assert (header.DecayCorrection, header.DecayCorrectionDateTime) == ("START", "20200101090000")
    header = frame_headers(image(PET, slope(1.0), DecayCorrected="NO", AttenuationCorrected="NO"))[0]
    assert (header.DecayCorrection, list(header.CorrectedImage or ())) == ("NONE", [])


@pytest.mark.parametrize(
    ("sop_class", "written", "dose_bq"),
    [(PET, 350.0, 350e6), (PET, 350e6, 350e6), (LEGACY_PET, 350e6, 350e6), (LEGACY_PET, 350.0, 350.0)],
)
def test_the_dose_of_an_enhanced_pet_becomes_bq_and_that_of_a_converted_one_stays(sop_class, written, dose_bq):
    drug = item(Radiopharmaceutical="FDG", RadionuclideTotalDose=written)
    dataset = image(sop_class, slope(1.0), RadiopharmaceuticalInformationSequence=[drug])
    for header in frame_headers(dataset):
        assert float(header.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose) == dose_bq
        assert header.RadiopharmaceuticalInformationSequence[0].Radiopharmaceutical == "FDG"
    assert float(dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose) == written  # left alone


def test_a_converted_image_gets_back_the_values_of_its_slices():
    own = [
        {**slope(s), "UnassignedPerFrameConvertedAttributesSequence": item(AcquisitionTime=t, DecayFactor=d)}
        for s, t, d in ((2.0, "090000", 1.01), (3.0, "090200", 1.02))
    ]
    shared = {"UnassignedSharedConvertedAttributesSequence": item(Units="BQML", DecayCorrection="START")}
    of_all = dict(CorrectedImage=["DECY", "ATTN"], AcquisitionDateTime="20200101085900")
    headers = frame_headers(image(LEGACY_PET, shared, own, **of_all))
    assert [(h.Units, h.DecayCorrection, list(h.CorrectedImage)) for h in headers] == [
        ("BQML", "START", ["DECY", "ATTN"])
    ] * 2
    assert [(h.AcquisitionTime, float(h.DecayFactor)) for h in headers] == [("090000", 1.01), ("090200", 1.02)]


def test_frame_times_come_to_the_clock_of_the_file():
    frames = [{**slope(1.0), **content("003000+0000")}]
    (header,) = frame_headers(image(PET, frames=frames, TimezoneOffsetFromUTC="-0100"))
    assert (header.AcquisitionDate, header.AcquisitionTime) == ("20191231", "233000.000000")


def without(dataset, sequence, frame=1):
    del dataset.PerFrameFunctionalGroupsSequence[frame][sequence]
    return dataset


def without_last_frame(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    return dataset


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        (
            lambda: without(image(CT), "PlanePositionSequence"),
            r"frame 2 has no Image Position \(Patient\) \(0020,0032\)",
        ),
        (lambda: image(PET), r"frame 1 has no Rescale Slope \(0028,1053\) or Real World Value Slope \(0040,9225\)"),
        (lambda: image(CT, {"PixelMeasuresSequence": item(SliceThickness=3.0)}), r"Pixel Spacing \(0028,0030\)"),
        (lambda: without_last_frame(image(CT)), r"3 frames \(0028,0008\), but 2 described"),
        (lambda: item(SOPClassUID=PET, NumberOfFrames=3), r"3 frames \(0028,0008\), but 0 described"),
    ],
)
def test_a_frame_that_lacks_its_place_or_scale_is_named(dataset, named):
    with pytest.raises(InputError, match=named):
        frame_headers(dataset())
