"""One loop over the subjects of a cohort: what is done is skipped, what fails is listed, the rest goes on."""

from pathlib import Path

import click
import pandas as pd
from tqdm import tqdm

from totalgen.data.files import append_row, forget_failures, record_failure, require_folder, whole
from totalgen.errors import InputError


def subjects_in(folder, cure):
    """Names of the subjects that have a folder (or a ``.nii.gz`` file) in ``folder``, sorted.

    Raises InputError with the ``cure`` when the folder is missing or holds none.
    """
    folder = require_folder(folder, cure)
    names = {path.name.removesuffix(".nii.gz") for path in folder.iterdir() if not path.name.startswith(".")}
    if not names:
        raise InputError(f"{folder}: holds no subject. {cure}")
    return sorted(names)


def for_each_subject(root, step, subjects, work, done, table=None):
    """Call ``work(subject)`` for every subject that is not done yet; one bad subject never stops the others.

    root: the cohort's folder;  step: name in the progress bar and in failures.csv;  done(subject): whether its output
    stands.  work returns None, or a dict that becomes the subject's row of the CSV ``table``; a subject without a row
    is not done.  An exception of work becomes a row of failures.csv, and the subject is tried again by the next run.

    Prints one line of summary when some failed. Raises InputError when none succeeded, now or before.
    """
    root, subjects = Path(root), list(subjects)
    listed = set(read_table(table)["subject"]) if table is not None else set(subjects)
    todo = [subject for subject in subjects if not (subject in listed and done(subject))]
    failed = {}
    for subject in tqdm(todo, desc=step, unit="subject", disable=None):
        try:
            row = work(subject)
        except Exception as error:
            record_failure(root, subject, step, error)
            failed[subject] = error
        else:
            forget_failures(root, step, subject)
            if table is not None:
                put_row(table, dict(subject=subject, **row))
    if not failed:
        return
    name, first = next(iter(failed.items()))
    reason = " ".join(str(first).split())
    if len(failed) == len(subjects):
        count = "it" if len(subjects) == 1 else f"all {len(subjects)} subjects, the first"
        raise InputError(f"{name}: {reason} Step {step} failed for {count}; listed in {root / 'failures.csv'}.")
    click.echo(
        f"{step}: {len(failed)} of {len(subjects)} subjects failed ({', '.join(sorted(failed)[:5])}"
        f"{', …' if len(failed) > 5 else ''}); the reasons are in {root / 'failures.csv'}.",
        err=True,
    )


def read_table(path):
    """A CSV table with a ``subject`` column as a DataFrame, subjects as text; an empty one when the file is missing."""
    path = Path(path)
    if not path.exists():
        return pd.DataFrame({"subject": pd.Series(dtype=str)})
    return pd.read_csv(path, dtype={"subject": str}, keep_default_na=False, na_values=[""])


def put_row(path, row):
    """Write the row (dict) of its subject into a CSV table, in place of an older one."""
    table = read_table(path)
    if (table["subject"] == row["subject"]).any():
        with whole(path) as part:
            table[table["subject"] != row["subject"]].to_csv(part, index=False)
    append_row(path, row)
