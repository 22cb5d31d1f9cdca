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
from totalgen.generation.cohort import Request, generate_cohort, matched_requests
from totalgen.schema import listed, resolve, to_dict
from totalgen.settings import GenerationSettings

HERE = Path(__file__).resolve().parents[1]

# The paper, section 2.2: Heun, 35 steps for the global stage and 100 for the sr stage, slabs of 96 slices.
HEUN, DPM = dict(sampler="heun"), dict(sampler="dpm_solver")
PAPER = dict(global_sampling=dict(HEUN, steps=35), sr_sampling=dict(HEUN, steps=100), slab=96, context=0)
# Fewer evaluations and a narrower sr stage (docs/performance.md); 8 slices at inner borders discarded.
FAST = dict(global_sampling=dict(DPM, steps=16), sr_sampling=dict(DPM, steps=16), slab=96, context=8)
# The demo weights were trained too briefly to have learnt the finest noise levels: sampling ends at σ = 0.5, with the
# expected clean volume. One slab holds the whole volume: 80×80×128 voxels fit into memory.
SHORT = dict(DPM, sigma_min=0.5)
DEMO = dict(global_sampling=dict(SHORT, steps=16), sr_sampling=dict(SHORT, steps=6), slab=128, context=8)
EULER = dict(sampler="euler")
SMOKE = dict(global_sampling=dict(EULER, steps=3), sr_sampling=dict(EULER, steps=2), slab=32, context=4)


def run(name):
    """Weights that 1_Trainings/train_totalgen.py --outdir runs/<name>, started in the repository, leaves."""
    return HERE / f"runs/{name}/ema-0.100.safetensors"


def shipped(name):
    """Weights that come with the repository."""
    return HERE / f"Resource/{name}.safetensors"


def pair(where, global_stage, sr_stage):
    """Weights of the two stages."""
    return dict(global_weights=where(global_stage), sr_weights=where(sr_stage))


# fmt: off
PRESETS = {
    # Table 1 column           weights of the global stage                 of the sr stage
    "paper-edm":  dict(PAPER, **pair(run,     "paper-global-edm",          "paper-sr-edm")),
    "paper-flow": dict(PAPER, **pair(run,     "paper-global-flow",         "paper-sr-flow")),
    "fast-edm":   dict(FAST,  **pair(run,     "paper-global-edm",          "fast-sr-edm")),
    "fast-flow":  dict(FAST,  **pair(run,     "paper-global-flow",         "fast-sr-flow")),
    "demo":       dict(DEMO,  **pair(shipped, "demo-global-edm",           "demo-sr-edm")),
    "demo-flow":  dict(DEMO,  **pair(shipped, "demo-global-flow",          "demo-sr-flow")),
    "smoke":      dict(SMOKE, **pair(run,     "smoke-global-edm",          "smoke-sr-edm")),
}
# fmt: on


@command(__doc__, epilog=listed(GenerationSettings))
@click.option("--preset", default="demo", help=f"One of: {', '.join(PRESETS)}.")
@click.option("--sex", type=str, help="F or M.")
@click.option("--age", type=float, help="Years.")
@click.option("--height-cm", type=float, help="Centimetres, such as 165.")
@click.option("--weight-kg", type=float, help="Kilograms.")
@click.option("--cohort", type=PATH, help="Cohort table: one study for each of its subjects.")
@click.option("--split", help="Only subjects of this split of the cohort table.")
@click.option("--seed", type=int, default=1, help="Of the noise; each subject of a cohort has its own.")
@click.option("--outdir", type=PATH, required=True, help="Folder for the studies.")
@click.option("--compare-with", type=PATH, help="Cohort root: show each study below the real one, in comparison.png.")
@click.option("--global-weights", type=PATH, help="Weights of the global stage.")
@click.option("--sr-weights", type=PATH, help="Weights of the super-resolution stage.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print the settings and the cost, and exit.")
def main(preset, cohort, split, seed, outdir, compare_with, global_weights, sr_weights, changes, dry_run, **person):
    weights = dict(global_weights=global_weights, sr_weights=sr_weights)
    settings = resolve(GenerationSettings, PRESETS, preset, changes, weights)
    if dry_run:
        for name, values in to_dict(settings).items():
            click.echo(f"{name:16} {values}")
        click.echo(f"one subject      {Cascade.load(settings).operations() / 1e12:.3g} TFLOP")
        return
    requests = matched_requests(read_cohort(cohort), seed, split) if cohort else [one_request(seed, **person)]
    rank, ranks, device = distributed.start(wait_days=7)  # for the slowest: a subject takes minutes
    generate_cohort(Cascade.load(settings, device), requests, outdir, preset, rank, ranks, compare_with)
    distributed.stop()
    if rank == 0:
        shown = outdir / requests[0].name
        click.echo(f"Volumes: {shown / 'CT.nii.gz'} (HU) and {shown / 'SUV.nii.gz'} (SUV)")
        click.echo(f"Picture: {shown / 'preview.png'}, rotating projection: {shown / 'mip.gif'}")
        click.echo(f"Table:   {outdir / 'manifest.csv'} ({len(requests)} subjects asked for)")


def one_request(seed, sex, age, height_cm, weight_kg):
    """The subject that the options describe."""
    if None in (sex, age, height_cm, weight_kg):
        raise InputError("one subject needs --sex, --age, --height-cm and --weight-kg; or give a table with --cohort.")
    name = f"{sex}_{age:g}y_{height_cm:g}cm_{weight_kg:g}kg_seed{seed}"
    return Request(name, vars(Demographics(sex, age, height_cm / 100, weight_kg)), seed)


if __name__ == "__main__":
    main()
