"""Measure volume, SUVmean, SUVmax and SUVpeak of liver, heart, kidneys and spleen in every study of a folder.

    python 3_Evaluations/2_measure_organs.py --root cohorts/demo

Takes a cohort root (<root>/cropped/<subject>/{SUV,organs}.nii.gz) or a generated folder
(<root>/<name>/{SUV,organs}.nii.gz) and writes <root>/organs.csv. Missing organs, those under 50 mL and those with an
SUV that is no number are flagged. Bones that the masks know have a row too: where they are in the field. Where there is
a CT, <root>/bodies.csv has the mass and the length of the field.
"""


import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.evaluation.measured import measure_bodies, measure_cohort


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Cohort root or generated folder.")
@click.option("--masks", default="organs", help="Name of the mask file and of the table.")
@click.option("--split", help="Only subjects of this split of a cohort root, e.g. test.")
@spread_options
def main(root, masks, split, workers, scheduler):
    table = measure_cohort(root, masks, workers, scheduler, split)
    measure_bodies(root, workers, scheduler, split)
    both = ("--reference", "Reference=COHORT", "--candidate", f"Measured={root}", "--masks", masks)
    ended(table, "3_Evaluations/3_compare_cohorts.py", *both, "--outdir", "out/table1")


if __name__ == "__main__":
    main()
