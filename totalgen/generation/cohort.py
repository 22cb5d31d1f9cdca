"""Generating many subjects: resumable, one at a time, shared between the processes that torchrun starts."""

import contextlib
import functools
import hashlib
import itertools
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd

from totalgen import distributed
from totalgen.data.demographics import COLUMNS
from totalgen.data.files import atomic, locked, refuse_loss
from totalgen.data.names import fault, person_of
from totalgen.data.parallel import spread
from totalgen.data.progress import progress
from totalgen.data.subjects import for_each_subject
from totalgen.data.text_files import read_json, read_text
from totalgen.data.volume import Volume, is_whole, read_labels, read_nifti
from totalgen.errors import InputError
from totalgen.generation.checks import Checks, failed, not_finite
from totalgen.generation.cohort_page import TITLE, write_index
from totalgen.generation.export import WRITTEN, caption, write_manifest, write_preview, write_study, write_volume
from totalgen.generation.pipeline import Pipeline

WHERE_MADE = ("precision", "totalgen", "torch")  # columns of the manifest: what the machine, not the user, chose
COMPARISON = "comparison.png"
# Columns that a study which is there may lack: the voxels that it was made of, which earlier versions did not note, and
# what labelled its organs, which may be added later.
INPUT, LABELLED = "input_sha256", "segmenter"
CHECKED = ("quality", "attempts", "seed_used", "mass_kg", "reference")  # columns that the check adds
REMOVE = "Remove its folder: the study is generated again."
Export = Callable[[Path, Any, dict[str, Volume], dict[str, Any]], object]  # (folder, source, volumes, manifest row)


class Request(NamedTuple):
    """A study that is asked for. row: what the pipeline makes a source of, and perhaps split, as in a cohort table."""

    name: str
    row: dict[str, Any]
    seed: int

    @property
    def split(self) -> str:
        """That of the subject it is matched to; test where there is none: nothing was trained on a generated study."""
        split = self.row.get("split")
        return split if isinstance(split, str) and split else "test"


def generate_cohort(
    pipeline: Pipeline, requests: Sequence[Request], outdir: str | Path, preset: str, rank: int = 0, ranks: int = 1,
    compare_with: str | Path | None = None, exports: Mapping[str, Export] | None = None, checks: Checks | None = None,
    asked: Collection[str] | None = None,
) -> None:  # fmt: skip
    """Write <outdir>/<name>/ for every request that is not there yet, and manifest.csv.

    rank, ranks: this process and the number that torchrun started: each makes every ranks-th subject, process 0 keeps
    the tables;  compare_with: cohort root whose study of the same name is shown above the generated one in
    <name>/comparison.png;  exports: file or folder in a study's folder → what writes it, in this order, each of what
    was written before it; what a study lacks is made of its volumes, which are kept;  checks: label organs, check each
    study, and generate it again where it fails and attempts are left, now or before;  asked: the exports to write, all
    by default; another one that a study has is made again with those before it, which it may show.
    A subject that fails is listed in <outdir>/failures.csv and does not stop the others. Raises InputError when all of
    them failed, when two requests have one name, and when a study that is there was made with other settings.
    """
    refuse_one_name([request.name for request in requests])
    studies = Studies(
        pipeline, {request.name: request for request in requests}, Path(outdir), preset,
        None if compare_with is None else Path(compare_with), dict(exports or {}), checks,
        set((exports or {}) if asked is None else asked),
    )  # fmt: skip
    studies.outdir.mkdir(parents=True, exist_ok=True)
    with locked(studies.outdir, "step generate") if rank == 0 else contextlib.nullcontext():
        _generate(studies, rank, ranks)


def _generate(studies, rank, ranks):
    outdir, asked = studies.outdir, studies.requests
    distributed.first(rank, lambda: refuse_other_tables(outdir))
    distributed.first(rank, lambda: refuse_others(outdir, list(asked), studies.asked))
    if rank == 0:
        report_doubts(studies.pipeline, list(asked.values()))
        for bad in studies.all_damaged():
            click.echo(f"Warning: {bad}: is missing or damaged; the study is made again.", err=True)
    before = {name for name in asked if studies.is_complete(name)}
    work = functools.partial(_make_and_list, studies) if rank == 0 else studies.make
    if ranks > 1:
        distributed.barrier()  # until all have seen what was there
        mine = [name for name in list(asked)[rank::ranks] if name not in before]
        results = progress(spread(work, mine), "generate", "subject", len(mine), show=rank == 0)
        failed = distributed.gathered({name: error for name, _, error in results if error is not None})
        if rank > 0:
            return
        work = functools.partial(_report, failed)  # all is done
    for_each_subject(outdir, "generate", asked, work, before.__contains__)
    table = write_manifest(outdir)
    write_index(outdir, table)
    report_failed(outdir, [row for row in table.to_dict("records") if row["subject"] in asked])


def _make_and_list(studies, name):
    studies.make(name)
    write_manifest(studies.outdir)


def _report(failed, name):
    if name in failed:
        raise InputError(failed[name])


@dataclass(frozen=True)
class Studies:
    """The studies of requests in a folder: which are there, and how one is made; see ``generate_cohort``."""

    pipeline: Pipeline
    requests: dict[str, Request]
    outdir: Path
    preset: str
    compare_with: Path | None
    exports: dict[str, Export]
    checks: Checks | None
    asked_exports: set[str]

    def described(self, name: str) -> dict[str, Any]:
        """Its row of the manifest, but for what the check adds."""
        return manifest_row(self.pipeline, self.requests[name], self.preset)

    def asked(self, name: str) -> dict[str, Any]:
        """The same, with what is to label its organs."""
        by = self.checks and self.checks.labelled_by
        return self.described(name) | ({LABELLED: by} if by else {})

    def is_made(self, name: str) -> bool:
        """Whether its volumes are whole, and no attempts are left to a study that failed the check."""
        path = self.outdir / name / "study.json"
        if not path.exists() or damaged(self.outdir / name, self.pipeline.outputs):
            return False
        return self.checks is None or not self.checks.wanting(read_json(path, REMOVE))

    def wanted(self, name: str) -> list[str]:
        """The exports that are asked for, and those that it has."""
        return [each for each in self.exports if each in self.asked_exports or (self.outdir / name / each).exists()]

    def missing(self, name: str) -> list[str]:
        """The first of the exports that it lacks, and those after it, which may show the first."""
        return list(itertools.dropwhile(lambda each: (self.outdir / name / each).exists(), self.wanted(name)))

    def is_complete(self, name: str) -> bool:
        """Whether it is made with all exports, and compared where that is asked for."""
        compared = self.compare_with is None or (self.outdir / name / COMPARISON).exists()
        return compared and self.is_made(name) and self.is_judged(name) and not self.missing(name)

    def is_judged(self, name: str) -> bool:
        """Whether a study that is there was held against the reference that is given now."""
        return self.checks is None or self.checks.is_current(read_json(self.outdir / name / "study.json", REMOVE))

    def all_damaged(self) -> list[Path]:
        """The volumes of studies that are there, but missing or cut."""
        there = [self.outdir / name for name in self.requests if (self.outdir / name / "study.json").exists()]
        return [bad for folder in there for bad in damaged(folder, self.pipeline.outputs)]

    def make(self, name: str) -> None:
        """Write its folder, or what it lacks, and its comparison."""
        folder, row = self.outdir / name, self.described(name)
        if self.is_made(name) and not self.is_judged(name):
            self._judge(name)
        if not self.is_made(name):
            refuse_loss(folder, self.written())
            source = self.pipeline.source(self.requests[name].row)
            volumes, more = self._generated(name, source, row["seed"])
            row |= more
            if wrong := not_finite(volumes):
                cure = "Choose other settings of the sampling, or other weights."
                raise InputError(f"{' and '.join(wrong)}: holds values that are not finite, and is not kept. {cure}")
            (folder / COMPARISON).unlink(missing_ok=True)
            wanted = self.wanted(name)
            write_study(folder, volumes, row, lambda part: self._export(wanted, part, source, volumes, row))
        elif missing := self.missing(name):
            self._complete(name, missing)
        if self.compare_with is not None:
            real = self.compare_with / "cropped"
            person = name if (real / name).is_dir() else person_of(name)  # further samples are of the same person
            compare(real / person, folder, row, self.pipeline.outputs)

    def written(self) -> set[str]:
        """The files and folders of a study that is made anew; others in its folder, such as masks, would be lost."""
        organs = ["organs.nii.gz"] if self.checks is not None and self.checks.label is not None else []
        return {*(f"{name}.nii.gz" for name in self.pipeline.outputs), *organs, *WRITTEN, COMPARISON, *self.exports}

    def _export(self, names, folder, source, volumes, row):
        for each in names:
            self.exports[each](folder, source, volumes, row)

    def _complete(self, name, missing):
        """Export what is missing of a study that is made, of its volumes."""
        folder = self.outdir / name
        row = read_json(folder / "study.json", REMOVE)
        if INPUT in self.described(name) and INPUT not in row:
            raise InputError(f"{folder}: of which input it was made is not known, and {missing[0]} needs it. {REMOVE}")
        source = self.pipeline.source(self.requests[name].row)
        volumes = {each: read_nifti(folder / f"{each}.nii.gz", reorder=False) for each in self.pipeline.outputs}
        organs = folder / "organs.nii.gz"
        if organs.exists():
            volumes["organs"] = read_labels(organs)
        elif self.checks is not None and self.checks.label is not None:
            volumes, more = self.checks.labelled(name, source, volumes, row)
            row |= more
        with atomic(folder) as part:
            shutil.copytree(folder, part, ignore=shutil.ignore_patterns(*missing))
            if "organs" in volumes and not organs.exists():
                write_volume(part, "organs", volumes["organs"], row)
            self._export(missing, part, source, volumes, row)
            (part / "study.json").write_text(json.dumps(row, indent=1))

    def _judge(self, name):
        """Hold a study that is made against another reference than before."""
        assert self.checks is not None, "who judges"
        path = self.outdir / name / "study.json"
        row = read_json(path, REMOVE)
        found = {each: read_nifti(path.parent / f"{each}.nii.gz") for each in self.pipeline.outputs}
        if (organs := path.parent / "organs.nii.gz").exists():
            found["organs"] = read_labels(organs)
        row |= self.checks.judged_again(name, self.pipeline.source(self.requests[name].row), found, row)
        with atomic(path) as part:
            part.write_text(json.dumps(row, indent=1))

    def _generated(self, name, source, seed):
        """(volumes, further columns of the manifest) of a study."""

        def bar(items):
            return progress(items, "network", "run", show=len(self.requests) == 1)

        if self.checks is None:
            return self.pipeline.run(source, seed, bar), {}

        def seeds(attempt):  # samples count from 0 upwards, further attempts downwards
            return study_seed(seed, name, -attempt)

        path = self.outdir / name / "study.json"
        earlier = read_json(path, REMOVE) if path.exists() else {}
        tried = earlier["attempts"] if self.checks.wanting(earlier) else 0
        return self.checks.made(name, source, seed, seeds, lambda seed: self.pipeline.run(source, seed, bar), tried)


def report_failed(outdir: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A line on standard error when some of several studies fail the check, and one when some took several attempts."""
    bad = [row["subject"] for row in rows if failed(row)]
    if bad and len(rows) > 1:
        names = f"{', '.join(bad[:5])}{', …' if len(bad) > 5 else ''}"
        click.echo(
            f"Warning: {len(bad)} of {len(rows)} studies fail the quality check ({names}) and are kept: column quality "
            f"of {outdir / 'manifest.csv'} says why. --retry N generates such studies again.", err=True,
        )  # fmt: skip
    again = [row for row in rows if row.get("attempts", 1) > 1]
    if again:
        total = sum(int(row["attempts"]) for row in again)
        click.echo(f"{len(again)} of {len(rows)} studies took several attempts, {total} together: column attempts.")


def damaged(folder: Path, names: Sequence[str]) -> list[Path]:
    """The volumes of a study that are missing or cut."""
    return [path for path in (folder / f"{name}.nii.gz" for name in names) if not is_whole(path)]


def written(outdir: Path, requests: Sequence[Request]) -> str:
    """Where the first study, its pictures and the table are: what a command says at its end."""
    shown = outdir / requests[0].name
    units = {"CT": "HU", "SUV": "SUV", "MR": "as trained", "SUV_std": "SUV", "MR_std": "as trained"}
    volumes = [f"{shown / name}.nii.gz ({unit})" for name, unit in units.items() if (shown / f"{name}.nii.gz").exists()]
    lines = [f"Volumes: {' and '.join(volumes)}"]
    if (shown / "organs.nii.gz").exists():
        lines.append(f"Organs:  {shown / 'organs.nii.gz'}, measured in organs.csv")
    if (shown / "dicom").exists():
        lines.append(f"DICOM:   {shown / 'dicom'}")
    pictures = [str(shown / name) for name in ("preview.png", "surface.png", "mip.gif") if (shown / name).exists()]
    if pictures:
        lines.append(f"Picture: {' and '.join(pictures)}")
    lines.append(f"All:     {outdir / 'index.html'} and {outdir / 'manifest.csv'} ({len(requests)} studies asked for)")
    if all((shown / f"{name}.nii.gz").exists() for name in ("CT", "SUV", "organs")):
        lines.append(f"Next: python 3_Evaluations/2_measure_organs.py --root {shlex.quote(str(outdir))}")
    return "\n".join(lines)


def report_doubts(pipeline: Pipeline, requests: Sequence[Request]) -> None:
    """A line on standard error for every request that the weights were not trained for."""
    for request in requests:
        with contextlib.suppress(InputError):  # an impossible one is listed in failures.csv
            for doubt in pipeline.doubts(pipeline.source(request.row)):
                click.echo(f"Warning: {request.name}: {doubt}.", err=True)


def compare(real: Path, generated: Path, row: dict[str, Any], names: Sequence[str]) -> None:
    """Write <generated>/comparison.png: volumes of the study in ``real`` above the generated ones."""
    captions = {real: f"{row['subject']}, as acquired", generated: caption(row)}
    strips = [
        (text, {name: read_nifti(folder / f"{name}.nii.gz") for name in names}) for folder, text in captions.items()
    ]
    write_preview(generated / COMPARISON, strips)


def refuse_one_name(names: Sequence[str]) -> None:
    """InputError when two studies would have one name, and one of them would be missing."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(
            f"{doubled[0]} is the name of two studies that are asked for: people who agree in six digits, or a subject "
            "called as a sample of another. Ask for one of them, with --samples for several of one person."
        )


def refuse_other_tables(outdir: Path) -> None:
    """InputError when manifest.csv or index.html in ``outdir`` are not of generated studies: they would be replaced."""
    manifest, page = outdir / "manifest.csv", outdir / "index.html"
    if manifest.exists():
        table = read_text(manifest)
        names = [name for name in table.get("subject", []) if fault(name) is None]
        ours = "totalgen" in table or any((outdir / name / "study.json").exists() for name in names)
        if not (ours or table.empty):
            raise InputError(f"{manifest}: lists other studies, and would be replaced. Choose another --outdir.")
    if page.exists() and TITLE not in page.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{page}: is another page, and would be replaced. Choose another --outdir.")


def refuse_others(outdir: Path, names: Sequence[str], described: Callable[[str], dict[str, Any]]) -> None:
    """InputError when one of the studies in ``outdir`` is not what described(name), its manifest row, would make, or
    was not made by this program at all: such as the one that it would be made from.

    A study of an earlier version, which did not note the voxels of its input, is kept, with a line on standard error.
    """
    for name in names:
        path = outdir / name / "study.json"
        if not path.exists():
            if held := min((outdir / name).glob("[!.]*"), default=None):
                raise InputError(
                    f"{outdir / name}: holds {held.name}, but no study.json: it is no study of this program and would "
                    "be lost. Choose another --outdir."
                )
            continue
        try:
            new = json.loads(json.dumps(described(name)))
        except InputError as error:
            click.echo(f"Warning: {outdir / name}: is not compared with what is asked for: {error}", err=True)
            continue
        old = read_json(path, REMOVE)
        unknown = INPUT in new and INPUT not in old
        kept = (*WHERE_MADE, *(key for key in (INPUT, LABELLED) if old.get(key) is None))
        changed = [key for key in new if key not in kept and not _same(old.get(key), new[key])]
        changed += [key for key in old if key not in new and key not in (*kept, *CHECKED)]  # set then, and not now
        if changed:
            words = " and ".join("input of that name" if key == INPUT else key for key in changed)
            raise InputError(
                f"{outdir / name}: was made with another {words}. "
                "Ask for the same again, remove it, or choose another --outdir."
            )
        if unknown:
            click.echo(
                f"Warning: {outdir / name}: is kept, but an earlier version made it, which did not note the voxels of "
                "its input: whether they were these is not known.", err=True,
            )  # fmt: skip


def _same(old, new):
    """Whether two values of a manifest agree. Of weights 16 digits of the SHA-256 were kept once."""
    return old == new or (isinstance(old, str) and len(old) == 16 and len(str(new)) == 64 and new.startswith(old))


def manifest_row(pipeline: Pipeline, request: Request, preset: str) -> dict[str, Any]:
    """Columns of a cohort table, and what made the study: seed, preset, what the pipeline says of itself, versions."""
    row = dict(subject=request.name, split=request.split, seed=request.seed, preset=preset)
    row |= pipeline.describe(pipeline.source(request.row))
    row |= {name: version(name) for name in ("totalgen", "torch")}
    return {name: row[name] for name in COLUMNS if name in row} | row


def study_seed(seed: int, subject: str, sample: int = 0) -> int:
    """The seed of one study of a cohort, 0 … 2⁶³ − 1: other seeds, subjects and samples have unrelated ones."""
    digest = hashlib.sha256(f"{seed}:{sample}:{subject}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def matched_requests(table: pd.DataFrame, seed: int) -> list[Request]:
    """A request for every row of a cohort table, with the seed of its subject."""
    names = [(str(row["subject"]), row) for row in table.to_dict("records")]
    return [Request(name, row, study_seed(seed, name)) for name, row in names]
