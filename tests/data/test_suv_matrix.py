"""What scanners write, and the SUV factor that follows: a line per variant, with its factor calculated by hand.

`pytest -v` prints the matrix. Unless a line states otherwise the patient is a woman of 70 kg and 1.70 m who got 350 MBq
of F-18 FDG at 08:00:00, scanned at 09:00:00: SUV factor 70 000 g / (350e6 Bq · 0.5^(3600 s / 6586.2 s)).
"""

import re
from math import log
from typing import NamedTuple

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from totalgen.data.demographics import Demographics
from totalgen.data.enhanced import frame_headers
from totalgen.data.suv import AGREED_OF_DRUG, suv_factors
from totalgen.errors import InputError

WOMAN, MAN = ("F", 60, 1.70, 70), ("M", 60, 1.80, 90)
HOUR = 70_000 / (350e6 * 0.5 ** (3600 / 6586.2))  # of the header described above
DATE = re.compile(r"(19|20)\d\d-?[01]\d-?[0-3]\d")


class Variant(NamedTuple):
    """headers(pet): list of Datasets, where pet(**changes) is one slice;  expected: the factor, or one per slice;
    refused: words of the error;  warns: words of a warning – without, there must be none."""

    name: str
    headers: object
    expected: object = None
    refused: str = ""
    warns: str = ""
    person: tuple = WOMAN
    any_tracer: bool = False


def private(dataset, group, creator, **elements):
    """The dataset with private elements, as _0D=("DT", "…")."""
    block = dataset.private_block(group, creator, create=True)
    for element, (vr, value) in elements.items():
        block.add_new(int(element[1:], 16), vr, value)
    return dataset


def philips(dataset, **elements):
    elements = {name: ("DS", str(value)) for name, value in elements.items()}
    return private(dataset, 0x7053, "Philips PET Private Group", **elements)


def ge(dataset, scan_start, vr="DT"):
    return private(dataset, 0x0009, "GEMS_PETD_01", _0D=(vr, scan_start))


def written(dataset, keyword, text):
    """The dataset with a number as some program wrote it: text that pydicom would not write."""
    where = dataset if keyword not in AGREED_OF_DRUG else dataset.RadiopharmaceuticalInformationSequence[0]
    tag = Tag(keyword)
    where[tag] = RawDataElement(tag, dictionary_VR(tag), len(text), text.encode(), 0, False, True)
    return dataset


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def code(value, scheme, meaning):
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def drugs(header, *others):
    """The header with further Radiopharmaceutical Information items: of each a dict of changes to the first."""
    first = header.RadiopharmaceuticalInformationSequence[0]
    more = []
    for changes in others:
        more.append(Dataset())
        more[-1].update(first)
        for name, value in changes.items():
            more[-1].add_new(name, first[name].VR, value)
    header.RadiopharmaceuticalInformationSequence = [first, *more]
    return header


def beds(pet, *times, before=0, **changes):
    """A slice per bed position, each with its own acquisition time and the decay factor to its middle (2 min beds), of
    a correction to so many seconds before the scan."""
    return [
        pet(
            AcquisitionTime=time,
            DecayFactor=2 ** ((before + after + 60) / 6586.2),
            FrameReferenceTime=after * 1000,
            **changes,
        )
        for time, after in times
    ]


def enhanced(pet, unit="Bq/ml", corrected="YES", frames=("0900", "0902"), slopes=(2.0, 3.0), at="0900", **changes):
    """Frames of an Enhanced PET: units and slope from a Real World Value Mapping, the dose in MBq."""
    classic = pet(**dict(dict(RadionuclideTotalDose=350.0, RadiopharmaceuticalStartTime=None), **changes))
    drug = classic.RadiopharmaceuticalInformationSequence[0]
    drug.RadiopharmaceuticalStartDateTime = "20200101080000.000000"
    mapping = [
        item(
            RealWorldValueSlope=slope,
            RealWorldValueIntercept=0.0,
            MeasurementUnitsCodeSequence=code(unit, "UCUM", "activity or SUV"),
        )
        for slope in slopes
    ]
    plane = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[4, 4], SliceThickness=3)],
    )
    dataset = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.130",
        Modality="PT",
        NumberOfFrames=len(frames),
        DecayCorrected=corrected,
        AttenuationCorrected="YES",
        RadiopharmaceuticalInformationSequence=[drug],
        SharedFunctionalGroupsSequence=[plane],
        PerFrameFunctionalGroupsSequence=[
            item(
                PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * k])],
                FrameContentSequence=[
                    item(FrameAcquisitionDateTime=f"20200101{time}00.000", FrameAcquisitionDuration=120000.0)
                ],
                RealWorldValueMappingSequence=[mapping[k]],
            )
            for k, time in enumerate(frames)
        ],
    )
    for keyword in ("PatientSex", "PatientSize", "PatientWeight"):
        setattr(dataset, keyword, classic[keyword].value)
    if at:
        dataset.DecayCorrectionDateTime = f"20200101{at}00.000"
    return frame_headers(dataset)


THREE_BEDS = ("090000", 0), ("090200", 120), ("093000", 1800)
UNITS = [
    Variant("BQML", lambda pet: [pet()], 70_000 / (350e6 * 0.5 ** (3600 / 6586.2))),
    Variant("GML without SUV Type is by body weight", lambda pet: [pet(Units="GML")], 1),
    Variant("GML BW", lambda pet: [pet(Units="GML", SUVType="BW")], 1),
    Variant(
        "GML LBM of a woman (James)",
        lambda pet: [pet(Units="GML", SUVType="LBM")],
        70 / (1.07 * 70 - 148 * (70 / 170) ** 2),
    ),
    Variant(
        "GML LBM of a man (James, 120)", lambda pet: [pet(Units="GML", SUVType="LBM")], 90 / (99 - 120 / 4), person=MAN
    ),  # 90 kg / 180 cm = 1/2
    Variant(
        "GML LBMJAMES128 of a man",
        lambda pet: [pet(Units="GML", SUVType="LBMJAMES128")],
        90 / (99 - 128 / 4),
        person=MAN,
    ),
    Variant(
        "GML LBMJANMA of a woman",
        lambda pet: [pet(Units="GML", SUVType="LBMJANMA")],
        (8780 + 244 * 70 / 2.89) / 9270,
    ),
    Variant(
        "GML LBMJANMA of a man",
        lambda pet: [pet(Units="GML", SUVType="LBMJANMA")],
        (6680 + 216 * 90 / 3.24) / 9270,
        person=MAN,
    ),
    Variant(
        "GML IBW of a woman", lambda pet: [pet(Units="GML", SUVType="IBW")], 70 / (45.5 + 0.91 * 18)
    ),  # 170 − 152 cm
    Variant(
        "GML IBW of a man", lambda pet: [pet(Units="GML", SUVType="IBW")], 90 / (48 + 1.06 * 28), person=MAN
    ),  # 180 − 152 cm
    Variant(
        "CM2ML BSA (DuBois)",
        lambda pet: [pet(Units="CM2ML", SUVType="BSA")],
        70_000 / (0.007184 * 70**0.425 * 170**0.725 * 10_000),  # g / cm²
    ),
    Variant(
        "CM2ML without SUV Type is by surface",
        lambda pet: [pet(Units="CM2ML")],
        70_000 / (71.84 * 70**0.425 * 170**0.725),
    ),
    Variant(
        "GML BSA of a man",
        lambda pet: [pet(Units="GML", SUVType="BSA")],
        90_000 / (71.84 * 90**0.425 * 180**0.725),
        person=MAN,
    ),
    Variant(
        "GML LBM where James' formula turns negative",
        lambda pet: [pet(Units="GML", SUVType="LBM")],
        refused=r"SUV Type.*-271.0 kg",  # 1.07·300 − 148·2²
        person=("F", 60, 1.50, 300),
    ),
    Variant("GML of an unknown SUV Type", lambda pet: [pet(Units="GML", SUVType="FFM")], refused=r"0054,1006\) is FFM"),
    Variant("GML without any dose", lambda pet: [item(Units="GML", Modality="PT", PatientWeight=70)], 1),
    Variant("GML BW made with a weight that was corrected", lambda pet: [pet(Units="GML", PatientWeight=93)], 70 / 93),
    Variant(
        "GML LBM made with a weight and a height that were corrected",
        lambda pet: [pet(Units="GML", SUVType="LBM", PatientWeight=90, PatientSize=180)],  # cm
        70 / (1.07 * 90 - 148 / 4),
    ),
    Variant(
        "Philips' SUV factor made with a weight that was corrected",
        lambda pet: [philips(pet(Units="CNTS", PatientWeight=93), _00=0.00071)],
        0.00071 * 70 / 93,
    ),
    Variant("GML without a weight", lambda pet: [pet(Units="GML", PatientWeight=None)], 1, warns="lacks the weight"),
    Variant(
        "Philips' SUV factor without a possible weight",
        lambda pet: [philips(pet(Units="CNTS", PatientWeight=7000), _00=0.00071)],
        0.00071,
        warns="lacks the weight",
    ),
    Variant(
        "GML LBM without a person",
        lambda pet: [pet(Units="GML", SUVType="LBM", PatientSex="", PatientSize=None)],
        70 / (1.07 * 70 - 148 * (70 / 170) ** 2),
        warns="lacks the sex and height",
    ),
    Variant(
        "CNTS with Philips' SUV factor", lambda pet: [philips(pet(Units="CNTS"), _00=0.00071, _09=2.5)], 0.00071
    ),  # is preferred
    Variant(
        "CNTS with Philips' activity factor",
        lambda pet: [philips(pet(Units="CNTS"), _00=0, _09=2.5)],
        2.5 * 70_000 / (350e6 * 0.5 ** (3600 / 6586.2)),
    ),
    Variant(
        "CNTS with Philips' factor of unknown VR",
        lambda pet: [
            private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", _00=("UN", b"0.00071\0")),
        ],
        0.00071,
    ),
    Variant(
        "CNTS with an activity factor per slice",
        lambda pet: [philips(pet(Units="CNTS"), _09=f) for f in (2.5, 4)],
        [2.5 * HOUR, 4 * HOUR],
    ),
    Variant(
        "CNTS with a slice that lacks its factor",
        lambda pet: [philips(pet(Units="CNTS"), _09=2.5), pet(Units="CNTS")],
        refused="7053,1009.*some slices",
    ),
    Variant("CNTS without Philips' factors", lambda pet: [pet(Units="CNTS")], refused="7053,1000"),
    Variant("PROPCNTS", lambda pet: [pet(Units="PROPCNTS")], refused="PROPCNTS"),
    Variant("no Units", lambda pet: [pet(Units=None)], refused="Units.*missing"),
    Variant(
        "Units that change",
        lambda pet: [pet(), pet(Units="GML")],
        refused=r"Units \(0054,1001\) differs between slices \(BQML, GML\)",
    ),
    Variant(
        "a Rescale Slope per slice leaves the factor alone",
        lambda pet: [pet(RescaleSlope=s, RescaleIntercept=0) for s in (0.26, 1.7, 12.3)],
        [HOUR, HOUR, HOUR],
    ),
]

DECAY_CORRECTION = [
    Variant("START, three beds", lambda pet: beds(pet, ("090000", 0), ("090200", 120), ("093000", 1800)), [HOUR] * 3),
    Variant("ADMIN", lambda pet: [pet(DecayCorrection="ADMIN")], 70_000 / 350e6),
    Variant(
        "ADMIN, three beds",
        lambda pet: beds(pet, *THREE_BEDS, before=3600, DecayCorrection="ADMIN"),
        [70_000 / 350e6] * 3,
    ),
    Variant(
        "NONE, each bed at its own time",
        lambda pet: [
            pet(DecayCorrection="NONE", CorrectedImage=["ATTN"], AcquisitionTime=t) for t in ("090000", "091000")
        ],
        # the mean activity of 120 s is found 60 s − λT²/24 into the frame, λ = log 2 / 6586.2 s
        [70_000 / (350e6 * 0.5 ** ((s + 60 - log(2) / 6586.2 * 120**2 / 24) / 6586.2)) for s in (3600, 4200)],
    ),
    Variant(
        "NONE without frame duration",
        lambda pet: [pet(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=None)],
        70_000 / (350e6 * 0.5 ** (3600 / 6586.2)),
    ),
    Variant(
        "NONE without acquisition time",
        lambda pet: [pet(DecayCorrection="NONE", AcquisitionTime=None)],
        refused="0008,0032",
    ),
    Variant("no Decay Correction", lambda pet: [pet(DecayCorrection=None)], refused="0054,1102.*missing"),
    Variant("Decay Correction of no known kind", lambda pet: [pet(DecayCorrection="OTHER")], refused="OTHER"),
    Variant(
        "Decay Correction that changes",
        lambda pet: [pet(), pet(DecayCorrection="NONE")],
        refused=r"Decay Correction \(0054,1102\) differs",
    ),
    Variant(
        "START though Corrected Image lacks DECY", lambda pet: [pet(CorrectedImage=["ATTN"])], HOUR, warns="lacks DECY"
    ),
    Variant(
        "a Decay Factor that contradicts the times",
        lambda pet: [pet(DecayFactor=2 ** (1560 / 6586.2))],  # corrected to 1500 s before the frame
        HOUR,
        warns="Decay Factor puts the scan start -1500 s after 09:00:00",
    ),
    Variant(
        "the Decay Factor of the first bed in all, said once and by the last bed",
        lambda pet: [pet(AcquisitionTime=time, DecayFactor=2 ** (60 / 6586.2)) for time, _ in THREE_BEDS],
        [HOUR] * 3,
        warns="^Decay Factor puts the scan start 1800 s after 09:00:00$",
    ),
    Variant(
        "ADMIN with Decay Factors of a correction to the scan start",
        lambda pet: beds(pet, *THREE_BEDS, DecayCorrection="ADMIN"),
        [70_000 / 350e6] * 3,
        warns="^Decay Factor puts the injection 3600 s after 08:00:00",
    ),
    Variant(
        "NONE with a Decay Factor of a correction",
        lambda pet: [pet(DecayCorrection="NONE", CorrectedImage=words, DecayFactor=1.07) for words in (["ATTN"], None)],
        [70_000 / (350e6 * 0.5 ** ((3600 + 60 - log(2) / 6586.2 * 120**2 / 24) / 6586.2))] * 2,
        warns=r"^Decay Factor \(0054,1321\) is up to 1.07 though Decay Correction is NONE",
    ),
    Variant(
        "NONE with the Decay Factor of no correction",
        lambda pet: [pet(DecayCorrection="NONE", CorrectedImage=["ATTN"], DecayFactor=1)],
        70_000 / (350e6 * 0.5 ** ((3600 + 60 - log(2) / 6586.2 * 120**2 / 24) / 6586.2)),
    ),
    Variant(
        "Decay Correction DateTime is preferred",
        lambda pet: [pet(DecayCorrectionDateTime="20200101083000.00", SeriesTime="110000")],
        70_000 / (350e6 * 0.5 ** (1800 / 6586.2)),
    ),
]

VENDORS = [
    Variant(
        "Siemens, fractions of a second and date-times",
        lambda pet: beds(
            pet,
            ("090005.500000", 0),
            ("090305.500000", 180),
            ("090605.500000", 360),
            SeriesTime="090005.500000",
            RadiopharmaceuticalStartTime="080000.000000",
            RadiopharmaceuticalStartDateTime="20200101080000.000000",
            RadionuclideCodeSequence=code("C-111A1", "SRT", "^18^Fluorine"),
        ),
        [70_000 / (350e6 * 0.5 ** (3605.5 / 6586.2))] * 3,
    ),
    Variant(
        "Siemens, series made after the scan",
        lambda pet: [
            pet(SeriesTime="101700", AcquisitionTime=t, FrameReferenceTime=f, ActualFrameDuration=120000)
            for t, f in (("090000", 59936.85), ("090200", 179936.85))  # middle of the frame: 60 s − λT²/24
        ],
        [70_000 / (350e6 * 0.5 ** (3600 / 6586.2))] * 2,
    ),
    Variant(
        "GE, its own half-life and scan date-time",
        lambda pet: [
            ge(
                pet(
                    SeriesTime="095947.00",
                    AcquisitionTime="095947.00",
                    RadiopharmaceuticalStartTime="072100.00",
                    RadionuclideTotalDose=588802304.0,
                    RadionuclideHalfLife=6588.0,
                    Radiopharmaceutical="FDG -- fluorodeoxyglucose",
                    RadionuclideCodeSequence=code("C-111A1", "99SDM", "18F"),
                ),
                "20200101095947.00",
            )
        ],
        91_000 / (588802304 * 0.5 ** (9527 / 6588)),  # 07:21:00 to 09:59:47
        person=("M", 69, 1.88, 91),
    ),
    Variant(
        "GE, date of the scan shifted by de-identification",
        lambda pet: [ge(pet(), "20191209090000.00")],
        HOUR,
        warns="differ by 23 days",
    ),
    Variant(
        "GE, series time rewritten: its scan date-time",
        lambda pet: [
            ge(pet(SeriesTime="110000", AcquisitionTime=t), "20200101085800.00") for t in ("090000", "090300")
        ],
        [70_000 / (350e6 * 0.5 ** (3480 / 6586.2))] * 2,
    ),
    Variant(
        "GE, scan date-time of unknown VR",
        lambda pet: [ge(pet(SeriesTime="110000"), b"20200101085800.00 ", "UN")],
        70_000 / (350e6 * 0.5 ** (3480 / 6586.2)),
    ),
    Variant(
        "GE, scan date-time after the acquisition is not believed",
        lambda pet: [ge(pet(SeriesTime="110000"), "20200101091500.00")],
        HOUR,
        warns=r"0009,100D\) contradicts",
    ),
    Variant(
        "Philips, series time rewritten: frame reference time",
        lambda pet: [
            pet(SeriesTime="111700", AcquisitionTime="090100", FrameReferenceTime=119936.85),  # 60 s into the scan
            pet(SeriesTime="111700", AcquisitionTime="090300", FrameReferenceTime=239936.85),
        ],
        [70_000 / (350e6 * 0.5 ** (3600 / 6586.2))] * 2,
    ),
    Variant(
        "series time rewritten, nothing else: earliest bed",
        lambda pet: [pet(SeriesTime="111700", AcquisitionTime=t) for t in ("090500", "090000")],
        [HOUR] * 2,
    ),
    Variant(
        "series processed the next day",
        lambda pet: [pet(SeriesDate="20200102", SeriesTime="083000")],
        HOUR,
    ),
]

TIMES = [
    Variant(
        "Start DateTime whose time of day was zeroed",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101000000")],
        HOUR,
        warns="has no time of day; Start Time was used",
    ),
    Variant(
        "injected at midnight sharp, by both: an anonymiser's zeros",
        lambda pet: [
            pet(
                RadiopharmaceuticalStartDateTime="20200101000000",
                RadiopharmaceuticalStartTime="000000",
                SeriesTime="010000",
                AcquisitionTime="010000",
            )
        ],
        refused=r"Start Time \(0018,1072\) is missing, unreadable or set to 0",
    ),
    Variant(
        "the injection's time alone set to 0",
        lambda pet: [
            pet(RadiopharmaceuticalStartTime="000000.00", SeriesTime="080500", AcquisitionTime="080500"),
        ],
        refused=r"Start Time \(0018,1072\) is missing, unreadable or set to 0",
    ),
    Variant(
        "the series' time set to 0: the first acquisition",
        lambda pet: [pet(SeriesTime="000000", AcquisitionTime="090000")],
        HOUR,
    ),
    Variant(
        "injected as the scan begins",
        lambda pet: [pet(RadiopharmaceuticalStartTime="090000")],
        refused="is the start of the scan",
    ),
    Variant(
        "injected ten minutes before the scan",
        lambda pet: [pet(RadiopharmaceuticalStartTime="085000")],
        70_000 / (350e6 * 0.5 ** (600 / 6586.2)),
        warns="10 min from injection to scan, usually 50 to 100",
    ),
    Variant(
        "injected four hours before the scan",
        lambda pet: [pet(RadiopharmaceuticalStartTime="050000")],
        70_000 / (350e6 * 0.5 ** (4 * 3600 / 6586.2)),
        warns="240 min from injection to scan",
    ),
    Variant(
        "injected seven hours before the scan",
        lambda pet: [pet(RadiopharmaceuticalStartTime="020000")],
        refused="7.0 h apart",
    ),
    Variant(
        "the first acquisition two whole hours after the series",
        lambda pet: [pet(AcquisitionTime="110000")],
        HOUR,
        warns="2 h after the series time: a time zone",
    ),
    Variant(
        "the first acquisition one whole hour before the series",
        lambda pet: [pet(SeriesTime="100000")],
        HOUR,
        warns="1 h before the series time: processed later, or a time zone",
    ),
    Variant(
        "static and dynamic slices in one series",
        lambda pet: [pet(SeriesType=["STATIC", "IMAGE"]), pet(SeriesType=["DYNAMIC", "IMAGE"])],
        refused=r"Series Type \(0054,1000\) differs between slices \(DYNAMIC.IMAGE, STATIC.IMAGE\)",
    ),
    Variant(
        "a dose with a decimal comma",
        lambda pet: [written(pet(), "RadionuclideTotalDose", "3,5E8")],
        refused=r'Radionuclide Total Dose \(0018,1074\) is "3,5E8", which is no number',
    ),
    Variant(
        "a half-life with a decimal comma",
        lambda pet: [written(pet(), "RadionuclideHalfLife", "6586,2")],
        refused=r'Radionuclide Half Life \(0018,1075\) is "6586,2", which is no number',
    ),
    Variant(
        "a frame duration that is no number: not needed",
        lambda pet: [written(pet(), "ActualFrameDuration", "3 min")],
        HOUR,
    ),
    Variant(
        "a decay factor that is no number: not needed",
        lambda pet: [written(pet(), "DecayFactor", "1,1")],
        HOUR,
    ),
    Variant(
        "StartDateTime alone",
        lambda pet: [pet(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20200101073000")],
        70_000 / (350e6 * 0.5 ** (5400 / 6586.2)),
    ),
    Variant(
        "StartDateTime 20 s from StartTime",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101080020")],
        70_000 / (350e6 * 0.5 ** (3580 / 6586.2)),
    ),
    Variant(
        "StartDateTime 10 min from StartTime",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101075000")],
        70_000 / (350e6 * 0.5 ** (4200 / 6586.2)),
        warns="states 07:50:00, Start Time .* 08:00:00; the former",
    ),
    Variant(
        "StartDateTime of another year",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="19991231080000")],
        HOUR,
        warns="differ by 7306 days",  # 20 years, 5 of them leap years, and a day
    ),
    Variant(
        "StartDateTime without a time of day", lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101")], HOUR
    ),
    Variant(
        "StartDateTime before midnight",
        lambda pet: [
            pet(
                RadiopharmaceuticalStartDateTime="20191231233000",
                RadiopharmaceuticalStartTime="233000",
                SeriesTime="001500",
                AcquisitionTime="001500",
            )
        ],
        70_000 / (350e6 * 0.5 ** (2700 / 6586.2)),
    ),
    Variant(
        "StartTime before midnight, scan after it",
        lambda pet: [pet(RadiopharmaceuticalStartTime="233000", SeriesTime="003000", AcquisitionTime="003000")],
        70_000 / (350e6 * 0.5 ** (3600 / 6586.2)),
        warns="evening before",
    ),
    Variant(
        "beds on both sides of midnight",
        lambda pet: [
            pet(
                RadiopharmaceuticalStartTime="225500",
                SeriesTime="235500",
                AcquisitionDate=day,
                AcquisitionTime=t,
            )
            for day, t in (("20200102", "000100"), ("20200101", "235500"))
        ],
        [70_000 / (350e6 * 0.5 ** (3600 / 6586.2))] * 2,
    ),
    *(
        Variant(
            f"beds on both sides of midnight without dates, series at {series} of day {day}",
            lambda pet, series=series, day=day: [
                pet(
                    RadiopharmaceuticalStartTime="225500",
                    SeriesTime=series,
                    SeriesDate=f"2020010{day}",
                    AcquisitionDate=None,
                    AcquisitionTime=t,
                )
                for t in ("000100", "235500")
            ],
            [70_000 / (350e6 * 0.5 ** (3600 / 6586.2))] * 2,
            warns="without a date, 23:55:00 to 00:01:00, taken for a scan over midnight",
        )
        for series, day in (("235500", 1), ("235800", 1), ("001500", 2), ("140000", 2))
    ),
    Variant(
        "NONE with frames on both sides of midnight",
        lambda pet: [
            pet(
                DecayCorrection="NONE",
                CorrectedImage=["ATTN"],
                RadiopharmaceuticalStartDateTime="20200101225500",
                RadiopharmaceuticalStartTime=None,
                AcquisitionDate=day,
                AcquisitionTime=t,
                ActualFrameDuration=None,
            )
            for day, t in (("20200101", "235500"), ("20200102", "000100"))
        ],
        [70_000 / (350e6 * 0.5 ** (s / 6586.2)) for s in (3600, 3960)],
    ),
    Variant(
        "StartDateTime in UTC, header an hour east",
        lambda pet: [
            pet(
                RadiopharmaceuticalStartDateTime="20200101070000.00+0000",
                RadiopharmaceuticalStartTime="080000",
                TimezoneOffsetFromUTC="+0100",
            )
        ],
        HOUR,
    ),
    Variant(
        "StartDateTime of the header's own offset",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101080000-0500", TimezoneOffsetFromUTC="-0500")],
        HOUR,
    ),
    Variant(
        "StartDateTime with an offset the header does not know",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101080000+0100")],
        HOUR,
    ),
    Variant(
        "StartDateTime in UTC, header without an offset, StartTime local",
        lambda pet: [pet(RadiopharmaceuticalStartDateTime="20200101070000+0000")],
        HOUR,
        warns="07:00:00, Start Time .* 08:00:00; the latter",
    ),
    Variant(
        "times with colons",
        lambda pet: [
            pet(RadiopharmaceuticalStartTime="08:00:00", SeriesTime="09:00:00", AcquisitionTime="09:00:00.00")
        ],
        HOUR,
    ),
    Variant("hours and minutes alone", lambda pet: [pet(RadiopharmaceuticalStartTime="0800", SeriesTime="0900")], HOUR),
    Variant(
        "no date but the injection's",
        lambda pet: [
            pet(SeriesDate=None, AcquisitionDate=None, RadiopharmaceuticalStartDateTime="20200101080000"),
        ],
        HOUR,
        warns="cannot be compared",
    ),
    Variant(
        "acquisition without its date",
        lambda pet: [pet(SeriesTime="085000", AcquisitionDate=None)],
        70_000 / (350e6 * 0.5 ** (3000 / 6586.2)),
    ),
    Variant(
        "series without its date, time rewritten",
        lambda pet: [pet(SeriesDate=None, SeriesTime="111700")],
        HOUR,
    ),
    Variant("no series time", lambda pet: [pet(SeriesTime=None)], HOUR),
    Variant("no acquisition time", lambda pet: [pet(AcquisitionTime=None)], HOUR),
    Variant(
        "series date long before the acquisition",
        lambda pet: [pet(SeriesDate="20191209")],
        HOUR,
        warns="series and acquisition dates differ by 23 days",
    ),
    Variant(
        "AcquisitionDateTime alone",
        lambda pet: [
            pet(SeriesTime="111700", AcquisitionDate=None, AcquisitionTime=None, AcquisitionDateTime="20200101090000")
        ],
        HOUR,
    ),
    Variant("no time at all", lambda pet: [pet(SeriesTime=None, AcquisitionTime=None)], refused="0008,0031.*0008,0032"),
    Variant("no injection time", lambda pet: [pet(RadiopharmaceuticalStartTime=None)], refused="0018,1072.*missing"),
    Variant(
        "injection a minute after the scan",
        lambda pet: [pet(RadiopharmaceuticalStartTime="090100")],
        refused="24.0 h apart",
    ),
    Variant(
        "scan 14 h after the injection",
        lambda pet: [pet(SeriesTime="220000", AcquisitionTime="220000")],
        refused="14.0 h apart",
    ),
]

DOSES = [
    Variant("dose in MBq", lambda pet: [pet(RadionuclideTotalDose=350.0)], HOUR, warns="350 read as MBq"),
    Variant("dose in mCi", lambda pet: [pet(RadionuclideTotalDose=9.46)], refused="0018,1074.*9.46"),
    Variant("dose in kBq", lambda pet: [pet(RadionuclideTotalDose=350e3)], refused="0018,1074.*350000"),
    Variant("dose 0", lambda pet: [pet(RadionuclideTotalDose=0)], refused="0018,1074"),
    Variant("no dose", lambda pet: [pet(RadionuclideTotalDose=None)], refused="0018,1074.*missing"),
    Variant(
        "half-life in minutes",
        lambda pet: [pet(RadionuclideHalfLife=109.77)],
        70_000 / (350e6 * 0.5 ** (60 / 109.77)),
        warns="109.77 read as minutes",
    ),
    Variant("half-life in hours", lambda pet: [pet(RadionuclideHalfLife=1.83)], refused="0018,1075.*1.83"),
    Variant("no half-life", lambda pet: [pet(RadionuclideHalfLife=None)], refused="0018,1075.*missing"),
    Variant("weight 0", lambda pet: [pet(PatientWeight=0)], refused="weight is 0 kg", person=("F", 60, 1.70, 0)),
    Variant(
        "no radiopharmaceutical",
        lambda pet: [item(Units="BQML", DecayCorrection="START")],
        refused="0054,0016",
    ),
]

GALLIUM = dict(
    Radiopharmaceutical="DOTATATE",
    RadionuclideCodeSequence=code("C-131A3", "SRT", "^68^Gallium"),
    RadionuclideHalfLife=4057.74,
)
ZIRCONIUM = dict(
    Radiopharmaceutical="girentuximab",
    RadionuclideCodeSequence=code("C-168A4", "SRT", "^89^Zirconium"),
    RadionuclideHalfLife=282240,
    RadiopharmaceuticalStartTime="090000",
)
TRACERS = [
    Variant(
        "nameless, F-18 by its half-life", lambda pet: [pet(Radiopharmaceutical=None)], HOUR, warns="taken for F-18 FDG"
    ),
    Variant(
        "FDG by its code's meaning",
        lambda pet: [
            pet(
                Radiopharmaceutical="Solution",
                RadiopharmaceuticalCodeSequence=code("35321007", "SCT", "Fluorodeoxyglucose F^18^"),
                RadionuclideCodeSequence=code("77004003", "SCT", ""),
            )
        ],
        HOUR,
    ),
    Variant("F-18 of another name", lambda pet: [pet(Radiopharmaceutical="FDOPA")], refused="FDOPA"),
    Variant("F-18 of another name, allowed", lambda pet: [pet(Radiopharmaceutical="FDOPA")], HOUR, any_tracer=True),
    Variant("Ga-68", lambda pet: [pet(**GALLIUM)], refused="Gallium"),
    Variant("Ga-68 by its half-life", lambda pet: [pet(RadionuclideHalfLife=4057.74)], refused="4057.74"),
    Variant(
        "Ga-68 without a half-life", lambda pet: [pet(**{**GALLIUM, "RadionuclideHalfLife": None})], refused="Gallium"
    ),
    Variant(
        "Ga-68, allowed",
        lambda pet: [pet(**GALLIUM)],
        70_000 / (350e6 * 0.5 ** (3600 / 4057.74)),
        any_tracer=True,
    ),
    Variant(
        "Zr-89 four days later, allowed",
        lambda pet: [pet(**ZIRCONIUM, RadiopharmaceuticalStartDateTime="20191228090000")],
        70_000 / (350e6 * 0.5 ** (4 * 86400 / 282240)),
        any_tracer=True,
    ),
    Variant(
        "Zr-89 without the day of injection, allowed",
        lambda pet: [pet(**ZIRCONIUM)],
        refused="day of injection must be known",
        any_tracer=True,
    ),
    Variant(
        "Ga-68 with the half-life of F-18, allowed",
        lambda pet: [pet(**{**GALLIUM, "RadionuclideHalfLife": 6586.2})],
        refused="0054,0300.*Gallium.*0018,1075.*6586.2",
        any_tracer=True,
    ),
    Variant("Ga-68 that is SUV already", lambda pet: [pet(Units="GML", **GALLIUM)], refused="Gallium"),
    Variant("Ga-68 that is SUV already, allowed", lambda pet: [pet(Units="GML", **GALLIUM)], 1, any_tracer=True),
    Variant(
        "SPECT of Tc-99m stored as PT",
        lambda pet: [
            pet(
                Radiopharmaceutical="MDP",
                RadionuclideCodeSequence=code("C-163A8", "SRT", "^99m^Technetium"),
                RadionuclideHalfLife=None,
            )
        ],
        refused="0054,0300.*Technetium",
    ),
    Variant(
        "a nuclide named by its code alone",
        lambda pet: [pet(RadionuclideCodeSequence=code("C-105A1", "SRT", ""))],  # C-11
        refused="C-105A1",
    ),
    Variant(
        "NONE though Corrected Image lists DECY",
        lambda pet: [pet(DecayCorrection="NONE", ActualFrameDuration=None)],
        HOUR,
        warns="lists DECY though Decay Correction is NONE",
    ),
    Variant(
        "NONE though Decay Factor and DECY say corrected",
        lambda pet: [pet(DecayCorrection="NONE", DecayFactor=1.07)],
        refused="Decay Correction.*is NONE, but.*lists DECY and Decay Factor.*1.07",
    ),
    Variant("two copies of one item", lambda pet: [drugs(pet(), {})], HOUR),
    Variant(
        "FDG and another tracer",
        lambda pet: [drugs(pet(), dict(Radiopharmaceutical="PSMA", RadionuclideTotalDose=180e6))],
        HOUR,
        warns="2 radiopharmaceuticals are listed",
    ),
    Variant(
        "FDG injected twice",
        lambda pet: [drugs(pet(), dict(RadionuclideTotalDose=50e6, RadiopharmaceuticalStartTime="081500"))],
        refused="0054,0016.*2 different injections.*Fluorodeoxyglucose, Fluorodeoxyglucose",
    ),
    Variant(
        "two tracers and no FDG",
        lambda pet: [drugs(pet(Radiopharmaceutical="FDOPA"), dict(Radiopharmaceutical="PSMA"))],
        refused=r"FDOPA, PSMA\), 0 of them",
        any_tracer=True,
    ),
]

ENHANCED = [
    Variant("multi-frame, dose in MBq", lambda pet: enhanced(pet), [HOUR] * 2),
    Variant(
        "multi-frame, dose in Bq against the standard",
        lambda pet: enhanced(pet, RadionuclideTotalDose=350e6),
        [HOUR] * 2,
    ),
    Variant(
        "multi-frame, corrected to the injection",
        lambda pet: enhanced(pet, at="0800"),
        [70_000 / 350e6] * 2,
    ),
    Variant(
        "multi-frame, corrected without stating to when: first frame",
        lambda pet: enhanced(pet, at=None, frames=("0902", "0900")),
        [HOUR] * 2,
    ),
    Variant(
        "multi-frame, not decay-corrected",
        lambda pet: enhanced(pet, corrected="NO", at=None),
        [70_000 / (350e6 * 0.5 ** ((s + 60 - log(2) / 6586.2 * 120**2 / 24) / 6586.2)) for s in (3600, 3720)],
    ),
    Variant("multi-frame in SUV by body weight", lambda pet: enhanced(pet, "{SUVbw}g/ml"), [1, 1]),
    Variant(
        "multi-frame in SUV by lean body mass",
        lambda pet: enhanced(pet, "{SUVlbm}g/ml"),
        [70 / (1.07 * 70 - 148 * (70 / 170) ** 2)] * 2,
    ),
    Variant(
        "multi-frame in SUV by surface",
        lambda pet: enhanced(pet, "{SUVbsa}cm2/ml"),
        [70_000 / (71.84 * 70**0.425 * 170**0.725)] * 2,
    ),
    Variant("multi-frame in another unit", lambda pet: enhanced(pet, "kBq/ml"), refused=r"0054,1001\) is kBq/ml"),
    Variant("multi-frame in proportional counts", lambda pet: enhanced(pet, "{propcounts}"), refused="PROPCNTS"),
    Variant(
        "multi-frame without a dose",
        lambda pet: enhanced(pet, RadionuclideTotalDose=None),
        refused="0018,1074.*missing",
    ),
    Variant("multi-frame of Ga-68", lambda pet: enhanced(pet, **GALLIUM), refused="Gallium"),
]

GROUPS = dict(
    units=UNITS,
    decay=DECAY_CORRECTION,
    vendors=VENDORS,
    times=TIMES,
    doses=DOSES,
    tracers=TRACERS,
    enhanced=ENHANCED,
)
MATRIX = [pytest.param(v, id=f"{group}: {v.name}") for group, variants in GROUPS.items() for v in variants]


@pytest.mark.filterwarnings("ignore:Invalid value for VR TM")  # pydicom on times with colons
@pytest.mark.parametrize("variant", MATRIX)
def test_a_header_gives_its_factor_or_is_refused_by_name(dicom, variant):
    own = dict(zip(("PatientSex", "PatientSize", "PatientWeight"), (variant.person[n] for n in (0, 2, 3)), strict=True))

    def pet(**changes):
        return dicom.dataset(**dicom.pet(**own | changes))

    if variant.refused:
        with pytest.raises(InputError, match=variant.refused) as error:
            suv_factors(variant.headers(pet), Demographics(*variant.person), variant.any_tracer)
        assert not DATE.search(str(error.value))
        return
    found = suv_factors(variant.headers(pet), Demographics(*variant.person), variant.any_tracer)
    assert found.factors == pytest.approx(np.atleast_1d(variant.expected), rel=1e-7)
    warned = "; ".join(found.warnings)
    assert re.search(variant.warns, warned) if variant.warns else warned == ""
    assert not DATE.search(f"{warned} {found.reference}")  # the table of warnings may leave the hospital


def test_the_matrix_is_large_and_every_line_has_its_own_name():
    names = [param.id for param in MATRIX]
    assert len(set(names)) == len(names) >= 100
