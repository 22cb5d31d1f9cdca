"""Numbers in DICOM headers: what cannot be read as one is named by its tag, and never ends in a traceback."""

import math

from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from totalgen.errors import InputError


def named(keyword: str) -> str:
    """A tag in words, such as "Patient's Weight (0010,1030)"."""
    tag = Tag(keyword)
    return f"{dictionary_description(keyword)} ({tag.group:04X},{tag.element:04X})"


def stated(header: Dataset, keyword: str) -> str:
    """The value of a tag as text, as it is written (several parted by "\\"); "" when missing or empty."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom raises many kinds for a value that is not what its tag promises
        value = header.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, MultiValue):
        value = "\\".join(str(part) for part in value)
    return "" if value is None else str(value).strip("\0 ")


def number(header: Dataset, keyword: str) -> float | None:
    """The number of a tag; None when it is missing or empty.

    Raises InputError, naming the tag, for a text, such as a decimal comma, several values and what is not finite.
    """
    text = stated(header, keyword)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise InputError(f'{named(keyword)} is "{text[:40]}", which is no number. Correct it.') from None
    if not math.isfinite(value):
        raise InputError(f"{named(keyword)} is {text[:40]}, which is not finite. Correct it.")
    return value


def optional_number(header: Dataset, keyword: str) -> float:
    """The same for a value that nothing depends on: 0 where it is missing or cannot be read."""
    try:
        return number(header, keyword) or 0.0
    except InputError:
        return 0.0
