"""Quality versus evaluations: one stage of a trained cascade, sampled with many settings from the same noise.

    python benchmarks/evaluations.py --stage global --root cohorts/demo --global-weights GLOBAL.safetensors \
        --sr-weights SR.safetensors --subjects 8 --table out/evaluations-global.csv

Every sample is compared with the converged one of the same noise: the distance of the stage's output, in standard
deviations of what the stage learns (low-resolution volumes, or residuals), and how far volume and SUVmean of the organs
are from its (mean over organs and subjects of the absolute difference in percent, and, as "shift", the largest mean
difference of an organ). The row "another seed" is a sample of other noise: the same measures for chance alone.

The global stage is sampled for the demographics of test subjects and refined with the same settings throughout. The sr
stage refines the test subjects' own low-resolution volumes, so that it has a truth as well: "error" columns compare the
sampled organs with those of the subjects' own volumes under the same segmenter (mean absolute difference in percent),
and the row "own" is that volume. PFLOP are those of the same evaluations at full size (224×224×384, the paper's
widths). The table grows a line per organ; the same command goes on where it stopped, and prints.
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
from totalgen.data.measures import TINY_L, measure_study
from totalgen.data.resolution import phase_offsets
from totalgen.data.subjects import read_table
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade, load_stage
from totalgen.generation.segmenter import Segmenter
from totalgen.models.codec import SIGMA_DATA
from totalgen.models.networks import cost
from totalgen.schema import resolve
from totalgen.settings import SamplingSettings, TilingSettings

HERE = Path(__file__).resolve().parents[1]
HEUN, SOLVER = "sampler=heun steps={}", "sampler=dpm_solver steps={}"
SHORT = f"{SOLVER} sigma_min=0.5"
CONVERGED = {"global": HEUN.format(100), "sr": HEUN.format(35)}
OTHER = {"global": SHORT.format(16), "sr": SHORT.format(6)}  # the stage not measured, and another seed
SAMPLINGS = {
    "global": [
        *map(HEUN.format, (35, 16)), *map(SOLVER.format, (32, 24, 16, 12, 8)), SHORT.format(16),
        "sampler=euler steps=32",
    ],
    "sr": [
        *map(SOLVER.format, (16, 12, 8)), *map(SHORT.format, (16, 8, 6, 4)),
        "sampler=dpm_solver steps=6 sigma_min=1",
    ],
}  # fmt: skip
GUIDANCE = "guidance=1.5"  # weight of autoguidance, where a guide is given
GUIDED = {"global": [*map(SOLVER.format, (32, 16))], "sr": [SHORT.format(6)]}
FULL = {"global": (56, 56, 96), "sr": (224, 224, 96)}  # the sr stage in 4 such slabs
SEGMENTER = HERE / "Resource/demo-segmenter.safetensors"
FIRST_SEED, OTHER_SEED = 1000, 2000
PHASE = 21  # of a subject's own low-resolution volume: the offsets (1, 1, 1)
OWN, ANOTHER = "own", "another seed"
PER_SAMPLING = ("sampling", "evaluations", "seconds", "distance")
MEASURES = {"volume_l": "volume", "suv_mean": "SUVmean", "suv_max": "SUVmax"}


def chosen_sampling(text):
    """SamplingSettings of a text such as "sampler=heun steps=100"."""
    return resolve(SamplingSettings, {"": {}}, "", text.split())


def sampled(cascade, stage, sampling, demographics, seed, other_seed, own):
    """(output of the stage [2, x, y, z] in [0, 1], the subject's encoded volume, seconds of the stage).

    sampling: SamplingSettings of the stage;  own: the subject's own low-resolution volume [2, x/4, y/4, z/4] in [0, 1],
    which the sr stage refines. The global stage's volume is refined from the noise of ``seed``; ``other_seed`` is that
    of the measured stage.
    """
    settings = {name: chosen_sampling(text) for name, text in OTHER.items()} | {stage: sampling}
    stages = {"global": cascade.global_stage, "sr": cascade.sr_stage}
    if sampling.guidance == 1:
        stages[stage] = replace(stages[stage], guide=None)
    chosen = Cascade(*stages.values(), settings["global"], settings["sr"], cascade.tiling)
    clock = time.perf_counter()
    if stage == "sr":
        high = chosen.refine(own, demographics, other_seed, offsets=phase_offsets(PHASE))
        return high, high, time.perf_counter() - clock
    low = chosen.generate_low(demographics, other_seed)
    seconds = time.perf_counter() - clock
    return low.cpu(), chosen.refine(low, demographics, seed), seconds


def measured(cascade, segment, high, demographics):
    """Rows of organ, volume_l, suv_mean, suv_max."""
    ct, suv = cascade.to_volumes(high.numpy(), demographics).values()
    rows = measure_study(suv, segment.run(ct)["organs"])
    return [{key: row[key] for key in ("organ", *MEASURES)} for row in rows]


def differences(rows, others, measures):
    """Relative differences of measures, lines with an organ in both only. Both are indexed by subject and organ."""
    others = others.reindex(rows.index)
    both = (rows["volume_l"] > TINY_L) & (others["volume_l"] > TINY_L)
    return rows.loc[both, measures] / others.loc[both, measures] - 1


def summary(lines, stage, gflop):
    """One row per sampling: evaluations, seconds, PFLOP, distance, differences from the converged and the truth."""
    found = {name: rows.set_index(["subject", "organ"]) for name, rows in lines.groupby("sampling", sort=False)}
    result = []
    for name, rows in found.items():
        entry = {"sampling": name, "evaluations": rows["evaluations"].iloc[0], "seconds": rows["seconds"].mean()}
        entry |= {"PFLOP": rows["evaluations"].iloc[0] * gflop / 1e6, "distance": rows["distance"].mean()}
        if (converged := CONVERGED[stage]) in found:
            change = differences(rows, found[converged], ["volume_l", "suv_mean"])
            for measure, title in (("volume_l", "volume"), ("suv_mean", "SUVmean")):
                entry[f"{title} %"] = 100 * change[measure].abs().mean()
                entry[f"{title} shift %"] = 100 * change[measure].groupby("organ").mean().abs().max()
        if OWN in found:
            error = differences(rows, found[OWN], list(MEASURES))
            entry |= {f"{MEASURES[m]} error %": 100 * error[m].abs().mean() for m in MEASURES}
        entry["organs missing"] = int((rows["volume_l"] <= TINY_L).sum())
        result.append(entry)
    return pd.DataFrame(result)


@command(__doc__)
@click.option("--stage", type=click.Choice(list(SAMPLINGS)), required=True)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--global-weights", type=PATH, required=True, help="Weights of the global stage.")
@click.option("--sr-weights", type=PATH, required=True, help="Weights of the sr stage.")
@click.option("--guide", type=PATH, help="Weaker weights of the measured stage (autoguidance).")
@click.option("--segmenter", type=PATH, default=SEGMENTER)
@click.option("--subjects", "count", default=8, help="Test subjects.")
@click.option("--sampling", "only", multiple=True, help="Only these, as NAME=VALUE with spaces; the converged first.")
@click.option("--table", type=PATH, required=True, help="CSV that keeps what was measured.")
@torch.no_grad()
def main(stage, root, global_weights, sr_weights, guide, segmenter, count, only, table):
    first, second = (guide, None) if stage == "global" else (None, guide)
    one, two = load_stage(global_weights, "global", guide=first), load_stage(sr_weights, "sr", guide=second)
    texts = [f"{text} {GUIDANCE}" if guide and name == stage else text for name, text in OTHER.items()]
    sampling = map(chosen_sampling, texts)
    cascade = Cascade(one, two, *sampling, TilingSettings(slab=one.settings.task.shape[2]))
    archive, segment = Archive(root / "training.zarr"), Segmenter.load(segmenter)
    hashes = [part.sha256 for part in (one, one.guide, two, two.guide) if part]
    hashes.append(hashlib.sha256(segmenter.read_bytes()).hexdigest())
    weights = "+".join(sha256[:8] for sha256 in hashes)
    chosen = one if stage == "global" else two
    paper = dict(in_channels=chosen.denoiser.network.settings["in_channels"], out_channels=2)
    gflop = cost(paper, FULL[stage])[1] / 1e9 * (1 if stage == "global" else 4)
    spread = SIGMA_DATA * chosen.task.codec.scale.cpu().numpy().reshape(-1, 1, 1, 1)
    samplings = list(SAMPLINGS[stage])
    if guide is not None:
        samplings += [f"{text} {GUIDANCE}" for text in GUIDED[stage]]
    table.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if table.exists():
        old = read_table(table)
        if set(old.get("weights", [""])) != {weights}:
            raise InputError(f"{table}: was measured on other weights. Give another --table.")
        done = set(old[["subject", "sampling"]].itertuples(index=False, name=None))
    texts = only or (CONVERGED[stage], *samplings, ANOTHER)
    plan = {text: chosen_sampling(OTHER[stage] if text == ANOTHER else text) for text in texts}
    for n, row in enumerate(tqdm(archive.indices("test")[:count], unit="subject")):
        subject, demographics = archive.subjects[row]["subject"], archive.demographics(row)
        if all((subject, name) in done for name in plan):
            continue
        common, own = dict(weights=weights, subject=subject), None
        if stage == "sr":
            own = torch.from_numpy(archive.array(row, "low")[PHASE].astype(np.float32))
            if (subject, OWN) not in done:
                truth = torch.from_numpy(archive.array(row, "high")[:].astype(np.float32))
                organs = measured(cascade, segment, truth, demographics)
                about = common | dict.fromkeys(PER_SAMPLING) | dict(sampling=OWN)
                append_rows(table, [about | organ for organ in organs])
        converged = None
        for name, each in plan.items():
            is_converged = name == CONVERGED[stage]
            if (subject, name) in done and not is_converged:
                continue
            seeds = FIRST_SEED + n, (OTHER_SEED if name == ANOTHER else FIRST_SEED) + n
            output, volume, seconds = sampled(cascade, stage, each, demographics, *seeds, own)
            converged = output if is_converged else converged
            if (subject, name) in done:
                continue
            distance = math.nan
            if converged is not None:
                distance = float(np.sqrt(np.mean((((output - converged).numpy()) / spread) ** 2)))
            used = chosen.evaluations(each) * (1 if each.guidance == 1 else 2)
            about = dict(zip(PER_SAMPLING, (name, used, seconds, distance), strict=True))
            append_rows(table, [common | about | o for o in measured(cascade, segment, volume, demographics)])
    shown = summary(read_table(table), stage, gflop)
    click.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
