"""Which PET and which CT of a subject are used, and why the others are not."""

import re
from collections.abc import Sequence
from typing import Any

import pydicom

from totalgen.data.dicom import Series
from totalgen.data.header_numbers import optional_number
from totalgen.data.suv import check_units, uptake_min
from totalgen.errors import InputError

FEWEST_SLICES = 10  # fewer slices are a scout or a key image, not a torso
SAME_OVERLAP = 0.98  # of the largest overlap: reformats and other slice thicknesses of one scan differ by less
SCOUT = re.compile(r"scout|topogram|locali[sz]er|scanogram|surview|\bscano", re.IGNORECASE)
PAGE = re.compile(r"dose[ _-]*(report|record|info|summary|page|sheet)|(patient|exam)[ _-]*protocol|exam[ _-]*summary|"
                  r"screen[ _-]*(save|shot|cap)", re.IGNORECASE)  # fmt: skip
PROJECTION = re.compile(r"(?<![a-z])m(ax)?[ _-]?ip(?![a-z])|maximum intensity|projection image", re.IGNORECASE)
UNCORRECTED = re.compile(r"(?<![a-z])n(on?[ _-]?)?ac(?![a-z])|uncorrected|no[nt]?[ _-]?att|"
                         r"(w/o|without)[ _-]*(ac(?![a-z])|att)", re.IGNORECASE)  # fmt: skip
NOT_STATIC = ("DYNAMIC", "GATED", "REPROJECTION")  # values of Series Type: not the static image that SUV are about
STANDARD_UPTAKE_MIN, SAME_UPTAKE_MIN = 60.0, 30.0  # EANM and QIBA: 60 min; beds of one scan differ by half an hour
OTHER_STUDY = "another study of the subject is used"
DERIVED = {"DERIVED", "SECONDARY", "REFORMATTED", "MPR"}  # values of Image Type


def choose(all_series: Sequence[Series]) -> tuple[Series | None, Series | None, dict[str, str]]:
    """(pet, ct, reasons) among the series of one subject; pet or ct is None when there is none to use.

    reasons: dict of series UID → why it was chosen or not.
    PET: units that can become SUV, not uncorrected for attenuation, of the earliest study; then see ``pet_rank``.
    CT: no scout or page, same study and frame of reference as the PET; then see ``ct_rank``.
    """
    reasons = {series.uid: reason for series in all_series if (reason := refusal(series))}
    usable = [series for series in all_series if series.uid not in reasons]
    begun = {s.study: min(begin(other) for other in all_series if other.study == s.study) for s in usable}
    pets = sorted((s for s in usable if s.modality == "PT"), key=lambda s: (begun[s.study], s.study, pet_rank(s)))
    cts = [s for s in usable if s.modality == "CT"]
    pet, ct, partners = (pets[0] if pets else None), None, []
    for candidate in pets:
        near = [s for s in cts if same_place(s, candidate) and overlap_ml(s, candidate) > 0]
        if near:
            pet, partners = candidate, near
            ct = min(partners, key=lambda s: ct_rank(s, pet, partners))
            break
    for series in usable:
        if series is pet:
            corrected = "corrected for attenuation" if says_corrected(pet) else "attenuation correction not stated"
            reasons[series.uid] = f"PET, {corrected}, {pet.header.Units}"
        elif pet is None:
            reasons[series.uid] = "no PET to use it with"
        elif series is ct:
            reasons[series.uid] = f"CT that overlaps the PET by {overlap_ml(ct, pet) / 1000:.1f} L"
        elif series.study != pet.study:
            reasons[series.uid] = OTHER_STUDY
        elif series.modality == "PT":
            if pet_rank(series) < pet_rank(pet):
                reasons[series.uid] = "no CT shares its frame of reference and overlaps it"
            else:
                why = first_difference(pet_rank(series), pet_rank(pet))
                reasons[series.uid] = PET_REASONS[why]
        elif not same_place(series, pet):
            reasons[series.uid] = "not in the PET's frame of reference"
        elif ct is None or series not in partners:
            reasons[series.uid] = "does not overlap the PET"
        else:
            why = first_difference(ct_rank(series, pet, partners), ct_rank(ct, pet, partners))
            litres = [overlap_ml(s, pet) / 1000 for s in (series, ct)]
            reasons[series.uid] = CT_REASONS[why].format(*litres)
    return pet, ct, reasons


def _values(header, keyword):
    """Set of the values of a tag with one, several or none of them, in capitals."""
    value = header.get(keyword, None) or ()
    return {str(v).strip().upper() for v in ([value] if isinstance(value, str) else value)}


def first_difference(a: tuple[Any, ...], b: tuple[Any, ...]) -> int:
    """The first position at which two tuples differ."""
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)


def refusal(series: Series) -> str:
    """Why a series can be neither the PET nor the CT, or "" when it can."""
    header = series.header
    if not series.is_image:
        kind = pydicom.uid.UID(str(header.get("SOPClassUID", ""))).name or "of no stated class"
        return f"no stack of CT or PET images: {kind}"
    kind = " ".join(_values(header, "ImageType"))
    for pattern, what in ((SCOUT, "scout"), (PAGE, "report or screen page"), (PROJECTION, "projection, no slices")):
        if pattern.search(kind) or pattern.search(series.description):
            return what
    if series.fault:  # a file that cannot be read counts as one slice, whatever it holds
        return series.fault
    if series.count < FEWEST_SLICES:
        return "a single slice" if series.count == 1 else f"only {series.count} slices"
    if series.modality == "PT":
        try:
            check_units(header)
        except InputError as error:
            return str(error)
        other = [kind for kind in NOT_STATIC if kind in _values(header, "SeriesType")]
        if other:  # not by Number of Time Slices, where some scanners count beds
            return f"{other[0].lower()} by its Series Type (0054,1000), not a static image"
        if _values(header, "CorrectedImage") and not says_corrected(series):
            return "not corrected for attenuation: Corrected Image lacks ATTN"
        if UNCORRECTED.search(series.description):
            return "not corrected for attenuation, by its description"
    return series.problem


def says_corrected(series: Series) -> bool:
    """Whether Corrected Image (0028,0051) lists the attenuation."""
    return "ATTN" in _values(series.header, "CorrectedImage")


def is_derived(series: Series) -> bool:
    """Whether Image Type (0008,0008) states that the images were computed from others, such as a reformat."""
    return not DERIVED.isdisjoint(_values(series.header, "ImageType"))


PET_REASONS = (  # why another PET of its study is preferred to a PET, in the order of pet_rank
    "does not state that it is corrected for attenuation, as the chosen PET does",
    "derived from other images; the chosen PET is original",
    "covers less than the chosen PET",
    "fewer slices than the chosen PET",
    "imaged at another time after the injection; that of the chosen PET is nearer to 60 min",
    "shorter frames than the chosen PET",
    "the chosen PET has the lower series number",
    "equal to the chosen PET",
)


def begin(series: Series) -> str:
    """Study date and time as text that sorts; some scanners write another time into every series of one study."""
    return f"{series.header.get('StudyDate', '') or ''}{series.header.get('StudyTime', '') or ''}"


def pet_rank(series: Series) -> tuple[Any, ...]:
    """Sort key of the PET series of a study, best first: corrected, original, largest volume in mL, most slices,
    imaged near an hour after injection (a dynamic scan may not say that it is one), longest frames."""
    seconds = round(optional_number(series.header, "ActualFrameDuration") / 1000)
    minutes = uptake_min(series.header)
    early = 0 if minutes is None else round(abs(minutes - STANDARD_UPTAKE_MIN) / SAME_UPTAKE_MIN)
    size = -round(overlap_ml(series, series)), -series.count, early, -seconds
    return not says_corrected(series), is_derived(series), *size, series_number(series), series.uid


CT_REASONS = (  # why another CT at the PET's place is preferred to a CT, in the order of ct_rank
    "overlaps the PET by {:.1f} L, the chosen CT by {:.1f} L",
    "derived from other images; the chosen CT is original",
    "fewer slices than the chosen CT",
    "the chosen CT has the lower series number",
    "equal to the chosen CT",
)


def ct_rank(series: Series, pet: Series, all_ct: Sequence[Series]) -> tuple[Any, ...]:
    """Sort key of CT series, best first: an overlap with the PET near the largest, original, most slices."""
    largest = max(overlap_ml(other, pet) for other in all_ct)
    overlap = overlap_ml(series, pet)
    short = 0.0 if overlap >= SAME_OVERLAP * largest else largest - overlap
    return short, is_derived(series), -series.count, series_number(series), series.uid


def series_number(series: Series) -> int:
    """Series Number (0020,0011), 0 when missing."""
    return int(optional_number(series.header, "SeriesNumber"))


def same_place(a: Series, b: Series) -> bool:
    """Whether two series are of one study and one frame of reference."""
    return a.study == b.study and a.header.get("FrameOfReferenceUID") == b.header.get("FrameOfReferenceUID")


def overlap_ml(a: Series, b: Series) -> float:
    """Volume in mL of the box that two series share."""
    (low_a, high_a), (low_b, high_b) = a.box, b.box
    edges = [max(min(ha, hb) - max(la, lb), 0.0) for la, ha, lb, hb in zip(low_a, high_a, low_b, high_b, strict=True)]
    return edges[0] * edges[1] * edges[2] / 1000
