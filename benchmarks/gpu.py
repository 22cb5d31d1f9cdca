"""Time and memory at full size, on a GPU or without one; networks are untrained, which costs the same.

    python benchmarks/gpu.py --outdir out/gpu                                            # all rows, on the GPU
    python benchmarks/gpu.py --outdir out/cpu --device cpu --only evaluation --network fast

Rows: one evaluation of the global stage and of the sr stage over volumes of 96, 384 and 768 slices, a whole sample with
the settings of the preset, and a training step of 1, 2, 4 and 8 items at once. Every row is measured in a process of
its own, the second of two runs where that is affordable, and written to <outdir>/<row>.json; the same command goes on
where it stopped, and prints. Memory is the highest of the process, on a GPU that of its tensors.
"""

import json
import multiprocessing
import resource
import runpy
import time
from pathlib import Path

import click
import pandas as pd
import torch

from totalgen.commands import PATH, command
from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.conditions import DEMOGRAPHICS, POSITION, UPSAMPLED
from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.resolution import FACTOR
from totalgen.generation.cascade import Cascade
from totalgen.models.networks import UNet
from totalgen.models.precision import autocast
from totalgen.models.processes import Denoiser
from totalgen.schema import build, to_dict
from totalgen.settings import GenerationSettings, TrainingSettings
from totalgen.weights import STAGE_KIND, network_arguments, save_weights

HERE = Path(__file__).resolve().parents[1]
TRAININGS = runpy.run_path(str(HERE / "1_Trainings/train_totalgen.py"))["PRESETS"]
GENERATIONS = runpy.run_path(str(HERE / "2_Tests/generate_petct.py"))["PRESETS"]
NETWORKS = {  # name → presets of the global stage, of the sr stage, of generation
    "fast": ("paper-global-edm", "fast-sr-edm", "fast-edm"),
    "paper": ("paper-global-edm", "paper-sr-edm", "paper-edm"),
}
LENGTHS, ITEMS = (96, 384, 768), (1, 2, 4, 8)
STATISTICS = dict(low_mean=[0.3, 0.1], low_std=[0.2, 0.1], residual_mean=[0.0, 0.0], residual_std=[0.05, 0.02])
GIVEN = {"global": DEMOGRAPHICS, "sr": (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)}
WOMAN = Demographics("F", 60, 1.65, 66)
ONE = dict(sampler="euler", steps=1)


def untrained(folder, preset, slices):
    """Weights file of a stage as a training preset makes it, before training, for volumes of so many slices."""
    settings = TRAININGS[preset] | dict(shape=(*TRAININGS[preset]["shape"][:2], slices))
    stage = settings["stage"]
    name = {"global": "low", "sr": "residual"}[stage]
    configuration = dict(
        kind=STAGE_KIND, preset=preset, settings=to_dict(build(TrainingSettings, settings)),
        channels=dict(target=["CT", "SUV"], condition=GIVEN[stage]),
        codec=dict(mean=STATISTICS[f"{name}_mean"], std=STATISTICS[f"{name}_std"]),
        data=dict(voxel_mm=2.0, axial_extent=PUBLISHED.to_dict(), statistics=STATISTICS, sources=["nothing"]),
    )  # fmt: skip
    path = folder / f"{preset}-{slices}.safetensors"
    save_weights(path, UNet(**network_arguments(configuration)).state_dict(), configuration)
    return path


def loaded(folder, network, slices, device, **changes):
    """The cascade of a generation preset with untrained weights."""
    one, two, preset = NETWORKS[network]
    files = dict(global_weights=untrained(folder, one, slices), sr_weights=untrained(folder, two, slices))
    return Cascade.load(build(GenerationSettings, GENERATIONS[preset] | files | changes), device)


def evaluation(stage, folder, network, slices, device):
    """One evaluation of a stage over a volume."""
    cascade = loaded(folder, network, slices, device, global_sampling=ONE, sr_sampling=ONE)
    if stage == "global":
        return lambda: cascade.generate_low(WOMAN, 1)
    low = torch.rand(2, *(n // FACTOR for n in cascade.shape))
    return lambda: cascade.refine(low, WOMAN, 1)


def whole(folder, network, slices, device):
    """A sample, from demographics to volumes."""
    cascade = loaded(folder, network, slices, device)
    return lambda: cascade.run(WOMAN, 1)


def training(preset, items, device):
    """Loss of a micro-batch and its gradients."""
    settings = build(TrainingSettings, TRAININGS[preset])
    sr = settings.stage == "sr"
    space = settings.task.patch if sr else tuple(n // FACTOR for n in settings.task.shape)
    kinds, network = GIVEN[settings.stage], vars(settings.network)
    denoiser = Denoiser(UNet(in_channels=2 + len(kinds), out_channels=2, **network), "edm", True).to(device)
    shapes = [(items, 2, *space), (items, len(kinds), *space), (items,), (items, 2, *space)]
    batch = [torch.rand(shape).to(device) for shape in shapes]

    def step():
        with autocast(device):
            loss = denoiser.loss(*batch)[0].mean()
        loss.backward()

    return step


def rows(networks, kinds):
    """name → (kind, arguments of its function, runs)."""
    found = {}
    for network in networks:
        one, two, _ = NETWORKS[network]
        found |= {f"{network} evaluation global {n}": ("evaluation", ("global", network, n), 2) for n in LENGTHS[1:2]}
        found |= {
            f"{network} evaluation sr {n}": ("evaluation", ("sr", network, n), 2 if n == LENGTHS[0] else 1)
            for n in LENGTHS
        }
        found |= {f"{network} sample {n}": ("sample", (network, n), 1) for n in LENGTHS[1:2]}
        found |= {f"{preset} step {n}": ("step", (preset, n), 2) for preset in (one, two) for n in ITEMS}
    return {name: row for name, row in found.items() if row[0] in kinds}


def measured(kind, arguments, runs, device, folder):
    """Seconds of the last run, seconds of processors, peak memory in GB."""
    device, folder = torch.device(device), Path(folder)
    work = {
        "evaluation": lambda stage, network, n: evaluation(stage, folder, network, n, device),
        "sample": lambda network, n: whole(folder, network, n, device),
        "step": lambda preset, n: training(preset, n, device),
    }[kind](*arguments)
    cuda = device.type == "cuda"
    for _ in range(runs):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(seconds=round(seconds, 2), processor_seconds=round(busy, 2), peak_gb=round(peak / 1e9, 2))


@command(__doc__)
@click.option("--outdir", type=PATH, required=True, help="Folder of the results, a file per row.")
@click.option("--device", default="cuda", help="cuda, cuda:N or cpu.")
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; repeatable.")
@click.option("--only", multiple=True, type=click.Choice(["evaluation", "sample", "step"]), help="Only these rows.")
def main(outdir, device, networks, only):
    outdir.mkdir(parents=True, exist_ok=True)
    plan = rows(networks or list(NETWORKS), only or ("evaluation", "sample", "step"))
    found = {}
    for name, (kind, arguments, runs) in plan.items():
        path = outdir / f"{name.replace(' ', '-')}.json"
        if not path.exists():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(measured, (kind, arguments, runs, device, str(outdir)))
            with atomic(path) as part:
                part.write_text(json.dumps(result))
        found[name] = json.loads(path.read_text())
        click.echo(f"{name}: {found[name]}")
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    click.echo(f"\n{name}\n{pd.DataFrame(found).T.to_string()}")


if __name__ == "__main__":
    main()
