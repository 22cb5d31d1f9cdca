"""Read the headers below <root>/dicom: who the subjects are, and which PET and CT of each are used.

    python 0_Preprocess/1_dicom_to_metadata.py --root cohorts/petct

Folders may be nested freely. Sex, age, height and weight are merged over all series of a study; the PET is the one
corrected for attenuation, the CT the one that shares its frame of reference and overlaps it most.

Writes <root>/cohort.csv (subject, sex, age_years, height_m, weight_kg, split, source), <root>/series.csv (every series,
chosen or not, and why), <root>/demographics.csv (subject, field, value, source: the series that states it, what was
corrected, which series disagree) and <root>/failures.csv. When cohort.csv exists already, rows that were added by hand
stay, and so do further columns and the split of every subject; age, height, weight and sex are read from the headers
again.

No name, no date and no other identifier is written. A subject whose headers all state Patient Identity Removed YES
keeps its Patient ID, its paths and its descriptions of series. For any other subject the tables contain salted hashes
of Patient ID ("sub-…") and series UIDs, "PT series 4" for a description, and a path as places in the sorted folders,
dicom/#3/#1. <root>/.salt links these ids to patients for anyone who also has the DICOM files: keep it as private as
they are, and do not delete it, because without it no subject can be added. --subject-ids patient-id treats all subjects
as de-identified, hash none.
"""


import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.choice import OTHER_STUDY
from totalgen.data.demographics import TEST_FRACTION, Demographics, write_with_others
from totalgen.data.files import atomic, forget_failures, record_failure, require_folder
from totalgen.data.identity import SUBJECT_IDS, is_hidden_name
from totalgen.data.metadata import BY_HAND, describe_cohort, told_otherwise
from totalgen.data.names import first_of
from totalgen.data.subjects import say_doubts
from totalgen.data.text_files import read_text
from totalgen.errors import InputError


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--test-fraction", type=click.FloatRange(0, 1), default=TEST_FRACTION, help="Share of split test.")
@click.option("--validation-fraction", type=click.FloatRange(0, 1), default=0.0, help="Share of split validation.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the split.")
@click.option("--subject-ids", type=click.Choice(SUBJECT_IDS), default="auto", help="How subjects are named.")
@spread_options
def main(root, test_fraction, validation_fraction, seed, subject_ids, workers, scheduler):
    require_folder(root, "Give the folder of the cohort.")
    require_folder(root / "dicom", "Put the DICOM studies there, in folders of any depth.")
    settings = (test_fraction, seed, subject_ids, workers, scheduler)
    if test_fraction + validation_fraction > 1:
        raise InputError("--test-fraction and --validation-fraction are more than 1 together. Lower one.")
    described = describe_cohort(root / "dicom", *settings, validation_fraction=validation_fraction)
    cohort, series, demographics, failures = described
    for name, table in (("series", series), ("demographics", demographics)):
        with atomic(root / f"{name}.csv") as part:
            table.to_csv(part, index=False)
    forget_failures(root, "metadata")
    known = set(read_text(root / "cohort.csv")["subject"]) if (root / "cohort.csv").exists() else set()
    by_hand = {subject for subject, error in failures if subject in known and BY_HAND in error}
    failures = [(subject, error) for subject, error in failures if not (subject in by_hand and BY_HAND in error)]
    for subject, error in failures:
        record_failure(root, subject, "metadata", error)
    if cohort.empty and not by_hand:
        subject, error = failures[0]
        raise InputError(f"{subject}: {error} No subject can be used; listed in {root / 'failures.csv'}.")
    doubts = [
        f"{row['subject']}: {doubt}" for _, row in cohort.iterrows()
        for doubt in told_otherwise(Demographics.from_row(row), demographics, row["subject"])
    ]  # fmt: skip
    described = set(cohort["subject"])
    cohort = write_with_others(root / "cohort.csv", cohort)
    if others := [subject for subject in cohort["subject"] if subject not in described]:
        click.echo(f"{len(others)} subjects stay in cohort.csv that no header describes.")
    if unnamed := [subject for subject in others if is_hidden_name(subject)]:
        click.echo(f"Warning: of these {first_of(unnamed, 5)} have hidden names. Where their headers have been "
                   "de-identified or .salt has been made anew since, they are the same patients: remove their rows.",
                   err=True)  # fmt: skip
    splits = ", ".join(f"{count} {split}" for split, count in cohort["split"].value_counts().items())
    click.echo(f"{len(cohort)} subjects ({splits}) in {root / 'cohort.csv'}.")
    unused = series[(series["modality"] == "PT") & (series["reason"] == OTHER_STUDY)]["subject"].unique()
    if len(unused):
        names = first_of(list(unused), 5)
        click.echo(f"Warning: several PET studies have the Patient ID of {names}; one of each is used. Are they of one "
                   "person?", err=True)  # fmt: skip
    say_doubts(doubts, root / "demographics.csv")
    if failures:
        click.echo(f"{len(failures)} problems are listed in {root / 'failures.csv'}.", err=True)
    files = f"{root}/cohort.csv, series.csv and demographics.csv"
    ended(files, "0_Preprocess/2_dicom_to_nifti.py", "--root", root, "--voxel-mm", 2)


if __name__ == "__main__":
    main()
