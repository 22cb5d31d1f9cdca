"""Train one stage of the PET/CT cascade on a packed cohort.

    python 1_Trainings/train_totalgen.py --preset demo-global-edm --root cohorts/demo --outdir runs/demo-global-edm

The same command goes on where a stopped run was. Several GPUs or nodes: start it with torchrun. --dry-run prints the
configuration, the network's size and cost and the data found, and exits.
"""


import click

from totalgen.commands import PATH, PLACE, command, device_option, trained
from totalgen.schema import listed, resolve
from totalgen.settings import TrainingSettings
from totalgen.training.diffusion import describe, train_diffusion

# The paper, section 2.2: 224×224×384 voxels of 2 mm, EDM2 network, batch 2048, learning rate 0.017, 16.25 M volumes.
PAPER = dict(
    shape=(224, 224, 384), patch=(56, 56, 96), channels=64, multipliers=(1, 2, 3, 4), blocks=3, attention=(3,),
    loader_processes=4,  # one loads about 19 patches of this size per second
)  # fmt: skip
EDM = dict(family="edm", uncertainty=True)
FLOW = dict(family="flow")

# A quarter of the channels at full resolution, a lean decoder: a seventh of the work (docs/performance.md).
FAST_SR = dict(PAPER, stage="sr", channels=16, multipliers=(1, 4, 8, 12), lean=True)

# The phantom cohort at 6 mm, hours on a CPU core; docs/experiments.md has the reasons for noise levels and widths.
DEMO = dict(
    shape=(80, 80, 128), batch=8, microbatch=8, rampup_items=2_000, lr=0.01, lr_decay_steps=5_000,
    weights_dtype="float16", loader_processes=1, checkpoint_steps=500, snapshot_steps=2_000, picture_steps=2_000,
)  # fmt: skip
DEMO_GLOBAL = dict(
    DEMO, stage="global", channels=16, multipliers=(2, 2, 3), blocks=2, attention=(2,), template=True, items=132_000,
    emphasis=100,  # organs are few voxels
)  # fmt: skip
DEMO_SR = dict(
    DEMO, stage="sr", channels=16, multipliers=(1, 2, 3), blocks=1, attention=(), lean=True, items=200_000,
    patch=(24, 24, 24), placement="body",  # where there is something to learn
    noise_mean=1.2, noise_std=1.8,  # wide and high: the condition is learnt first
)  # fmt: skip

# Seconds, for tests and for a first look at the stages.
SMOKE = dict(
    shape=(32, 32, 48), channels=8, multipliers=(1, 2), blocks=1, attention=(1,), batch=4, microbatch=2, items=32,
    lr=0.01, lr_decay_steps=100, rampup_items=8, loader_processes=0, checkpoint_steps=4, picture_steps=8,
)  # fmt: skip

# fmt: off
PRESETS = {
    # Table 1 row          stage            family    size and cost
    "paper-global-edm":  dict(PAPER, stage="global", **EDM),                           # 72 h on 4×A100 (the paper)
    "paper-global-flow": dict(PAPER, stage="global", **FLOW),
    "paper-sr-edm":      dict(PAPER, stage="sr", **EDM),                               # 72 h on 4×A100 (the paper)
    "paper-sr-flow":     dict(PAPER, stage="sr", **FLOW, batch=8, lr=0.001),           # as released
    "fast-sr-edm":       dict(FAST_SR, **EDM),
    "fast-sr-flow":      dict(FAST_SR, **FLOW, batch=8, lr=0.001),
    # The paper's text pads axis z (6_pack_training_set.py --axial pad), its released code stretches it.
    "paper-global-edm-pad":  dict(PAPER, stage="global", axial="pad", **EDM),
    "paper-global-flow-pad": dict(PAPER, stage="global", axial="pad", **FLOW),
    "paper-sr-edm-pad":      dict(PAPER, stage="sr", axial="pad", **EDM),
    "paper-sr-flow-pad":     dict(PAPER, stage="sr", axial="pad", **FLOW, batch=8, lr=0.001),
    "demo-global-edm":   dict(DEMO_GLOBAL, **EDM),
    "demo-global-flow":  dict(DEMO_GLOBAL, **FLOW, multipliers=(1, 2, 3)),  # as its weights in Resource
    "demo-sr-edm":       dict(DEMO_SR, **EDM),
    "demo-sr-flow":      dict(DEMO_SR, **FLOW),
    "smoke-global-edm":  dict(SMOKE, stage="global", **EDM),
    "smoke-global-flow": dict(SMOKE, stage="global", **FLOW),
    "smoke-sr-edm":      dict(SMOKE, stage="sr", patch=(16, 16, 16), **EDM),
    "smoke-sr-flow":     dict(SMOKE, stage="sr", patch=(16, 16, 16), **FLOW),
}
# fmt: on


@command(__doc__, epilog=listed(TrainingSettings))
@click.option("--preset", required=True, help=f"One of: {', '.join(PRESETS)}.")
@click.option("--root", type=PATH, required=True, help="Cohort folder with training.zarr.")
@click.option("--outdir", type=PLACE, required=True, help="Run folder: weights, log, pictures.")
@click.option("--init-from", type=PATH, help="Weights of the same network that a new run starts from.")
@device_option
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
@click.option("--dry-run", is_flag=True, help="Print configuration, parameters, GFLOP and data, and exit.")
def main(preset, root, outdir, init_from, device, changes, dry_run):
    settings = resolve(TrainingSettings, PRESETS, preset, changes, dict(init_from=init_from, device=device))
    if dry_run:
        return click.echo(describe(root, outdir, preset, settings))
    name = f"{preset.split('-')[0]}-{settings.process.family}"
    sampled = {"demo-edm": "demo", "smoke-edm": "smoke", "smoke-flow": "smoke"}.get(name, name)
    use = f"2_Tests/generate_petct.py --preset {sampled} --{settings.stage}-weights {{}} …"
    use += f", or --runs {outdir.parent} for both stages"
    click.echo(trained(train_diffusion(root, outdir, preset, settings), use))


if __name__ == "__main__":
    main()
