"""What the sr stage does to organs: own low-resolution volumes of test subjects refined in several ways.

    python benchmarks/refinement.py --root cohorts/demo --global-weights Resource/demo-global-edm.safetensors \
        --sr-weights Resource/demo-sr-edm.safetensors --subjects 8 --outdir out/refinement \
        --settings "consistency=0" --settings "consistency=0.7"

The refined and the subject's own full-resolution volume are segmented by the same network. For each organ and setting:
difference of the mean SUVmean, CT (HU), volume and SUVmax; how SUVmean follows the truth from subject to subject (slope
of ln SUVmean on the true one; a stage that loses nothing has 1) and its spread (ratio of standard deviations of the
logarithm). Writes <outdir>/refinement.csv, a line per subject, setting and organ, and prints; it asserts nothing.
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd

from totalgen.commands import PATH, PLACE, command
from totalgen.data.archive import Archive
from totalgen.data.files import atomic
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.data.progress import progress
from totalgen.data.resolution import phase_offsets
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.generation.segmenter import Segmenter
from totalgen.schema import resolve
from totalgen.settings import GenerationSettings

SEGMENTER = Path(__file__).resolve().parents[1] / "Resource/demo-segmenter.safetensors"
DEMO = dict(slab=128, context=8, sr_sampling=dict(sampler="dpm_solver", steps=16, sigma_min=0.1))
PHASE, SEED, FEWEST = 21, 1, 3
TRUTH, WAYS = "own", ("sr_sampling", "tiling", "self_start", "consistency", "consistency_of", "consistency_sigma")
SHARES = dict(suv_mean="SUVmean", volume_l="volume", suv_max="SUVmax")
LABELS = MEASURED | {"bladder": (ORGANS["urinary_bladder"],)}


def measured(made, segmenter):
    """organ → SUVmean, CT in HU, volume in litres and SUVmax, under the mask that the segmenter finds."""
    organs, litres = segmenter.run(made["CT"])["organs"].voxels, np.prod(made["CT"].voxel_mm) / 1e6
    rows = []
    for organ, ids in LABELS.items():
        if (mask := np.isin(organs, ids)).any():
            suv, ct = (made[name].voxels[mask] for name in ("SUV", "CT"))
            values = dict(suv_mean=suv.mean(), ct_hu=ct.mean(), volume_l=mask.sum() * litres, suv_max=suv.max())
            rows.append(dict(organ=organ, **{name: float(value) for name, value in values.items()}))
    return rows


def summary(table):
    """A line per setting and organ."""
    lines, key = [], ["subject", "organ"]
    truth = table[table["settings"] == TRUTH].set_index(key)
    for (text, organ), rows in table[table["settings"] != TRUTH].groupby(["settings", "organ"], sort=False):
        rows = rows.set_index(key)
        true = truth.reindex(rows.index).dropna()
        rows = rows.loc[true.index]
        means = rows[list(SHARES)].mean() / true[list(SHARES)].mean()
        x, y = np.log(true["suv_mean"]), np.log(rows["suv_mean"])
        slope, ratio = np.polyfit(x, y, 1)[0], y.std() / x.std()
        hu = (rows["ct_hu"] - true["ct_hu"]).mean()
        found = {f"{SHARES[name]} %": 100 * (share - 1) for name, share in means.items()}
        found |= {"slope": slope, "std ratio": ratio, "HU": hu}
        lines.append(dict(settings=text, organ=organ, found=len(rows), **found))
    return pd.DataFrame(lines)


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--global-weights", type=PATH, required=True, help="Weights of the global stage, which is not sampled.")
@click.option("--sr-weights", type=PATH, required=True, help="Weights of the sr stage.")
@click.option("--segmenter", type=PATH, default=SEGMENTER)
@click.option("--subjects", type=click.IntRange(min=FEWEST), default=8, help="Test subjects.")
@click.option("--settings", "texts", multiple=True, default=("consistency=0",), help="NAME=VALUE, with spaces.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the table.")
def main(root, global_weights, sr_weights, segmenter, subjects, texts, outdir):
    weights = dict(global_weights=global_weights, sr_weights=sr_weights)
    plan = {text: resolve(GenerationSettings, {"": DEMO | weights}, "", text.split()) for text in texts}
    cascade, organs, archive = Cascade.load(plan[texts[0]]), Segmenter.load(segmenter), Archive(root / "training.zarr")
    chosen = archive.indices("test")[:subjects]
    if len(chosen) < FEWEST:
        raise InputError(f"{root}: {len(chosen)} subjects of split test, {FEWEST} are needed. Pack more.")
    rows = []
    for row in progress(chosen, "refine", "subject"):
        person, subject = archive.demographics(row), archive.subjects[row]["subject"]
        own, low = (archive.tensor(row, name, at) for name, at in (("high", slice(None)), ("low", PHASE)))
        volumes = {TRUTH: own}
        for text, settings in plan.items():
            made = replace(cascade, **{name: getattr(settings, name) for name in WAYS})
            volumes[text] = made.refine(low, person, SEED, offsets=phase_offsets(PHASE))
        for text, high in volumes.items():
            found = measured(cascade.to_volumes(high.numpy(), person), organs)
            rows += [dict(subject=subject, settings=text, **each) for each in found]
    table = pd.DataFrame(rows)
    with atomic(outdir / "refinement.csv") as part:
        table.to_csv(part, index=False)
    click.echo(summary(table).to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
