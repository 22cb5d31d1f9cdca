r"""Compare measured cohorts with a reference: the layout of the published Table 1, statistics and violins.

    python 3_Evaluations/3_compare_cohorts.py --reference Phantom=cohorts/demo \
        --candidate EDM=out/demo --outdir out/table1

Measure every folder with 2_measure_organs.py first. Writes table1.md (also printed), table1.csv, statistics.csv and
violins.png.
"""

from pathlib import Path

import click

from totalgen.commands import PLACE, command
from totalgen.evaluation.report import compare_cohorts, load_cohort


def named(text):
    """NAME=FOLDER or FOLDER → (name, folder); a bare folder is named after itself."""
    name, given, folder = text.partition("=")
    return (name, Path(folder)) if given else (Path(text).name, Path(text))


@command(__doc__)
@click.option("--reference", required=True, metavar="[NAME=]FOLDER", help="Cohort root to compare the others with.")
@click.option("--candidate", "candidates", multiple=True, metavar="[NAME=]FOLDER", help="May be given several times.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the tables.")
@click.option("--split", help="Only subjects of this split, e.g. test; all subjects of a table without splits.")
@click.option("--masks", default="organs", help="Table of the candidates: <folder>/<masks>.csv.")
@click.option("--reference-masks", help="Table of the reference, if it is not that of --masks.")
def main(reference, candidates, outdir, split, masks, reference_masks):
    base = load_cohort(*named(reference), split, reference_masks or masks)
    others = [load_cohort(*named(candidate), split, masks) for candidate in candidates]
    click.echo(compare_cohorts(base, others, outdir))


if __name__ == "__main__":
    main()
