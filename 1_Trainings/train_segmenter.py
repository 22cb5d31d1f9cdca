"""Train the small organ segmenter on a preprocessed cohort (CT → TotalSegmentator ids).

    python 1_Trainings/train_segmenter.py --root cohorts/demo --outdir runs/segmenter

Reads <root>/cropped/<subject>/{CT,organs}.nii.gz and writes <outdir>/segmenter.safetensors. The same command continues
a run that was stopped. Ends with the Dice of every organ over the test split.
"""


import click

from totalgen.commands import PATH, command
from totalgen.errors import closest
from totalgen.evaluation.segmenter import train_segmenter

PRESETS = {
    # name      batches of patch³ voxels                width        rate       cost
    "demo": dict(steps=3500, batch=2, patch=48, channels=8, lr=0.003),  # 46 min on one shared core at 6 mm
    "smoke": dict(steps=4, batch=1, patch=16, channels=2, lr=0.003),  # seconds; for tests
}


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root.")
@click.option("--outdir", type=PATH, required=True, help="Folder of the run.")
@click.option("--preset", default="demo", help=f"One of {', '.join(PRESETS)}.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps, in place of the preset's.")
@click.option("--seed", default=0, help="Seed of weights, patches and noise.")
@click.option("--device", help="cpu, cuda, cuda:1 …; default CUDA when present.")
def main(root, outdir, preset, steps, seed, device):
    settings = dict(closest(preset, PRESETS))
    if steps is not None:
        settings["steps"] = steps
    weights, dice = train_segmenter(root, outdir, seed=seed, device=device, **settings)
    click.echo(f"{weights} ({weights.stat().st_size / 2**20:.2f} MiB)")
    if not dice:
        click.echo("No test subject with organs: Dice not known.")
    for organ, value in dice.items():
        click.echo(f"Dice {organ:16} {value:.3f}")


if __name__ == "__main__":
    main()
