"""The check of every generated study against its training cohort, and generating again where it fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from totalgen.data.quality import MASS, Reference, study_figures
from totalgen.data.segmentation import Backend
from totalgen.data.volume import Volume
from totalgen.errors import InputError

PASSED, UNKNOWN = "passed", "not checked"
SHOWN = 3  # faults that a line on the terminal names; the manifest has all


@dataclass(frozen=True)
class Checks:
    """label: organs of a CT, or None: then only mass and values are checked;  labelled_by: what the manifest says of
    it;  reference: None checks only that values are finite;  retry: how often a study that fails is generated again,
    each time by a seed of its own."""

    label: Backend | None = None
    labelled_by: str | None = None
    reference: Reference | None = None
    retry: int = 0

    def made(
        self, name: str, person: Any, seed: int, seeds: Callable[[int], int],
        generate: Callable[[int], dict[str, Volume]], tried: int = 0,
    ) -> tuple[dict[str, Volume], dict[str, Any]]:  # fmt: skip
        """(volumes, organs among them, columns of the manifest) of the first attempt that passes, or of the last one.

        seed: of the first attempt;  seeds(n): that of attempt n + 1;  generate(seed): the volumes;  tried: attempts
        that failed before, and are not made again. Says on standard error what fails.
        """
        for attempt in range(tried + 1, self.retry + 2):
            used = seed if attempt == 1 else seeds(attempt - 1)
            volumes = generate(used)
            if self.label is not None:
                volumes["organs"] = self.label(name, volumes["CT"])
            faults, mass_kg = self.judged(person, volumes)
            if not faults:
                break
            said = f"Warning: {name}: attempt {attempt} fails the check ({_short(faults)})"
            kept = "; it is not kept." if not_finite(volumes) else "; it is kept."
            further = f"; generated again with seed {seeds(attempt)}." if attempt <= self.retry else kept
            click.echo(said + further, err=True)
        return volumes, self._columns(person, faults, mass_kg, attempts=attempt, seed_used=used)

    def labelled(
        self, name: str, person: Any, volumes: dict[str, Volume], row: Mapping[str, Any]
    ) -> tuple[dict[str, Volume], dict[str, Any]]:
        """The same of a study that was made before without organs, of its volumes and its row of the manifest."""
        assert self.label is not None
        volumes = volumes | dict(organs=self.label(name, volumes["CT"]))
        return volumes, self.judged_again(name, person, volumes, row) | dict(segmenter=self.labelled_by)

    def judged_again(
        self, name: str, person: Any, volumes: Mapping[str, Volume], row: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Columns of the manifest of a study that was made before, of its volumes and its row, by this reference."""
        faults, mass_kg = self.judged(person, volumes)
        if faults:
            click.echo(f"Warning: {name}: fails the check ({_short(faults)}); it is kept.", err=True)
        tried = {key: row.get(key) for key in ("attempts", "seed_used")}
        return self._columns(person, faults, mass_kg, **tried) | dict(segmenter=row.get("segmenter"))

    def is_current(self, row: Mapping[str, Any]) -> bool:
        """Whether a study, by its row of the manifest, was held against this reference; without one nothing is."""
        return self.reference is None or row.get("reference") == self.reference.sha256

    def _columns(self, person, faults, mass_kg, **tried):
        found = dict(quality="; ".join(faults) or self.verdict(person)) | tried
        found |= dict(mass_kg=mass_kg, reference=self.reference and self.reference.sha256)
        return found | dict(segmenter=self.labelled_by)

    def judged(self, person: Any, volumes: Mapping[str, Volume]) -> tuple[list[str], float | None]:
        """(faults in words, mass of the field in kg where there is a reference) of a study."""
        if wrong := not_finite(volumes):
            return [f"{name} not finite" for name in wrong], None
        if not self._knows(person):
            return [], None
        assert self.reference is not None
        figures = study_figures(volumes["CT"], volumes["SUV"], volumes.get("organs"), self.reference.window_hu)
        return self.reference.faults(person, figures), round(figures[MASS], 2)

    def verdict(self, person: Any) -> str:
        """What the manifest says of a study without a fault."""
        if not self._knows(person):
            return UNKNOWN
        return PASSED if self.label is not None else f"{PASSED} without organs"

    def wanting(self, row: Mapping[str, Any]) -> bool:
        """Whether a study, by its row of the manifest, failed and has attempts left."""
        return failed(row) and row["attempts"] <= self.retry

    def _knows(self, person):
        return self.reference is not None and person.sex in self.reference.sexes


def not_finite(volumes: Mapping[str, Volume]) -> list[str]:
    """Names of the volumes with values that are not finite."""
    return [name for name, volume in volumes.items() if not np.isfinite(volume.voxels).all()]


def reference_beside(weights: str | Path, given: str | Path | None = None) -> Reference | None:
    """The reference in the file ``given``, or in the one file *reference.json beside ``weights``; None without it."""
    if given is not None:
        return Reference.load(given)
    found = sorted(Path(weights).parent.glob("*reference.json"))
    if len(found) > 1:
        raise InputError(f"{found[0].parent}: holds {len(found)} references. Choose one with --reference.")
    return Reference.load(found[0]) if found else None


def failed(row: Mapping[str, Any]) -> bool:
    """Whether a row of a manifest says that its study failed the check."""
    quality = row.get("quality")  # NaN in a table where other studies have one
    return isinstance(quality, str) and not quality.startswith((PASSED, UNKNOWN))


def _short(faults):
    more = len(faults) - SHOWN
    return "; ".join(faults[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
