"""Quality versus evaluations: one stage of a trained cascade, drawn in many ways from the same noise.

    python benchmarks/evaluations.py --stage global --root cohorts/demo --low LOW.safetensors --high HIGH.safetensors \
        --subjects 8 --table out/evaluations-global.csv

Every way is held to the converged sample of the same noise: the distance of the stage's output, in standard deviations
of what the stage learns (low-resolution volumes, or residuals), and how far volume and SUVmean of the organs are from
its (mean over organs and subjects of the absolute difference in percent, and beside it, as "shift", the largest mean
difference of an organ). The row "another seed" is a sample of other noise: what chance makes of the same measures.

The global stage is drawn for the demographics of test subjects and refined in one way throughout. The second stage
refines the test subjects' own low-resolution volumes, so that it has a truth as well: "error" columns hold the drawn
organs to those of the subjects' own volumes under the same segmenter (mean absolute difference in percent), and the row
"own" is that volume. PFLOP are those of the same evaluations at full size (224×224×384, the paper's widths).
The table grows a line per organ; the same command goes on where it stopped, and prints.
"""

import hashlib
import math
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.data.archive import Archive
from totalgen.data.files import append_rows
from totalgen.data.resolution import phase_offsets
from totalgen.data.subjects import read_table
from totalgen.errors import InputError
from totalgen.evaluation.measures import TINY_L, measure_study
from totalgen.evaluation.segmenter import load_segmenter
from totalgen.generation.cascade import Cascade, Stage
from totalgen.models.networks import cost
from totalgen.models.samplers import evaluations

HERE = Path(__file__).resolve().parents[1]
COARSE = dict(sampler="dpm_solver", sigma_min=0.5)
CONVERGED = {"global": dict(sampler="heun", steps=100), "sr": dict(sampler="heun", steps=35)}
OTHER = {"global": dict(COARSE, steps=16), "sr": dict(COARSE, steps=6)}  # the stage not measured, and another seed
WAYS = {
    "global": [
        *(dict(sampler="heun", steps=n) for n in (35, 16)),
        *(dict(sampler="dpm_solver", steps=n) for n in (32, 24, 16, 12, 8)),
        dict(COARSE, steps=16),
        dict(sampler="euler", steps=32),
    ],
    "sr": [
        *(dict(sampler="dpm_solver", steps=n) for n in (16, 12, 8)),
        *(dict(COARSE, steps=n) for n in (16, 8, 6, 4)),
        dict(COARSE, steps=6, sigma_min=1.0),
    ],
}
GUIDANCE = 1.5  # weight of autoguidance, where a guide is given
GUIDED = {
    "global": [dict(sampler="dpm_solver", steps=n) for n in (32, 16)],
    "sr": [dict(COARSE, steps=6)],
}
FULL = {"global": (56, 56, 96), "sr": (224, 224, 96)}  # the second stage in 4 such slabs
RULER = HERE / "Resource/demo-segmenter.safetensors"  # a segmenter
FIRST_SEED, OTHER_SEED = 1000, 2000
PHASE = 21  # of a subject's own low-resolution volume: the offsets (1, 1, 1)
OWN, ANOTHER = "own", "another seed"
PER_WAY = ("way", "evaluations", "seconds", "distance")
MEASURES = {"volume_l": "volume", "suv_mean": "SUVmean", "suv_max": "SUVmax"}


def name_of(way):
    """A way of sampling as a row's name."""
    extra = "".join(f" {key} {value:g}" for key, value in way.items() if key not in ("sampler", "steps"))
    return f"{way['sampler']} {way['steps']}{extra}"


def way_of(name):
    """The way of sampling that a row's name says, such as "heun 100" or "dpm_solver 8 sigma_min 0.5"."""
    try:
        sampler, steps, *more = name.split()
        return dict(sampler=sampler, steps=int(steps)) | dict(zip(more[::2], map(float, more[1::2]), strict=True))
    except ValueError:
        raise InputError(f'--way "{name}" is not such as "heun 100" or "dpm_solver 8 sigma_min 0.5".') from None


def draw(cascade, stage, way, demographics, seed, other_seed, own):
    """(output of the stage [2, x, y, z] in [0, 1], the subject's encoded volume, seconds of the stage).

    own: the subject's own low-resolution volume [2, x/4, y/4, z/4] in [0, 1], which the second stage refines. The
    global stage's volume is refined from the noise of ``seed``; ``other_seed`` is that of the measured stage.
    """
    settings = {"global": OTHER["global"], "sr": OTHER["sr"], stage: way}
    stages = {"global": cascade.low, "sr": cascade.high}
    if "guidance" not in way:
        stages[stage] = replace(stages[stage], guide=None)
    chosen = Cascade(*stages.values(), settings["global"], settings["sr"], cascade.slab, cascade.context)
    clock = time.perf_counter()
    if stage == "sr":
        high = chosen.refine(own, demographics, other_seed, offsets=phase_offsets(PHASE))
        return high, high, time.perf_counter() - clock
    low = chosen.generate_low(demographics, other_seed)
    seconds = time.perf_counter() - clock
    return low.cpu(), chosen.refine(low, demographics, seed), seconds


def measured(cascade, segment, high, demographics):
    """Rows of organ, volume_l, suv_mean, suv_max."""
    ct, suv = cascade.to_volumes(high.numpy(), demographics)
    rows = measure_study(suv, segment(ct))
    return [{key: row[key] for key in ("organ", *MEASURES)} for row in rows]


def differences(rows, others, measures):
    """Relative differences of measures, lines with an organ in both only. Both are indexed by subject and organ."""
    others = others.reindex(rows.index)
    both = (rows["volume_l"] > TINY_L) & (others["volume_l"] > TINY_L)
    return rows.loc[both, measures] / others.loc[both, measures] - 1


def summary(lines, stage, gflop):
    """One row per way: evaluations, seconds, PFLOP, distance, differences from the converged sample and the truth."""
    by_way = {way: rows.set_index(["subject", "organ"]) for way, rows in lines.groupby("way", sort=False)}
    result = []
    for way, rows in by_way.items():
        entry = {"way": way, "evaluations": rows["evaluations"].iloc[0], "seconds": rows["seconds"].mean()}
        entry |= {"PFLOP": rows["evaluations"].iloc[0] * gflop / 1e6, "distance": rows["distance"].mean()}
        if (converged := name_of(CONVERGED[stage])) in by_way:
            change = differences(rows, by_way[converged], ["volume_l", "suv_mean"])
            for measure, name in (("volume_l", "volume"), ("suv_mean", "SUVmean")):
                entry[f"{name} %"] = 100 * change[measure].abs().mean()
                entry[f"{name} shift %"] = 100 * change[measure].groupby("organ").mean().abs().max()
        if OWN in by_way:
            error = differences(rows, by_way[OWN], list(MEASURES))
            entry |= {f"{MEASURES[m]} error %": 100 * error[m].abs().mean() for m in MEASURES}
        entry["organs missing"] = int((rows["volume_l"] <= TINY_L).sum())
        result.append(entry)
    return pd.DataFrame(result)


@command(__doc__)
@click.option("--stage", type=click.Choice(list(WAYS)), required=True)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--low", type=PATH, required=True, help="Weights of the global stage.")
@click.option("--high", type=PATH, required=True, help="Weights of the second stage.")
@click.option("--guide", type=PATH, help="Weaker weights of the measured stage (autoguidance).")
@click.option("--segmenter", "ruler", type=PATH, default=RULER)
@click.option("--subjects", "count", default=8, help="Test subjects.")
@click.option("--way", "only", multiple=True, help="Only these, such as \"heun 100\"; the converged first.")
@click.option("--table", type=PATH, required=True, help="CSV that keeps what was measured.")
@torch.no_grad()
def main(stage, root, low, high, guide, ruler, count, only, table):
    first, second = (guide, None) if stage == "global" else (None, guide)
    low, high = Stage.load(low, "global", guide=first), Stage.load(high, "sr", guide=second)
    sampling = [OTHER[name] | (dict(guidance=GUIDANCE) if guide and name == stage else {}) for name in OTHER]
    cascade = Cascade(low, high, *sampling, slab=low.configuration["shape"][2], context=0)
    archive, segment = Archive(root / "training.zarr"), load_segmenter(ruler)
    hashes = [part.sha256 for part in (low, low.guide, high, high.guide) if part]
    hashes.append(hashlib.sha256(ruler.read_bytes()).hexdigest())
    weights = "+".join(sha256[:8] for sha256 in hashes)
    chosen = cascade.low if stage == "global" else cascade.high
    paper = dict(in_channels=chosen.denoiser.network.settings["in_channels"], out_channels=2)
    gflop = cost(paper, FULL[stage])[1] / 1e9 * (1 if stage == "global" else 4)
    spread = np.array(chosen.configuration["codec"]["std"]).reshape(-1, 1, 1, 1)
    ways = list(WAYS[stage])
    if guide is not None:
        ways += [dict(way, guidance=GUIDANCE) for way in GUIDED[stage]]
    table.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if table.exists():
        old = read_table(table)
        if set(old["weights"]) != {weights}:
            raise InputError(f"{table}: was measured on other weights. Give another --table.")
        done = set(old[["subject", "way"]].itertuples(index=False, name=None))
    plan = {name_of(way): way for way in [CONVERGED[stage], *ways]} | {ANOTHER: OTHER[stage]}
    plan = {name: plan[name] if name in plan else way_of(name) for name in only or plan}
    for n, row in enumerate(tqdm(archive.indices("test")[:count], unit="subject")):
        subject, demographics = archive.subjects[row]["subject"], archive.demographics(row)
        if all((subject, name) in done for name in plan):
            continue
        common, own = dict(weights=weights, subject=subject), None
        if stage == "sr":
            own = torch.from_numpy(archive.low(row)[PHASE].astype(np.float32))
            if (subject, OWN) not in done:
                truth = torch.from_numpy(archive.high(row)[:].astype(np.float32))
                organs = measured(cascade, segment, truth, demographics)
                append_rows(table, [common | dict.fromkeys(PER_WAY) | dict(way=OWN) | organ for organ in organs])
        converged = None
        for name, way in plan.items():
            is_converged = name == name_of(CONVERGED[stage])
            if (subject, name) in done and not is_converged:
                continue
            seeds = FIRST_SEED + n, (OTHER_SEED if name == ANOTHER else FIRST_SEED) + n
            output, volume, seconds = draw(cascade, stage, way, demographics, *seeds, own)
            converged = output if is_converged else converged
            if (subject, name) in done:
                continue
            distance = math.nan
            if converged is not None:
                distance = float(np.sqrt(np.mean((((output - converged).numpy()) / spread) ** 2)))
            used = evaluations(way["sampler"], way["steps"]) * (2 if way.get("guidance", 1) != 1 else 1)
            drawn = dict(zip(PER_WAY, (name, used, seconds, distance), strict=True))
            append_rows(table, [common | drawn | o for o in measured(cascade, segment, volume, demographics)])
    shown = summary(read_table(table), stage, gflop)
    click.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
