"""Turn the chosen PET and CT of every subject into SUV and HU on one isotropic grid.

    python 0_Preprocess/2_dicom_to_nifti.py --root cohorts/petct --voxel-mm 2

Reads <root>/cohort.csv and <root>/series.csv. The grid covers the PET's field of view where PET and CT both reach along
the body; CT outside its own field of view is −1000 HU.
Writes <root>/resampled/<subject>/{CT,SUV}.nii.gz and <root>/suv.csv (subject, factor, suv_max_native, reference,
warnings). Subjects that are done are skipped; one that fails is listed in failures.csv and the others continue. What
was made for another weight, height or sex, of other series or other headers is refused; DICOM may be gone by then.
"""

import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.demographics import Demographics, read_cohort
from totalgen.data.files import atomic
from totalgen.data.made_with import made_in
from totalgen.data.metadata import chosen_files, discreet, read_stated, sources_of_studies, told_otherwise
from totalgen.data.pair import check_same_voxels, convert
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.data.volume import write_nifti
from totalgen.errors import InputError

NOTE = "from DICOM, resampled (TotalGen)"


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--voxel-mm", type=click.FloatRange(0.5, 20), default=2.0, help="Edge of the isotropic voxels.")
@click.option("--any-tracer", is_flag=True, help="Accept tracers other than F-18 FDG.")
@spread_options
def main(root, voxel_mm, any_tracer, workers, scheduler):
    cohort = read_cohort(root / "cohort.csv").set_index("subject")
    series = read_table(root / "series.csv")
    if series.empty:
        raise InputError(f"{root / 'series.csv'}: lists no series. Run 1_dicom_to_metadata.py first.")

    stated = read_stated(root)

    def work(subject):
        with discreet(root, series, subject):
            files = [chosen_files(root, series, subject, modality) for modality in ("PT", "CT")]
            person = Demographics.from_row(cohort.loc[subject])
            doubts = told_otherwise(person, stated, subject)
            ct, suv, report = convert(*files, person, voxel_mm, any_tracer, doubts)
            with atomic(root / "resampled" / subject) as folder:
                write_nifti(folder / "CT.nii.gz", ct, NOTE)
                write_nifti(folder / "SUV.nii.gz", suv, NOTE)
        return report

    def done(subject):
        return (root / "resampled" / subject).is_dir()

    check_same_voxels(root / "resampled", [subject for subject in cohort.index if done(subject)], voxel_mm)
    sources = sources_of_studies(root, series, cohort)
    made_with = made_in(root / "resampled", dict(voxel_mm=voxel_mm), sources=sources)
    for_each_subject(root, "resample", list(cohort.index), work, done, root / "suv.csv", workers, scheduler, made_with)
    backend = "given" if (root / "given").is_dir() else "totalsegmentator"
    ended(f"{root}/resampled and suv.csv", "0_Preprocess/3_segment_organs.py", "--root", root, "--backend", backend)


if __name__ == "__main__":
    main()
