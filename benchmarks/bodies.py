"""What the global stage makes of bodies: means and spreads, for several weights and samplings.

    python benchmarks/bodies.py --weights Resource/demo-global-edm.safetensors --outdir out/bodies --samples 40 \
        --sampling "sampler=heun steps=20" --sampling "sampler=heun steps=20 churn=40"
    python benchmarks/bodies.py --weights Resource/demo-global-edm.safetensors --outdir out/bodies --samples 96 \
        --sampling "sampler=dpm_solver steps=16" --sampling "sampler=sde_dpm_solver steps=16" --root cohorts/demo

Volume of the body, activity, the mean of the 40 and of the 10 hottest voxels, the grain of CT (median difference of
neighbours inside the body, left to right) and CT of the bladder (median of the 8 hottest voxels of the lowest quarter):
difference of the means, in percent or HU, ratio of the standard deviations, both from the first weights and sampling,
with 95 % intervals by bootstrap over bodies. Without --root bodies of one person from as many seeds; with it one body
for each of the first test subjects, compared with their own low-resolution volumes; then SUV and CT of organs where
they mostly are (at least half as often as where they are most often, in the true masks of step 4; dense voxels only),
and ratios between people of the same demographics (regressed out). Writes <outdir>/bodies.csv.
"""

import itertools

import click
import numpy as np
import pandas as pd
import torch

from totalgen.commands import PATH, PLACE, command
from totalgen.data.archive import Archive
from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.organs import MEASURED
from totalgen.data.progress import progress
from totalgen.data.resolution import subsample
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage, whole_noise
from totalgen.generation.estimate_calibration import calibrated
from totalgen.generation.window_sampler import WindowSampler
from totalgen.schema import resolve
from totalgen.settings import SamplingSettings, WindowSettings
from totalgen.tasks.petct import Person, decoded_channels, encodings_of
from totalgen.tasks.task import Box

BODY_HU, BLADDER_VOXELS, DRAWS, FEWEST, OWN = -200.0, 8, 2000, 8, "own volumes"
WOMAN = Demographics("F", 60.0, 1.65, 66.0)
DENSE_HU, PHASE = (60.0, 200.0), 21  # liver to kidneys with contrast: no lung, fat or bone
SAMPLINGS = ("sampler=dpm_solver steps=16", "sampler=sde_dpm_solver steps=16")


def places(root, archive, rows):
    """organ → mask [x, y, z] of the low-resolution voxels where it mostly is; none where the cohort has no masks."""
    paths = [root / "cropped" / archive.subjects[row]["subject"] / "organs.nii.gz" for row in rows]
    found = [read_nifti(path).voxels for path in paths if path.is_file()]
    result = {}
    for organ, ids in MEASURED.items() if found else ():
        masks = [np.isin(labels, ids).astype(np.float32) for labels in found]
        masks = [torch.from_numpy(archive.recipe.on_grid(mask, 0.0))[None] for mask in masks]
        often = torch.stack([subsample(mask, PHASE)[0] for mask in masks]).mean(0).numpy()
        result[organ] = often >= often.max() / 2
    return result


def described(encoded, codes, organs):
    """Measures of a low-resolution body [2, x, y, z] in [0, 1]; organs: places."""
    ct, suv = (decoded_channels(encoded, codes)[name] for name in ("CT", "SUV"))
    body, hottest = ct > BODY_HU, np.sort(suv.ravel())[::-1]
    inside = body[1:] & body[:-1]
    lowest = (..., slice(ct.shape[2] // 4))
    bladder = np.argsort(suv[lowest].ravel())[-BLADDER_VOXELS:]
    dense = (ct > DENSE_HU[0]) & (ct < DENSE_HU[1])
    return dict(
        body_voxels=int(body.sum()), activity=float(suv[body].sum()),
        hottest_40=float(hottest[:40].mean()), hottest_10=float(hottest[:10].mean()),
        grain_hu=float(np.median(np.abs(np.diff(ct, axis=0))[inside])),
        bladder_hu=float(np.median(ct[lowest].ravel()[bladder])),
    ) | {f"{organ}_{unit}": float(values[at].mean()) if (at := place & dense).any() else np.nan
         for organ, place in organs.items() for unit, values in (("suv", suv), ("hu", ct))}  # fmt: skip


def compared(values, base, unit, people):
    """Text: difference of the means (%, or HU) and ratio of the standard deviations, with intervals over bodies.

    people: demographics [n, d] to regress out for a second ratio, or None where all are the same person.
    """

    def difference(mean, other):
        return mean - other if unit == "HU" else 100 * (mean / other - 1)

    kept = np.isfinite(values) & np.isfinite(base)
    values, base = values[kept], base[kept]
    draws = np.random.default_rng(0).integers(0, len(base), (DRAWS, len(base)))
    shares = difference(values[draws].mean(1), base[draws].mean(1))
    ratios = values[draws].std(1, ddof=1) / base[draws].std(1, ddof=1)
    (low, high), (least, most) = (np.percentile(each, (2.5, 97.5)) for each in (shares, ratios))
    share, ratio = difference(values.mean(), base.mean()), values.std(ddof=1) / base.std(ddof=1)
    text = f"mean {share:+.1f} {unit} ({low:+.1f} to {high:+.1f}), std ratio {ratio:.2f} ({least:.2f} to {most:.2f})"
    if people is None:
        return text
    design = np.column_stack([np.ones(len(base)), people[kept]])
    left = [(each - design @ np.linalg.lstsq(design, each, rcond=None)[0]).std() for each in (values, base)]
    return f"{text}, of the same demographics {left[0] / left[1]:.2f}"


@command(__doc__)
@click.option("--weights", "paths", type=PATH, multiple=True, required=True, help="Of a global stage; repeatable.")
@click.option("--samples", type=click.IntRange(min=FEWEST), default=40, help="Bodies for each sampling.")
@click.option("--sampling", "texts", multiple=True, default=SAMPLINGS, help="Settings as NAME=VALUE, with spaces.")
@click.option(
    "--calibration-slope", "slopes", type=click.FloatRange(0.5, 2), multiple=True, default=(1.0,),
    help="Of the estimates; repeatable.",
)
@click.option("--root", type=PATH, help="Cohort root with training.zarr, whose test subjects to compare with.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the table.")
def main(paths, samples, texts, slopes, root, outdir):
    stages, rows, people = [load_stage(path, "global") for path in paths], [], [WOMAN] * samples
    samplings = [resolve(SamplingSettings, {"": {}}, "", text.split()) for text in texts]
    plan = list(itertools.product(stages, samplings, slopes))
    named = [f"calibration_slope={slope:g}" for slope in slopes]
    parts = itertools.product(paths if len(paths) > 1 else [""], texts, named if len(slopes) > 1 else [""])
    names = [" ".join(map(str, each)).strip() for each in parts]
    box, codes = Box.whole(stages[0].task.shape), encodings_of(stages[0].data)
    organs, design = {}, None
    if root is not None:
        archive = Archive(root / "training.zarr")
        chosen = archive.indices("test")[:samples]
        if len(chosen) < FEWEST:
            raise InputError(f"{root}: {len(chosen)} subjects of split test, {FEWEST} are needed. Pack more.")
        people, organs = [archive.demographics(row) for row in chosen], places(root, archive, chosen)
        design = np.array([person.channels() for person in people])
        for body, row in enumerate(chosen):
            phases = archive.array(row, "low")
            own = np.asarray(phases[body % phases.shape[0]], np.float32)
            rows.append(dict(sampling=OWN, body=body, **described(own, codes, organs)))
    for at, body in progress(list(itertools.product(range(len(plan)), range(len(people)))), "bodies", "sample"):
        stage, sampling, slope = plan[at]
        sampler = WindowSampler(stage, sampling, WindowSettings(), amend=calibrated(stage.task, slope))
        noise = whole_noise("global", body, box.shape)[None]
        low = sampler.box([Person(people[body])], box, noise)[0].numpy().clip(0, 1)
        rows.append(dict(sampling=names[at], body=body, **described(low, codes, organs)))
    table = pd.DataFrame(rows)
    with atomic(outdir / "bodies.csv") as part:
        table.to_csv(part, index=False)
    first, *others = (group for _, group in table.groupby("sampling", sort=False))
    click.echo(f"{len(people)} bodies each, compared with {first['sampling'].iloc[0]}:")
    for group in others:
        for name in table.columns[2:]:
            unit, pair = "HU" if name.endswith("_hu") else "%", (each[name].to_numpy(float) for each in (group, first))
            click.echo(f"{group['sampling'].iloc[0]}, {name}: {compared(*pair, unit, design)}")


if __name__ == "__main__":
    main()
