"""Compute what the quality check of generated studies compares with: mass and organs of the training cohort.

    python 3_Evaluations/6_reference_ranges.py --root cohorts/demo --masks segmented --out runs/demo/reference.json

2_Tests/generate_petct.py takes the *reference.json beside the weights of its global stage, or --reference. Segment the
cohort by what will segment the generated studies (1_segment_generated.py --masks segmented): other masks have other
volumes. What is measured of each subject is in <root>/<masks>_quality.csv: the command continues where it stopped.
"""


import click

from totalgen.commands import PATH, command, ended, spread_options
from totalgen.evaluation.reference_ranges import WINDOW_HU, write_reference


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root.")
@click.option("--masks", default="organs", help="Name of the mask files, without .nii.gz.")
@click.option("--split", default="train", help="Subjects that the ranges are of; the others are held against them.")
@click.option("--window-hu", type=float, nargs=2, default=WINDOW_HU, help="HU to which the training's CT was cut.")
@click.option("--out", "path", type=PATH, required=True, help="File to write, such as <run>/reference.json.")
@spread_options
def main(root, masks, split, window_hu, path, workers, scheduler):
    click.echo(write_reference(root, path, masks, split, window_hu, workers, scheduler))
    person = ("--sex", "F", "--age", 60, "--height-cm", 165, "--weight-kg", 66)
    ended(path, "2_Tests/generate_petct.py", *person, "--reference", path, "--outdir", "out/checked")


if __name__ == "__main__":
    main()
