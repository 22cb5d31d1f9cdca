"""Tables of what is measured in files: a row is measured again when they are no longer those that it was measured in.

Beside a table lies a hidden ``.<table>.made-with.json`` with the source of each subject's files (``made_with``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from totalgen.data.files import locked
from totalgen.data.made_with import RECORD, SOURCES, MadeWith, differ, read_record, sources_of, write_record
from totalgen.data.subjects import Outdated, drop_rows, for_each_subject, read_table


def measure_each(
    root: str | Path, step: str, files: Mapping[str, Sequence[Path]], work: Callable[[str], Any], table: str | Path,
    chosen: Sequence[str], workers: int = 1, scheduler: str | None = None, made_with: MadeWith | None = None,
    usable: Callable[[str], bool] = lambda subject: True,
) -> list[str]:  # fmt: skip
    """``for_each_subject`` over the ``chosen``, whose result is their rows of a CSV ``table`` alone.

    files: subject → those that its rows are measured in, of everybody who may have some: rows of who is not chosen
    stay, unless they are of other files. usable: whether rows that are of these files are what is asked for, too.
    """
    table = Path(table)
    with locked(root, f"step {step}"):
        sources = sources_of(files)
        current = set(sources).difference(_outdated(table, files, sources))
        drop_rows(table, [subject for subject in files if subject not in current and subject not in set(chosen)])
        try:
            return for_each_subject(
                root, step, chosen, work, lambda subject: subject in current and usable(subject), table, workers,
                scheduler, made_with,
            )  # fmt: skip
        finally:
            _keep(table, sources)


def outdated(table: str | Path, files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Subjects with rows of a table that were measured in other files than those that are there now; files that are
    gone are no others. Where no source is known, as of an earlier version, files that are newer than the table are."""
    rows, replaced = set(read_table(table)["subject"]), Outdated(table).subjects
    files = {subject: paths for subject, paths in files.items() if subject in rows}
    others = _outdated(Path(table), files, sources_of(files))
    return [subject for subject in files if subject in others or subject in replaced]


def _outdated(table: Path, files: Mapping[str, Sequence[Path]], sources: Mapping[str, str]) -> list[str]:
    known = read_record(_record(table)).get(SOURCES, {})
    written = table.stat().st_mtime if table.exists() else 0

    def newer(subject):
        return any(path.stat().st_mtime > written for path in files[subject])

    return [s for s, source in sources.items() if (differ(known[s], source) if s in known else newer(s))]


def _keep(table: Path, sources: Mapping[str, str]) -> None:
    """Note the sources of the rows that are there, unless they are being replaced."""
    rows: Collection[str] = set(read_table(table)["subject"]) - Outdated(table).subjects
    known = read_record(_record(table)).get(SOURCES, {})
    found = {subject: source for subject, source in {**known, **sources}.items() if subject in rows}
    write_record(_record(table), {SOURCES: found} if found else {})


def _record(table):
    return table.with_name(f".{table.name}{RECORD}")
