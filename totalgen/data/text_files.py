"""Text that people and programs bring: CSV tables, JSON and JSON lines, read in one way, and what is wrong with it.

UTF-8, with or without a byte order mark, lines ended in any way; blank rows are nobody's.
"""

import csv
import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from totalgen.errors import InputError

CURE = "Save it as CSV with commas, in UTF-8."
BINARY = {
    b"PK\x03\x04": "a spreadsheet or archive", b"\x89PNG": "a picture", b"%PDF": "a PDF", b"\x1f\x8b": "compressed"
}  # fmt: skip
UTF16 = (b"\xff\xfe", b"\xfe\xff")
LONGEST_NUMBER = 300  # digits of a whole number: more are no float
NO_FILE_IS_SO_LONG = 512 * 1024 * 1024


def text_of(path: str | Path, cure: str = CURE) -> str:
    """The text of a file. Raises InputError, with the cure, for what is no UTF-8 text, and for folders."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a file. Give the file.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is a pipe or device, not a file. Give the file.")  # it would be waited for
        if path.stat().st_size > NO_FILE_IS_SO_LONG:
            raise InputError(f"{path}: is of {path.stat().st_size / 1e6:.0f} MB. Is it the right file?")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Check the path.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None
    for start, what in BINARY.items():
        if raw.startswith(start):
            raise InputError(f"{path}: is {what}, not text. {cure}")
    if raw.startswith(UTF16) or b"\0" in raw[:1000]:
        raise InputError(f"{path}: is UTF-16 or no text at all. {cure}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8 (Windows-1252?). {cure}") from None


def read_csv(path: str | Path, **options: Any) -> pd.DataFrame:
    """A CSV table, with the ``options`` of pandas.read_csv; blank rows are left out, and counted in its index, from 0.

    Raises InputError as ``text_of``, for an empty file, another separator than the comma, a column that is named twice
    and a row of another length than the first, with its line.
    """
    text = text_of(path)
    head = text.split("\n", 1)[0].strip()
    if not head:
        raise InputError(f"{path}: is empty, or begins with a blank line; its first line names the columns. {CURE}")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if "," not in head and separator in head:
            raise InputError(f"{path}: its columns are separated by {name}. {CURE}")
    try:
        rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        names, numbers = next(rows), []
        for number, row in enumerate(rows):
            numbers += [number] if row else []
            if row and len(row) != len(names):
                raise InputError(f"{path}: line {rows.line_num} has {len(row)} cells, the first {len(names)}. {CURE}")
        twice = [name for name in names if name and names.count(name) > 1]
        if twice:
            raise InputError(f"{path}: has two columns {twice[0]}. Rename or remove one.")
        table = pd.read_csv(io.StringIO(text, newline=""), skipinitialspace=True, **options)
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
        raise InputError(f"{path}: cannot be read as a table ({why}). {CURE}") from None
    if len(numbers) == len(table):
        table.index = pd.Index(numbers, dtype=int)
    empty = table.isna() | (table.astype(str).apply(lambda column: column.str.strip()) == "")
    return table[~empty.all(axis=1)]


def read_text(path: str | Path) -> pd.DataFrame:
    """A CSV table as a DataFrame of text, exactly as it is written: for what is only carried over."""
    return read_csv(path, dtype=str, keep_default_na=False)


def spreadsheet_row(index: Any) -> int:
    """The row of a spreadsheet, whose row 1 is the header, that an index of ``read_csv`` stands for."""
    return int(index) + 2


def check_columns(table: pd.DataFrame, columns: Collection[str], path: str | Path, cure: str) -> None:
    """Raises InputError, with the cure, when one of the ``columns`` is not in a table that was read from ``path``."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing. {cure}")


def check_numbers(table: pd.DataFrame, columns: tuple[str, ...], path: str | Path) -> None:
    """Raises InputError, naming row and column, for a text where a number is expected. Empty cells are left alone."""
    for name in columns:
        if name not in table:
            continue
        wrong = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            who = f" ({table['subject'].iloc[row]})" if "subject" in table else ""
            value = table[name].iloc[row]
            line = spreadsheet_row(table.index[row])
            raise InputError(f'{path}, row {line}{who}: {name} is "{value}", which is no number. Correct the table.')


def loads(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError for anything else, for whole numbers of more than LONGEST_NUMBER digits, which
    no float holds, and for what is nested too deep to be read."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(digits):
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def read_json(path: str | Path, cure: str = "Restore the file.") -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for anything else."""
    text = text_of(path, cure)
    try:
        found = loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}). {cure}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, not an object. {cure}")
    return found


def read_json_lines(path: str | Path, cure: str = "Restore the file.") -> list[dict[str, Any]]:
    """The JSON objects of a file that has one per line; a last line without an end was cut and is left out."""
    lines = [line for line in text_of(path, cure).splitlines(keepends=True) if line.endswith("\n") and line.strip()]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(dict(loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: line {number} is no JSON object ({error}). {cure}") from None
    return found
