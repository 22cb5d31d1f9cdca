"""Average the weights of a finished training over another stretch of it, without training again.

    python 1_Trainings/reconstruct_ema.py --run runs/demo-global-edm --sigma-rel 0.15

The width σ_rel is that of the averaging profile relative to the training so far: 0.05 follows the last steps closely,
0.15 smooths over a third of the run. Which one samples best is found by trying. Needs the run's snapshots/.
Writes <run>/ema-<σ_rel>.safetensors, with --step N ema-<σ_rel>-step_<N>.safetensors; inference takes them like others.
"""


import click

from totalgen.commands import PLACE, command
from totalgen.training.averages import reconstruct


@command(__doc__)
@click.option("--run", type=PLACE, required=True, help="Folder of a training.")
@click.option("--sigma-rel", type=float, required=True, help="Relative width of the profile, such as 0.08.")
@click.option("--step", type=int, help="As if the training had ended here; default: the last snapshot.")
def main(run, sigma_rel, step):
    path, misfit = reconstruct(run, sigma_rel, step)
    click.echo(f"{path} (the profile is met within {100 * misfit:.2g} %). Use it as any weights of that run.")


if __name__ == "__main__":
    main()
