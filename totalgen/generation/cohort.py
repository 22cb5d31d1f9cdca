"""Generating many subjects: resumable, one at a time, shared between the processes that torchrun starts."""

from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from totalgen.data.cohort import for_each_subject
from totalgen.data.demographics import Demographics
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.generation.export import caption, write_manifest, write_preview, write_study


def generate_cohort(cascade, subjects, outdir, preset, rank=0, ranks=1, beside=None):
    """Write <outdir>/<name>/ for every (name, Demographics, seed) that is not there yet, and manifest.csv.

    rank, ranks: this process and their number; each takes every ranks-th subject;  beside: cohort root whose study of
    the same name is drawn above the generated one in <name>/beside.png. Returns the manifest. A subject that fails is
    listed in <outdir>/failures.csv and does not stop the others; InputError when all of them failed.
    """
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    mine = {name: (demographics, seed) for name, demographics, seed in subjects[rank::ranks]}

    def bar(items):
        return tqdm(items, desc="second stage", unit="window", disable=len(mine) > 1)

    def work(name):
        demographics, seed = mine[name]
        ct, suv = cascade.generate(demographics, seed, bar)
        row = manifest_row(cascade, name, demographics, seed, preset)
        write_study(outdir / name, ct, suv, row)
        if beside is not None:
            folder = Path(beside) / "cropped" / name
            real = f"{name}, as acquired", read_nifti(folder / "CT.nii.gz"), read_nifti(folder / "SUV.nii.gz")
            write_preview(outdir / name / "beside.png", [real, (caption(row), ct, suv)])
        write_manifest(outdir)

    for_each_subject(outdir, "generate", mine, work, lambda name: (outdir / name / "study.json").exists())
    return write_manifest(outdir)


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
    """(name, Demographics, seed) of every row of a cohort table, optionally of one split; seeds count from ``seed``."""
    if split is not None and "split" in table:
        table = table[table["split"] == split]
        if table.empty:
            raise InputError(f"the cohort table has no subject of split {split}. Choose another --split.")
    return [(str(row["subject"]), Demographics.from_row(row), seed + n) for n, (_, row) in enumerate(table.iterrows())]
