"""Train the small organ segmenter on a preprocessed cohort (CT → TotalSegmentator ids).

    python 1_Trainings/train_segmenter.py --root cohorts/demo --outdir runs/segmenter

Packs <root>/cropped/<subject>/{CT,organs}.nii.gz into <root>/organs.zarr, trains on it as all trainings do and writes
<outdir>/segmenter.safetensors. The same command continues a run that was stopped. Ends with the Dice of every organ
over the test split. torchrun shares the training between processes.
"""

import click
import torch

from totalgen import distributed
from totalgen.commands import PATH, PLACE, command, device_option, trained
from totalgen.evaluation.overlap import dice_of_split
from totalgen.generation.segmenter import Segmenter
from totalgen.schema import listed, resolve
from totalgen.settings import SegmenterSettings
from totalgen.training.organ_training import PRESETS, train_segmenter
from totalgen.weights import load_weights, save_weights


@command(__doc__, epilog=listed(SegmenterSettings))
@click.option("--root", type=PATH, required=True, help="Cohort root.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the run.")
@click.option("--preset", default="demo", help=f"One of {', '.join(PRESETS)}.")
@click.option("--init-from", type=PATH, help="Weights of the same network that a new run starts from.")
@device_option
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable.")
def main(root, outdir, preset, init_from, device, changes):
    settings = resolve(SegmenterSettings, PRESETS, preset, changes, dict(init_from=init_from, device=device))
    average = train_segmenter(root, outdir, preset, settings)
    if distributed.own_rank() > 0:
        return
    weights = outdir / "segmenter.safetensors"
    state, configuration = load_weights(average)
    if not weights.exists() or load_weights(weights)[1].get("progress") != configuration["progress"]:
        segmenter = Segmenter.load(average, settings.compute.device)
        dice, subjects = dice_of_split(root, lambda ct: segmenter.run(ct)["organs"], configuration["data"]["ids"])
        save_weights(weights, state, configuration | dict(dice=dice, test_subjects=subjects), torch.float16)
    click.echo(trained(weights, "3_Evaluations/1_segment_generated.py --weights {} --root ROOT --masks segmented"))
    found = load_weights(weights)[1]["dice"]
    if not found:
        click.echo("No test subject with organs: Dice not known.")
    for organ, value in found.items():
        click.echo(f"Dice {organ:16} {value:.3f}")


if __name__ == "__main__":
    main()
