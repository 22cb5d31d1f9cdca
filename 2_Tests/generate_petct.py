"""Generate CT (HU) and PET (SUV) volumes from sex, age, height and weight: one person, a grid, or a whole table.

    python 2_Tests/generate_petct.py --preset demo --sex F --age 60 --height-cm 165 --weight-kg 66 --outdir out/demo
    python 2_Tests/generate_petct.py --demographics "sex=F age=60 height_cm=165 weight_kg=54,66,80" --outdir out/bmi
    python 2_Tests/generate_petct.py --preset demo --cohort cohorts/demo/cohort.csv --split test --outdir out/cohort

Every study is checked against the training cohort (column quality of manifest.csv); --retry 2 generates again what
fails. The same command again generates only what is missing. torchrun shares a cohort between several GPUs.
"""

from pathlib import Path

import click

from totalgen import distributed
from totalgen.commands import PATH, PLACE, command, device_option, weights_of_runs
from totalgen.errors import closest
from totalgen.generation.cascade import Cascade, as_validated
from totalgen.generation.checks import Checks, reference_beside
from totalgen.generation.cohort import generate_cohort, written
from totalgen.generation.organ_export import ORGAN_SOURCES, organ_export
from totalgen.generation.people import FIELDS, impossible, parsed, requests_for
from totalgen.generation.synthetic_export import write_dicom, write_surface
from totalgen.schema import listed, resolve, to_dict
from totalgen.settings import GenerationSettings

HERE = Path(__file__).resolve().parents[1]
# The paper, section 2.2: Heun, 35 steps for the global stage and 100 for the sr stage, slabs of 96 slices.
HEUN, DPM, SDE, EULER = (dict(sampler=name) for name in ("heun", "dpm_solver", "sde_dpm_solver", "euler"))
PAPER = dict(global_sampling=dict(HEUN, steps=35), sr_sampling=dict(HEUN, steps=100), slab=96, context=0)
# Fewer evaluations, a narrower sr stage, windows averaged at every step, two of them across (docs/performance.md).
FUSED = dict(windows="fused", slab=112, width=120, overlap=16)
FAST = dict(FUSED, global_sampling=dict(DPM, steps=16), sr_sampling=dict(DPM, steps=8))
# One slab holds the volume. Noise along the way, calibration, consistency, SUV told more noise: docs/experiments.md.
DEMO = dict(
    slab=128, context=8, global_sampling=dict(SDE, steps=16, sigma_min=0.03), calibration_slope=1.06,
    sr_sampling=dict(DPM, steps=16, sigma_min=0.1), consistency=0.7, consistency_of="SUV",
)  # fmt: skip
SHIFT = dict(time_shift=2.5, time_shift_sigma_min=0.3, time_shift_sigma_max=1, time_shift_of="SUV")
CALM = dict(DEMO, sr_sampling=dict(DEMO["sr_sampling"], **SHIFT))
SMOKE = dict(slab=32, context=4, global_sampling=dict(EULER, steps=3), sr_sampling=dict(EULER, steps=2))
RUN, SHIPPED = "runs/{}/ema-0.100.safetensors", "Resource/{}.safetensors"  # trained in the repository, and its own


def pair(place, global_stage, sr_stage):
    """Weights of the two stages."""
    return dict(global_weights=HERE / place.format(global_stage), sr_weights=HERE / place.format(sr_stage))


PRESETS = {
    # Table 1 column           weights of the global stage                 of the sr stage
    "paper-edm":  dict(PAPER, **pair(RUN,     "paper-global-edm",          "paper-sr-edm")),
    "paper-flow": dict(PAPER, **pair(RUN,     "paper-global-flow",         "paper-sr-flow")),
    "fast-edm":   dict(FAST,  **pair(RUN,     "paper-global-edm",          "fast-sr-edm")),
    "fast-flow":  dict(FAST,  **pair(RUN,     "paper-global-flow",         "fast-sr-flow")),
    "demo":       dict(CALM,  **pair(SHIPPED, "demo-global-edm",           "demo-sr-edm")),
    "demo-flow":  dict(DEMO,  **pair(SHIPPED, "demo-global-flow",          "demo-sr-flow")),
    "smoke":      dict(SMOKE, **pair(RUN,     "smoke-global-edm",          "smoke-sr-edm")),
}


@command(__doc__, epilog=listed(GenerationSettings))
@click.option("--preset", default="demo", help=f"One of: {', '.join(PRESETS)}.")
@click.option("--sex", type=str, help="F or M.")
@click.option("--age", type=float, help="Years.")
@click.option("--height-cm", type=float, help="Centimetres, such as 165.")
@click.option("--weight-kg", type=float, help="Kilograms.")
@click.option("--demographics", default="", help='Or a grid: "sex=F,M age=60 height_cm=165 weight_kg=54,66,80".')
@click.option("--cohort", type=PATH, help="Or a cohort table: studies for each of its subjects.")
@click.option("--split", help="Only subjects of this split of the cohort table.")
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Of the noise; each subject has its own.")
@click.option("--samples", type=click.IntRange(1, 10_000), default=1, help="Studies of each person.")
@click.option("--outdir", type=PLACE, required=True, help="Folder for the studies.")
@click.option("--compare-with", type=PATH, help="Cohort root: show each study below the real one, in comparison.png.")
@click.option("--organs", type=click.Choice(ORGAN_SOURCES), help="Of masks; default: network for phantom weights.")
@click.option("--reference", type=PATH, help="To check studies against; default: *reference.json beside the weights.")
@click.option("--retry", type=click.IntRange(min=0), default=0, help="Attempts more for a study that fails the check.")
@click.option("--dicom", is_flag=True, help="Write CT, PET and organ masks as DICOM, too, into <study>/dicom.")
@click.option("--surface", is_flag=True, help="Draw body and organs as surfaces, too, into <study>/surface.png.")
@click.option("--runs", type=PATH, help="Folder of trainings: weights of the runs that have the preset's names.")
@click.option("--global-weights", type=PATH, help="Weights of the global stage.")
@click.option("--sr-weights", type=PATH, help="Weights of the super-resolution stage.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@device_option
@click.option("--dry-run", is_flag=True, help="Print the settings and the cost, and exit.")
def main(preset, demographics, cohort, split, seed, samples, outdir, organs, dicom, runs, changes, dry_run, **given):
    weights = {name: given[name] for name in ("global_weights", "sr_weights")}
    weights = weights_of_runs(runs, closest(preset, PRESETS), weights)
    settings = resolve(GenerationSettings, PRESETS, preset, changes, dict(weights, device=given["device"]))
    people = {field: [given[field]] for field in FIELDS if given[field] is not None} | parsed(demographics)
    requests = requests_for(people, cohort, split, seed, samples) if people or cohort or not dry_run else []
    if dry_run:
        click.echo("\n".join(f"{name:16} {values}" for name, values in to_dict(as_validated(settings)).items()))
        cost = f"{len(requests)} studies, {Cascade.load(settings).operations() / 1e12:.3g} TFLOP each"
        return click.echo(f"{cost}\n{impossible(requests)}".strip())
    rank, ranks, device = distributed.start(7, settings.compute.device)  # days: a subject takes minutes
    cascade = Cascade.load(settings, device)
    found = organ_export(organs, HERE / SHIPPED.format("demo-segmenter"), cascade.trained_on, device)
    known = reference_beside(settings.weights.global_weights, given["reference"])
    checks = Checks(found and found.label, found and found.by, known, given["retry"])
    exports = ({"organs.csv": found} if found else {}) | {"dicom": write_dicom, "surface.png": write_surface}
    asked = {"organs.csv", *(["dicom"] if dicom else []), *(["surface.png"] if given["surface"] else [])}
    generate_cohort(cascade, requests, outdir, preset, rank, ranks, given["compare_with"], exports, checks, asked)
    distributed.stop()
    if rank == 0:
        click.echo(written(outdir, requests))


if __name__ == "__main__":
    main()
