"""Measure volume, SUVmean, SUVmax and SUVpeak of liver, heart, kidneys and spleen in every study of a folder.

    python 3_Evaluations/2_measure_organs.py --root cohorts/demo

Takes a cohort root (<root>/cropped/<subject>/{SUV,organs}.nii.gz) or a generated folder
(<root>/<name>/{SUV,organs}.nii.gz) and writes <root>/organs.csv. Missing organs and those under 50 mL are flagged.
"""

from pathlib import Path

import click

from totalgen.evaluation.measures import measure_cohort


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Cohort root or generated folder.")
@click.option("--masks", default="organs", help="Name of the mask file and of the table.")
@click.option("--split", help="Only subjects of this split of a cohort root, e.g. test.")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Running Dask scheduler to use instead, such as tcp://host:8786.")
def main(root, masks, split, workers, scheduler):
    click.echo(measure_cohort(root, masks, workers, scheduler, split))


if __name__ == "__main__":
    main()
