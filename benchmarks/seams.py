"""Seams of the sr stage: is the volume rougher, or smoother, where two windows meet?

    python benchmarks/seams.py --root cohorts/demo --sr-weights Resource/demo-sr-edm.safetensors --table out/seams.csv

Each subject's own low-resolution volume is refined twice from the same noise, with windows of which one set is shifted
by half the distance of their borders: a plane that is a border of one set lies between the borders of the other. The
ratio of the mean |difference of neighbouring slices| in these planes, border : between, is 1 where a border cannot be
seen; its interval is a bootstrap over subjects. The second ratio, between : whole, compares the planes between borders
with those of a volume sampled whole: blurred windows would pass the first test, and not this one. Only inside the body,
and in the middle of the volume along x and y (--column), where it costs less and nothing else changes.
The table grows a line per subject, tiling and channel; the same command goes on where it stopped, and prints.
"""

import click
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.data.archive import Archive
from totalgen.data.files import append_rows
from totalgen.data.resolution import FACTOR, phase_offsets
from totalgen.data.subjects import read_table
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage, whole_noise
from totalgen.generation.tiling import TiledDenoiser, tiles
from totalgen.generation.window_sampler import WindowSampler
from totalgen.models.precision import autocast
from totalgen.models.samplers import sample
from totalgen.settings import SamplingSettings, WindowSettings
from totalgen.tasks.petct import LowResolution
from totalgen.tasks.task import Box

# name → blend at the end ("keep") or at every step ("smooth"), overlap
TILINGS = {"slabs": ("keep", 0), "context": ("keep", 16), "fused": ("smooth", 16)}
PHASE = 21  # of a subject's own low-resolution volume: the offsets (1, 1, 1)
BODY = 0.3  # encoded CT, −200 HU
DRAWS = 2000


def refined(stage, source, column, noise, sampling, window=None, tiling="slabs", shift=0):
    """(encoded [2, x, y, z] of a column of the volume, the first slices of its windows' kept parts)."""
    whole = Box((*column.start, 0), (*column.shape, stage.task.shape[2]))
    own = noise[(slice(None), *whole.slices)]
    window = (*column.shape, window or whole.shape[2])
    blend, overlap = TILINGS[tiling]
    plan = tiles(whole.shape, window, (0, 0, overlap), shift=(0, 0, shift))
    borders = [tile.kept.start[2] for tile in plan[1:]]

    def placed(tile):
        return Box(tuple(a + b for a, b in zip(whole.start, tile.box.start, strict=True)), tile.box.shape)

    if blend == "keep":
        sampler = WindowSampler(stage, sampling, WindowSettings())
        result = torch.empty(2, *whole.shape)
        for tile in plan:
            made = sampler.box([source], placed(tile), own[(slice(None), *tile.box.slices)][None])[0]
            result[(slice(None), *tile.kept.slices)] = made[(slice(None), *tile.kept_inside)]
        return result.numpy(), borders
    denoiser = TiledDenoiser(stage.denoiser, window, (0, 0, overlap), blend=blend, shift=(0, 0, shift))
    with autocast(stage.device, stage.precision):
        z = sample(denoiser, lambda tile: stage.task.condition(source, placed(tile), stage.device)[None],
                   own[None].to(stage.device), **vars(sampling)).float()  # fmt: skip
    return stage.task.compose(stage.task.codec.decode(z)[0], source, whole).cpu().numpy(), borders


def steps_along_z(volume, body):
    """[2, z] sums of |difference to the slice before| inside the body."""
    return np.abs(np.diff(volume, axis=3, prepend=0) * body).sum((1, 2))


def summary(lines):
    """Per tiling and channel: ratios over subjects with their 95 % bootstrap intervals."""
    rows, random = [], np.random.default_rng(0)
    for (tiling, channel), found in lines.groupby(["tiling", "channel"], sort=False):
        chosen = random.integers(len(found), size=(DRAWS, len(found)))
        row = dict(tiling=tiling, channel=channel, subjects=len(found), borders=int(found["borders"].iloc[0]))
        for name, above, below in (("border", "border", "between"), ("between", "between", "whole")):
            a, b = found[above].to_numpy(), found[below].to_numpy()
            drawn = a[chosen].sum(1) / b[chosen].sum(1)
            row |= {name: a.sum() / b.sum()} | dict(
                zip((f"{name}_low", f"{name}_high"), np.quantile(drawn, (0.025, 0.975)), strict=True)
            )
        rows.append(row)
    return pd.DataFrame(rows)


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--sr-weights", type=PATH, required=True, help="Weights of the sr stage.")
@click.option("--window", default=32, help="Slices of a window.")
@click.option("--steps", default=16, help="Evaluations of DPM-Solver++.")
@click.option("--sigma-min", default=0.002, help="Noise level at which sampling ends.")
@click.option("--column", default=48, help="Voxels of the volume's middle along x and y.")
@click.option("--subjects", "count", default=20, help="Test subjects.")
@click.option("--table", type=PATH, required=True, help="CSV that keeps what was measured.")
@torch.no_grad()
def main(root, sr_weights, window, steps, sigma_min, column, count, table):
    stage, archive = load_stage(sr_weights, "sr"), Archive(root / "training.zarr")
    sampling = SamplingSettings(sampler="dpm_solver", steps=steps, sigma_min=sigma_min)
    x, y = (min(column, n) // FACTOR * FACTOR for n in stage.task.shape[:2])
    middle = Box(tuple((n - min(column, n)) // 2 // FACTOR * FACTOR for n in stage.task.shape[:2]), (x, y))
    weights = f"{stage.sha256[:8]} {window} {steps} {sigma_min:g}"
    table.parent.mkdir(parents=True, exist_ok=True)
    old = read_table(table) if table.exists() else pd.DataFrame(columns=["settings", "subject"])
    if "settings" not in old:
        raise InputError(f"{table}: is another table, without a column settings. Give another --table.")
    done = set(old.loc[old["settings"] == weights, "subject"])
    for n, row in enumerate(tqdm(archive.indices("test")[:count], unit="subject")):
        subject = archive.subjects[row]["subject"]
        if subject in done:
            continue
        low = torch.from_numpy(archive.array(row, "low")[PHASE].astype(np.float32))
        source = LowResolution(archive.demographics(row), low, phase_offsets(PHASE))
        noise = whole_noise("sr", n, stage.task.shape)
        body = (low[0] > BODY).numpy().repeat(FACTOR, 0).repeat(FACTOR, 1).repeat(FACTOR, 2)[middle.slices]
        whole = steps_along_z(refined(stage, source, middle, noise, sampling)[0], body)
        lines = []
        for tiling, (_, overlap) in TILINGS.items():
            half = (window - overlap) // 2
            made = [refined(stage, source, middle, noise, sampling, window, tiling, shift) for shift in (0, half)]
            sums = [steps_along_z(volume, body) for volume, _ in made]
            pairs = [(k, b) for k in (0, 1) for b in made[k][1] if b not in made[1 - k][1]]
            for channel, name in enumerate(stage.task.target):
                lines.append(dict(
                    settings=weights, subject=subject, tiling=tiling, channel=name, borders=len(pairs),
                    border=sum(sums[k][channel, b] for k, b in pairs),
                    between=sum(sums[1 - k][channel, b] for k, b in pairs),
                    whole=sum(whole[channel, b] for _, b in pairs),
                ))  # fmt: skip
        append_rows(table, lines)
    lines = read_table(table)
    click.echo(summary(lines[lines["settings"] == weights]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
