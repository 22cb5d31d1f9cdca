r"""In place of steps 1 to 3: studies that are NIfTI files and a table, such as the public copies of AutoPET.

    python 0_Preprocess/9_import_nifti.py --root cohorts/mine --table people.csv --column "subject=Subject ID" \
        --ct "data/{}/CTres.nii.gz" --suv "data/{}/SUV.nii.gz" --organs "data/{}/organs.nii.gz"

{} stands for the subject. The table states sex, age_years, height_m (or height_cm) and weight_kg; --column maps names.
CT in HU, PET in SUV and labels of TotalSegmentator's `total` task come onto one grid of cubes, and are checked as those
of DICOM are. Without --organs, step 3 follows. Writes <root>/resampled, organs, cohort.csv, import.csv, failures.csv.
"""

from pathlib import Path

import click
import pandas as pd

from totalgen.commands import PATH, PLACE, command, ended, named, spread_options
from totalgen.data.demographics import COLUMNS, TEST_FRACTION, changes, write_with_others
from totalgen.data.files import atomic, refuse_inputs_in
from totalgen.data.made_with import made_in
from totalgen.data.metadata import share
from totalgen.data.names import file_of, matching
from totalgen.data.nifti_studies import person_of, read_people, read_study
from totalgen.data.pair import check_same_voxels
from totalgen.data.subjects import for_each_subject, say_doubts
from totalgen.data.volume import write_nifti
from totalgen.errors import InputError


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--table", type=PATH, required=True, help="CSV of the people.")
@click.option("--column", "columns", multiple=True, metavar="HERE=THERE", help="Its name of a column; repeatable.")
@click.option("--ct", required=True, metavar="PATTERN", help="CT in HU, with {} for the subject.")
@click.option("--suv", required=True, metavar="PATTERN", help="PET in SUV (body weight), on any grid.")
@click.option("--organs", metavar="PATTERN", help="Labels with the ids of TotalSegmentator's `total` task.")
@click.option("--voxel-mm", type=click.FloatRange(0.5, 20), default=2.0, help="Edge of the isotropic voxels.")
@click.option("--source", default="unknown scanner", help="Where the images are from, for table and weights.")
@click.option("--test-fraction", type=click.FloatRange(0, 1), default=TEST_FRACTION, help="Share of split test.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the split.")
@spread_options
def main(root, table, columns, ct, suv, organs, voxel_mm, source, test_fraction, seed, workers, scheduler):
    if not all(column.partition("=")[2] for column in columns):
        raise InputError('--column is not such as "subject=Subject ID". Write both names.')
    people = read_people(table, named("--column", columns))
    subjects, lonely = matching(ct, suv, *([organs] if organs else []))
    if lonely:
        click.echo(f"{len(lonely)} of {len(subjects) + len(lonely)} subjects lack a file and are left out.", err=True)

    note = f"{source}, resampled (TotalGen)"

    def work(subject):
        files = [Path(file_of(path, subject)) if path else None for path in (ct, suv, organs)]
        made, report = read_study(*files, person_of(people, subject), voxel_mm)
        labels = made.pop("organs", None)
        if labels is not None:
            write_nifti(root / "organs" / f"{subject}.nii.gz", labels, note)
        with atomic(root / "resampled" / subject) as part:
            for name, volume in made.items():
                write_nifti(Path(part) / f"{name}.nii.gz", volume, note)
        return report

    def done(subject):
        labelled = not organs or (root / "organs" / f"{subject}.nii.gz").exists()
        return labelled and (root / "resampled" / subject).is_dir()

    files = {subject: [Path(file_of(path, subject)) for path in (ct, suv, organs) if path] for subject in subjects}
    for folder in ("resampled", "organs"):
        refuse_inputs_in(root / folder, [path for paths in files.values() for path in paths])
    check_same_voxels(root / "resampled", [s for s in subjects if done(s)], voxel_mm)
    made_with = made_in(root / "resampled", dict(voxel_mm=voxel_mm), files)
    failed = for_each_subject(root, "import", subjects, work, done, root / "import.csv", workers, scheduler, made_with)
    rows, doubts = [], {}
    for subject in (subject for subject in subjects if subject not in failed):
        try:
            person = vars(person_of(people, subject))
        except InputError as error:  # imported before, with another table
            doubts[subject] = f"{subject} is not added to cohort.csv: {str(error).rstrip('.')}"
            continue
        split = "test" if share(seed, subject) < test_fraction else "train"
        rows.append(dict(subject=subject, **person, source=source, split=split))
    found = pd.DataFrame(rows, columns=COLUMNS)
    say_doubts(changes(root / "cohort.csv", found), table)
    written = write_with_others(root / "cohort.csv", found)
    say_doubts([doubt for subject, doubt in doubts.items() if subject not in set(written["subject"])], table)
    click.echo(f"{len(written)} subjects in {root / 'cohort.csv'}.")
    step = ("4_crop_torso.py",) if organs else ("3_segment_organs.py", "--backend", "totalsegmentator")
    ended(f"{root}/resampled, cohort.csv and import.csv", f"0_Preprocess/{step[0]}", "--root", root, *step[1:])


if __name__ == "__main__":
    main()
