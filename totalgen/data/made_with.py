"""With which settings, and from which files, the results of a step were made: kept in a hidden file, and refused when
others are given."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from totalgen.data.files import atomic
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

RECORD = ".made-with.json"  # in the folder of the results
SOURCES = "sources"  # in a record: subject → source_of the files that its result was made from
ENDS = 64 * 1024  # bytes


@dataclass(frozen=True)
class MadeWith:
    """path: where the record is kept;  settings: name → JSON value;  cure: how other settings become possible.

    subjects: all who may have such results, where a run takes only some of them; None: those of the run;
    sources: subject → what tells that which its result is made from, such as source_of its files.
    """

    path: Path
    settings: dict[str, Any]
    cure: str
    subjects: Sequence[str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def check(self, made: Sequence[str]) -> None:
        """Keep settings and sources, unless results are there, of the subjects ``made``, that have others: then
        InputError.

        Results without a record, of an earlier version or put there, from then on count as made with these settings,
        with a warning. A setting or source that only one of the two knows is not compared.
        """
        kept = read_record(self.path)
        sources = kept.pop(SOURCES, {})
        changed = [name for name, value in self.settings.items() if name in kept and kept[name] != value]
        if made and changed:
            theirs, ours = (_text({name: each[name] for name in changed}) for each in (kept, self.settings))
            raise InputError(
                f"{self.path.parent}: {_named(made)} made with {theirs}, not with {ours}. Give the same again, or "
                f"{self.cure}."
            )
        if other := [name for name in made if name in self.sources and sources.get(name, self.sources[name])
                     != self.sources[name]]:
            raise InputError(
                f"{self.path.parent}: {_named(other)} made from other files or demographics than those given. Give the "
                "same again, or remove these results to make them again."
            )
        if made and not kept:
            click.echo(
                f"Warning: {self.path.parent}: {_named(made)} made without a note of the settings; taken to be made "
                f"with {_text(self.settings)}. If not, {self.cure}.", err=True,
            )  # fmt: skip
        current = (kept if made else {}) | self.settings
        if everything := sources | self.sources:
            current[SOURCES] = everything
        if current != read_record(self.path):
            with atomic(self.path) as part:
                part.write_text(json.dumps(current, indent=1))


def read_record(path: Path) -> dict[str, Any]:
    """The settings that a record holds, none where there is no record."""
    if not path.exists():
        return {}
    return read_json(path, "Remove it: the settings of the next run are taken for those of the results.")


def made_in(
    folder: Path, settings: dict[str, Any], files: Mapping[str, Sequence[Path]] | None = None,
    sources: Mapping[str, str] | None = None, **before: Path,
) -> MadeWith:  # fmt: skip
    """The record of the results <folder>/<subject>, or <folder>/<subject>.nii.gz, which all share their settings.

    files: subject → those that its result is made from;  sources: or subject → another text that tells what it is made
    from;  before: step → the folder of the results that these are made from. Their settings count as settings of these.
    """
    earlier = {
        f"{step}.{name}": value for step, path in before.items() for name, value in read_record(path / RECORD).items()
        if name != SOURCES
    }  # fmt: skip
    cure, files = f"remove {folder} to make them again", files or {}
    there = {path.name.removesuffix(".nii.gz") for path in folder.glob("[!.]*")}
    everyone = [*files, *sorted(there.difference(files))] if files else None
    return MadeWith(folder / RECORD, settings | earlier, cure, everyone, sources or sources_of(files))


def sources_of(files: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """subject → source_of its files, of the subjects whose files are all there."""
    return {subject: source_of(paths) for subject, paths in files.items() if all(path.is_file() for path in paths)}


def source_of(paths: Iterable[Path]) -> str:
    """What tells these files from others, wherever they lie, without reading them whole: size, beginning and end.

    A file that is compressed by gzip ends with a checksum of all that it holds.
    """
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            found.update(f"{size} ".encode())
            for start in (0, max(size - ENDS, 0)):
                file.seek(start)
                found.update(file.read(ENDS))
    return found.hexdigest()[:16]


def fingerprint(path: str | Path) -> str:
    """A file, such as of weights, as a setting: the beginning of its SHA-256."""
    return f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"


def _named(subjects):
    first = ", ".join([*subjects[:3], *["…"] * (len(subjects) > 3)])
    return f"1 result ({first}) was" if len(subjects) == 1 else f"{len(subjects)} results ({first}) were"


def _text(settings):
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
