"""The network as it is used, against the same network computed straightforwardly (networks.as_reference).

    python benchmarks/engine.py --space 32 32 48
    python benchmarks/engine.py --space 224 224 96 --condition 9 --no-training --device cuda

The reference is float32, contiguous, with attention as an explicit matrix. Prints for each build the seconds of one
evaluation (weights folded) and of one training step, taken in turns in one run, and the peak memory of
either, in a process of its own, beyond what was in use before (not for the compiled build: the
compiler's would be counted); in brackets the ratio to the reference.
"""

import math
import multiprocessing
import time
from pathlib import Path

import click
import numpy as np
import torch

from totalgen.commands import command
from totalgen.models.networks import UNet, as_reference, cost, mp_layers
from totalgen.models.precision import autocast, has_bf16
from totalgen.models.processes import Denoiser

BUILDS = {
    "reference": dict(reference=True),
    "ours": {},
    "ours, pointwise recomputed": dict(recompute="pointwise"),
    "ours, blocks recomputed": dict(recompute="blocks"),
    "ours, compiled": dict(compiled=True),
}


class Build:
    """A denoiser, its inputs and how it is run: ``evaluate()`` and ``step()``."""

    def __init__(self, settings, batch, space, device, training, reference=False, recompute=None, compiled=False):
        torch.manual_seed(0)
        network = UNet(**settings)
        network.recompute = recompute
        if reference:
            as_reference(network)
        if not training:
            for layer in mp_layers(network):
                layer.fold_()
        if compiled:
            network.compile()
        self.device, self.precision = device, "float32" if reference else "auto"
        self.denoiser = Denoiser(network, "edm").to(device)
        shapes = [(batch, channels, *space) for channels in (2, settings["in_channels"] - 2, 2)]
        shapes.insert(2, (batch,))
        self.inputs = [torch.rand(shape).to(device) for shape in shapes]  # clean, condition, sigma, noise

    def evaluate(self):
        clean, condition, sigma, _ = self.inputs
        with torch.no_grad(), autocast(self.device, self.precision):
            self.denoiser(clean, sigma, condition)

    def step(self):
        """Loss and its gradients."""
        for parameter in self.denoiser.parameters():
            parameter.grad = None
        with autocast(self.device, self.precision):
            loss = self.denoiser.loss(*self.inputs)[0].mean()
        loss.backward()


def in_turns(works, repeats, device):
    """Median seconds of every work(), one after the other; the first round does not count."""
    seconds = [[] for _ in works]
    for turn in range(repeats + 1):
        for place, work in zip(seconds, works, strict=True):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                place.append(time.perf_counter() - start)
    return [float(np.median(each)) for each in seconds]


def peak_mib(settings, batch, space, device, how, training):
    """Memory at its highest beyond what was in use before the work; for a process of its own."""
    build = Build(settings, batch, space, device, training, **how)

    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
        before = resident_mib("VmRSS")
    (build.step if training else build.evaluate)()
    if device.type == "cuda":
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return resident_mib("VmHWM") - before


def resident_mib(field):
    """VmRSS (now) or VmHWM (the peak) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 2**10


@command(__doc__)
@click.option("--space", type=int, nargs=3, default=(32, 32, 48), help="Voxels; the paper's patch is 56 56 96.")
@click.option("--condition", default=4, help="Condition channels: 4 in the global stage, 9 in the sr stage.")
@click.option("--channels", default=64)
@click.option("--multipliers", default="1,2,3,4")
@click.option("--blocks", default=3)
@click.option("--attention", default="3", help='Levels with self-attention, such as "2,3"; "" for none.')
@click.option("--lean", is_flag=True, help="Narrow the decoder where it doubles the resolution.")
@click.option("--build", "names", multiple=True, type=click.Choice(list(BUILDS)), help="Only these; repeatable.")
@click.option("--training/--no-training", default=True)
@click.option("--batch", default=1, help="Items.")
@click.option("--repeats", default=3)
@click.option("--device", default="cpu")
def main(space, condition, channels, multipliers, blocks, attention, lean, names, training, batch, repeats, device):
    device = torch.device(device)
    levels = [tuple(int(n) for n in text.split(",") if n) for text in (multipliers, attention)]
    settings = dict(
        in_channels=2 + condition, out_channels=2, channels=channels, multipliers=levels[0], blocks=blocks,
        attention=levels[1], lean=lean,
    )  # fmt: skip
    builds = {name: how for name, how in BUILDS.items() if not names or name in ("reference", *names)}
    parameters, flop = cost(settings, space)
    click.echo(
        f"{parameters / 1e6:.1f} M parameters, {flop / 1e9:.0f} GFLOP per evaluation at {'×'.join(map(str, space))}; "
        f"{device}, {torch.get_num_threads()} threads, {'bfloat16' if has_bf16(device) else 'float32'}"
    )
    fresh = multiprocessing.get_context("spawn")
    for title, is_training in (("evaluation", False), ("training step", True))[: 1 + training]:
        made = [Build(settings, batch, space, device, is_training, **how) for how in builds.values()]
        seconds = in_turns([each.step if is_training else each.evaluate for each in made], repeats, device)
        del made
        peaks = []
        for how in builds.values():
            if how.get("compiled"):
                peaks.append(math.nan)
                continue
            with fresh.Pool(1) as pool:
                peaks.append(pool.apply(peak_mib, (settings, batch, space, device, how, is_training)))
        for name, took, peak in zip(builds, seconds, peaks, strict=True):
            rate = batch * flop * (3 if is_training else 1) / took / 1e9
            click.echo(
                f"{title:14} {name:27} {took:8.2f} s ({took / seconds[0]:.2f}) {rate:6.0f} GFLOP/s   "
                f"{peak:6.0f} MiB ({peak / peaks[0]:.2f})"
            )


if __name__ == "__main__":
    main()
