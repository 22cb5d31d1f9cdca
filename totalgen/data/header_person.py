"""What a DICOM header states of its patient: sex, age, height and weight."""

import math
import re
from collections.abc import Callable
from datetime import date
from typing import Any

from pydicom import Dataset

from totalgen.data.demographics import AGE_YEARS, HEIGHT_M, WEIGHT_KG
from totalgen.data.header_numbers import number
from totalgen.errors import InputError

NO_BIRTH_DATES = (date(1900, 1, 1), date(1901, 1, 1))  # what anonymisers write
POSSIBLE = dict(age_years=AGE_YEARS, height_m=HEIGHT_M, weight_kg=WEIGHT_KG)
AGE_UNIT_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def sex(header: Dataset) -> tuple[str | None, str]:
    """("F" or "M", where it is stated), or (None, why not)."""
    value = str(header.get("PatientSex", "") or "").strip()
    if value.upper() in ("F", "M"):
        return value.upper(), "Patient's Sex"
    return None, f'Patient\'s Sex is "{value}"' if value else ""


def age_years(header: Dataset) -> tuple[float | None, str]:
    """(years, where stated) by Patient's Age ("069Y", "018M", "006W", "030D"), else whole years from birth to
    study; or (None, why not)."""
    written = str(header.get("PatientAge", "") or "").strip()
    match = re.fullmatch(r"(\d{1,3})([YMWD])", written)
    years = int(match[1]) * AGE_UNIT_YEARS[match[2]] if match else 0
    if AGE_YEARS[0] <= years <= AGE_YEARS[1]:
        return years, "Patient's Age"
    unusable = f'Patient\'s Age is "{written}"' if written else ""
    born, then = (day(header.get(tag)) for tag in ("PatientBirthDate", "StudyDate"))
    if born is None or then is None or born > then:
        return None, unusable
    # as coarse as Patient's Age: whole years do not reveal a birth date
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    if born in NO_BIRTH_DATES or not 0 < years <= AGE_YEARS[1]:
        return None, "; ".join(filter(None, [unusable, "the birth date is a placeholder or impossible"]))
    return years, "birth and study date" + (f" ({unusable})" if unusable else "")


def height_m(header: Dataset) -> tuple[float | None, str]:
    """(m, where stated) by Patient's Size; a value that can only be centimetres is divided by 100; (None, why not)
    when absent, unreadable or 0."""
    value, words = _number(header, "PatientSize", "Patient's Size")
    if value is not None and HEIGHT_M[0] * 100 <= value <= HEIGHT_M[1] * 100:
        return value / 100, f"{words} ({value:g} read as centimetres)"
    return value, words


def weight_kg(header: Dataset) -> tuple[float | None, str]:
    """(kg, where stated) by Patient's Weight; (None, why not) when absent, unreadable or 0."""
    return _number(header, "PatientWeight", "Patient's Weight")


def _number(header, keyword, words):
    try:
        value = number(header, keyword)
    except InputError:  # text, such as a decimal comma, or several values
        return None, f"{words} is no number"
    return (value, words) if value is not None and value > 0 else (None, "")


# Column of a cohort table → its reader, and the unit of what it returns.
READERS: dict[str, tuple[Callable[[Dataset], tuple[Any, str]], str | None]] = {
    "sex": (sex, None),
    "age_years": (age_years, "years"),
    "height_m": (height_m, "m"),
    "weight_kg": (weight_kg, "kg"),
}


def possible(field: str, value: Any) -> bool:
    """Whether a person can have the value of a column of a cohort table."""
    low, high = POSSIBLE.get(field, (-math.inf, math.inf))
    return isinstance(value, str) or low <= value <= high


def day(text: Any) -> date | None:
    """A date of a header; None when it is missing or none."""
    try:
        return date(int(str(text)[:4]), int(str(text)[4:6]), int(str(text)[6:8]))
    except ValueError:
        return None
