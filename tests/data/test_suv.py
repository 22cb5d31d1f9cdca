import numpy as np
import pytest

from totalgen.data.suv import SUVError, average_count_time, scan_start, suv_factors

HALF_LIFE = 6586.2


def factor(header, weight_kg=70.0, **options):
    return suv_factors([header], weight_kg, **options).factors[0]


def by_hand(uptake_s, weight_g=70000.0, dose=350e6):
    """SUV factor, written out once more: weight over the dose that is left."""
    return weight_g / (dose * np.exp(-np.log(2) * uptake_s / HALF_LIFE))


def test_start_decays_the_dose_from_injection_to_the_series_time(dicom):
    assert factor(dicom.dataset(**dicom.pet())) == pytest.approx(by_hand(3600), rel=1e-9)


def test_admin_does_not_decay_the_dose(dicom):
    assert factor(dicom.dataset(**dicom.pet(DecayCorrection="ADMIN"))) == pytest.approx(70000 / 350e6, rel=1e-9)


def test_none_decays_each_slice_to_its_own_frame(dicom):
    headers = [dicom.dataset(**dicom.pet(DecayCorrection="NONE", AcquisitionTime=t)) for t in ("090000", "091000")]
    found = suv_factors(headers, 70.0).factors
    middle = 60  # s, of a frame of 120 s; the average-count-rate time is 0.1 s earlier
    assert found == pytest.approx([by_hand(3600 + middle), by_hand(4200 + middle)], rel=2e-5)


def test_average_count_time_is_where_the_activity_has_its_mean():
    rate = np.log(2) / HALF_LIFE
    mean = np.exp(-rate * np.linspace(0, 1800, 200001)).mean()
    assert np.exp(-rate * average_count_time(1800, HALF_LIFE)) == pytest.approx(mean, rel=1e-6)


def test_every_slice_of_a_start_series_gets_one_factor(dicom):
    headers = [dicom.dataset(**dicom.pet(AcquisitionTime=t)) for t in ("090000", "090200", "093000")]
    assert len(set(suv_factors(headers, 70.0).factors)) == 1


def test_values_that_are_suv_already_stay(dicom):
    assert factor(dicom.dataset(Units="GML")) == 1
    assert factor(dicom.dataset(Units="GML", SUVType="BW")) == 1


def test_suv_by_lean_body_mass_is_refused(dicom):
    with pytest.raises(SUVError, match="LBM"):
        factor(dicom.dataset(Units="GML", SUVType="LBM"))


def philips(dataset, **elements):
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    for element, value in elements.items():
        block.add_new(int(element[1:], 16), "DS", str(value))
    return dataset


def test_counts_take_the_suv_factor_of_philips(dicom):
    header = philips(dicom.dataset(**dicom.pet(Units="CNTS")), _00=0.00071, _09=2.5)
    assert factor(header) == pytest.approx(0.00071)


def test_counts_with_an_activity_factor_go_on_as_bqml(dicom):
    header = philips(dicom.dataset(**dicom.pet(Units="CNTS")), _00=0, _09=2.5)
    assert factor(header) == pytest.approx(2.5 * by_hand(3600))


def test_counts_without_a_factor_are_refused(dicom):
    with pytest.raises(SUVError, match=r"7053,1000"):
        factor(dicom.dataset(**dicom.pet(Units="CNTS")))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(Units="PROPCNTS"), "PROPCNTS"),
        (dict(Units=None), "Units"),
        (dict(DecayCorrection="OTHER"), "OTHER"),
        (dict(DecayCorrection=None), "Decay Correction"),
        (dict(RadionuclideTotalDose=350.0), "Total Dose"),
        (dict(RadionuclideTotalDose=None), "Total Dose"),
        (dict(RadiopharmaceuticalStartTime=None), "Start Time"),
        (dict(RadionuclideHalfLife=None), "Half Life"),
        (dict(RadionuclideHalfLife=4062.6), "4062.6"),  # Ga-68
        (dict(Radiopharmaceutical="FDOPA"), "FDOPA"),
    ],
)
def test_an_impossible_header_names_the_tag(dicom, changes, named):
    with pytest.raises(SUVError, match=named):
        factor(dicom.dataset(**dicom.pet(**changes)))


def test_another_tracer_is_read_when_allowed(dicom):
    header = dicom.dataset(**dicom.pet(Radiopharmaceutical="FDOPA"))
    assert factor(header, any_tracer=True) == pytest.approx(by_hand(3600))


def test_injection_before_midnight_and_scan_after_it(dicom):
    header = dicom.dataset(
        **dicom.pet(RadiopharmaceuticalStartTime="233000", SeriesTime="003000", AcquisitionTime="003000")
    )
    found = suv_factors([header], 70.0)
    assert found.factors[0] == pytest.approx(by_hand(3600))
    assert "evening before" in found.warnings[0]


def test_an_injection_shortly_after_the_scan_is_refused(dicom):
    with pytest.raises(SUVError, match="apart"):
        factor(dicom.dataset(**dicom.pet(RadiopharmaceuticalStartTime="090100")))


def test_inconsistent_dates_leave_the_times_of_day_and_a_warning(dicom):
    header = dicom.dataset(**dicom.pet(RadiopharmaceuticalStartDateTime="19990704080000"))
    found = suv_factors([header], 70.0)
    assert found.factors[0] == pytest.approx(by_hand(3600))
    assert "contradicts" in found.warnings[0]


def processed_later(dicom, **changes):
    """A series made at 11:00 of frames acquired at 09:00 and 09:05."""
    times = (("090000", 0), ("090500", 300))
    return [
        dicom.dataset(**dicom.pet(SeriesTime="110000", AcquisitionTime=t, **{k: v(s) for k, v in changes.items()}))
        for t, s in times
    ]


def test_a_series_processed_later_refers_to_its_earliest_acquisition(dicom):
    start, source, _ = scan_start(processed_later(dicom), HALF_LIFE)
    assert (f"{start:%H:%M:%S}", source) == ("09:00:00", "earliest acquisition")


def test_a_series_processed_later_refers_to_the_scan_start_of_its_frames(dicom):
    middle = average_count_time(120, HALF_LIFE)
    headers = processed_later(dicom, FrameReferenceTime=lambda s: (60 + s + middle) * 1000)
    start, source, _ = scan_start(headers, HALF_LIFE)
    assert f"{start:%H:%M:%S}" == "08:59:00"
    assert "frame reference time" in source


def test_a_series_processed_later_refers_to_the_scan_date_time_of_ge(dicom):
    headers = processed_later(dicom)
    headers[0].private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "19990704085800.00")
    start, source, warnings = scan_start(headers, HALF_LIFE)
    assert f"{start:%Y%m%d %H:%M:%S}" == "20200101 08:58:00"  # its time, on the date of the other headers
    assert "GE" in source
    assert "1999-07-04" in warnings[0]


def test_a_decay_factor_that_puts_the_start_elsewhere_is_told(dicom):
    fits = dicom.dataset(**dicom.pet(), DecayFactor=2 ** (60 / HALF_LIFE))
    contradicts = dicom.dataset(**dicom.pet(), DecayFactor=2 ** (1500 / HALF_LIFE))
    assert suv_factors([fits], 70.0).warnings == ()
    assert "Decay Factor" in suv_factors([contradicts], 70.0).warnings[0]
