"""One loop over the subjects of a cohort: what is done is skipped, what fails is listed, the rest continues."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd

from totalgen.data.files import append_rows, atomic, forget_failures, locked, record_failure, require_folder, sweep
from totalgen.data.made_with import SOURCES, MadeWith, read_record
from totalgen.data.names import check_subjects
from totalgen.data.parallel import spread
from totalgen.data.progress import progress
from totalgen.data.text_files import read_csv, read_text
from totalgen.errors import InputError

DOUBTS, SHOWN_DOUBTS = ("warnings", "note"), 10  # columns of tables that are said on the terminal, for so many subjects


def subjects_in(folder: str | Path, cure: str) -> list[str]:
    """Names of the subjects that have a folder (or a ``.nii.gz`` file) in ``folder``, sorted.

    Raises InputError with the ``cure`` when the folder is missing or holds none.
    """
    folder = require_folder(folder, cure)
    names = {path.name.removesuffix(".nii.gz") for path in folder.iterdir() if not path.name.startswith(".")}
    if not names:
        raise InputError(f"{folder}: holds no subject. {cure}")
    return sorted(names)


def for_each_subject(
    root: str | Path, step: str, subjects: Iterable[str], work: Callable[[str], Any], done: Callable[[str], bool],
    table: str | Path | None = None, workers: int = 1, scheduler: str | None = None, made_with: MadeWith | None = None,
) -> list[str]:  # fmt: skip
    """Call ``work(subject)`` for every subject that is not done yet; one bad subject never stops the others.

    root: the cohort's folder;  step: name in the progress bar and in failures.csv;  done(subject): whether its output
    exists.  work returns None, or a dict (or a list of them) that becomes the subject's rows of the CSV ``table``; a
    subject without a row is not done, and a row stays until another takes its place, or until work has failed and there
    is nothing left that it describes.  An exception of work becomes a row of failures.csv, and the subject is tried
    again by the next run.  workers, scheduler: where the work is done (parallel.spread); tables are written here.
    made_with: the settings that all results must share.

    Prints one line of summary, what the rows of this run say in a column of DOUBTS, and returns the subjects that
    failed. Raises InputError when none succeeded, now or before, and when what is there was made with other settings.
    """
    root, subjects = Path(root), list(subjects)
    with locked(root, f"step {step}"):
        if made_with is None:
            return _each(root, step, subjects, work, done, table, workers, scheduler)
        earlier = read_record(made_with.path).get(SOURCES, {})
        made_with.check([subject for subject in made_with.subjects or subjects if done(subject)])
        try:
            return _each(root, step, subjects, work, done, table, workers, scheduler)
        finally:
            made_with.put_back(earlier, [subject for subject in subjects if not done(subject)])


def _each(root, step, subjects, work, done, table, workers, scheduler):
    for folder in (root, *(path for path in root.glob("*") if path.is_dir())):
        sweep(folder)
    listed = set(read_table(table)["subject"]) if table is not None else set(subjects)
    outdated = Outdated(table)
    todo = [subject for subject in subjects if not (subject in listed and subject not in outdated and done(subject))]
    outdated.add(listed & set(todo))
    failed, doubts = {}, []
    results = spread(work, todo, workers, scheduler)
    for subject, rows, error in progress(results, step, "subject", len(todo)):
        if error is not None:
            record_failure(root, subject, step, error)
            failed[subject] = error
            if table is not None and not done(subject):
                drop_rows(table, [subject])
            continue
        forget_failures(root, step, subject)
        if table is not None:
            new = [dict(subject=subject, **row) for row in (rows if isinstance(rows, list) else [rows])]
            append_rows(table, new, instead_of=subject)
            doubts += [f"{subject}: {row[name]}" for row in new for name in DOUBTS if row.get(name)]
    outdated.remove(set(todo) - set(failed))
    if table is not None:  # always: an earlier run may have been killed between its last row and this
        sort_rows(table, subjects)
    if failed and len(failed) == len(subjects):
        name, reason = next(iter(failed.items()))
        count = "it" if len(subjects) == 1 else f"all {len(subjects)} subjects, the first"
        raise InputError(f"{name}: {reason} Step {step} failed for {count}; listed in {root / 'failures.csv'}.")
    summary = f"{step}: {len(todo) - len(failed)} subjects done, {len(subjects) - len(todo)} were done before"
    if failed:
        names = f"{', '.join(sorted(failed)[:5])}{', …' if len(failed) > 5 else ''}"
        summary += f"; {len(failed)} of {len(subjects)} subjects failed ({names}), see {root / 'failures.csv'}"
    click.echo(f"{summary}.", err=bool(failed))
    say_doubts(doubts, table)
    return sorted(failed)


def say_doubts(doubts: Sequence[str], table: str | Path | None) -> None:
    """Lines of warning, the first SHOWN_DOUBTS of ``doubts``; table: where all of them are."""
    for doubt in doubts[:SHOWN_DOUBTS]:
        click.echo(f"Warning: {doubt}.", err=True)
    if len(doubts) > SHOWN_DOUBTS:
        click.echo(f"Warning: {len(doubts) - SHOWN_DOUBTS} more, see {table}.", err=True)


class Outdated:
    """Subjects whose rows of a table are older than what they describe, kept in a hidden file next to the table.

    Without it a kill between a subject's output and its row would leave the row of an earlier output, unnoticed.
    table: None when there is no table, and nothing is kept.
    """

    def __init__(self, table: str | Path | None):
        self.path = None if table is None else Path(table).with_name(f".{Path(table).name}.outdated")
        text = self.path.read_text() if self.path is not None and self.path.exists() else ""
        self.subjects = set(text.splitlines())

    def __contains__(self, subject: str) -> bool:
        return subject in self.subjects

    def add(self, subjects: Collection[str]) -> None:
        """Note more of them."""
        self._keep(self.subjects | set(subjects))

    def remove(self, subjects: Collection[str]) -> None:
        """These have current rows."""
        self._keep(self.subjects - set(subjects))

    def _keep(self, subjects):
        if self.path is None or subjects == self.subjects:
            return
        self.subjects = subjects
        if not subjects:
            self.path.unlink()
            return
        with atomic(self.path) as part:
            part.write_text("\n".join(sorted(subjects)) + "\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV table with a ``subject`` column as a DataFrame, subjects as text; an empty one when the file is missing.

    Raises InputError when a subject cannot be the name of a folder.
    """
    path = Path(path)
    if not path.exists():
        return pd.DataFrame({"subject": pd.Series(dtype=str)})
    table = read_csv(path, dtype={"subject": str}, keep_default_na=False, na_values=[""])
    if "subject" not in table:
        raise InputError(f"{path}: has no column subject. Run the step that writes it again, or remove it.")
    check_subjects(table["subject"], path)
    return table


def drop_rows(path: str | Path, subjects: Iterable[str]) -> None:
    """Remove the rows of some subjects from a CSV table, if it exists."""
    if not Path(path).exists():
        return
    table = read_text(path)
    gone = table["subject"].isin(list(subjects))
    if gone.any():
        with atomic(path) as part:
            table[~gone].to_csv(part, index=False)


def sort_rows(path: str | Path, subjects: Iterable[str]) -> None:
    """Bring the rows of a CSV table into the order of ``subjects``; those of others come first, in their order."""
    if not Path(path).exists():
        return
    table = read_text(path)
    place = {subject: n for n, subject in enumerate(subjects)}
    ordered = table.sort_values("subject", key=lambda column: column.map(place).fillna(-1), kind="stable")
    if list(ordered.index) != list(table.index):
        with atomic(path) as part:
            ordered.to_csv(part, index=False)


def put_column(path: str | Path, name: str, values: Mapping[str, Any] | pd.Series) -> None:
    """Write the column ``name`` into a CSV table from ``values``, a dict of subject → value; others stay empty."""
    table = read_text(path)
    known = {subject: "" if pd.isna(value) else str(value) for subject, value in dict(values).items()}
    column = table["subject"].map(known).fillna("")
    if name in table and column.equals(table[name]):
        return
    table[name] = column
    with atomic(path) as part:
        table.to_csv(part, index=False)
