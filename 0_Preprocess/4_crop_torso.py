"""Crop every subject to the torso: clavicles to sacrum with 40 mm margins, in a square centred on the body.

    python 0_Preprocess/4_crop_torso.py --root cohorts/demo --field-mm 480

Reads <root>/resampled/<subject>/{CT,SUV}.nii.gz and <root>/organs/<subject>.nii.gz. Outside the body CT becomes air
(−1000 HU) and SUV 0: the table disappears. The axial extent stays true. A scan that does not show the whole torso is
kept to its end, with a note.

Writes <root>/cropped/<subject>/{CT,SUV,organs}.nii.gz, <root>/crop.csv (subject, covers_torso, clavicles, sacrum,
z_extent_mm, note) and covers_torso into <root>/cohort.csv, so that training can leave partial torsos out.
Subjects that are done are skipped: remove their folder to crop them again. What was cropped with another field or
margin, of other images or with other labels, is refused.
"""


from glob import escape

import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.crop import FIELD_MM, MARGIN_MM, crop_torso
from totalgen.data.demographics import COVERAGE
from totalgen.data.files import atomic
from totalgen.data.made_with import made_in
from totalgen.data.subjects import for_each_subject, put_column, read_table, subjects_in
from totalgen.data.volume import read_labels, read_nifti, write_nifti

SOURCE = "unknown scanner"


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--field-mm", default=FIELD_MM, type=click.FloatRange(50, 5000), help="Edge of the in-plane square.")
@click.option("--margin-mm", default=MARGIN_MM, type=click.FloatRange(0, 5000), help="Beyond clavicles and sacrum.")
@spread_options
def main(root, field_mm, margin_mm, workers, scheduler):
    subjects = subjects_in(root / "resampled", "Run 2_dicom_to_nifti.py or 0_make_phantom_cohort.py first.")

    known = read_table(root / "cohort.csv")
    sources = dict(zip(known["subject"], known["source"], strict=True)) if "source" in known else {}

    def work(subject):
        ct, suv = (read_nifti(root / "resampled" / subject / f"{name}.nii.gz") for name in ("CT", "SUV"))
        path = root / "organs" / f"{subject}.nii.gz"
        organs = read_labels(path) if path.exists() else None
        ct, suv, organs, report = crop_torso(ct, suv, organs, field_mm, margin_mm)
        with atomic(root / "cropped" / subject) as folder:
            for name, volume in (("CT", ct), ("SUV", suv), ("organs", organs)):
                write_nifti(folder / f"{name}.nii.gz", volume, f"torso, {sources.get(subject, SOURCE)} (TotalGen)")
        return report

    def done(subject):
        return (root / "cropped" / subject).is_dir()

    settings = dict(field_mm=field_mm, margin_mm=margin_mm)
    if not (root / "organs").is_dir():
        settings |= {"organs.backend": "none"}
    files = {
        subject: [*(root / "resampled" / subject / f"{name}.nii.gz" for name in ("CT", "SUV")),
                  *(root / "organs").glob(f"{escape(subject)}.nii.gz")] for subject in subjects
    }  # fmt: skip
    made_with = made_in(root / "cropped", settings, files, organs=root / "organs")
    for_each_subject(root, "crop", subjects, work, done, root / "crop.csv", workers, scheduler, made_with)
    if (root / "cohort.csv").exists():
        put_column(root / "cohort.csv", COVERAGE, read_table(root / "crop.csv").set_index("subject")[COVERAGE])
    ended(f"{root}/cropped and crop.csv", "0_Preprocess/5_fit_axial_extent.py", "--root", root)


if __name__ == "__main__":
    main()
