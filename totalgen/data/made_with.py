"""With which settings the results of a step were made: kept in a hidden file, and refused when others are given."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from totalgen.data.files import atomic
from totalgen.data.text_files import read_json
from totalgen.errors import InputError

RECORD = ".made-with.json"  # in the folder of the results


@dataclass(frozen=True)
class MadeWith:
    """path: where the record is kept;  settings: name → JSON value;  cure: how other settings become possible.

    subjects: all who may have such results, where a run takes only some of them; None: those of the run.
    """

    path: Path
    settings: dict[str, Any]
    cure: str
    subjects: Sequence[str] | None = None

    def check(self, made: Sequence[str]) -> None:
        """Keep the settings, unless results are there, of the subjects ``made``, that have others: then InputError.

        Results without a record, of an earlier version or put there, from then on count as made with these settings,
        with a warning. A setting that only one of the two knows is not compared.
        """
        kept = read_record(self.path)
        changed = [name for name, value in self.settings.items() if name in kept and kept[name] != value]
        if made and changed:
            theirs, ours = (_text({name: each[name] for name in changed}) for each in (kept, self.settings))
            raise InputError(
                f"{self.path.parent}: {_named(made)} made with {theirs}, not with {ours}. Give the same again, or "
                f"{self.cure}."
            )
        if made and not kept:
            click.echo(
                f"Warning: {self.path.parent}: {_named(made)} made without a note of the settings; taken to be made "
                f"with {_text(self.settings)}. If not, {self.cure}.", err=True,
            )  # fmt: skip
        current = (kept if made else {}) | self.settings
        if current != kept:
            with atomic(self.path) as part:
                part.write_text(json.dumps(current, indent=1))


def read_record(path: Path) -> dict[str, Any]:
    """The settings that a record holds, none where there is no record."""
    if not path.exists():
        return {}
    return read_json(path, "Remove it: the settings of the next run are taken for those of the results.")


def made_in(folder: Path, settings: dict[str, Any], **before: Path) -> MadeWith:
    """The record of the results <folder>/<subject>.

    before: step → the folder of the results that these are made from. Their settings count as settings of these.
    """
    earlier = {f"{step}.{name}": v for step, f in before.items() for name, v in read_record(f / RECORD).items()}
    return MadeWith(folder / RECORD, settings | earlier, f"remove {folder} to make them again")


def fingerprint(path: str | Path) -> str:
    """A file, such as of weights, as a setting: the beginning of its SHA-256."""
    return f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"


def _named(subjects):
    first = ", ".join([*subjects[:3], *["…"] * (len(subjects) > 3)])
    return f"1 result ({first}) was" if len(subjects) == 1 else f"{len(subjects)} results ({first}) were"


def _text(settings):
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
