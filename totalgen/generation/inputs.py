"""Requests for what users bring to a pipeline that reads images: one file or folder, or the subjects of a cohort."""

from pathlib import Path
from typing import Any

import click

from totalgen import distributed
from totalgen.data.demographics import of_split, read_cohort
from totalgen.data.input_names import input_name
from totalgen.errors import InputError
from totalgen.generation.cohort import Request, study_seed


def requests_of(
    path: Path | None, cohort: Path | None, pattern: str, seed: int, outdir: Path, rank: int, split: str | None = None,
    keep_identity: bool = False, **row: Any,
) -> list[Request]:  # fmt: skip
    """One request for ``path``, or one for each subject of ``cohort`` that has the file ``pattern``.

    pattern: below the cohort's root, {} stands for the subject;  seed: of the file, or of the cohort, whose subjects
    have their own;  keep_identity: see input_names;  row: what else the pipeline's source needs.
    Raises InputError when both or none are given, for a split without a cohort, and when no subject has the file.
    """
    if (path is None) == (cohort is None):
        raise InputError("give either --input FILE or --cohort ROOT.")
    if split and cohort is None:
        raise InputError(f"--split {split} is of a table. Give it with --cohort.")
    if path is not None:
        distributed.first(rank, lambda: input_name(path, outdir, keep_identity))  # it may make the salt
        name = input_name(path, outdir, keep_identity)
        return [Request(name, dict(row, input=path, name=name), seed)]
    assert cohort is not None
    listed = cohort / "cohort.csv"
    table = of_split(read_cohort(listed, person=False), split, listed)
    splits = table["split"] if "split" in table else [None] * len(table)
    files = {name: (cohort / pattern.format(name), of) for name, of in zip(table["subject"], splits, strict=True)}
    found = {name: each for name, each in files.items() if each[0].exists()}
    if rank == 0 and 0 < len(found) < len(files):
        lack = f"{len(files) - len(found)} of {len(files)} subjects have no {pattern.format('<subject>')}"
        click.echo(f"{lack} in {cohort} and are left out.", err=True)
    if not found:
        raise InputError(f"{cohort / pattern.format('*')}: no subject of the cohort has it. Make it in 0_Preprocess.")
    return [Request(n, dict(row, input=file, split=of), study_seed(seed, n)) for n, (file, of) in found.items()]
