"""Quality versus evaluations: one stage of a trained cascade, drawn in many ways from the same noise.

    python benchmarks/evaluations.py --stage global --root cohorts/demo --low LOW.safetensors --high HIGH.safetensors \
        --subjects 8 --table out/evaluations-global.csv

Every way is held to the converged sample of the same noise: the distance of the stage's output, in standard deviations
of what the stage learns (low-resolution volumes, or residuals), and how far volume and SUVmean of the organs are from
its (mean over organs and subjects of the absolute difference in percent, and beside it the largest shift of an organ's
mean over the subjects). The row "another seed" is a sample of other noise: what chance makes of the same measures. The
other stage is drawn in one way throughout. PFLOP are those of the same evaluations at full size (224×224×384, the
paper's widths).
The table grows a line per organ; the same command goes on where it stopped, and prints.
"""

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from totalgen.data.archive import Archive
from totalgen.data.files import append_rows
from totalgen.errors import InputError
from totalgen.evaluation.measures import TINY_L, measure_study
from totalgen.evaluation.segmenter import load_segmenter
from totalgen.generation.cascade import Cascade, Stage
from totalgen.models.networks import cost
from totalgen.models.samplers import evaluations

HERE = Path(__file__).resolve().parents[1]
CONVERGED = {"global": dict(sampler="heun", steps=100), "sr": dict(sampler="heun", steps=35)}
OTHER = {"global": dict(sampler="dpm_solver", steps=16), "sr": dict(sampler="dpm_solver", steps=8, sigma_min=0.5)}
WAYS = {
    "global": [
        dict(sampler="heun", steps=35),
        *(dict(sampler="heun", steps=n) for n in (16, 8)),
        *(dict(sampler="dpm_solver", steps=n) for n in (32, 24, 16, 12, 8)),
        *(dict(sampler="euler", steps=n) for n in (32, 16)),
    ],
    "sr": [
        *(dict(sampler="heun", steps=n) for n in (16, 8)),
        *(dict(sampler="dpm_solver", steps=n) for n in (32, 24, 16, 12, 8)),
        dict(sampler="euler", steps=16),
    ],
}
GUIDED = 1.5  # weight of autoguidance, where a guide is given
FULL = {"global": (56, 56, 96), "sr": (224, 224, 96)}  # the second stage in 4 such slabs
FIRST_SEED, OTHER_SEED = 1000, 2000
ANOTHER = "another seed"


def name_of(way):
    """A way of sampling as a row's name."""
    extra = "".join(f" {key} {value:g}" for key, value in way.items() if key not in ("sampler", "steps"))
    return f"{way['sampler']} {way['steps']}{extra}"


def draw(cascade, stage, way, demographics, seed, other_seed):
    """(output of the stage [2, x, y, z] in [0, 1], the subject's encoded volume, seconds of the stage)."""
    settings = {"global": OTHER["global"], "sr": OTHER["sr"], stage: way}
    seeds = {"global": seed, "sr": seed, stage: other_seed}
    stages = {"global": cascade.low, "sr": cascade.high}
    if "guidance" not in way:
        stages[stage] = replace(stages[stage], guide=None)
    chosen = Cascade(*stages.values(), settings["global"], settings["sr"], cascade.slab, cascade.context)
    clock = time.perf_counter()
    low = chosen.generate_low(demographics, seeds["global"])
    middle = time.perf_counter()
    high = chosen.refine(low, demographics, seeds["sr"])
    seconds = {"global": middle - clock, "sr": time.perf_counter() - middle}
    return {"global": low, "sr": high}[stage], high, seconds[stage]


def measured(cascade, segment, high, demographics):
    """Rows of organ, volume_l, suv_mean."""
    ct, suv = cascade.to_volumes(high.numpy(), demographics)
    rows = measure_study(suv, segment(ct))
    return [{key: row[key] for key in ("organ", "volume_l", "suv_mean")} for row in rows]


def summary(lines, stage, gflop):
    """One row per way: evaluations, seconds, PFLOP, distance, differences from the converged sample."""
    converged = lines[lines["way"] == name_of(CONVERGED[stage])].set_index(["subject", "organ"])
    result = []
    for way, rows in lines.groupby("way", sort=False):
        rows = rows.set_index(["subject", "organ"])
        both = (rows["volume_l"] > TINY_L) & (converged["volume_l"].reindex(rows.index) > TINY_L)
        entry = {"way": way, "evaluations": rows["evaluations"].iloc[0], "seconds": rows["seconds"].mean()}
        entry |= {"PFLOP": rows["evaluations"].iloc[0] * gflop / 1e6, "distance": rows["distance"].mean()}
        for measure, name in (("volume_l", "volume"), ("suv_mean", "SUVmean")):
            reference = converged[measure].reindex(rows.index)[both]
            change = 100 * (rows[measure][both] / reference - 1)
            entry[f"{name} %"] = change.abs().mean()
            shift = 100 * (rows[measure][both].groupby("organ").mean() / reference.groupby("organ").mean() - 1)
            entry[f"{name} shift %"] = shift.abs().max()
        entry["organs missing"] = int((rows["volume_l"] <= TINY_L).sum())
        result.append(entry)
    return pd.DataFrame(result)


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--stage", type=click.Choice(list(WAYS)), required=True)
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Cohort root with training.zarr.")
@click.option("--low", type=click.Path(path_type=Path), required=True, help="Weights of the global stage.")
@click.option("--high", type=click.Path(path_type=Path), required=True, help="Weights of the second stage.")
@click.option("--guide", type=click.Path(path_type=Path), help="Weaker weights of the measured stage (autoguidance).")
@click.option("--segmenter", type=click.Path(path_type=Path), default=HERE / "Resource/demo-segmenter.safetensors")
@click.option("--subjects", "count", default=8, help="Test subjects.")
@click.option("--table", type=click.Path(path_type=Path), required=True, help="CSV that keeps what was measured.")
@torch.no_grad()
def main(stage, root, low, high, guide, segmenter, count, table):
    first, second = (guide, None) if stage == "global" else (None, guide)
    low, high = Stage.load(low, "global", guide=first), Stage.load(high, "sr", guide=second)
    sampling = [OTHER[name] | (dict(guidance=GUIDED) if guide and name == stage else {}) for name in OTHER]
    cascade = Cascade(low, high, *sampling, slab=low.configuration["shape"][2], context=0)
    weights = "+".join(part.sha256[:8] for part in (low, low.guide, high, high.guide) if part)
    chosen = cascade.low if stage == "global" else cascade.high
    paper = dict(in_channels=chosen.denoiser.network.settings["in_channels"], out_channels=2)
    gflop = cost(paper, FULL[stage])[1] / 1e9 * (1 if stage == "global" else 4)
    spread = np.array(chosen.configuration["codec"]["std"]).reshape(-1, 1, 1, 1)
    archive, segment = Archive(root / "training.zarr"), load_segmenter(segmenter)
    ways = [CONVERGED[stage], *WAYS[stage]]
    if guide is not None:
        ways += [dict(sampler="dpm_solver", steps=n, guidance=GUIDED) for n in (32, 16)]
    table.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if table.exists():
        old = pd.read_csv(table)
        if set(old["weights"]) != {weights}:
            raise InputError(f"{table}: was measured on other weights. Give another --table.")
        done = set(old[["subject", "way"]].itertuples(index=False, name=None))
    for n, row in enumerate(tqdm(archive.indices("test")[:count], unit="subject")):
        subject, demographics = archive.subjects[row]["subject"], archive.demographics(row)
        names = [name_of(way) for way in ways] + [ANOTHER]
        if all((subject, name) in done for name in names):
            continue
        converged = None
        for name, way in zip(names, [*ways, CONVERGED[stage] if stage == "global" else WAYS["sr"][2]], strict=True):
            if (subject, name) in done and converged is not None:
                continue
            seed = FIRST_SEED + n
            other = OTHER_SEED + n if name == ANOTHER else seed
            output, volume, seconds = draw(cascade, stage, way, demographics, seed, other)
            converged = output if converged is None else converged
            if (subject, name) in done:
                continue
            distance = float(np.sqrt(np.mean((((output - converged).numpy()) / spread) ** 2)))
            used = evaluations(way["sampler"], way["steps"]) * (2 if way.get("guidance", 1) != 1 else 1)
            common = dict(weights=weights, subject=subject, way=name, evaluations=used, seconds=seconds)
            common |= dict(distance=distance)
            append_rows(table, [common | organ for organ in measured(cascade, segment, volume, demographics)])
    shown = summary(pd.read_csv(table), stage, gflop)
    click.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
