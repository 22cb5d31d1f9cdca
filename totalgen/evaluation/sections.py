"""A part of the report: what was tested, on how many, its result and its limit, with tables and figures.

Every script of 3_Evaluations that measures something leaves one as <outdir>/section.json; 3_compare_cohorts.py takes
such folders with --section and puts them into its page.
"""

import base64
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from totalgen.data.files import atomic
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

FILE = "section.json"
CURE = "Run the script of 3_Evaluations that wrote it again."


class Score(NamedTuple):
    """A row of the score card. what: was tested;  n: on how many;  result: in words;  limit: what it cannot say."""

    what: str
    n: str
    result: str
    limit: str


@dataclass
class Section:
    """tables: title → rows of text, the first of them the header;  figures: title → path of a PNG."""

    title: str
    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)


def write_section(outdir: Path, section: Section) -> None:
    """Write <outdir>/section.json; figures by their names, which must be files in ``outdir``."""
    values = asdict(section) | dict(
        scores=[score._asdict() for score in section.scores],
        figures={title: path.name for title, path in section.figures.items()},
    )
    with atomic(outdir / FILE) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_section(folder: Path) -> Section:
    """The section of a folder. Raises InputError when there is none, or a figure is missing."""
    path = folder / FILE
    values = read_json(path, CURE)
    try:
        figures = {str(title): folder / Path(name).name for title, name in values["figures"].items()}
        scores = [Score(**{name: str(value) for name, value in score.items()}) for score in values["scores"]]
        tables = {t: [[str(cell) for cell in row] for row in rows] for t, rows in values["tables"].items()}
        section = Section(str(values["title"]), scores, [str(note) for note in values["notes"]], tables, figures)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no section of a report ({error}). {CURE}") from None
    for figure in section.figures.values():
        if not figure.is_file():
            raise InputError(f"{figure}: no such file. {CURE}")
    return section


def data_uri(path: Path) -> str:
    """A PNG as text that stands in a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def rows_of(records: Any, columns: dict[str, str]) -> list[list[str]]:
    """A DataFrame as a table of a section. columns: column → title; numbers with three significant digits, whole
    numbers whole, also where an empty row made them floats."""

    def text(value):
        if value is None or value != value:  # NaN
            return "–"
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if value.is_integer() or 999.5 <= abs(value) < math.inf else f"{value:.3g}"

    return [list(columns.values()), *([text(row[name]) for name in columns] for _, row in records.iterrows())]
