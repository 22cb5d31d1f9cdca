"""What noise along the way (churn) does to the variety of bodies: spreads of the global stage with and without it.

    python benchmarks/churn.py --weights Resource/demo-global-edm.safetensors --samples 40 --outdir out/churn

For one person, as many bodies of other seeds with Heun and S_churn 0, 4 and 40 (the largest: a factor of √2 in σ before
every step, as EDM sampled small images): standard deviation of the body's volume, of the activity, and of the mean of
the 40 hottest voxels, as ratios to those without churn, with 95 % intervals by bootstrap over seeds. Writes
<outdir>/churn.csv.
"""

import click
import numpy as np
import pandas as pd

from totalgen.commands import PATH, PLACE, command
from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.progress import progress
from totalgen.generation.cascade import load_stage, whole_noise
from totalgen.generation.window_sampler import WindowSampler
from totalgen.settings import SamplingSettings, WindowSettings
from totalgen.tasks.petct import Person, decoded_channels, encodings_of
from totalgen.tasks.task import Box

BODY_HU, HOTTEST, DRAWS = -200.0, 40, 2000
WOMAN = Demographics("F", 60.0, 1.65, 66.0)


def described(channels):
    """Measures of a low-resolution body, of CT (HU) and SUV [x, y, z]."""
    body = channels["CT"] > BODY_HU
    return dict(
        body_voxels=int(body.sum()), activity=float(channels["SUV"][body].sum()),
        hottest=float(np.sort(channels["SUV"].ravel())[-HOTTEST:].mean()),
    )  # fmt: skip


@command(__doc__)
@click.option("--weights", type=PATH, required=True, help="Weights of a global stage.")
@click.option("--samples", type=click.IntRange(min=4), default=40, help="Bodies for each churn.")
@click.option("--steps", type=click.IntRange(min=2), default=32, help="Of Heun.")
@click.option("--churn", "churns", type=float, multiple=True, default=(0.0, 4.0, 40.0), help="The first: the base.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the table.")
def main(weights, samples, steps, churns, outdir):
    stage, rows = load_stage(weights, "global"), []
    box, codes = Box.whole(stage.task.shape), encodings_of(stage.data)
    for churn, seed in progress([(c, s) for c in churns for s in range(samples)], "sample", "body"):
        sampler = WindowSampler(stage, SamplingSettings(sampler="heun", steps=steps, churn=churn), WindowSettings())
        low = sampler.box([Person(WOMAN)], box, whole_noise("global", seed, stage.task.shape)[None])[0]
        rows.append(dict(churn=churn, seed=seed, **described(decoded_channels(low.numpy().clip(0, 1), codes))))
    table = pd.DataFrame(rows)
    with atomic(outdir / "churn.csv") as part:
        table.to_csv(part, index=False)
    draws = np.random.default_rng(0).integers(0, samples, (DRAWS, samples))
    base = table[table["churn"] == churns[0]]
    for churn in churns:
        group = table[table["churn"] == churn]
        for name in table.columns[2:]:
            values, known = group[name].to_numpy(), base[name].to_numpy()
            ratios = values[draws].std(1, ddof=1) / known[draws].std(1, ddof=1)
            low, high = np.percentile(ratios, (2.5, 97.5))
            ratio = values.std(ddof=1) / known.std(ddof=1)
            spread = f"std ratio {ratio:.2f} ({low:.2f} to {high:.2f})"
            click.echo(f"churn {churn:g}, {name}: mean {values.mean():.4g}, {spread}")


if __name__ == "__main__":
    main()
