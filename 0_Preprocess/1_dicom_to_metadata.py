"""Read the headers below <root>/dicom: who the subjects are, and which PET and CT of each are used.

    python 0_Preprocess/1_dicom_to_metadata.py --root cohorts/petct

Folders may be nested in any way. Sex, age, height and weight are merged over all series of a study; the PET is the one
corrected for attenuation, the CT the one that shares its frame of reference and overlaps it most.
Writes <root>/cohort.csv (subject, sex, age_years, height_m, weight_kg, split, source), <root>/series.csv (every series,
chosen or not, and why) and <root>/failures.csv. No name and no birth date is written. Rows of cohort.csv that were
added by hand stay; subjects keep their split when others are added.
"""

from pathlib import Path

import click
import pandas as pd

from totalgen.data.demographics import read_cohort, write_cohort
from totalgen.data.files import forget_failures, record_failure, require_folder, whole
from totalgen.data.metadata import describe_cohort
from totalgen.errors import InputError


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Folder of the cohort.")
@click.option("--test-fraction", type=click.FloatRange(0, 1), default=0.26, help="Share of test subjects (200 of 765).")
@click.option("--seed", type=int, default=0, help="Of the split.")
def main(root, test_fraction, seed):
    require_folder(root, "Give the folder that holds the cohort.")
    require_folder(root / "dicom", "Put the DICOM studies there, in folders of any depth.")
    cohort, series, failures = describe_cohort(root / "dicom", test_fraction, seed)
    with whole(root / "series.csv") as part:
        series.to_csv(part, index=False)
    forget_failures(root, "metadata")
    for subject, error in failures:
        record_failure(root, subject, "metadata", error)
    if cohort.empty:
        subject, error = failures[0]
        raise InputError(f"{subject}: {error} No subject can be used; listed in {root / 'failures.csv'}.")
    if (root / "cohort.csv").exists():
        known = read_cohort(root / "cohort.csv")
        cohort = pd.concat([known[~known["subject"].isin(cohort["subject"])], cohort], ignore_index=True)
    write_cohort(root / "cohort.csv", cohort.sort_values("subject"))
    test = int((cohort["split"] == "test").sum())
    click.echo(f"{len(cohort)} subjects ({len(cohort) - test} train, {test} test) in {root / 'cohort.csv'}.")
    if failures:
        click.echo(f"{len(failures)} problems are listed in {root / 'failures.csv'}.", err=True)


if __name__ == "__main__":
    main()
