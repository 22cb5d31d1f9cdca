"""The parts of the SUV factor; complete headers are in test_suv_matrix.py."""

import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.suv import NORMALISATIONS, SUVError, average_count_time, local_time, scan_start, suv_factors

HALF_LIFE = 6586.2
PERSON = Demographics("F", 60, 1.70, 70)


def test_average_count_time_is_where_the_activity_has_its_mean():
    rate = np.log(2) / HALF_LIFE
    mean = np.exp(-rate * np.linspace(0, 1800, 200001)).mean()
    assert np.exp(-rate * average_count_time(1800, HALF_LIFE)) == pytest.approx(mean, rel=1e-6)


def beds(dicom, **changes):
    """Two bed positions of a series made at 11:17; a change is a value, or a function of the seconds since 09:00."""
    return [
        dicom.dataset(
            **dicom.pet(
                **{"SeriesTime": "111700", "AcquisitionTime": time}
                | {name: value(after) if callable(value) else value for name, value in changes.items()}
            )
        )
        for time, after in (("090000", 0), ("090500", 300))
    ]


@pytest.mark.parametrize(
    ("changes", "start", "source"),
    [
        (dict(SeriesTime="085930"), "08:59:30", "series date-time"),
        (dict(), "09:00:00", "earliest acquisition"),
        (
            # one minute into the scan, the first frame's mean activity comes average_count_time(120 s) later
            dict(FrameReferenceTime=lambda s: (60 + s + average_count_time(120, HALF_LIFE)) * 1000),
            "08:59:00",
            "acquisition − frame reference time + average-count-rate time",
        ),
        (dict(DecayCorrectionDateTime="20200101085800"), "08:58:00", "Decay Correction DateTime (0018,9701)"),
        (dict(FrameReferenceTime=5e8), "09:00:00", "earliest acquisition"),  # six days into the scan
    ],
)
def test_the_scan_start_states_where_it_comes_from(dicom, changes, start, source):
    found, stated, warnings = scan_start(beds(dicom, **changes), HALF_LIFE)
    assert (f"{found:%Y%m%d %H:%M:%S}", stated, warnings) == (f"20200101 {start}", source, [])


def test_the_scan_start_of_ge_is_put_on_the_date_of_the_header(dicom):
    headers = beds(dicom)
    headers[0].private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "19990704085800.00")
    start, source, warnings = scan_start(headers, HALF_LIFE)
    assert f"{start:%Y%m%d %H:%M:%S}" == "20200101 08:58:00"
    assert source == "GE scan date-time (0009,100D)"
    assert warnings == ["GE's scan date and the header's differ by 7486 days; times of day were used"]


@pytest.mark.parametrize(
    ("ge", "reference_s", "said"),
    [
        ("19990704090000", None, "GE scan date-time (0009,100D) puts the scan start 2400 s after the series time"),
        ("20200101081940", None, ""),  # two clocks of one scan
        (None, average_count_time(120, HALF_LIFE), "Frame Reference Time (0054,1300) puts the scan start 2400 s after"),
        (None, 2400 + average_count_time(120, HALF_LIFE), ""),
        (None, 2400, ""),  # of the frame's start
        (None, 0, ""),
    ],
)
def test_a_series_time_that_the_scan_start_contradicts_is_taken_and_doubted(dicom, ge, reference_s, said):
    changes = dict(SeriesTime="082000")
    if reference_s is not None:
        changes["FrameReferenceTime"] = lambda after: 1000 * (reference_s + after)
    headers = beds(dicom, **changes)[::-1]  # the order of slices, which is not that of beds, does not matter
    for header in headers if ge else ():
        header.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", ge)
    start, source, warnings = scan_start(headers, HALF_LIFE)
    assert (f"{start:%H:%M:%S}", source) == ("08:20:00", "series date-time")
    warnings = [warning for warning in warnings if "differ by" not in warning]
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)


def test_the_frame_reference_time_of_the_first_of_beds_of_one_acquisition_time_is_taken(dicom):
    """As some scanners write them: two beds of 2 min, the first of them corrected to one minute before it."""
    first_s = 60 + average_count_time(120, HALF_LIFE)
    headers = beds(dicom, AcquisitionTime="090000", FrameReferenceTime=lambda s: 1000 * (first_s + s))[::-1]
    assert f"{scan_start(headers, HALF_LIFE)[0]:%H:%M:%S}" == "08:59:00"


def test_slices_corrected_to_different_times_are_refused_without_naming_a_date(dicom):
    with pytest.raises(SUVError, match="0018,9701") as error:
        scan_start(beds(dicom, DecayCorrectionDateTime=lambda s: f"2020010109{s // 60:02}00"), HALF_LIFE)
    assert "2020" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "zone", "clock"),
    [
        ("20200101080000", None, "2020-01-01 08:00:00"),
        ("20200101080000.25", "+0100", "2020-01-01 08:00:00.250000"),
        ("20200101080000+0100", None, "2020-01-01 08:00:00"),
        ("20200101080000+0100", "+0100", "2020-01-01 08:00:00"),
        ("20200101080000+0000", "+0530", "2020-01-01 13:30:00"),
        ("20200101233000-0330", "+0000", "2020-01-02 03:00:00"),
        ("202001010800", None, "2020-01-01 08:00:00"),
        ("20200101", None, "None"),
        ("00000000080000", None, "1900-01-02 08:00:00"),  # the time of day of an emptied date
        ("removed", None, "None"),
        (None, "+0100", "None"),
    ],
)
def test_a_date_time_is_brought_to_the_clock_of_its_header(text, zone, clock):
    assert str(local_time(text, zone)) == clock


def test_a_repeated_warning_is_reported_once(dicom):
    headers = beds(dicom, Radiopharmaceutical=None)
    assert suv_factors(headers, PERSON).warnings == ("the tracer has no name; taken for F-18 FDG",)


@pytest.mark.parametrize("person", [PERSON, Demographics("M", 60, 1.77, 83)])
def test_a_lean_body_is_lighter_than_the_whole_and_surface_is_of_its_order(person):
    for name in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        assert 0.5 * person.weight_kg < NORMALISATIONS[name](person) < 1.1 * person.weight_kg
    assert 1.6 < NORMALISATIONS["BSA"](person) / 10 < 2.1  # m², as adults have


@pytest.mark.parametrize(
    ("change", "tag"),
    [
        (dict(RadionuclideTotalDose=700e6), r"0018,1074\) differs between slices \(3.5e\+08, 7e\+08\)"),
        (dict(RadionuclideHalfLife=6588.0), "0018,1075"),
        (dict(RadiopharmaceuticalStartTime="073000"), "0018,1072"),
        (dict(RadiopharmaceuticalStartDateTime="20200101080000"), "0018,1078"),
        (dict(Radiopharmaceutical="FDG"), r"0018,0031.*\(FDG, Fluorodeoxyglucose\)"),
        (dict(PatientWeight=71.0), "0010,1030"),
        (dict(SeriesTime="090001"), "0008,0031"),
        (dict(SeriesDate="20200102"), "0008,0021"),
        (dict(Units="GML"), "0054,1001"),
        (dict(SUVType="BW"), "0054,1006"),
        (dict(DecayCorrection="NONE"), "0054,1102"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_slices_that_disagree_are_refused_whatever_their_order(dicom, change, tag, last):
    headers = [dicom.dataset(**dicom.pet(**({} if k else change))) for k in range(5)]
    with pytest.raises(SUVError, match=f"{tag}.*Export one series alone") as error:
        suv_factors(headers[::-1] if last else headers, PERSON)
    assert "2020" not in str(error.value)


def test_a_number_is_the_same_however_it_is_written(dicom):
    doses = ("350000000", "3.5E+8", "350000000.0")
    headers = [dicom.dataset(**dicom.pet(RadionuclideTotalDose=dose)) for dose in doses]
    assert len(set(suv_factors(headers, PERSON).factors)) == 1


def test_slices_with_more_injections_than_others_are_refused(dicom):
    headers = [dicom.dataset(**dicom.pet()) for _ in range(2)]
    headers[1].RadiopharmaceuticalInformationSequence.append(headers[0].RadiopharmaceuticalInformationSequence[0])
    with pytest.raises(SUVError, match="list more radiopharmaceuticals"):
        suv_factors(headers, PERSON)
