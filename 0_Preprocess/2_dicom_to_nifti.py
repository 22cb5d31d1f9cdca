"""Turn the chosen PET and CT of every subject into SUV and HU on one isotropic grid.

    python 0_Preprocess/2_dicom_to_nifti.py --root cohorts/petct --voxel-mm 2

Reads <root>/cohort.csv and <root>/series.csv. The grid covers the PET's field of view where PET and CT both reach along
the body; CT outside its own field of view is −1000 HU.
Writes <root>/resampled/<subject>/{CT,SUV}.nii.gz and <root>/suv.csv (subject, factor, suv_max_native, reference,
warnings). Subjects that are done are skipped; one that fails is listed in failures.csv and the others go on.
"""

from pathlib import Path

import click

from totalgen.data.cohort import for_each_subject, read_table
from totalgen.data.demographics import read_cohort
from totalgen.data.dicom import find_series
from totalgen.data.files import whole
from totalgen.data.pair import convert
from totalgen.data.volume import read_nifti, write_nifti
from totalgen.errors import InputError


def chosen_files(root, series, subject, modality):
    """Files of the subject's chosen series. Raises InputError when there is none, or a file of it is damaged."""
    rows = series[(series["subject"] == subject) & (series["modality"] == modality) & (series["chosen"] == "yes")]
    if rows.empty:
        raise InputError(f"{root / 'series.csv'}: {subject} has no chosen {modality} series. See its reasons there.")
    row = rows.iloc[0]
    found, damaged = find_series(root / row["path"])
    files = next((s.files for s in found if s.uid == row["series"]), [])
    for file in damaged:
        if file.series == row["series"] or (file.series is None and file.path.parent in {f.parent for f in files}):
            raise InputError(f"{file.path}: {file.why}. Restore the file.")
    if not files:
        raise InputError(f"{root / row['path']}: the chosen {modality} series is gone. Run 1_dicom_to_metadata.py.")
    return files


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Folder of the cohort.")
@click.option("--voxel-mm", type=click.FloatRange(0.5, 20), default=2.0, help="Edge of the isotropic voxels.")
@click.option("--any-tracer", is_flag=True, help="Accept tracers other than F-18 FDG.")
def main(root, voxel_mm, any_tracer):
    cohort = read_cohort(root / "cohort.csv").set_index("subject")
    series = read_table(root / "series.csv")
    if series.empty:
        raise InputError(f"{root / 'series.csv'}: lists no series. Run 1_dicom_to_metadata.py first.")

    def work(subject):
        files = [chosen_files(root, series, subject, modality) for modality in ("PT", "CT")]
        ct, suv, report = convert(*files, float(cohort.loc[subject, "weight_kg"]), voxel_mm, any_tracer)
        with whole(root / "resampled" / subject) as folder:
            write_nifti(folder / "CT.nii.gz", ct)
            write_nifti(folder / "SUV.nii.gz", suv)
        return report

    def done(subject):
        return (root / "resampled" / subject).is_dir()

    before = next((s for s in cohort.index if done(s)), None)
    if before is not None:  # two voxel sizes in one cohort would go unnoticed until training
        there = read_nifti(root / "resampled" / before / "CT.nii.gz").voxel_mm
        if abs(there - voxel_mm).max() > 1e-3:
            raise InputError(f"{root / 'resampled'}: holds voxels of {there[0]:g} mm. Remove it, or use that size.")
    for_each_subject(root, "resample", list(cohort.index), work, done, table=root / "suv.csv")


if __name__ == "__main__":
    main()
