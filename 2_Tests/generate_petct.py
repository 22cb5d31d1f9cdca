"""Generate a CT (HU) and PET (SUV) volume from sex, age, height and weight, or a whole cohort matched to a table.

    python 2_Tests/generate_petct.py --preset demo --sex F --age 60 --height-cm 165 --weight-kg 66 --outdir out/demo
    python 2_Tests/generate_petct.py --preset demo --cohort cohorts/demo/cohort.csv --split test --outdir out/cohort

The same command again generates only what is missing. torchrun shares a cohort between several GPUs.
"""

from pathlib import Path

import click

from totalgen import distributed
from totalgen.commands import PATH, command
from totalgen.data.demographics import Demographics, read_cohort
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.generation.cohort import generate_cohort, matched_subjects
from totalgen.presets import resolve

HERE = Path(__file__).resolve().parents[1]

# The paper, section 2.2: Heun, 35 steps for the global stage and 100 for the second, slabs of 96 slices.
PAPER = dict(
    global_sampling=dict(sampler="heun", steps=35), sr_sampling=dict(sampler="heun", steps=100), slab=96, context=0
)
# Fewer evaluations and a narrower second stage (docs/performance.md); 8 slices at cuts discarded.
FAST = dict(
    global_sampling=dict(sampler="dpm_solver", steps=16), sr_sampling=dict(sampler="dpm_solver", steps=16),
    slab=96, context=8,
)  # fmt: skip
# The demo weights were trained too briefly to have learnt the finest noise levels: sampling ends at σ = 0.5, with the
# expected clean volume. One slab holds the whole volume: 80×80×128 voxels fit into memory.
COARSE = dict(sampler="dpm_solver", sigma_min=0.5)
DEMO = dict(global_sampling=dict(COARSE, steps=16), sr_sampling=dict(COARSE, steps=6), slab=128, context=8)
SMOKE = dict(
    global_sampling=dict(sampler="euler", steps=3), sr_sampling=dict(sampler="euler", steps=2), slab=32, context=4
)


def run(name):
    """Weights that 1_Trainings/train_totalgen.py --outdir runs/<name>, started in the repository, leaves."""
    return HERE / f"runs/{name}/ema-0.10.safetensors"


def shipped(name):
    """Weights that come with the repository."""
    return HERE / f"Resource/{name}.safetensors"


# fmt: off
PRESETS = {
    # Table 1 column           weights of the global stage                   weights of the second stage
    "paper-edm":  dict(PAPER, low=run("paper-global-edm"),                  high=run("paper-sr-edm")),
    "paper-flow": dict(PAPER, low=run("paper-global-flow"),                 high=run("paper-sr-flow")),
    "fast-edm":   dict(FAST,  low=run("paper-global-edm"),                  high=run("fast-sr-edm")),
    "fast-flow":  dict(FAST,  low=run("paper-global-flow"),                 high=run("fast-sr-flow")),
    "demo":       dict(DEMO,  low=shipped("demo-global-edm"),              high=shipped("demo-sr-edm")),
    "demo-flow":  dict(DEMO,  low=shipped("demo-global-flow"),             high=shipped("demo-sr-flow")),
    "smoke":      dict(SMOKE, low=run("smoke-global-edm"),                  high=run("smoke-sr-edm")),
}
# fmt: on


@command(__doc__)
@click.option("--preset", default="demo", help=f"One of: {', '.join(PRESETS)}.")
@click.option("--sex", type=str, help="F or M.")
@click.option("--age", type=float, help="Years.")
@click.option("--height-cm", type=float, help="Centimetres, such as 165.")
@click.option("--weight-kg", type=float, help="Kilograms.")
@click.option("--cohort", type=PATH, help="Cohort table: one study for each of its subjects.")
@click.option("--split", help="Only subjects of this split of the cohort table.")
@click.option("--seed", type=int, default=1, help="Of the first subject; the next one has seed + 1.")
@click.option("--outdir", type=PATH, required=True, help="Folder for the studies.")
@click.option("--beside", type=PATH, help="Cohort root: draw each study under the real one.")
@click.option("--global-weights", type=PATH, help="Weights of the global stage.")
@click.option("--sr-weights", type=PATH, help="Weights of the second stage.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the preset; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print what would be sampled and its cost, and exit.")
def main(
    preset, sex, age, height_cm, weight_kg, cohort, split, seed, outdir, beside, global_weights, sr_weights, changes,
    dry_run,
):  # fmt: skip
    settings = resolve(PRESETS, preset, changes, Cascade.load)
    settings |= {k: v for k, v in (("low", global_weights), ("high", sr_weights)) if v is not None}
    if dry_run:
        cascade = Cascade.load(**settings)
        lines = [f"{key:16} {value}" for key, value in settings.items()]
        click.echo("\n".join([*lines, f"one subject      {cascade.operations() / 1e12:.3g} TFLOP"]))
        return
    if cohort is not None:
        subjects = matched_subjects(read_cohort(cohort), seed, split)
    elif None in (sex, age, height_cm, weight_kg):
        raise InputError("one subject needs --sex, --age, --height-cm and --weight-kg; or give a table with --cohort.")
    else:
        name = f"{sex}_{age:g}y_{height_cm:g}cm_{weight_kg:g}kg_seed{seed}"
        subjects = [(name, vars(Demographics(sex, age, height_cm / 100, weight_kg)), seed)]
    rank, ranks, device = distributed.start(wait_days=7)  # for the slowest: a subject takes minutes
    cascade = Cascade.load(**settings, device=device)
    generate_cohort(cascade, subjects, outdir, preset, rank, ranks, beside)
    distributed.stop()
    if rank == 0:
        shown = outdir / subjects[0][0]
        click.echo(f"Volumes: {shown / 'CT.nii.gz'} (HU) and {shown / 'SUV.nii.gz'} (SUV)")
        click.echo(f"Picture: {shown / 'preview.png'}, turning projection: {shown / 'mip.gif'}")
        click.echo(f"Table:   {outdir / 'manifest.csv'} ({len(subjects)} subjects asked for)")


if __name__ == "__main__":
    main()
