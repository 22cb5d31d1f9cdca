"""With which settings, and from which files, the results of a step were made: kept in a hidden file, and refused when
others are given."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from totalgen.data.files import atomic, refuse_inputs_in
from totalgen.data.names import first_of
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

RECORD = ".made-with.json"  # in the folder of the results
SOURCES = "sources"  # in a record: subject → source_of the files that its result was made from
ENDS = 64 * 1024  # bytes
GZIP = b"\x1f\x8b"  # how a file begins that gzip compressed


@dataclass(frozen=True)
class MadeWith:
    """path: where the record is kept;  settings: name → JSON value;  cure: how other settings become possible.

    subjects: all who may have such results, where a run takes only some of them; None: those of the run;
    sources: subject → what tells that which its result is made from, such as ``source_of`` its files;
    there: who has anything among the results, perhaps not all that a run makes: it has the same settings.
    """

    path: Path
    settings: dict[str, Any]
    cure: str
    subjects: Sequence[str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    there: Collection[str] = ()

    def check(self, made: Sequence[str]) -> None:
        """Keep settings and sources, unless results are there, of the subjects ``made``, that have others: then
        InputError.

        Results without a record, of an earlier version or put there, from then on count as made with these settings,
        with a warning. A setting or part of a source that only one of the two knows is not compared.
        """
        kept, present = read_record(self.path), [*made, *sorted(set(self.there).difference(made))]
        sources = kept.pop(SOURCES, {})
        changed = [name for name, value in self.settings.items() if name in kept and kept[name] != value]
        if present and changed:
            theirs, ours = (_text({name: each[name] for name in changed}) for each in (kept, self.settings))
            raise InputError(
                f"{self.path.parent}: {_named(present)} made with {theirs}, not with {ours}. Give the same again, or "
                f"{self.cure}."
            )
        if other := [name for name in made if differ(sources.get(name, ""), self.sources.get(name, ""))]:
            raise InputError(
                f"{self.path.parent}: {_named(other)} made from other files or demographics than those given. Give the "
                "same again, or remove these results to make them again."
            )
        if present and not kept:
            click.echo(
                f"Warning: {self.path.parent}: {_named(present)} made without a note of the settings; taken to be made "
                f"with {_text(self.settings)}. If not, {self.cure}.", err=True,
            )  # fmt: skip
        current = (kept if present else {}) | self.settings
        stay = {name: sources[name] for name in made if name in sources}
        if everything := sources | {name: merged(stay.get(name, ""), text) for name, text in self.sources.items()}:
            current[SOURCES] = everything
        write_record(self.path, current)

    def put_back(self, earlier: Mapping[str, str], failed: Sequence[str]) -> None:
        """The sources that were kept ``earlier`` of those who have no new result: what they have is of these."""
        record = read_record(self.path)
        sources = {name: text for name, text in record.pop(SOURCES, {}).items() if name not in set(failed)}
        sources |= {name: earlier[name] for name in failed if name in earlier}
        write_record(self.path, record | ({SOURCES: sources} if sources else {}))


def read_record(path: Path) -> dict[str, Any]:
    """The settings that a record holds, none where there is no record."""
    if not path.exists():
        return {}
    return read_json(path, "Remove it: the settings of the next run are taken for those of the results.")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Keep a record, if it is another than the one that is there."""
    if record != read_record(path):
        with atomic(path) as part:
            part.write_text(json.dumps(record, indent=1))


def made_in(
    folder: Path, settings: dict[str, Any], files: Mapping[str, Sequence[Path]] | None = None,
    sources: Mapping[str, str] | None = None, **before: Path,
) -> MadeWith:  # fmt: skip
    """The record of the results <folder>/<subject>, or <folder>/<subject>.nii.gz, which all share their settings.

    files: subject → those that its result is made from;  sources: or subject → another text that tells what it is made
    from;  before: step → the folder of the results that these are made from. Their settings count as settings of these.
    """
    refuse_inputs_in(folder, (path for paths in (files or {}).values() for path in paths))
    earlier = {
        f"{step}.{name}": value for step, path in before.items() for name, value in read_record(path / RECORD).items()
        if name != SOURCES
    }  # fmt: skip
    cure, files = f"remove {folder} to make them again", files or {}
    filled = (path for path in folder.glob("[!.]*") if path.is_file() or any(path.iterdir()))
    there = {path.name.removesuffix(".nii.gz") for path in filled}
    everyone = [*files, *sorted(there.difference(files))] if files else None
    return MadeWith(folder / RECORD, settings | earlier, cure, everyone, sources or sources_of(files), there)


def sources_of(files: Mapping[str, Sequence[Path]], part: str = "") -> dict[str, str]:
    """subject → source_of its files, of the subjects whose files are all there."""
    there = {subject: paths for subject, paths in files.items() if all(path.is_file() for path in paths)}
    return {subject: source_of(paths, part) for subject, paths in there.items()}


def source_of(paths: Iterable[Path], part: str = "") -> str:
    """What tells these files from others, wherever they lie: size, beginning and end, and all of a file that is not
    compressed by gzip: such a one ends with a checksum of what it holds, and is not read whole.

    part: name of what the files are, where a source has several parts (``differ``).
    """
    ends, whole = hashlib.sha256(), hashlib.sha256()
    plain = False
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            ends.update(f"{size} ".encode())
            for start in (0, max(size - ENDS, 0)):
                file.seek(start)
                ends.update(file.read(ENDS))
            file.seek(0)
            if file.read(len(GZIP)) != GZIP:
                plain = True
                file.seek(0)
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return _text_of({part: _short(ends)} | ({f"{part}whole": _short(whole)} if plain else {}))


def differ(one: str, other: str) -> bool:
    """Whether two sources differ in a part that both know.

    A source is of parts, name=value, with a space between; one has no name and "=", the only one that earlier versions
    knew.
    """
    parts, others = _parts(one), _parts(other)
    return any(parts[name] != others[name] for name in parts.keys() & others.keys())


def merged(one: str, other: str) -> str:
    """A source with the parts of both, those of the other where both know one."""
    return _text_of(_parts(one) | _parts(other))


def _parts(source):
    return {name: value for name, _, value in (part.rpartition("=") for part in source.split())}


def _text_of(parts):
    return " ".join(f"{name}={value}" if name else value for name, value in parts.items())


def _short(digest):
    return digest.hexdigest()[:16]


def fingerprint(path: str | Path) -> str:
    """A file, such as of weights, as a setting: the beginning of its SHA-256."""
    return f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"


def _named(subjects):
    first = first_of(subjects)
    return f"1 result ({first}) was" if len(subjects) == 1 else f"{len(subjects)} results ({first}) were"


def _text(settings):
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
