"""Outputs that appear whole or not at all, and the list of what failed."""

import contextlib
import errno
import glob
import io
import os
import platform
import shutil
import tempfile
import traceback
from pathlib import Path

import pandas as pd
import psutil

from totalgen.errors import InputError


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside ``path``; on success it is renamed onto ``path``, on error removed.

    The name keeps its suffixes, so that writers which look at them (``.nii.gz``) behave. Works for files and folders.
    What killed processes of this machine left in the same folder is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.{platform.node()}-{os.getpid()}-", dir=path.parent))
    part = beside / path.name
    try:
        yield part
        if part.is_dir() and path.exists():  # a folder cannot be renamed onto a filled one: move the old one away first
            os.replace(path, beside / "old")
        os.replace(part, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sweep(folder):
    """Remove the temporary folders of ``whole`` that killed processes of this machine left in ``folder``."""
    for left in Path(folder).glob(f".*.{glob.escape(platform.node())}-*-*"):
        pid = left.name.rsplit("-", 2)[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def report_full_disk(folder):
    """Turns "no space left on device", in whatever exception it comes, into an InputError that names the folder."""
    try:
        yield
    except Exception as error:
        if os.strerror(errno.ENOSPC).lower() not in str(error).lower():
            raise
        cure = "Free some and run the same command again: what was written before is intact."
        raise InputError(f"{folder}: no space is left there. {cure}") from None


def require_folder(path, cure):
    """``path`` as a Path to an existing folder; InputError with the ``cure`` otherwise."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. {cure}")
    return path


def read_text(path):
    """A CSV table as a DataFrame of text, exactly as it is written: for what is only carried over."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def append_rows(path, rows):
    """Add rows (dicts) to a CSV table, made when missing; the table is replaced whole, its earlier text unchanged."""
    path = Path(path)
    table = pd.DataFrame(rows)
    if path.exists():
        table = pd.concat([read_text(path), read_text(io.StringIO(table.to_csv(index=False)))])
    with atomic(path) as part:
        table.to_csv(part, index=False)


def error_text(error):
    """An exception (or text) on one line.

    An exception that is not an InputError is a fault of ours: its last line of code is told too, so that it can be
    reported.
    """
    text = str(error)
    if isinstance(error, BaseException) and not isinstance(error, InputError):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
    return " ".join(text.split())


def record_failure(root, subject, step, error):
    """Append (subject, step, error) to ``<root>/failures.csv``, once for the same triple. error: exception or text."""
    path = Path(root) / "failures.csv"
    row = dict(subject=subject, step=step, error=error_text(error))
    if path.exists():
        known = pd.read_csv(path, dtype=str)
        if (known[list(row)] == pd.Series(row)).all(axis=1).any():
            return
    append_rows(path, [row])


def forget_failures(root, step, subject=None):
    """Drop the rows of ``step`` (of one subject, when given) before it is tried again."""
    path = Path(root) / "failures.csv"
    if not path.exists():
        return
    table = pd.read_csv(path, dtype=str)
    gone = table["step"] == step
    if subject is not None:
        gone &= table["subject"] == subject
    if not gone.any():
        return
    with atomic(path) as part:
        table[~gone].to_csv(part, index=False)
