"""From counts to SUVbw: one factor per PET slice, out of the headers alone.

Source: QIBA FDG-PET/CT profile (vendor-neutral SUV pseudo-code), IBSI's SUV guidance, DICOM PS3.3 C.8.9. SUVbw in g/mL
is activity concentration (Bq/mL) · weight (g) / dose (Bq) decayed to the time the activity was corrected to.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from datetime import time as time_of_day

import numpy as np
import pydicom.valuerep
from pydicom import Dataset

from totalgen.data.demographics import Demographics
from totalgen.data.header_numbers import named, number, optional_number, stated
from totalgen.data.header_person import READERS, possible
from totalgen.errors import InputError

F18_HALF_LIFE_S = 6586.2
HALF_LIFE_TOLERANCE = 0.01  # headers contain 6580 to 6600 s
LONGEST_UPTAKE = 7  # half-lives; later than that no image can be taken
LONGEST_F18_UPTAKE_S = 6 * 3600.0
USUAL_F18_UPTAKE_MIN = (20.0, 180.0)
NO_UPTAKE_S = 60.0  # an injection at the start of the scan is a copied time
ROUND_HOUR_S = 60.0  # how near to whole hours two clocks differ that are in two time zones
F18_HALF_LIFE_MIN = (109.4, 110.2)  # no PET nuclide has a half-life of so many seconds
F18_CODES = ("C-111A1", "77004003")  # SNM3 or SRT, SCT
DOSE_BQ = (1e6, 1e11)  # a dose outside is written in another unit
DOSE_MBQ = (37.0, 1100.0)  # 1 to 30 mCi; as Bq these would be no dose
AGREED = ("Units", "SUVType", "SeriesType", "DecayCorrection", "PatientWeight", "SeriesDate", "SeriesTime")
AGREED_OF_DRUG = (
    *("RadionuclideTotalDose", "RadionuclideHalfLife", "Radiopharmaceutical"),
    *("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"),
)
SAME_CLOCK_S = 60.0  # how far two statements of the injection's time of day may differ
SAME_SESSION_S = 3600.0  # by which the first acquisition may be later than the series time
MIDNIGHT, DAY_S = time_of_day(0), 24 * 3600
ZONE_MINUTES = (-12 * 60, 14 * 60)  # from UTC, of all places on earth
NO_DATE = date(1900, 1, 2)  # used where a header has a time but no date
DECAY_CORRECTED = 1.001  # a Decay Factor above it is one of a correction
SAME_START_S = 60.0  # how far the Decay Factor may put the scan start from where the times put it
FDG_NAMES = ("fdg", "fluorodeoxyglucose", "fludeoxyglucose", "fluoro-2-deoxy", "fluorodesoxyglucose")
NAMELESS = ("", "solution", "other", "unknown", "isotope", "18f", "f18", "f-18", "^18^fluorine", "fluorine", "none")
GE_PRIVATE, GE_SCAN_DATETIME = "GEMS_PETD_01", 0x0D  # (0009,100D)
STATED_START = "Decay Correction DateTime (0018,9701)"
PHILIPS_PRIVATE, PHILIPS_SUV, PHILIPS_ACTIVITY = "Philips PET Private Group", 0x00, 0x09  # (7053,1000), (7053,1009)


class SUVError(InputError):
    """A PET header that allows no SUV; the message names the tag and its value."""


@dataclass(frozen=True)
class SUV:
    """factors: [n] float64, rescaled voxel value → SUVbw (g/mL), one per slice;  reference: in words, what time the
    dose was decayed to;  warnings: tuple of texts."""

    factors: np.ndarray
    reference: str
    warnings: tuple[str, ...]


def _james(person, male):
    """Lean body mass in kg after James; PS3.16 CID 85 gives both coefficients that are in use for men."""
    own, square = (1.10, male) if person.sex == "M" else (1.07, 148.0)
    return own * person.weight_kg - square * (person.weight_kg / (100 * person.height_m)) ** 2


def _janmahasatian(person):
    base, slope = (6680, 216) if person.sex == "M" else (8780, 244)
    return 9270 * person.weight_kg / (base + slope * person.bmi)


def _ideal(person):
    base, slope = (48.0, 1.06) if person.sex == "M" else (45.5, 0.91)
    return base + slope * (100 * person.height_m - 152)


def _surface(person):
    """DuBois surface (m²) · 10: SUVbsa (cm²/mL) · weight (1000 g/kg) / surface (10⁴ cm²/m²) is SUVbw (g/mL)."""
    return 10 * 0.007184 * person.weight_kg**0.425 * (100 * person.height_m) ** 0.725


NORMALISATIONS = {  # SUV Type (0054,1006) → what that SUV is normalised by, kg; SUVbw = SUV · weight / it
    "BW": lambda person: person.weight_kg,
    "LBM": lambda person: _james(person, 120.0),
    "LBMJAMES128": lambda person: _james(person, 128.0),
    "LBMJANMA": _janmahasatian,  # Clin Pharmacokinet 2005
    "IBW": _ideal,  # Sugawara, Radiology 1999
    "BSA": _surface,
}


def suv_factors(headers: Sequence[Dataset], person: Demographics, any_tracer: bool = False) -> SUV:
    """SUV factors of a PET series.

    headers: list of pydicom Datasets, one per slice;  person: Demographics, merged over all series;  any_tracer: accept
    tracers other than F-18 FDG.
    Every slice of a decay-corrected series gets the same reference time. No text in the result contains a date.
    Raises SUVError naming the tag when units, dose, times or tracer do not allow a conversion.
    """
    first = headers[0]
    check_agreement(headers)
    units = check_units(first)
    if units != "BQML":
        already = _already_suv(headers, units, person)
        if already is not None:
            drugs = first.get("RadiopharmaceuticalInformationSequence") or ()
            factors, reference, doubts = already
            doubts += [text for drug in drugs for text in check_tracer(drug, any_tracer)]
            return SUV(factors, reference, _once(doubts))
        to_bqml = _philips(headers, PHILIPS_ACTIVITY)
        if not np.all(to_bqml > 0):
            raise SUVError("Units is CNTS and Philips's activity factor (7053,1009) is missing in some slices.")
    else:
        to_bqml = np.ones(len(headers))

    drug, warnings = radiopharmaceutical(first)
    warnings += check_tracer(drug, any_tracer)
    dose, dose_warnings = dose_bq(drug)
    half_life, more = half_life_s(drug)
    warnings += dose_warnings + more
    zone = first.get("TimezoneOffsetFromUTC")
    warnings += zone_doubts(first, drug)
    correction = str(first.get("DecayCorrection", ""))
    warnings += decay_doubts(headers, correction)
    if correction == "ADMIN":
        elapsed, reference = np.zeros(len(headers)), "administration (Decay Correction ADMIN)"
        warnings += _injection_doubts(headers, drug, half_life, zone)
    elif correction == "START":
        start, reference, start_warnings = scan_start(headers, half_life)
        try:
            seconds, more = uptake_s(drug, start, half_life, zone)
        except SUVError as error:
            raise SUVError(f"{reference}: {error}") from None
        elapsed = np.full(len(headers), seconds)
        warnings += start_warnings + more
    elif correction == "NONE":
        reference = "mid-frame time of each slice (Decay Correction NONE)"
        pairs = [uptake_s(drug, frame_time(header, half_life), half_life, zone) for header in headers]
        elapsed = np.array([seconds for seconds, _ in pairs])
        warnings += pairs[0][1]
    else:
        shown = f'"{correction}"' if correction else "missing"
        raise SUVError(f"Decay Correction (0054,1102) is {shown}; SUV needs START, ADMIN or NONE.")
    warnings += uptake_doubts(headers, drug, half_life)
    factors = to_bqml * 1000 * person.weight_kg / (dose * 0.5 ** (elapsed / half_life))
    return SUV(factors, reference, _once(warnings))


def decay_doubts(headers: Sequence[Dataset], correction: str) -> list[str]:
    """Doubts about Decay Correction (``correction``), of which other tags say something else. Raises SUVError where two
    of them, Corrected Image and Decay Factor, say that what is said to have no correction has one."""
    listed = headers[0].get("CorrectedImage") or ()
    if correction != "NONE":
        lacks = f"Corrected Image lacks DECY though Decay Correction is {correction}"
        return [lacks] if listed and "DECY" not in listed else []
    most = max(optional_number(header, "DecayFactor") for header in headers)
    if "DECY" in listed and most > DECAY_CORRECTED:
        raise SUVError(
            "Decay Correction (0054,1102) is NONE, but Corrected Image (0028,0051) lists DECY and Decay Factor "
            f"(0054,1321) is up to {most:.4g}: is it corrected or not? Correct the header that is wrong."
        )
    says = "Corrected Image lists DECY" if "DECY" in listed else ""
    says = says or (f"Decay Factor (0054,1321) is up to {most:.4g}" if most > DECAY_CORRECTED else "")
    return [f"{says} though Decay Correction is NONE: if it was corrected, SUV is too high"] if says else []


def check_agreement(headers: Sequence[Dataset]) -> None:
    """Raises SUVError, naming the tag, when the slices of a series disagree on what its SUV depends on: slices of two
    series were mixed, and which is believed would depend on the order of files."""
    for keyword in AGREED:
        values = {_comparable(stated(header, keyword)) for header in headers}
        if len(values) > 1:
            raise SUVError(_disagreement(named(keyword), keyword, values))
    drugs = [header.get("RadiopharmaceuticalInformationSequence") or () for header in headers]
    if len({len(items) for items in drugs}) > 1:
        raise SUVError("some slices list more radiopharmaceuticals (0054,0016) than others. Export one series alone.")
    for keyword in AGREED_OF_DRUG:
        values = {tuple(_comparable(stated(item, keyword)) for item in items) for items in drugs}
        if len(values) > 1:
            raise SUVError(_disagreement(named(keyword), keyword, values))


def _comparable(text):
    """A number by its value, however it is written; everything else as text."""
    try:
        return float(text)
    except ValueError:
        return text


def _disagreement(named, keyword, values):
    shown = "" if "Date" in keyword else f" ({', '.join(sorted(_shown(value) for value in values))})"
    return f"{named} differs between slices{shown}. Export one series alone."


def _shown(value):
    parts = value if isinstance(value, tuple) else (value,)
    return " and ".join("missing" if part == "" else f"{part:g}" if isinstance(part, float) else part for part in parts)


def _already_suv(headers, units, person):
    """(factors, reference, doubts) of values that are SUV before any dose is known; None when they are not. The scanner
    made them of the person that its own header states, whose weight may have been corrected since."""
    if units == "CNTS":
        factors = _philips(headers, PHILIPS_SUV)
        if not np.all(factors > 0):
            return None
        own, doubts = _computed_of(headers[0], person, ("weight_kg",))
        return factors * person.weight_kg / own.weight_kg, "none: Philips SUV factor (7053,1000)", doubts
    kind = _suv_type(headers[0], units)
    own, doubts = _computed_of(headers[0], person, ("weight_kg",) if kind == "BW" else ("sex", "height_m", "weight_kg"))
    by = NORMALISATIONS[kind](own)
    if by <= 0:
        raise SUVError(
            f"SUV Type (0054,1006) is {kind}, which is {by:.1f} kg for {own.weight_kg:g} kg and "
            f"{100 * own.height_m:g} cm. Correct weight and height, or export the series in BQML."
        )
    reference = "none: the values are SUV already" + ("" if kind == "BW" else f", from {kind} to body weight")
    return np.full(len(headers), person.weight_kg / by), reference, doubts


def _computed_of(header, person, fields):
    """(person, doubts): whom a scanner made its own SUV of, by what its header states of ``fields``."""
    stated = {field: READERS[field][0](header)[0] for field in fields}
    own = {field: value for field, value in stated.items() if value is not None and possible(field, value)}
    lacks = " and ".join(field.split("_")[0] for field in fields if field not in own)
    doubt = f"the PET's header lacks the {lacks} that its own SUV was computed with; taken for those that are used"
    return replace(person, **own), [doubt] if lacks else []


def _once(texts):
    return tuple(dict.fromkeys(texts))


def needs_whole_person(header: Dataset) -> bool:
    """Whether the SUV depends on sex and height, not on weight alone."""
    units = str(header.get("Units", ""))
    return units in ("GML", "CM2ML") and _suv_type(header, units) != "BW"


def tracer(header: Dataset) -> str:
    """Name of a tracer that is stated and is not F-18 FDG; otherwise ""."""
    drugs = header.get("RadiopharmaceuticalInformationSequence") or ()
    other = [drug for drug in drugs if _other_tracer(drug)]
    if not other or len(other) < len(drugs):
        return ""
    nuclide = _nuclide(other[0])
    return (_names(other[0]) or [nuclide[1] if nuclide else "unnamed"])[0]


def _suv_type(header, units):
    return str(header.get("SUVType", "") or ("BSA" if units == "CM2ML" else "BW"))


def _philips(headers, element):
    """[n] float64 of a Philips factor of the group (7053,xx), 0 where it is missing."""
    texts = [private_text(header, 0x7053, PHILIPS_PRIVATE, element) or "0" for header in headers]
    try:
        factors = np.array([float(text) for text in texts])
    except ValueError:
        factors = np.array([np.nan])
    if not np.isfinite(factors).all():
        raise SUVError(f"Philips's factor (7053,10{element:02X}) is no number in some slices. Correct it.")
    return factors


def check_units(header: Dataset) -> str:
    """The Units of a PET header, when they can become SUVbw: BQML, GML, CM2ML or CNTS. Raises SUVError otherwise."""
    units = str(header.get("Units", "") or "missing")
    if units in ("GML", "CM2ML"):
        kind = _suv_type(header, units)
        if kind not in NORMALISATIONS:
            raise SUVError(f"SUV Type (0054,1006) is {kind}; one of {', '.join(NORMALISATIONS)} is read.")
    elif units == "CNTS":
        if not max(*_philips([header], PHILIPS_SUV), *_philips([header], PHILIPS_ACTIVITY)) > 0:
            raise SUVError("Units is CNTS without Philips's SUV factor (7053,1000) or activity factor (7053,1009).")
    elif units != "BQML":
        raise SUVError(f"Units (0054,1001) is {units}; SUV needs BQML, GML, CM2ML or CNTS with (7053,1000).")
    return units


def scan_start(headers: Sequence[Dataset], half_life: float) -> tuple[datetime, str, list[str]]:
    """(datetime, source, warnings): the one time that a START-corrected series is corrected to.

    Decay Correction DateTime, where the file states it and no acquisition is earlier; else the series date-time, unless
    it lies after the earliest acquisition, as in a series processed later: then GE's own scan start; else the earliest
    slice's acquisition − frame reference time + average-count-rate time; else the earliest acquisition. Never each
    slice's own acquisition time.
    """
    acquired, over_midnight = _acquired(headers)
    series = _moment(headers[0], "Series")
    start, warnings = _stated_start(headers, acquired, series, half_life)
    warnings = over_midnight + warnings
    if start is None and not acquired and series is None:
        raise SUVError("neither Series Time (0008,0031) nor Acquisition Time (0008,0032) is in the header. Add one.")
    if acquired and series is not None:
        earliest = acquired[0][0]
        if (earliest - series).total_seconds() > LONGEST_UPTAKE * half_life:
            warnings.append(f"series and acquisition dates {_apart(series, earliest)}; times of day were used")
            series = datetime.combine(earliest.date(), series.time())
        if earliest > series and (hours := _whole_hours((earliest - series).total_seconds())):
            warnings.append(f"the first acquisition is {hours} h after the series time: a time zone?")
    if start is not None:
        source = STATED_START
    elif not acquired or (series is not None and series <= acquired[0][0]):
        start, source = series, "series date-time"
        warnings += _series_time_doubts(headers, acquired, series, half_life)
    else:
        start, source, more = _start_before_processing(headers, acquired, series, half_life)
        warnings += more
    return start, source, warnings + _decay_factor_disagrees(headers, acquired, start, half_life)


def _acquired(headers):
    """(acquired, warnings): [(acquisition time, index of its slice)], sorted, of the slices that state one.

    Of times without a date, those before a gap of half a day, which is in no scan, are of the day after the others. The
    others are of the last day on which they are not after the series time."""
    acquired = sorted(
        ((time, i) for i, h in enumerate(headers) if (time := _moment(h, "Acquisition")) is not None),
    )
    series = _moment(headers[0], "Series")
    dated = any(header.get("AcquisitionDate") or header.get("AcquisitionDateTime") for header in headers)
    gaps = [(late - early).total_seconds() for (early, _), (late, _) in itertools.pairwise(acquired)]
    if dated or max(gaps, default=0) <= DAY_S / 2:
        return acquired, []
    first = gaps.index(max(gaps)) + 1
    evening, night = acquired[first:], acquired[:first]
    before = series is not None and (evening[0][0] - series).total_seconds() > SAME_SESSION_S
    moved = [(time - timedelta(days=before), index) for time, index in evening]
    moved += [(time + timedelta(days=1 - before), index) for time, index in night]
    times = f"{evening[0][0]:%H:%M:%S} to {night[-1][0]:%H:%M:%S}"
    return moved, [f"acquisitions without a date, {times}, taken for a scan over midnight"]


def _stated_start(headers, acquired, series, half_life):
    """(datetime or None, warnings): Decay Correction DateTime, which no acquisition can be earlier than; on the day of
    the scan where it states one so far from it that de-identification must have shifted one of the two."""
    texts = {str(header.get("DecayCorrectionDateTime", "") or "") for header in headers}
    if len(texts) > 1:
        raise SUVError("Decay Correction DateTime (0018,9701) differs between slices. Export one series alone.")
    warnings: list[str] = []
    start = local_time(texts.pop(), headers[0].get("TimezoneOffsetFromUTC"))
    like = acquired[0][0] if acquired else series
    if start is None or like is None:
        return start, warnings
    what = "first acquisition" if acquired else "series time"
    before = (like - start).total_seconds()
    if abs(before) > max(LONGEST_UPTAKE * half_life, DAY_S / 2) or NO_DATE in (start.date(), like.date()):
        warnings.append(f"the dates of {STATED_START} and the scan {_apart(start, like)}; times of day were used")
        start += timedelta(days=round(before / DAY_S))  # the same time of day, as near to the scan as it can be
        before = (like - start).total_seconds()
    elif before > DAY_S / 2:  # of a long-lived nuclide; its injection is to be stated as ADMIN
        warnings.append(f"{STATED_START} is {before / 3600:.0f} h before the {what}: check it")
    if before < -SAME_START_S:
        zone = ": a time zone?" if _whole_hours(before) else ""
        used = "not used" if acquired else "used"
        warnings.append(f"{STATED_START} is {-before / 60:.0f} min after the {what}; {used}{zone}")
        start = None if acquired else start
    return start, warnings


def _start_before_processing(headers, acquired, series, half_life):
    earliest, index = acquired[0]
    header = headers[index]
    own, warnings = _ge_scan_start(header, earliest)
    if own is not None:
        if 0 <= (earliest - own).total_seconds() <= half_life:
            return own, "GE scan date-time (0009,100D)", warnings
        warnings.append("GE scan date-time (0009,100D) contradicts the acquisition time; not used")
    if series is not None and (hours := _whole_hours((series - earliest).total_seconds())):
        warnings.append(f"the first acquisition is {hours} h before the series time: processed later, or a time zone?")
    start = _by_frame_reference(headers, acquired, half_life)[0]
    if start is not None:
        return start, "acquisition − frame reference time + average-count-rate time", warnings
    return earliest, "earliest acquisition", warnings


def _by_frame_reference(headers, acquired, half_life):
    """(datetime or None, s): the scan start by the Frame Reference Time of the first frame, and half its duration."""
    first = [headers[i] for time, i in acquired if time == acquired[0][0]]  # of all beds where they state one time
    times = [(optional_number(h, "FrameReferenceTime"), optional_number(h, "ActualFrameDuration")) for h in first]
    reference_s, duration_s = (each / 1000 for each in min(times, default=(0, 0)))
    into = reference_s - average_count_time(duration_s, half_life)
    if reference_s and duration_s and 0 <= into <= half_life:
        return acquired[0][0] - timedelta(seconds=into), duration_s / 2
    return None, 0.0


def _series_time_doubts(headers, acquired, series, half_life):
    """Warnings where GE's own scan start or Frame Reference Time says that the scan began at another than the series
    time, which is taken."""
    ge, warnings = _ge_scan_start(headers[0], series)
    by_frame, half_s = _by_frame_reference(headers, acquired, half_life)
    for what, start, allowed in (
        ("GE scan date-time (0009,100D)", ge, SAME_START_S),
        ("Frame Reference Time (0054,1300)", by_frame, SAME_START_S + half_s),  # of the frame's start, by some scanners
    ):
        off = 0.0 if start is None else (start - series).total_seconds()
        off -= DAY_S * round(off / DAY_S)  # GE's date may be another
        if abs(off) > allowed:
            warnings.append(f"{what} puts the scan start {off:.0f} s after the series time, which is taken")
    return warnings


def _ge_scan_start(header, like):
    """(datetime or None, warnings): GE's own scan start, on the date of ``like``: de-identification may shift one of
    the two dates and forget the other."""
    own = local_time(private_text(header, 0x0009, GE_PRIVATE, GE_SCAN_DATETIME), header.get("TimezoneOffsetFromUTC"))
    if own is None:
        return None, []
    warnings = []
    if own.date() != like.date():
        warnings.append(f"GE's scan date and the header's {_apart(own, like)}; times of day were used")
    return datetime.combine(like.date(), own.time()), warnings


def _injection_doubts(headers, drug, half_life, zone):
    """A warning when Decay Factors are not those of a correction to the injection."""
    acquired = _acquired(headers)[0]
    if not acquired:
        return []
    try:
        seconds = uptake_s(drug, acquired[0][0], half_life, zone)[0]
    except SUVError:  # not known, which uptake_doubts says
        return []
    return _decay_factor_disagrees(
        headers, acquired, acquired[0][0] - timedelta(seconds=seconds), half_life, "injection"
    )


def _decay_factor_disagrees(headers, acquired, start, half_life, what="scan start"):
    """A warning when Decay Factors put the time that was corrected to elsewhere, by the frame that does so most.
    what: that time is."""
    most, zone = 0.0, ""
    for time, frame in itertools.groupby(acquired, key=lambda each: each[0]):
        of_frame = [headers[i] for _, i in frame if optional_number(headers[i], "DecayFactor") >= 1]
        if not of_frame:
            continue
        factor = min(optional_number(header, "DecayFactor") for header in of_frame)
        before = half_life * np.log2(factor)  # from what was corrected to, to the middle of the frame
        half_s = optional_number(of_frame[0], "ActualFrameDuration") / 2000
        off = (time - start).total_seconds() + half_s - before
        # Some scanners count to the frame's start, not to its middle.
        if abs(off) > max(abs(most), SAME_START_S + half_s):
            most, zone = off, ", whole hours: a time zone?" * bool(_whole_hours(off) or _whole_hours(off - half_s))
    return [f"Decay Factor puts the {what} {most:.0f} s after {start:%H:%M:%S}{zone}"] if most else []


def _whole_hours(seconds):
    """How many hours, from 1 on, a difference of two clocks is; 0 when it is not nearly a whole number of them."""
    hours = round(abs(seconds) / 3600)
    return hours if abs(abs(seconds) - 3600 * hours) <= ROUND_HOUR_S else 0


def uptake_doubts(headers: Sequence[Dataset], drug: Dataset, half_life: float) -> list[str]:
    """Doubts about the time from the injection of F-18 to the first acquisition. Raises SUVError where they are one
    time: it was copied from one to the other."""
    acquired = [time for header in headers if (time := _moment(header, "Acquisition")) is not None]
    moment = min(acquired, default=_moment(headers[0], "Series"))
    if moment is None or not _decays_like_f18(half_life):
        return []
    try:
        seconds = uptake_s(drug, moment, half_life, headers[0].get("TimezoneOffsetFromUTC"))[0]
    except SUVError as error:  # of a series whose SUV does not depend on it; any other has been refused
        return [f"the uptake time is not known: {error}"]
    if seconds < NO_UPTAKE_S:
        raise SUVError(
            "Radiopharmaceutical Start Time (0018,1072) is the start of the scan: FDG is not imaged as it is injected. "
            "Correct it."
        )
    minutes = seconds / 60
    if USUAL_F18_UPTAKE_MIN[0] <= minutes <= USUAL_F18_UPTAKE_MIN[1]:
        return []
    return [f"{minutes:.0f} min from injection to scan, usually 50 to 100: check the times"]


def uptake_min(header: Dataset) -> float | None:
    """Minutes from the injection of F-18 to the acquisition of a slice; None where they are not known or impossible."""
    drugs = header.get("RadiopharmaceuticalInformationSequence") or ()
    moment = _moment(header, "Acquisition") or _moment(header, "Series")
    try:
        if moment is None or not drugs or not _decays_like_f18(half_life_s(drugs[0])[0]):
            return None
        return uptake_s(drugs[0], moment, F18_HALF_LIFE_S, header.get("TimezoneOffsetFromUTC"))[0] / 60
    except InputError:
        return None


def frame_time(header: Dataset, half_life: float) -> datetime:
    """When a slice that is not decay-corrected shows its activity: acquisition + average-count-rate time."""
    start = _moment(header, "Acquisition")
    if start is None:
        raise SUVError("Acquisition Time (0008,0032) is missing; Decay Correction NONE needs it.")
    return start + timedelta(
        seconds=average_count_time(optional_number(header, "ActualFrameDuration") / 1000, half_life)
    )


def average_count_time(duration_s: float, half_life: float) -> float:
    """Seconds into a frame at which the decaying activity has its mean over the frame; near the middle."""
    if duration_s <= 0:
        return 0.0
    decay = np.log(2) / half_life
    return float(np.log(decay * duration_s / -np.expm1(-decay * duration_s)) / decay)


def uptake_s(
    drug: Dataset, moment: datetime, half_life: float, zone: str | None = None
) -> tuple[float, list[str]]:
    """(seconds, warnings) from injection to ``moment``, a datetime.

    drug: item of the Radiopharmaceutical Information Sequence;  zone: the header's Timezone Offset From UTC.
    Radiopharmaceutical Start DateTime is preferred to Start Time when it gives a possible time. Otherwise –
    de-identified dates, or a start time without a date – the times of day are taken, and an injection later than the
    scan is one of the evening before.
    """
    warnings, longest = [], LONGEST_F18_UPTAKE_S if _decays_like_f18(half_life) else LONGEST_UPTAKE * half_life
    written = str(drug.get("RadiopharmaceuticalStartDateTime", "") or "")
    full = local_time(written, zone)
    time = _parse(None, drug.get("RadiopharmaceuticalStartTime"))
    if full is None and time is not None and (emptied := re.fullmatch(r"(\d{8})0[0.:]*", written.strip())):
        warnings.append("Radiopharmaceutical Start DateTime (0018,1078) has no time of day; Start Time was used")
        full = _parse(emptied[1], f"{time:%H%M%S.%f}")
    if full is not None and time is not None:
        apart = abs((datetime.combine(full.date(), time.time()) - full).total_seconds())
        if min(apart, DAY_S - apart) > SAME_CLOCK_S:
            # An offset that cannot be related to the header's own clock does not contradict the header's Start Time.
            adrift = not zone and re.search(r"[+-]\d{4}$", written.strip()) is not None
            warnings.append(
                f"Radiopharmaceutical Start DateTime (0018,1078) states {full:%H:%M:%S}, Start Time (0018,1072) "
                f"{time:%H:%M:%S}; the {'latter' if adrift else 'former'} is preferred"
                + (", whole hours apart: a time zone?" if _whole_hours(min(apart, DAY_S - apart)) else "")
            )
            full = datetime.combine(full.date(), time.time()) if adrift else full
    if full is not None:
        seconds = (moment - full).total_seconds()
        if 0 <= seconds <= longest:
            return seconds, warnings
        warnings.append(f"injection contradicts the scan (dates {_apart(full, moment)}); times of day were used")
        time = time or full
    if time is None:
        raise SUVError(
            "Radiopharmaceutical Start Time (0018,1072) is missing, unreadable or set to 0; SUV needs it. Correct it."
        )
    if longest > DAY_S:
        raise SUVError(
            "Radiopharmaceutical Start DateTime (0018,1078) is missing or contradicts the scan's date; at a half-life "
            f"of {half_life:g} s the day of injection must be known. Correct it."
        )
    seconds = (moment - datetime.combine(moment.date(), time.time())).total_seconds()
    if seconds < 0:
        seconds += DAY_S
        warnings.append(f"injection at {time:%H:%M:%S} taken for the evening before the scan at {moment:%H:%M:%S}")
    if seconds > longest:
        raise SUVError(
            f"Radiopharmaceutical Start Time (0018,1072) is {time:%H:%M:%S} and the scan {moment:%H:%M:%S}: "
            f"{seconds / 3600:.1f} h apart at a half-life of {half_life:g} s. Correct the times."
        )
    return seconds, warnings


def radiopharmaceutical(header: Dataset) -> tuple[Dataset, list[str]]:
    """(item, warnings): the item of the Radiopharmaceutical Information Sequence that the image shows.

    Copies of an item count once; of different ones the only F-18 FDG is taken. Raises SUVError when there is none, or
    no single one.
    """
    items = []
    for item in header.get("RadiopharmaceuticalInformationSequence") or ():
        if item not in items:
            items.append(item)
    if not items:
        raise SUVError("Radiopharmaceutical Information Sequence (0054,0016) is missing; SUV needs dose and times.")
    if len(items) == 1:
        return items[0], []
    fdg = [item for item in items if _named_fdg(item) and not _other_tracer(item)]
    if len(fdg) == 1:
        return fdg[0], [f"{len(items)} radiopharmaceuticals are listed; the only F-18 FDG was used"]
    named = ", ".join((_names(item) or ["unnamed"])[0] for item in items)
    raise SUVError(
        f"Radiopharmaceutical Information Sequence (0054,0016) lists {len(items)} different injections ({named}), "
        f"{len(fdg)} of them of F-18 FDG. Keep the one that the image shows."
    )


def check_tracer(drug: Dataset, any_tracer: bool = False) -> list[str]:
    """Warnings about the tracer. Raises SUVError when it is not F-18 FDG, unless ``any_tracer``; and always when
    nuclide and half-life contradict each other."""
    nuclide, half_life = _nuclide(drug), _half_life(drug)[0]
    if any_tracer:
        if nuclide and half_life and _is_f18(nuclide) != _decays_like_f18(half_life):
            raise SUVError(
                f"Radionuclide Code Sequence (0054,0300) is {nuclide[1]} and Radionuclide Half Life (0018,1075) "
                f"{half_life:g} s, which is {'not ' if _is_f18(nuclide) else ''}that of F-18. Correct one of them."
            )
        return []
    other = _other_tracer(drug)
    if other:
        raise SUVError(other)
    return [] if _named_fdg(drug) else ["the tracer has no name; taken for F-18 FDG"]


def _other_tracer(drug):
    """Why a radiopharmaceutical is not F-18 FDG; "" when nothing contradicts it."""
    nuclide, half_life = _nuclide(drug), _half_life(drug)[0]
    if nuclide and not _is_f18(nuclide):
        return f"Radionuclide Code Sequence (0054,0300) is {nuclide[1]}; the cohort is of F-18 FDG. Allow any tracer."
    if half_life and not _decays_like_f18(half_life):
        return f"Radionuclide Half Life (0018,1075) is {half_life:g} s; that of F-18 is {F18_HALF_LIFE_S:g} s."
    named = [name for name in _names(drug) if name.lower() not in NAMELESS]
    if named and not _named_fdg(drug):
        return f"Radiopharmaceutical (0018,0031) is {named[0]}; the cohort is of F-18 FDG. Allow any tracer."
    return ""


def _names(drug):
    names = [drug.get("Radiopharmaceutical")]
    names += [code.get("CodeMeaning") for code in drug.get("RadiopharmaceuticalCodeSequence") or ()]
    return [str(name).strip() for name in names if str(name or "").strip()]


def _named_fdg(drug):
    return any(fdg in name.lower() for name in _names(drug) for fdg in FDG_NAMES)


def _nuclide(drug):
    """(code, name) of the Radionuclide Code Sequence; None when it names nothing."""
    for code in drug.get("RadionuclideCodeSequence") or ():
        value, meaning = (str(code.get(keyword, "") or "").strip() for keyword in ("CodeValue", "CodeMeaning"))
        if value or meaning:
            return value, meaning or value
    return None


def _is_f18(nuclide):
    return nuclide[0] in F18_CODES or ("18" in nuclide[1] and "f" in nuclide[1].lower())


def _decays_like_f18(half_life):
    return abs(half_life / F18_HALF_LIFE_S - 1) <= HALF_LIFE_TOLERANCE


def dose_bq(drug: Dataset) -> tuple[float, list[str]]:
    """(Radionuclide Total Dose in Bq, warnings). Raises SUVError when it is missing or in no known unit."""
    value = number(drug, "RadionuclideTotalDose")
    if value is not None and DOSE_MBQ[0] <= value <= DOSE_MBQ[1]:
        return value * 1e6, [f"Radionuclide Total Dose (0018,1074) of {value:g} read as MBq"]
    if value is None or not DOSE_BQ[0] <= value <= DOSE_BQ[1]:
        shown = "missing" if value is None else f"{value:g}, which is no dose in Bq"
        raise SUVError(f"Radionuclide Total Dose (0018,1074) is {shown}. Correct it in the PET headers.")
    return value, []


def half_life_s(drug: Dataset) -> tuple[float, list[str]]:
    """(Radionuclide Half Life in seconds, warnings). Raises SUVError when it is missing."""
    seconds, warnings = _half_life(drug)
    if seconds is None:
        raise SUVError("Radionuclide Half Life (0018,1075) is missing. Add it to the PET headers.")
    return seconds, warnings


def _half_life(drug):
    value = number(drug, "RadionuclideHalfLife") or 0.0
    if F18_HALF_LIFE_MIN[0] <= value <= F18_HALF_LIFE_MIN[1]:
        return value * 60, [f"Radionuclide Half Life (0018,1075) of {value:g} read as minutes"]
    return (value if value > 0 else None), []


def private_text(header: Dataset, group: int, creator: str, element: int) -> str | None:
    """A private value as text; None when missing."""
    try:
        value = header.private_block(group, creator)[element].value
    except KeyError:
        return None
    return value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else str(value or "")


def _moment(header, prefix):
    """Datetime of a header's <prefix>Date and Time, or <prefix>DateTime; None when missing. Without its own date, that
    of another step of the same session."""
    dates = (header.get(keyword) for keyword in (f"{prefix}Date", "AcquisitionDate", "SeriesDate", "StudyDate"))
    moment = _parse(next((day for day in dates if day), None), header.get(f"{prefix}Time"))
    return moment or local_time(header.get(f"{prefix}DateTime"), header.get("TimezoneOffsetFromUTC"))


def local_time(text: str | None, zone: str | None) -> datetime | None:
    """Datetime of a DT value on the clock of its header; None when it is missing, unreadable or without time of day.

    zone: the header's Timezone Offset From UTC, as "+0100". Where one of the two states no offset, or one of no place
    on earth (see ``zone_doubts``), the value is taken as local.
    """
    parts = re.fullmatch(r"(\d{8})(\d[\d.:]*)([+-]\d{4})?", str(text or "").strip())
    moment = _parse(parts[1], parts[2]) if parts else None
    here, there = _offset(zone), _offset(parts[3] if parts else None)
    return moment if moment is None or here is None or there is None else moment + here - there


def _offset(zone):
    """timedelta of an offset from UTC as "+0100"; None without one, and for what is none."""
    parts = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(zone or "").strip())
    if parts is None or int(parts[3]) >= 60:
        return None
    minutes = int(f"{parts[1]}1") * (60 * int(parts[2]) + int(parts[3]))
    return timedelta(minutes=minutes) if ZONE_MINUTES[0] <= minutes <= ZONE_MINUTES[1] else None


def zone_doubts(header: Dataset, drug: Dataset) -> list[str]:
    """Offsets from UTC of no place on earth, in words that contain no other text: the times are taken as local."""
    stated = {"Timezone Offset From UTC (0008,0201)": str(header.get("TimezoneOffsetFromUTC", "") or "").strip()}
    for keyword, item in (("DecayCorrectionDateTime", header), ("RadiopharmaceuticalStartDateTime", drug)):
        offset = re.search(r"[+-]\d+$", str(item.get(keyword, "") or "").strip())
        stated[f"the offset of {named(keyword)}"] = offset[0] if offset else ""
    wrong = {what: text for what, text in stated.items() if text and _offset(text) is None}
    shown = {what: text if re.fullmatch(r"[+-]\d{4}", text) else "a text" for what, text in wrong.items()}
    return [f"{what} is {text}, no time zone; times were taken as local" for what, text in shown.items()]


def _parse(day, time):
    """Datetime of a DA and a TM value; None without a readable time, and for 00:00:00, which anonymisers write where
    there was a time. NO_DATE is used where the date is not readable."""
    try:
        clock = pydicom.valuerep.TM(str(time or "").strip().replace(":", ""))  # hh:mm:ss was legal before 1993
    except ValueError:
        return None
    if not clock or clock == MIDNIGHT:
        return None
    try:
        return datetime.combine(pydicom.valuerep.DA(str(day or "")) or NO_DATE, clock)
    except ValueError:
        return datetime.combine(NO_DATE, clock)


def _apart(one, other):
    """How two dates disagree, in words that name neither: warnings may leave the hospital."""
    if NO_DATE in (one.date(), other.date()):
        return "cannot be compared"
    return f"differ by {abs((one.date() - other.date()).days)} days"
