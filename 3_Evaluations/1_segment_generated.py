"""Segment the organs of every study of a folder with the project's own segmenter.

    python 3_Evaluations/1_segment_generated.py --root out/demo --weights runs/segmenter/segmenter.safetensors

The folder is the output of 2_Tests/generate_petct.py (<root>/<name>/CT.nii.gz) or a cohort root
(<root>/cropped/<subject>/CT.nii.gz). Masks are written next to the CT; existing ones are not changed. To measure a
real cohort with the same segmenter as the generated one, segment it as well, under another name: --masks segmented.
"""


import click

from totalgen.commands import PATH, PLACE, command, device_option, ended, spread_options
from totalgen.generation.segmenter import segment_cohort


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Generated folder or cohort root.")
@click.option("--weights", type=PATH, required=True, help="segmenter.safetensors of a run.")
@click.option("--masks", default="organs", help="Name of the mask file, without .nii.gz.")
@click.option("--split", help="Only subjects of this split of a cohort root, e.g. test.")
@device_option
@spread_options
def main(root, weights, masks, split, device, workers, scheduler):
    segment_cohort(root, weights, masks, device, workers, scheduler, split)
    chosen = ("--split", split) if split else ()
    files = f"{root}/…/{masks}.nii.gz"
    ended(files, "3_Evaluations/2_measure_organs.py", "--root", root, "--masks", masks, *chosen)


if __name__ == "__main__":
    main()
