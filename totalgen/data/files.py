"""Outputs that are written atomically (complete or absent), and the list of what failed."""

import contextlib
import errno
import fcntl
import glob
import io
import os
import platform
import shutil
import tempfile
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
import psutil

from totalgen.data.text_files import read_text
from totalgen.errors import InputError

MOVE_IT = "Move it, or choose another place."
ROOM = "Free some space and run the same command again: what was written before is intact."
PLACES = {  # what may be wrong with the place of an output → cure
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "Raise the limit (ulimit -f) and run the same command again: what was written before is intact.",
    errno.EACCES: "Change its permissions, or choose another place.",
    errno.EPERM: "Change its permissions, or choose another place.",
    errno.EROFS: "Choose another place.",
    errno.ENAMETOOLONG: "Choose a shorter one.",
    errno.ENOTDIR: "A part of this path is a file. Choose another place.",
    errno.EISDIR: "It is a folder. Choose another place.",
    errno.EEXIST: "A file of that name is in the way. Move it, or choose another place.",
    errno.ENOENT: "Was it moved or removed meanwhile? Run the same command again.",
    errno.ESTALE: "Was it moved or removed meanwhile? Run the same command again.",
    errno.ELOOP: "Its links lead in a circle. Correct them.",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic(path: str | Path, keep: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success it is renamed onto ``path``, on error removed.

    The name keeps its suffixes, because some writers depend on them (``.nii.gz``). Works for files and folders; a
    folder is replaced only when it contains no entries of other names than its successor: others are not ours.
    What killed processes of this machine left in the same folder is removed, or put back.
    keep: a file that another process has made meanwhile stays.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise InputError(f"{path}: does not end in a name. Give the path of a new file or folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}{_mark()}{os.getpid()}-", dir=path.parent))
    part, old = temporary / path.name, temporary / "old"
    try:
        with _flock(temporary):
            yield part
            if part.is_dir() and path.exists():  # a folder cannot be renamed onto a filled one: the old one goes first
                if not path.is_dir():
                    raise InputError(f"{path}: is a file, where a folder is to be written. {MOVE_IT}")
                if path.resolve() in [part.resolve(), *part.resolve().parents]:
                    raise InputError(f"{path}: contains the place of what is to be written. Choose another name.")
                refuse_loss(path, [entry.name for entry in part.iterdir()])
                os.replace(path, old)
            elif path.is_dir():
                raise InputError(f"{path}: is a folder, where a file is to be written. {MOVE_IT}")
            _place(part, path, keep)
    finally:
        _put_back(old, path)
        shutil.rmtree(temporary, ignore_errors=True)


def _place(part, path, keep):
    if keep:
        with contextlib.suppress(OSError):  # it is there, or such a disk has no links
            os.link(part, path)
    if not (keep and path.exists()):
        os.replace(part, path)


def _put_back(old, path):
    """The folder ``old`` that was moved away for a successor that has not come."""
    if old.exists() and not path.exists():
        os.replace(old, path)


def refuse_loss(folder: Path, names: Collection[str]) -> None:
    """Raise InputError when ``folder`` is there and has entries of other names: a successor would not have them."""
    others = sorted({entry.name for entry in folder.iterdir()}.difference(names)) if folder.is_dir() else []
    if others:
        raise InputError(f"{folder}: holds {others[0]}, which would be lost. Move it, or choose another place.")


def refuse_inputs_in(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError for an input that lies in ``folder``, or is linked to there: results would take its place."""
    place = folder.resolve()
    for path in inputs:
        if path.resolve().is_relative_to(place):
            raise InputError(
                f"{path}: lies in {folder}, where the results go, and would be lost. Move it, or choose another --root."
            )


@contextlib.contextmanager
def _flock(folder):
    """Holds the operating system's lock of a folder, which ends with its process, where the disk has such locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


PROBE = 64 * 1024  # bytes that are written to see whether there is room
HELD: set[Path] = set()  # folders that this process has locked


@contextlib.contextmanager
def locked(folder: str | Path, what: str) -> Iterator[None]:
    """Within this context no other process gets into a context of the same ``what`` on ``folder``, which is made.

    what: is at work, such as "a training". The lock is the operating system's, and ends with its process. Raises
    InputError that names the host and the process that holds it.
    """
    folder = Path(folder)
    path = folder / f".{what.replace(' ', '-')}.lock"
    if path.resolve() in HELD:  # this process is at work there already
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise InputError(f"{folder}: {what} is at work there ({holder}). Wait for it, or use another.") from None
        except OSError as error:  # some shared disks have none
            said = f"its disk has no locks ({error.strerror}): start {what} there only once at a time"
            click.echo(f"Warning: {folder}: {said}.", err=True)
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()  # its holder has just removed it
    HELD.add(path.resolve())
    try:
        file.truncate(0)
        file.write(f"host {platform.node()}, process {os.getpid()}")
        file.flush()
        yield
    finally:
        HELD.discard(path.resolve())
        path.unlink(missing_ok=True)
        file.close()


def sweep(folder: str | Path) -> None:
    """Remove the temporary folders of ``atomic`` that killed processes of this machine left in ``folder``; what one had
    moved away for its successor is put back."""
    for left in Path(folder).glob(f".*{glob.escape(_mark())}*-*"):
        name, pid = left.name[1:].rsplit("-", 1)[0].rsplit(_mark(), 1)
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and _is_free(left):
            _put_back(left / "old", left.parent / name)
            shutil.rmtree(left, ignore_errors=True)


def _mark():
    return f".{platform.node()}-"


def _is_free(folder):
    """Whether no process holds the lock of a folder: a process in another container has a number that is not known."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False  # another has just removed it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    finally:
        os.close(handle)
    return True


@contextlib.contextmanager
def report_full_disk(folder: str | Path) -> Iterator[None]:
    """Turns any exception about a place that is FULL, of whatever library, into an InputError that names the folder."""
    try:
        yield
    except Exception as error:
        said = str(error).lower()
        if (number := next((number for number in FULL if os.strerror(number).lower() in said), None)) is None:
            raise
        raise InputError(f"{folder}: {os.strerror(number)}. {PLACES[number]}") from None


def place_text(error: OSError) -> str | None:
    """One line about the place of an output, with its cure; None for an error that is not of PLACES."""
    cure = PLACES.get(error.errno or 0)
    return f"{error.filename or 'output'}: {error.strerror}. {cure}" if cure else None


def check_place(folder: str | Path) -> None:
    """Raises InputError unless files can be written in ``folder``, which need not be there yet: tried, not guessed."""
    there = Path(folder).absolute()
    try:
        while not there.exists():
            if there.is_symlink():
                raise InputError(f"{there}: is a link to what is not there. Correct it, or choose another place.")
            there = there.parent
        if not there.is_dir():
            raise InputError(f"{there}: is a file, where a folder is needed. Move it, or choose another place.")
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(PROBE))
            file.flush()
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({why}). Make room there, or choose another place.") from None


def require_folder(path: str | Path, cure: str) -> Path:
    """``path`` as a Path to an existing folder; InputError with the ``cure`` otherwise."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. {cure}")
    return path


def append_rows(path: str | Path, rows: Sequence[dict[str, Any]], instead_of: str | None = None) -> None:
    """Add rows (dicts) to a CSV table, made when missing; it is replaced atomically and keeps its earlier text.

    instead_of: subject whose earlier rows leave the table in the same step.
    """
    path = Path(path)
    table = pd.DataFrame(rows)
    if path.exists():
        old = read_text(path)
        if instead_of is not None:
            old = old[old["subject"] != instead_of]
        table = pd.concat([old, pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype=str, keep_default_na=False)])
    with atomic(path) as part:
        table.to_csv(part, index=False)


def error_text(error: BaseException | str) -> str:
    """An exception (or text) on one line.

    An exception that is neither an InputError nor of PLACES is an error of this program: its last line of code is named
    too, so that it can be reported.
    """
    text = str(error)
    if isinstance(error, OSError) and (line := place_text(error)):
        text = line
    elif isinstance(error, BaseException) and not isinstance(error, InputError):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
    return " ".join(text.split())


def record_failure(root: str | Path, subject: str, step: str, error: BaseException | str) -> None:
    """Append (subject, step, error) to ``<root>/failures.csv``, once for the same triple. error: exception or text."""
    path = Path(root) / "failures.csv"
    row = dict(subject=subject, step=step, error=error_text(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _flock(path.parent):  # other steps write it, too
        if path.exists():
            known = _failures(path)
            if (known[list(row)] == pd.Series(row)).all(axis=1).any():
                return
        append_rows(path, [row])


def forget_failures(root: str | Path, step: str, subject: str | None = None) -> None:
    """Drop the rows of ``step`` (of one subject, when given) before it is tried again."""
    path = Path(root) / "failures.csv"
    if not path.exists():
        return
    with _flock(path.parent):
        table = _failures(path)
        gone = table["step"] == step
        if subject is not None:
            gone &= table["subject"] == subject
        if not gone.any():
            return
        with atomic(path) as part:
            table[~gone].to_csv(part, index=False)


def _failures(path):
    table = read_text(path)
    missing = {"subject", "step", "error"} - set(table)
    if missing:
        raise InputError(f"{path}: lacks the column {sorted(missing)[0]}. Remove the file: it is written anew.")
    return table
