"""The network as it is used against the same network computed in the straightforward way (networks.as_reference).

    python benchmarks/engine.py --space 28 28 48

Prints, for one evaluation (weights folded) and for one training step, the seconds of both builds, taken in turns in one
run, their ratio, the rate in GFLOP/s, and the peak memory of a training step in processes of their own. The numbers of
a machine say nothing of another's; the ratios may.
"""

import copy
import multiprocessing
import resource
import time

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from totalgen.models.networks import UNet, as_reference, mp_layers
from totalgen.models.precision import autocast
from totalgen.models.processes import Denoiser

CONDITION = 4


def build(channels, blocks, reference):
    torch.manual_seed(0)
    network = UNet(2 + CONDITION, 2, channels=channels, blocks=blocks)
    return Denoiser(as_reference(network) if reference else network, "edm")


def inputs(space):
    """(clean, condition, sigma, noise) of one item."""
    return torch.randn(1, 2, *space), torch.randn(1, CONDITION, *space), torch.ones(1), torch.randn(1, 2, *space)


def step(denoiser, items, device):
    """Loss and its gradients."""
    for parameter in denoiser.parameters():
        parameter.grad = None
    with autocast(device):
        denoiser.loss(*items)[0].mean().backward()


@torch.no_grad()
def evaluate(denoiser, items, device):
    with autocast(device):
        denoiser(items[0], items[2], items[1])


def in_turns(work, builds, repeats):
    """Median seconds of ``work(build)`` for every build, one after the other; the first round does not count."""
    seconds = [[] for _ in builds]
    for turn in range(repeats + 1):
        for place, each in zip(seconds, builds, strict=True):
            start = time.perf_counter()
            work(each)
            if turn:
                place.append(time.perf_counter() - start)
    return [float(np.median(each)) for each in seconds]


def peak_of_a_step(reference, channels, blocks, space):
    """Resident MiB at its highest beyond what stood before the step; for a process of its own."""
    denoiser, items = build(channels, blocks, reference), inputs(space)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(denoiser, items, torch.device("cpu"))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--space", type=int, nargs=3, default=(28, 28, 48), help="Voxels; the paper's patch is 56 56 96.")
@click.option("--channels", default=64)
@click.option("--blocks", default=3)
@click.option("--repeats", default=3)
def main(space, channels, blocks, repeats):
    device = torch.device("cpu")
    builds = [build(channels, blocks, reference) for reference in (True, False)]
    folded = copy.deepcopy(builds)
    for layer in mp_layers(folded[1]):
        layer.fold_()
    items = inputs(space)
    with FlopCounterMode(display=False) as counter:
        evaluate(folded[1], items, device)
    gflop = counter.get_total_flops() / 1e9
    click.echo(f"{gflop:.0f} GFLOP per evaluation at {'×'.join(map(str, space))}, {torch.get_num_threads()} threads")
    for name, work, these, count in (
        ("evaluation", evaluate, folded, gflop), ("training step", step, builds, 3 * gflop),
    ):  # fmt: skip
        slow, fast = in_turns(lambda each, work=work: work(each, items, device), these, repeats)
        rates = f"{count / slow:.0f} → {count / fast:.0f} GFLOP/s"
        click.echo(f"{name:14} reference {slow:7.2f} s   ours {fast:7.2f} s   ratio {fast / slow:.2f}   {rates}")
    fresh = multiprocessing.get_context("spawn")
    peaks = []
    for reference in (True, False):
        with fresh.Pool(1) as pool:
            peaks.append(pool.apply(peak_of_a_step, (reference, channels, blocks, space)))
    slow, fast = peaks
    click.echo(f"{'peak memory':14} reference {slow:5.0f} MiB   ours {fast:5.0f} MiB   ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
