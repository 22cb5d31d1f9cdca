"""What a sampler does to bodies: means and spreads of what the global stage makes, for several samplings.

    python benchmarks/bodies.py --weights Resource/demo-global-edm.safetensors --outdir out/bodies --samples 40 \
        --sampling "sampler=heun steps=20" --sampling "sampler=heun steps=20 churn=40"
    python benchmarks/bodies.py --weights Resource/demo-global-edm.safetensors --outdir out/bodies --samples 96 \
        --sampling "sampler=dpm_solver steps=16" --sampling "sampler=sde_dpm_solver steps=16" --root cohorts/demo

Volume of the body, activity, and the mean of the 40 and of the 10 hottest voxels: difference of the means in percent,
ratio of the standard deviations, both from the first sampling, with 95 % intervals by bootstrap over bodies. Without
--root bodies of one person from as many seeds; with it one body for each of the first test subjects, compared with
their own low-resolution volumes. Writes <outdir>/bodies.csv.
"""

import click
import numpy as np
import pandas as pd

from totalgen.commands import PATH, PLACE, command
from totalgen.data.archive import Archive
from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.progress import progress
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage, whole_noise
from totalgen.generation.window_sampler import WindowSampler
from totalgen.schema import resolve
from totalgen.settings import SamplingSettings, WindowSettings
from totalgen.tasks.petct import Person, decoded_channels, encodings_of
from totalgen.tasks.task import Box

BODY_HU, DRAWS, FEWEST, OWN = -200.0, 2000, 8, "own volumes"
WOMAN = Demographics("F", 60.0, 1.65, 66.0)
SAMPLINGS = ("sampler=dpm_solver steps=16", "sampler=sde_dpm_solver steps=16")


def described(encoded, codes):
    """Measures of a low-resolution body [2, x, y, z] in [0, 1]."""
    channels = decoded_channels(encoded, codes)
    body, hottest = channels["CT"] > BODY_HU, np.sort(channels["SUV"].ravel())[::-1]
    return dict(
        body_voxels=int(body.sum()), activity=float(channels["SUV"][body].sum()),
        hottest_40=float(hottest[:40].mean()), hottest_10=float(hottest[:10].mean()),
    )  # fmt: skip


def compared(values, base):
    """Text: difference of the means and ratio of the standard deviations, with intervals over draws of bodies."""
    draws = np.random.default_rng(0).integers(0, len(base), (DRAWS, len(base)))
    shares = 100 * (values[draws].mean(1) / base[draws].mean(1) - 1)
    ratios = values[draws].std(1, ddof=1) / base[draws].std(1, ddof=1)
    (low, high), (least, most) = (np.percentile(each, (2.5, 97.5)) for each in (shares, ratios))
    share, ratio = 100 * (values.mean() / base.mean() - 1), values.std(ddof=1) / base.std(ddof=1)
    return f"mean {share:+.1f} % ({low:+.1f} to {high:+.1f}), std ratio {ratio:.2f} ({least:.2f} to {most:.2f})"


@command(__doc__)
@click.option("--weights", type=PATH, required=True, help="Weights of a global stage.")
@click.option("--samples", type=click.IntRange(min=FEWEST), default=40, help="Bodies for each sampling.")
@click.option("--sampling", "texts", multiple=True, default=SAMPLINGS, help="Settings as NAME=VALUE, with spaces.")
@click.option("--root", type=PATH, help="Cohort root with training.zarr, whose test subjects to compare with.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the table.")
def main(weights, samples, texts, root, outdir):
    stage, rows, people = load_stage(weights, "global"), [], [WOMAN] * samples
    plan = {text: resolve(SamplingSettings, {"": {}}, "", text.split()) for text in texts}
    box, codes = Box.whole(stage.task.shape), encodings_of(stage.data)
    if root is not None:
        archive = Archive(root / "training.zarr")
        chosen = archive.indices("test")[:samples]
        if len(chosen) < FEWEST:
            raise InputError(f"{root}: {len(chosen)} subjects of split test, {FEWEST} are needed. Pack more.")
        people = [archive.demographics(row) for row in chosen]
        for body, row in enumerate(chosen):
            phases = archive.array(row, "low")
            own = np.asarray(phases[body % phases.shape[0]], np.float32)
            rows.append(dict(sampling=OWN, body=body, **described(own, codes)))
    for text, body in progress([(text, body) for text in plan for body in range(len(people))], "sample", "body"):
        sampler = WindowSampler(stage, plan[text], WindowSettings())
        noise = whole_noise("global", body, stage.task.shape)[None]
        low = sampler.box([Person(people[body])], box, noise)[0].numpy().clip(0, 1)
        rows.append(dict(sampling=text, body=body, **described(low, codes)))
    table = pd.DataFrame(rows)
    with atomic(outdir / "bodies.csv") as part:
        table.to_csv(part, index=False)
    first, *others = (group for _, group in table.groupby("sampling", sort=False))
    click.echo(f"{len(people)} bodies each, compared with {first['sampling'].iloc[0]}:")
    for group in others:
        for name in table.columns[2:]:
            text = compared(group[name].to_numpy(float), first[name].to_numpy(float))
            click.echo(f"{group['sampling'].iloc[0]}, {name}: {text}")


if __name__ == "__main__":
    main()
