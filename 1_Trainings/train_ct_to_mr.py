r"""Train the translation of CT to MR: the VQ-VAE, the model of slices, and the refinement of stacked slices.

    python 0_Preprocess/6_pack_training_set.py --root cohorts/pairs --recipe pairs
    python 1_Trainings/train_ct_to_mr.py --preset demo-vqvae  --root cohorts/pairs --outdir runs/mr-demo-vqvae
    python 1_Trainings/train_ct_to_mr.py --preset demo-slices --root cohorts/pairs --outdir runs/mr-demo-slices
    python 2_Tests/translate_ct_to_mr.py --preset demo --stage slices --cohort cohorts/pairs --outdir out/mr-slices \
        --set slices_weights=runs/mr-demo-slices/ema-0.100.safetensors
    python 1_Trainings/encode_latents.py --root cohorts/pairs --slices out/mr-slices --vqvae VQVAE.safetensors
    python 0_Preprocess/6_pack_training_set.py --root cohorts/pairs --recipe latents --latent-channels 4
    python 1_Trainings/train_ct_to_mr.py --preset demo-latent --root cohorts/pairs --outdir runs/mr-demo-latent

Each continues where a stopped run was. Several GPUs or nodes: start it with torchrun.
"""

import click

from totalgen.commands import PATH, PLACE, command, device_option, trained
from totalgen.errors import closest
from totalgen.schema import listed, resolve
from totalgen.settings import RefinementSettings, TranslationSettings, VqvaeSettings
from totalgen.training.diffusion import describe, train_diffusion
from totalgen.training.vqvae_training import describe_vqvae, train_vqvae

# The published models: 160×224×168 voxels, crops of ¼ (slices) and ½ (volumes) per axis. Learning rates are in units of
# this network, whose weights have unit norm; see docs/ct-to-mr.md.
DDPM = dict(family="ddpm", noise_levels="uniform_step")
SLICES = dict(
    voxel_mm=1.0, patch=(160, 224), channels=32, multipliers=(1, 2, 4, 8, 8), blocks=1, attention=(3, 4), batch=32,
    microbatch=32, lr=0.003, lr_decay_steps=35_000, rampup_items=100_000, items=3_000_000, loader_processes=4,
    any_shape=True,
)  # fmt: skip
LATENT = dict(
    patch=(20, 28, 21), channels=64, multipliers=(1, 2, 4, 8, 8), blocks=1, attention=(3, 4), batch=2, microbatch=2,
    lr=0.001, lr_decay_steps=35_000, rampup_items=10_000, items=500_000, any_shape=True,
)  # fmt: skip
VQVAE = dict(batch=2, microbatch=2, lr=1e-4, lr_decay_steps=100_000, rampup_items=1000, items=300_000)

# Phantoms at 4 mm on two CPU cores.
DEMO = dict(batch=8, microbatch=8, lr=0.01, lr_decay_steps=2000, rampup_items=1000, weights_dtype="float16",
            loader_processes=1, checkpoint_steps=250, snapshot_steps=1000, picture_steps=1000)  # fmt: skip
DEMO_SLICES = dict(DEMO, voxel_mm=4.0, patch=(64, 64), channels=24, multipliers=(1, 2, 3), blocks=1, attention=(),
                   placement="body", any_shape=True)  # fmt: skip
DEMO_VOLUMES = dict(DEMO, voxel_mm=4.0, patch=(32, 32, 32), channels=16, multipliers=(1, 2, 3), blocks=1,
                    attention=(), placement="body", any_shape=True)  # fmt: skip
EDM = dict(family="edm", uncertainty=True, noise_mean=0.4, noise_std=1.4)  # high: the condition is learnt first
SMOKE = dict(batch=2, microbatch=2, lr=0.01, rampup_items=2, items=8, loader_processes=0, checkpoint_steps=2,
             picture_steps=4)  # fmt: skip
SMALL = dict(SMOKE, channels=4, multipliers=(1, 2), blocks=1, attention=(), any_shape=True)

# fmt: off
PRESETS = {
    VqvaeSettings: {
        "paper-vqvae":      dict(VQVAE),
        "demo-vqvae":       dict(DEMO, patch=(32, 32, 32), channels=(32,), residual_layers=2, code_channels=4, lr=1e-3,
                                 items=12_000, precision="float32"),  # 8 mm as published 4: once halved, not twice
        "smoke-vqvae":      dict(SMOKE, patch=(16, 16, 16), channels=(4, 8), residual_layers=1, codes=16, lr=1e-3),
    },
    TranslationSettings: {
        "paper-slices":     dict(SLICES, loss="l1", **DDPM),
        "slices":           dict(SLICES, neighbours=1, **EDM),
        "regression":       dict(SLICES, patch=(80, 112, 84), channels=64, batch=2, microbatch=2, family="regression"),
        "demo-slices":      dict(DEMO_SLICES, items=20_000, **EDM),
        "demo-regression":  dict(DEMO_VOLUMES, items=6_000, family="regression"),
        "smoke-slices":     dict(SMALL, voxel_mm=12.0, patch=(16, 16), neighbours=1, **EDM),
        "smoke-regression": dict(SMALL, voxel_mm=12.0, patch=(16, 16, 16), family="regression"),
    },
    RefinementSettings: {
        "paper-latent":     dict(LATENT, target="direct", loss="double", **DDPM),
        "latent":           dict(LATENT, **EDM),
        "demo-latent":      dict(DEMO, patch=(16, 16, 16), channels=32, multipliers=(1, 2), blocks=1, attention=(),
                                 items=22_000, loss="double", any_shape=True, **EDM),
        "smoke-latent":     dict(SMALL, patch=(8, 8, 8), loss="double", **EDM),
    },
}
# fmt: on
NAMES = {name: settings for settings, table in PRESETS.items() for name in table}


def use(root, preset, settings):
    """The command that uses weights {}. What else it needs is of the user's own trainings: networks belong together."""
    if isinstance(settings, VqvaeSettings):
        return f"1_Trainings/encode_latents.py --root {root} --slices SLICES --vqvae {{}}"
    sampled = preset.split("-")[0] if preset.startswith(("paper", "smoke")) else "demo"
    if isinstance(settings, RefinementSettings):
        weights = "--set slices_weights=FILE --set vqvae_weights=FILE --set refiner_weights={}"
    else:
        weights = "--stage slices --set slices_weights={}"
        sampled = "demo-regression" if settings.process.family == "regression" else sampled
    return f"2_Tests/translate_ct_to_mr.py --preset {sampled} {weights} --input CT --outdir out/mr"


@command(__doc__, epilog="\n\n\b\n".join(f"{kind.__name__}:\n{listed(kind)}" for kind in PRESETS))
@click.option("--preset", required=True, help=f"One of: {', '.join(NAMES)}.")
@click.option("--root", type=PATH, required=True, help="Cohort folder with pairs.zarr, or latents.zarr.")
@click.option("--outdir", type=PLACE, required=True, help="Run folder: weights, log, pictures.")
@click.option("--init-from", type=PATH, help="Weights of the same network that a new run starts from.")
@device_option
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print configuration, parameters, GFLOP and data, and exit.")
def main(preset, root, outdir, init_from, device, changes, dry_run):
    kind = closest(preset, NAMES)
    settings = resolve(kind, PRESETS[kind], preset, changes, dict(init_from=init_from, device=device))
    train, show = (train_vqvae, describe_vqvae) if kind is VqvaeSettings else (train_diffusion, describe)
    if dry_run:
        return click.echo(show(root, outdir, preset, settings))
    click.echo(trained(train(root, outdir, preset, settings), use(root, preset, settings)))


if __name__ == "__main__":
    main()
