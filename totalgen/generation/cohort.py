"""Generating many subjects: resumable, one at a time, shared between the processes that torchrun starts."""

import json
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from totalgen import distributed
from totalgen.data.demographics import Demographics
from totalgen.data.parallel import spread
from totalgen.data.subjects import for_each_subject
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.generation.export import caption, write_manifest, write_preview, write_study

WHERE_MADE = ("precision", "totalgen", "torch")  # columns of the manifest: what the machine, not the user, chose


def generate_cohort(cascade, subjects, outdir, preset, rank=0, ranks=1, beside=None):
    """Write <outdir>/<name>/ for every (name, row, seed) that is not there yet, and manifest.csv.

    row: sex, age_years, height_m and weight_kg, as in a cohort table (Demographics.from_row);
    rank, ranks: this process and the number that torchrun started: each makes every ranks-th subject, process 0 keeps
    the tables;  beside: cohort root whose study of the same name is drawn above the generated one in <name>/beside.png.
    A subject that fails is listed in <outdir>/failures.csv and does not stop the others. Raises InputError when all of
    them failed, and when a study that is there was made in another way.
    """
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    rows = {name: (row, seed) for name, row, seed in subjects}

    def described(name):
        row, seed = rows[name]
        return manifest_row(cascade, name, Demographics.from_row(row), seed, preset)

    def bar(items):
        return tqdm(items, desc="second stage", unit="window", disable=len(rows) > 1)

    def stands(name):
        made = ["study.json"] if beside is None else ["study.json", "beside.png"]
        return all((outdir / name / file).exists() for file in made)

    def work(name):
        folder, row = outdir / name, described(name)
        if not (folder / "study.json").exists():
            ct, suv = cascade.generate(Demographics.from_row(row), row["seed"], bar)
            write_study(folder, ct, suv, row)
        if beside is not None:
            real, made = (
                (read_nifti(study / "CT.nii.gz"), read_nifti(study / "SUV.nii.gz"))
                for study in (Path(beside) / "cropped" / name, folder)
            )
            write_preview(folder / "beside.png", [(f"{name}, as acquired", *real), (caption(row), *made)])
        if rank == 0:
            write_manifest(outdir)

    distributed.first(rank, lambda: refuse_others(outdir, rows, described))
    before = {name for name in rows if stands(name)}
    if ranks > 1:
        distributed.barrier()  # until all have seen what was there
        mine = [name for name in list(rows)[rank::ranks] if name not in before]
        results = spread(work, tqdm(mine, desc="generate", unit="subject", disable=rank > 0))
        failed = distributed.gathered({name: error for name, _, error in results if error is not None})
        if rank > 0:
            return

        def work(name):  # all is done: for_each_subject only tells it
            if name in failed:
                raise InputError(failed[name])

    for_each_subject(outdir, "generate", rows, work, before.__contains__)
    write_manifest(outdir)


def refuse_others(outdir, names, described):
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


def manifest_row(cascade, name, demographics, seed, preset):
    """Columns of a cohort table, and what made the study: seed, preset, weights, sampling, versions."""
    trained_on = ", ".join(cascade.low.configuration["data"]["sources"])
    return dict(
        subject=name, sex=demographics.sex, age_years=demographics.age_years, height_m=demographics.height_m,
        weight_kg=demographics.weight_kg, split="test", source=f"generated, trained on {trained_on} data", seed=seed,
        preset=preset, global_weights=cascade.low.sha256[:16], sr_weights=cascade.high.sha256[:16],
        global_guide=cascade.low.guide and cascade.low.guide.sha256[:16],
        sr_guide=cascade.high.guide and cascade.high.guide.sha256[:16], precision=cascade.low.precision,
        global_sampling=" ".join(f"{k}={v}" for k, v in cascade.global_sampling.items()),
        sr_sampling=" ".join(f"{k}={v}" for k, v in cascade.sr_sampling.items()),
        slab=cascade.slab, context=cascade.context, totalgen=version("totalgen"), torch=version("torch"),
    )  # fmt: skip


def matched_subjects(table, seed, split=None):
    """(name, row, seed) of every row of a cohort table, optionally of one split; seeds count from ``seed``."""
    if split is not None and "split" in table:
        table = table[table["split"] == split]
        if table.empty:
            raise InputError(f"the cohort table has no subject of split {split}. Choose another --split.")
    return [(str(row["subject"]), row, seed + n) for n, row in enumerate(table.to_dict("records"))]
