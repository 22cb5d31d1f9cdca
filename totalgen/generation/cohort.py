"""Generating many subjects: resumable, one at a time, shared between the processes that torchrun starts."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd
from tqdm import tqdm

from totalgen import distributed
from totalgen.data.demographics import Demographics
from totalgen.data.parallel import spread
from totalgen.data.subjects import for_each_subject
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.generation.export import caption, write_manifest, write_preview, write_study
from totalgen.settings import SamplingSettings

WHERE_MADE = ("precision", "totalgen", "torch")  # columns of the manifest: what the machine, not the user, chose
COMPARISON = "comparison.png"


class Request(NamedTuple):
    """A study that is asked for. row: sex, age_years, height_m, weight_kg and perhaps split, as in a cohort table."""

    name: str
    row: dict[str, Any]
    seed: int

    @property
    def split(self) -> str:
        """That of the subject it is matched to; test where there is none: nothing was trained on a generated study."""
        split = self.row.get("split")
        return split if isinstance(split, str) and split else "test"


def generate_cohort(
    cascade: Cascade, requests: Sequence[Request], outdir: str | Path, preset: str, rank: int = 0, ranks: int = 1,
    compare_with: str | Path | None = None,
) -> None:  # fmt: skip
    """Write <outdir>/<name>/ for every request that is not there yet, and manifest.csv.

    rank, ranks: this process and the number that torchrun started: each makes every ranks-th subject, process 0 keeps
    the tables;  compare_with: cohort root whose study of the same name is shown above the generated one in
    <name>/comparison.png.
    A subject that fails is listed in <outdir>/failures.csv and does not stop the others. Raises InputError when all of
    them failed, and when a study that is there was made with other settings.
    """
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    asked = {request.name: request for request in requests}

    def described(name):
        return manifest_row(cascade, asked[name], preset)

    def bar(items):
        return tqdm(items, desc="sr stage", unit="window", disable=len(asked) > 1)

    def exists(name):
        files = ["study.json"] if compare_with is None else ["study.json", COMPARISON]
        return all((outdir / name / file).exists() for file in files)

    def work(name):
        folder, row = outdir / name, described(name)
        if not (folder / "study.json").exists():
            ct, suv = cascade.generate(Demographics.from_row(row), row["seed"], bar)
            write_study(folder, ct, suv, row)
        if compare_with is not None:
            compare(Path(compare_with) / "cropped" / name, folder, row)
        if rank == 0:
            write_manifest(outdir)

    distributed.first(rank, lambda: refuse_others(outdir, list(asked), described))
    if rank == 0:
        report_doubts(cascade, requests)
    before = {name for name in asked if exists(name)}
    if ranks > 1:
        distributed.barrier()  # until all have seen what was there
        mine = [name for name in list(asked)[rank::ranks] if name not in before]
        results = spread(work, tqdm(mine, desc="generate", unit="subject", disable=rank > 0))
        failed = distributed.gathered({name: error for name, _, error in results if error is not None})
        if rank > 0:
            return

        def work(name):  # all is done: for_each_subject only reports it
            if name in failed:
                raise InputError(failed[name])

    for_each_subject(outdir, "generate", asked, work, before.__contains__)
    write_manifest(outdir)


def report_doubts(cascade: Cascade, requests: Sequence[Request]) -> None:
    """A line on standard error for every request that the weights were not trained for."""
    for request in requests:
        with contextlib.suppress(InputError):  # an impossible one is listed in failures.csv
            for doubt in cascade.doubts(Demographics.from_row(request.row)):
                click.echo(f"Warning: {request.name}: {doubt}; expect an implausible body.", err=True)


def compare(real: Path, generated: Path, row: dict[str, Any]) -> None:
    """Write <generated>/comparison.png: the study in the folder ``real`` above the generated one."""
    captions = {real: f"{row['subject']}, as acquired", generated: caption(row)}
    strips = [
        (text, read_nifti(folder / "CT.nii.gz"), read_nifti(folder / "SUV.nii.gz")) for folder, text in captions.items()
    ]
    write_preview(generated / COMPARISON, strips)


def refuse_others(outdir: Path, names: Sequence[str], described: Callable[[str], dict[str, Any]]) -> None:
    """InputError when one of the studies in ``outdir`` is not what described(name), its manifest row, would make."""
    for name in names:
        path = outdir / name / "study.json"
        if not path.exists():
            continue
        old, new = json.loads(path.read_text()), json.loads(json.dumps(described(name)))
        changed = [key for key in new if key not in WHERE_MADE and old.get(key) != new[key]]
        if changed:
            raise InputError(
                f"{outdir / name}: was made with another {' and '.join(changed)}. "
                "Ask for the same again, remove it, or choose another --outdir."
            )


def manifest_row(cascade: Cascade, request: Request, preset: str) -> dict[str, Any]:
    """Columns of a cohort table, and what made the study: seed, preset, weights, sampling, versions."""
    person = Demographics.from_row(request.row)
    one, two = cascade.global_stage, cascade.sr_stage
    return dict(
        subject=request.name, sex=person.sex, age_years=person.age_years, height_m=person.height_m,
        weight_kg=person.weight_kg, split=request.split,
        source=f"generated, trained on {', '.join(one.data['sources'])} data", seed=request.seed, preset=preset,
        global_weights=one.sha256[:16], sr_weights=two.sha256[:16],
        global_guide=one.guide and one.guide.sha256[:16], sr_guide=two.guide and two.guide.sha256[:16],
        precision=one.precision,
        global_sampling=sampling_text(cascade.global_sampling), sr_sampling=sampling_text(cascade.sr_sampling),
        slab=cascade.tiling.slab, context=cascade.tiling.context,
        totalgen=version("totalgen"), torch=version("torch"),
    )  # fmt: skip


def sampling_text(sampling: SamplingSettings) -> str:
    """sampler, steps and what differs from the defaults, such as "sampler=heun steps=35"."""
    values = {item.name: (getattr(sampling, item.name), item.default) for item in fields(sampling)}
    always = ("sampler", "steps")
    return " ".join(f"{name}={value}" for name, (value, usual) in values.items() if name in always or value != usual)


def study_seed(seed: int, subject: str, sample: int = 0) -> int:
    """The seed of one study of a cohort, 0 … 2⁶³ − 1: other seeds, subjects and samples have unrelated ones."""
    digest = hashlib.sha256(f"{seed}:{sample}:{subject}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def matched_requests(table: pd.DataFrame, seed: int, split: str | None = None) -> list[Request]:
    """A request for every row of a cohort table, optionally of one split, with the seed of its subject."""
    if split is not None and "split" in table:
        table = table[table["split"] == split]
        if table.empty:
            raise InputError(f"the cohort table has no subject of split {split}. Choose another --split.")
    names = [(str(row["subject"]), row) for row in table.to_dict("records")]
    return [Request(name, row, study_seed(seed, name)) for name, row in names]
