"""From counts to SUVbw: one factor per PET slice, out of the headers alone.

Source: QIBA FDG-PET/CT profile (vendor-neutral SUV pseudo-code), IBSI's SUV guidance, DICOM PS3.3 C.8.9. SUVbw in g/mL
is activity concentration (Bq/mL) · weight (g) / dose (Bq) decayed to the time the activity was corrected to.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pydicom.valuerep

from totalgen.errors import InputError

F18_HALF_LIFE_S = 6586.2
HALF_LIFE_TOLERANCE = 0.01  # headers write 6580 to 6600 s
LONGEST_UPTAKE = 7  # half-lives; 12.8 h for F-18. Later than that no image can be taken.
DOSE_BQ = (1e6, 1e11)  # a dose outside is written in another unit
SAME_START_S = 60.0  # how far the Decay Factor may put the scan start from where the times put it
FDG_NAMES = ("fdg", "fluorodeoxyglucose", "fludeoxyglucose", "fluoro-2-deoxy", "fluorodesoxyglucose")
NAMELESS = ("", "solution", "other", "unknown", "isotope", "18f", "f18", "f-18", "^18^fluorine", "fluorine", "none")
GE_PRIVATE, GE_SCAN_DATETIME = "GEMS_PETD_01", 0x0D  # (0009,100D)
PHILIPS_PRIVATE, PHILIPS_SUV, PHILIPS_ACTIVITY = "Philips PET Private Group", 0x00, 0x09  # (7053,1000), (7053,1009)


class SUVError(InputError):
    """A PET header that allows no SUV; the message names the tag and its value."""


@dataclass(frozen=True)
class SUV:
    """factors: [n] float64, rescaled voxel value → SUVbw (g/mL), one per slice;  reference: in words, what time the
    dose was decayed to;  warnings: tuple of texts."""

    factors: np.ndarray
    reference: str
    warnings: tuple


def suv_factors(headers, weight_kg, any_tracer=False):
    """SUV factors of a PET series.

    headers: list of pydicom Datasets, one per slice;  weight_kg: of the patient, merged over all series;  any_tracer:
    accept tracers other than F-18 FDG.
    Every slice of a decay-corrected series gets the same reference time.
    Raises SUVError naming the tag when units, dose, times or tracer do not allow a conversion.
    """
    first = headers[0]
    for keyword in ("Units", "DecayCorrection"):
        values = {str(header.get(keyword, "")) for header in headers}
        if len(values) > 1:
            raise SUVError(f"{keyword} differs between slices ({', '.join(sorted(values))}). Export one series alone.")
    units = check_units(first)
    if units == "GML":
        return SUV(np.ones(len(headers)), "none: the values are SUV already", ())
    if units == "CNTS":
        suv = [_private(header, 0x7053, PHILIPS_PRIVATE, PHILIPS_SUV) or 0.0 for header in headers]
        if min(suv) > 0:
            return SUV(np.array(suv, float), "none: Philips SUV factor (7053,1000)", ())
        to_bqml = np.array([_private(h, 0x7053, PHILIPS_PRIVATE, PHILIPS_ACTIVITY) for h in headers], float)
    else:
        to_bqml = np.ones(len(headers))

    warnings = check_tracer(first, any_tracer)
    dose, half_life = dose_bq(first), half_life_s(first)
    correction = str(first.get("DecayCorrection", ""))
    corrected = first.get("CorrectedImage", ())
    if correction != "NONE" and corrected and "DECY" not in corrected:
        warnings.append(f"Corrected Image lacks DECY though Decay Correction is {correction}")
    if correction == "ADMIN":
        elapsed, reference = np.zeros(len(headers)), "administration (Decay Correction ADMIN)"
    elif correction == "START":
        start, reference, said = scan_start(headers, half_life)
        seconds, more = uptake_s(first, start, half_life)
        elapsed = np.full(len(headers), seconds)
        warnings += said + more
    elif correction == "NONE":
        reference = "mid-frame time of each slice (Decay Correction NONE)"
        pairs = [uptake_s(header, frame_time(header, half_life), half_life) for header in headers]
        elapsed = np.array([seconds for seconds, _ in pairs])
        warnings += pairs[0][1]
    else:
        shown = f'"{correction}"' if correction else "missing"
        raise SUVError(f"Decay Correction (0054,1102) is {shown}; SUV needs START, ADMIN or NONE.")
    factors = to_bqml * 1000 * weight_kg / (dose * 0.5 ** (elapsed / half_life))
    return SUV(factors, reference, tuple(dict.fromkeys(warnings)))


def check_units(header):
    """The Units of a PET header, when they can become SUVbw: BQML, GML or CNTS. Raises SUVError otherwise."""
    units = str(header.get("Units", "")) or "missing"
    if units == "GML":
        kind = str(header.get("SUVType", "") or "BW")
        if kind != "BW":
            raise SUVError(f"SUV Type (0054,1006) is {kind}; only BW, normalised by body weight, is read.")
    elif units == "CNTS":
        known = [_private(header, 0x7053, PHILIPS_PRIVATE, n) or 0 for n in (PHILIPS_SUV, PHILIPS_ACTIVITY)]
        if max(known) <= 0:
            raise SUVError("Units is CNTS without Philips's SUV factor (7053,1000) or activity factor (7053,1009).")
    elif units != "BQML":
        raise SUVError(f"Units (0054,1001) is {units}; SUV needs BQML, GML or CNTS with (7053,1000).")
    return units


def scan_start(headers, half_life):
    """(datetime, source, warnings): the one time that a START-corrected series is corrected to.

    The series date-time, unless it lies after the earliest acquisition, as in a series processed later: then GE's own
    scan start; else the earliest slice's acquisition − frame reference time + average-count-rate time; else the
    earliest acquisition. Never each slice's own acquisition time.
    """
    acquired = sorted(
        ((time, i) for i, h in enumerate(headers) if (time := _moment(h, "Acquisition")) is not None),
    )
    series = _moment(headers[0], "Series")
    if not acquired and series is None:
        raise SUVError("neither Series Time (0008,0031) nor Acquisition Time (0008,0032) stands in the header.")
    if not acquired or (series is not None and series <= acquired[0][0]):
        start, source, warnings = series, "series date-time", _ge_scan_start(headers[0], series)[1]
    else:
        start, source, warnings = _start_before_processing(headers, acquired, half_life)
    return start, source, warnings + _decay_factor_disagrees(headers, acquired, start, half_life)


def _start_before_processing(headers, acquired, half_life):
    earliest, index = acquired[0]
    header = headers[index]
    own, warnings = _ge_scan_start(header, earliest)
    if own is not None:
        if 0 <= (earliest - own).total_seconds() <= half_life:
            return own, "GE scan date-time (0009,100D)", warnings
        warnings.append("GE scan date-time (0009,100D) contradicts the acquisition time; not used")
    reference_ms, duration_ms = header.get("FrameReferenceTime"), header.get("ActualFrameDuration")
    if reference_ms and duration_ms:
        into = float(reference_ms) / 1000 - average_count_time(float(duration_ms) / 1000, half_life)
        if 0 <= into <= half_life:
            source = "acquisition − frame reference time + average-count-rate time"
            return earliest - timedelta(seconds=into), source, warnings
    return earliest, "earliest acquisition", warnings


def _ge_scan_start(header, like):
    """(datetime or None, warnings): GE's own scan start, on the date of ``like``: de-identification may shift one of
    the two dates and forget the other."""
    written = str(_private(header, 0x0009, GE_PRIVATE, GE_SCAN_DATETIME) or "")
    own = _parse(written[:8], written[8:])
    if own is None:
        return None, []
    warnings = []
    if own.date() != like.date():
        warnings.append(f"GE scan date {own.date()} is not the header's date {like.date()}; times of day were used")
    return datetime.combine(like.date(), own.time()), warnings


def _decay_factor_disagrees(headers, acquired, start, half_life):
    """A warning when the first frame's Decay Factor puts the scan start elsewhere."""
    if not acquired:
        return []
    earliest = acquired[0][0]
    first = [headers[i] for time, i in acquired if time == earliest and headers[i].get("DecayFactor")]
    factors = [float(header.DecayFactor) for header in first if float(header.DecayFactor) >= 1]
    if not factors:
        return []
    before = half_life * np.log2(min(factors))  # from the scan start to the middle of the frame
    duration_s = float(first[0].get("ActualFrameDuration") or 0) / 1000
    off = (earliest - start).total_seconds() + duration_s / 2 - before
    if abs(off) <= SAME_START_S + duration_s / 2:  # some scanners count to the frame's start, not to its middle
        return []
    return [f"Decay Factor puts the scan start {off:.0f} s after {start:%H:%M:%S}"]


def frame_time(header, half_life):
    """When a slice that is not decay-corrected shows its activity: acquisition + average-count-rate time."""
    start = _moment(header, "Acquisition")
    if start is None:
        raise SUVError("Acquisition Time (0008,0032) is missing; Decay Correction NONE needs it.")
    return start + timedelta(
        seconds=average_count_time(float(header.get("ActualFrameDuration") or 0) / 1000, half_life)
    )


def average_count_time(duration_s, half_life):
    """Seconds into a frame at which the decaying activity has its mean over the frame; near the middle."""
    if duration_s <= 0:
        return 0.0
    decay = np.log(2) / half_life
    return float(np.log(decay * duration_s / -np.expm1(-decay * duration_s)) / decay)


def uptake_s(header, moment, half_life):
    """(seconds, warnings) from injection to ``moment``, a datetime.

    Dates are believed when they give a time that is possible. Otherwise – de-identified dates, or a start time without
    a date – the times of day are taken, and an injection later than the scan is one of the evening before.
    """
    drug, warnings = _drug(header), []
    longest = LONGEST_UPTAKE * half_life
    injected = str(drug.get("RadiopharmaceuticalStartDateTime", "") or "")
    time = _parse(None, str(drug.get("RadiopharmaceuticalStartTime", "") or ""))
    if injected:
        full = _parse(injected[:8], injected[8:])
        if full is not None:
            seconds = (moment - full).total_seconds()
            if 0 <= seconds <= longest:
                return seconds, warnings
            warnings.append(f"injection date {full.date()} contradicts scan date {moment.date()}; times of day used")
            time = time or full
    if time is None:
        raise SUVError("Radiopharmaceutical Start Time (0018,1072) is missing or unreadable; SUV needs it.")
    seconds = (moment - datetime.combine(moment.date(), time.time())).total_seconds()
    if seconds < 0:
        seconds += 24 * 3600
        warnings.append(f"injection at {time:%H:%M:%S} taken for the evening before the scan at {moment:%H:%M:%S}")
    if seconds > longest:
        raise SUVError(
            f"Radiopharmaceutical Start Time (0018,1072) is {time:%H:%M:%S} and the scan {moment:%H:%M:%S}: "
            f"{seconds / 3600:.1f} h apart. Correct the times."
        )
    return seconds, warnings


def check_tracer(header, any_tracer=False):
    """Warnings about the tracer. Raises SUVError when it is not F-18 FDG, unless ``any_tracer``."""
    drug = _drug(header)
    names = [str(drug.get("Radiopharmaceutical", "") or "")]
    names += [str(code.get("CodeMeaning", "") or "") for code in drug.get("RadiopharmaceuticalCodeSequence", ()) or ()]
    half_life = half_life_s(header)
    if any_tracer:
        return []
    if abs(half_life / F18_HALF_LIFE_S - 1) > HALF_LIFE_TOLERANCE:
        raise SUVError(f"Radionuclide Half Life (0018,1075) is {half_life:g} s; that of F-18 is {F18_HALF_LIFE_S:g} s.")
    if any(fdg in name.lower() for name in names for fdg in FDG_NAMES):
        return []
    named = [name for name in names if name.strip().lower() not in NAMELESS]
    if named:
        raise SUVError(f"Radiopharmaceutical (0018,0031) is {named[0]}; the cohort is of F-18 FDG. Allow any tracer.")
    return ["the tracer has no name; F-18 by its half-life, taken for FDG"]


def dose_bq(header):
    """Radionuclide Total Dose in Bq. Raises SUVError when it is missing or in another unit."""
    value = _drug(header).get("RadionuclideTotalDose")
    if value is None or not DOSE_BQ[0] <= float(value) <= DOSE_BQ[1]:
        shown = "missing" if value is None else f"{float(value):g}, which is no dose in Bq"
        raise SUVError(f"Radionuclide Total Dose (0018,1074) is {shown}. Correct it in the PET headers.")
    return float(value)


def half_life_s(header):
    """Radionuclide Half Life in seconds. Raises SUVError when it is missing."""
    value = _drug(header).get("RadionuclideHalfLife")
    if value is None or not float(value) > 0:
        raise SUVError("Radionuclide Half Life (0018,1075) is missing. Add it to the PET headers.")
    return float(value)


def _drug(header):
    sequence = header.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise SUVError("Radiopharmaceutical Information Sequence (0054,0016) is missing; SUV needs dose and times.")
    return sequence[0]


def _private(header, group, creator, element):
    try:
        value = header.private_block(group, creator)[element].value
    except KeyError:
        return None
    return float(value) if group == 0x7053 else value


def _moment(header, prefix):
    """Datetime of a header's <prefix>DateTime, or <prefix>Date and Time; None when missing. Any date will do when only
    the date is missing: times of day remain."""
    return _parse(str(header.get(f"{prefix}Date", "") or ""), str(header.get(f"{prefix}Time", "") or ""))


def _parse(date, time):
    if not time:
        return None
    try:
        clock = pydicom.valuerep.TM(time.split("+")[0].split("-")[0].strip())
        day = pydicom.valuerep.DA(date) if date else datetime(1900, 1, 2).date()
    except ValueError:
        return None
    return datetime.combine(day, clock)
