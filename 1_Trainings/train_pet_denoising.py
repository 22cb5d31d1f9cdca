"""Train a PET denoiser: low-dose PET → normal-dose PET, any tracer.

    python 0_Preprocess/6_pack_training_set.py --root cohorts/doses --recipe doses
    python 1_Trainings/train_pet_denoising.py --preset demo-edm --root cohorts/doses --outdir runs/pet-demo-edm

Low doses are simulated from the normal one while training. The same command goes on where a stopped run was. Several
GPUs or nodes: start it with torchrun. --dry-run prints configuration, size and cost and exits.
"""


import click

from totalgen.commands import PATH, PLACE, command, device_option, trained
from totalgen.schema import listed, resolve
from totalgen.settings import PetDenoisingSettings
from totalgen.training.diffusion import describe, train_diffusion

# The published 3-D model: 1.65 mm voxels, 96³ patches, 128 channels, halved within slices only, 1000 DDPM steps. Its
# learning rate, 1e-4 of AdamW, has no meaning for weights of unit norm: this is the cascade's, for a batch of 1.
PAPER = dict(
    voxel_mm=1.65, patch=(96, 96, 96), channels=128, multipliers=(1, 1, 2, 3, 4), blocks=2, attention=(),
    strides=(2, 2, 1), batch=1, microbatch=1, lr=0.001, lr_decay_steps=35_000, rampup_items=10_000, items=1_000_000,
    loader_processes=4,
)  # fmt: skip
DDPM = dict(family="ddpm", noise_levels="uniform_step", target="direct", dose_channel=False, placement="uniform")
EDM = dict(family="edm", uncertainty=True, noise_mean=0.4, noise_std=1.4)  # high: the condition is learnt first
REGRESSION = dict(family="regression")

# Phantoms at 4 mm on two CPU cores.
DEMO = dict(
    voxel_mm=4.0, patch=(32, 32, 32), channels=16, multipliers=(1, 2, 3), blocks=1, attention=(), batch=8,
    microbatch=8, lr=0.01, lr_decay_steps=2000, rampup_items=1000, items=60_000, weights_dtype="float16",
    loader_processes=1, checkpoint_steps=250, snapshot_steps=1000, picture_steps=1000,
)  # fmt: skip
SMOKE = dict(
    voxel_mm=12.0, patch=(16, 16, 16), channels=4, multipliers=(1, 2), blocks=1, attention=(), batch=2, microbatch=2,
    lr=0.01, rampup_items=2, items=8, loader_processes=0, checkpoint_steps=2, picture_steps=4,
)  # fmt: skip

# fmt: off
PRESETS = {
    # name                     network and data             process
    "paper-ddpm":         dict(PAPER,                       **DDPM),
    "paper-ddpm-2d":      dict(PAPER, patch=(96, 96), strides=(2, 2), **DDPM),       # the published 2-D baseline
    "edm":                dict(PAPER,                       **EDM),                  # the residual, in few steps
    "regression":         dict(PAPER,                       **REGRESSION),           # the same network, no diffusion
    "demo-edm":           dict(DEMO,                        **EDM),
    "demo-regression":    dict(DEMO,                        **REGRESSION),
    "demo-ddpm":          dict(DEMO,                        **DDPM),
    "demo-ddpm-2d":       dict(DEMO, patch=(64, 64), channels=32, **DDPM),
    "smoke-edm":          dict(SMOKE,                       **EDM),
    "smoke-regression":   dict(SMOKE,                       **REGRESSION),
    "smoke-ddpm-2d":      dict(SMOKE, patch=(16, 16),       **DDPM),
}
# fmt: on


@command(__doc__, epilog=listed(PetDenoisingSettings))
@click.option("--preset", required=True, help=f"One of: {', '.join(PRESETS)}.")
@click.option("--root", type=PATH, required=True, help="Cohort folder with doses.zarr.")
@click.option("--outdir", type=PLACE, required=True, help="Run folder: weights, log, pictures.")
@click.option("--init-from", type=PATH, help="Weights of the same network that a new run starts from.")
@device_option
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print configuration, parameters, GFLOP and data, and exit.")
def main(preset, root, outdir, init_from, device, changes, dry_run):
    settings = resolve(PetDenoisingSettings, PRESETS, preset, changes, dict(init_from=init_from, device=device))
    if dry_run:
        return click.echo(describe(root, outdir, preset, settings))
    use = "2_Tests/denoise_pet.py --weights {} --input PET --dose 0.1 --outdir out/denoised"
    click.echo(trained(train_diffusion(root, outdir, preset, settings), use))


if __name__ == "__main__":
    main()
