r"""Compare measured cohorts with a reference: the published Table 1, statistics, figures, and a report of it all.

    python 3_Evaluations/3_compare_cohorts.py --reference Phantom=cohorts/demo --packed out/packed \
        --candidate EDM=out/demo --control "second sample=cohorts/second" --masks segmented --outdir out/table1

Measure every folder with 2_measure_organs.py first. Writes report.html (one page, opens offline), report.json,
table1.{txt,csv,md,tex}, statistics.csv, slopes.csv and the figures; prints table and verdicts. --packed is the
reference as 0_pack_reference.py leaves it, --control a second sample of what the reference is a sample of, --true-masks
the table of the reference in its true masks. How to read it: docs/evaluation.md.
"""

from dataclasses import replace

import click

from totalgen.commands import PATH, PLACE, command, named
from totalgen.errors import InputError
from totalgen.evaluation.design import PUBLISHED_DESIGN
from totalgen.evaluation.measured_cohort import load_cohort, paper_columns
from totalgen.evaluation.report import compare_cohorts
from totalgen.evaluation.sections import read_section

FOLDERS = dict(multiple=True, metavar="[NAME=]FOLDER")


@command(__doc__)
@click.option("--reference", required=True, metavar="[NAME=]FOLDER", help="Cohort root to compare the others with.")
@click.option("--candidate", "candidates", help="May be given several times.", **FOLDERS)
@click.option("--control", "controls", help="What a perfect generator gets: a second sample.", **FOLDERS)
@click.option("--packed", help="The reference as 0_pack_reference.py leaves it.", metavar="[NAME=]FOLDER")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the report.")
@click.option("--split", help="Only subjects of this split, e.g. test; all of a manifest without splits.")
@click.option("--masks", default="organs", help="Table of the cohorts: <folder>/<masks>.csv.")
@click.option("--reference-masks", help="Table of the reference, if it is not that of --masks.")
@click.option("--true-masks", help="Table of the reference in its true masks: the segmenter's own bias.")
@click.option("--margin", type=float, default=5.0, help="Of equivalence, in % of the reference mean.")
@click.option("--unpaired", is_flag=True, help="Ignore for whom a study was made.")
@click.option("--paper", is_flag=True, help="Show the columns of the published Table 1, too.")
@click.option("--section", "folders", type=PATH, multiple=True, help="Result of scripts 4, 5, 7 or 8, for the report.")
def main(
    reference, candidates, controls, packed, outdir, split, masks, reference_masks, true_masks, margin, unpaired, paper,
    folders,
):  # fmt: skip
    if not 0 < margin < 100:
        raise InputError(f"--margin {margin:g} is not between 0 and 100 %. Change it.")
    ((name, root),) = named("--reference", [reference]).items()
    roles = {"control": named("--control", controls), "candidate": named("--candidate", candidates)}
    base = load_cohort(name, root, split, reference_masks or masks, "reference")
    others = []
    if true_masks:
        others.append(load_cohort(f"{name} (true masks)", root, split, true_masks, "true masks"))
    if packed:
        label, folder = packed.split("=", 1) if "=" in packed else (f"{name} (packed)", packed)
        others.append(load_cohort(label, folder, split, masks, "packed"))
    for role, given in roles.items():
        others += [load_cohort(label, folder, split, masks, role) for label, folder in given.items()]
    design = replace(PUBLISHED_DESIGN, margin=margin / 100, paired=not unpaired)
    settings = dict(masks=masks, split=split, reference_masks=reference_masks or masks, true_masks=true_masks)
    sections = [read_section(folder) for folder in folders]
    printed = paper_columns() if paper else []
    click.echo(compare_cohorts(base, others, outdir, design, printed, sections, settings), nl=False)
    click.echo(f"Written: {outdir / 'report.html'} (open it in a browser), report.json, tables and figures")


if __name__ == "__main__":
    main()
