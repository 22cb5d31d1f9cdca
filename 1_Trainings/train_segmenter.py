"""Train the small organ segmenter on a preprocessed cohort (CT → TotalSegmentator ids).

    python 1_Trainings/train_segmenter.py --root cohorts/demo --outdir runs/segmenter

Reads <root>/cropped/<subject>/{CT,organs}.nii.gz and writes <outdir>/segmenter.safetensors. The same command continues
a run that was stopped. Ends with the Dice of every organ over the test split.
"""


import click

from totalgen.commands import PATH, command
from totalgen.evaluation.segmenter import train_segmenter
from totalgen.schema import listed, resolve
from totalgen.settings import SegmenterSettings

PRESETS = {
    # name      batches of patch³ voxels                width        rate       cost
    "demo": dict(steps=3500, batch=2, patch=48, channels=8, lr=0.003),  # 46 min on one shared core at 6 mm
    "smoke": dict(steps=4, batch=1, patch=16, channels=2, lr=0.003),  # seconds; for tests
}


@command(__doc__, epilog=listed(SegmenterSettings))
@click.option("--root", type=PATH, required=True, help="Cohort root.")
@click.option("--outdir", type=PATH, required=True, help="Folder of the run.")
@click.option("--preset", default="demo", help=f"One of {', '.join(PRESETS)}.")
@click.option("--steps", type=int, help="Optimiser steps, in place of the preset's.")
@click.option("--seed", type=int, help="Seed of weights, patches and noise.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--device", help="cpu, cuda, cuda:1 …; default CUDA when present.")
def main(root, outdir, preset, steps, seed, changes, device):
    settings = resolve(SegmenterSettings, PRESETS, preset, changes, dict(steps=steps, seed=seed))
    weights, dice = train_segmenter(root, outdir, settings, device)
    click.echo(f"{weights} ({weights.stat().st_size / 2**20:.2f} MiB)")
    if not dice:
        click.echo("No test subject with organs: Dice not known.")
    for organ, value in dice.items():
        click.echo(f"Dice {organ:16} {value:.3f}")


if __name__ == "__main__":
    main()
