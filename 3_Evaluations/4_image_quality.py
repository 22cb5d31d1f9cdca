r"""Compare pairs of volumes with a reference: PSNR, SSIM, MAE, NMAE and, for PET, organ bias and contrast recovery.

    python 3_Evaluations/4_image_quality.py --range 0 16 --mask-above 0.1 --outdir out/quality-0.1 \
        --reference cohorts/doses/doses/{}/truth.nii.gz \
        --candidate "low dose=cohorts/doses/doses/{}/SUV_0.1.nii.gz" --candidate "EDM=out/dose-0.1/{}/SUV.nii.gz" \
        --organs cohorts/doses/doses/{}/organs.nii.gz --spheres cohorts/doses/doses/{}/spheres.nii.gz

{} stands for the subject. Subjects are those whose files are all there; --cohort and --split choose among them. Writes
cases.csv, summary.csv and summary.md (also printed); differences are from the first candidate. --std "EDM=…/SUV_std…"
adds calibration.csv and .png: whether the spread of samples is as large as their distance from the reference.
--picture SUBJECT adds <subject>.png: a slice of each volume and its errors. --labels "EDM=out/{}/organs.nii.gz" adds
Dice, Hausdorff distance (95 %) and surface Dice (3 mm) against --organs. <outdir> is a --section of the report.
"""

import click

from totalgen.commands import PATH, PLACE, command, named, section_ended
from totalgen.data.demographics import of_split, read_cohort
from totalgen.data.names import file_of, matching, pattern
from totalgen.errors import InputError
from totalgen.evaluation.calibration import Maps, calibrate
from totalgen.evaluation.image_quality import Files, measure_pairs, summarise
from totalgen.evaluation.side_by_side import side_by_side


def subjects_of(paths, cohort, split):
    """Those for whom all files exist, of a split of a cohort table when one is given."""
    found, incomplete = matching(*paths)
    if cohort is not None:
        wanted = set(of_split(read_cohort(cohort, person=False), split, cohort)["subject"])
        found, incomplete = ([name for name in names if name in wanted] for names in (found, incomplete))
        if not found:
            raise InputError(f"{cohort}: none of its subjects has all files. Check the patterns.")
    if incomplete:
        count = len(found) + len(incomplete)
        click.echo(f"{len(incomplete)} of {count} subjects are left out: a file of theirs is missing.", err=True)
    return found


@command(__doc__)
@click.option("--reference", required=True, metavar="PATTERN", help="Path with {} for the subject.")
@click.option("--candidate", "candidates", multiple=True, required=True, metavar="NAME=PATTERN", help="Repeatable.")
@click.option("--range", "value_range", type=float, nargs=2, required=True, help="Lowest and highest value shown.")
@click.option("--mask", metavar="PATTERN", help="Where the metrics are taken: voxels above 0 of these files.")
@click.option("--mask-above", type=float, help="Or where the reference is above this value.")
@click.option("--organs", metavar="PATTERN", help="Organ labels, for bias of SUVmean and SUVmax.")
@click.option("--labels", multiple=True, metavar="NAME=PATTERN", help="Labels of a candidate, against --organs.")
@click.option("--spheres", metavar="PATTERN", help="Labels of hot spheres, for contrast recovery.")
@click.option("--cohort", type=PATH, help="Cohort table that lists the subjects.")
@click.option("--split", help="Only subjects of this split of that table.")
@click.option("--std", metavar="NAME=PATTERN", help="Standard deviation of a candidate's samples, to calibrate.")
@click.option("--samples", type=click.IntRange(min=1), default=1, help="How many samples --std is of, 2 or more.")
@click.option("--picture", "pictured", multiple=True, metavar="SUBJECT", help="Show this subject; repeatable.")
@click.option("--given", metavar="NAME=PATTERN", help="What the candidates were made of, for those pictures: a CT.")
@click.option("--inverted", is_flag=True, help="In pictures high values are dark, as in PET.")
@click.option("--outdir", type=PLACE, required=True, help="Folder of the tables.")
def main(
    reference, candidates, value_range, mask, mask_above, organs, labels, spheres, cohort, split, std, samples,
    pictured, given, inverted, outdir,
):  # fmt: skip
    paths = {name: pattern(path) for name, path in named("--candidate", candidates).items()}
    masks = {name: pattern(path) for name, path in named("--labels", labels).items()}
    if masks and (not organs or not masks.keys() <= paths.keys()):
        raise InputError("--labels are compared with --organs, and named like a --candidate. Give both.")
    files = Files(pattern(reference), paths, mask, organs, spheres, masks)
    source, spread = (given or "").partition("="), (std or "").partition("=")  # name, =, pattern
    also = [pattern(path) for option, (_, _, path) in ((given, source), (std, spread)) if option]
    every = [files.reference, *paths.values(), *masks.values(), *(path for path in files[2:5] if path), *also]
    if std and spread[0] not in paths:
        raise InputError(f'--std names "{spread[0]}", which is no --candidate. Give NAME=PATTERN of one.')
    if std and samples < 2:
        raise InputError(f"--samples is {samples}; a standard deviation needs two. Say how many samples --std is of.")
    if mask and mask_above is not None:
        raise InputError("--mask and --mask-above both say where the metrics are taken. Give one.")
    if split and cohort is None:
        raise InputError(f"--split {split} is of a table. Give it with --cohort.")
    if value_range[0] >= value_range[1]:
        raise InputError(f"--range {value_range[0]:g} {value_range[1]:g}: the first is not below. Change one.")
    subjects = subjects_of(every, cohort, split)
    if strangers := [subject for subject in pictured if subject not in subjects]:
        raise InputError(f"--picture {strangers[0]} is none of the {len(subjects)} subjects. Name one of them.")
    cases = measure_pairs(files, subjects, value_range, outdir, mask_above)
    click.echo(summarise(cases, outdir, len(subjects) - cases["subject"].nunique()))
    for subject in pictured:
        found = {title: file_of(file, subject) for title, file in files.candidates.items()}
        maps = {"standard deviation": file_of(spread[2], subject)} if std else {}
        made_of = (source[0], file_of(source[2], subject)) if given else None
        one = (outdir / f"{subject}.png", file_of(files.reference, subject), found, value_range)
        side_by_side(*one, maps, inverted, made_of)
    if std:
        maps = Maps(files.reference, paths[spread[0]], spread[2], samples, mask)
        compared = [subject for subject in subjects if subject in set(cases["subject"])]
        click.echo(calibrate(maps, compared, outdir, mask_above).round(4).to_string(index=False))
    section_ended(outdir)


if __name__ == "__main__":
    main()
