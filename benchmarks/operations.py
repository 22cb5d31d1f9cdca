"""Floating-point operations of one subject of full size, 224×224×384 voxels, for several settings.

    python benchmarks/operations.py --tflops 125

Counts the convolutions and matrix products of the networks on PyTorch's meta device: nothing is computed, no weights
are needed. The last column divides by a rate, the peak of a device times the share of it that one expects.
"""

import click

from totalgen.commands import command
from totalgen.generation.tiling import tiles
from totalgen.models.networks import cost
from totalgen.models.samplers import evaluations

LOW, HIGH = (56, 56, 96), (224, 224, 384)
SLABS, CONTEXT, FUSED = ((224, 224, 96), 0), ((224, 224, 96), (0, 0, 16)), ((120, 120, 112), 16)  # window, overlap
GLOBAL = dict(in_channels=6, out_channels=2)  # the paper's network is the default
FULL = dict(in_channels=11, out_channels=2)
NARROW = FULL | dict(channels=16, multipliers=(1, 4, 8, 12), lean=True)
HEUN, DPM = "heun", "dpm_solver"

# fmt: off
ROWS = {
    # name                      global stage         sr stage      sampler   windows
    "paper":                    (HEUN, 35,           FULL,         HEUN, 100, SLABS),
    "released code":            (HEUN, 100,          FULL,         HEUN, 100, CONTEXT),
    "paper's networks, 32 + 32": (DPM, 32,           FULL,         DPM, 32, CONTEXT),
    "paper's networks, 16 + 16": (DPM, 16,           FULL,         DPM, 16, CONTEXT),
    "fast networks, 32 + 32":   (DPM, 32,            NARROW,       DPM, 32, CONTEXT),
    "fast networks, 16 + 16":   (DPM, 16,            NARROW,       DPM, 16, CONTEXT),
    "fast, 16 + 8":             (DPM, 16,            NARROW,       DPM, 8, FUSED),
}
# fmt: on


@command(__doc__)
@click.option("--tflops", default=125.0, help="Sustained TFLOP/s: 125 is 40 % of an A100's 312 in bfloat16.")
def main(tflops):
    click.echo(f"| settings | evaluations | TFLOP each | PFLOP per subject | at {tflops:g} TFLOP/s |")
    click.echo("|---|---|---|---|---|")
    once = cost(GLOBAL, LOW)[1]
    for name, (first, steps, network, second, more, (window, overlap)) in ROWS.items():
        volume = cost(network, window)[1] * len(tiles(HIGH, window, overlap))
        counts = evaluations(first, steps), evaluations(second, more)
        total = counts[0] * once + counts[1] * volume
        click.echo(
            f"| {name} | {counts[0]} + {counts[1]} | {once / 1e12:.2f} + {volume / 1e12:.1f} | {total / 1e15:.2f} | "
            f"{total / 1e12 / tflops:.1f} s |"
        )


if __name__ == "__main__":
    main()
