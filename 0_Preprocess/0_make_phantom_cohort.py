"""A synthetic PET/CT cohort with known truth: software and method can be tried where no patient data may go.

    python 0_Preprocess/0_make_phantom_cohort.py --root cohorts/phantom --subjects 40 --seed 1
    python 0_Preprocess/0_make_phantom_cohort.py --root cohorts/phantom-dicom --subjects 4 --format dicom
    python 0_Preprocess/0_make_phantom_cohort.py --root cohorts/doses --subjects 40 --dose 0.1 --dose 0.01 --spheres 6

NIfTI gives <root>/resampled, <root>/given (organ labels), cohort.csv and truth.csv: go on with 3_segment_organs.py.
DICOM gives <root>/dicom, <root>/given and truth.csv: go on with 1_dicom_to_metadata.py.
Run the same command again to continue after an interruption. All it makes is a phantom: no evidence about patients.
"""


import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.demographics import TEST_FRACTION
from totalgen.phantom import write_cohort
from totalgen.phantom.scanner import PET
from totalgen.phantom.uptake import TRACERS

CONFIG = dict(subjects=40, seed=0, format="nifti", voxel_mm=4.0, test_fraction=TEST_FRACTION, variability=1.0)


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--subjects", type=click.IntRange(max=100_000), default=CONFIG["subjects"], help="How many, at least 1.")
@click.option("--seed", type=click.IntRange(min=0), default=CONFIG["seed"], help="The same seed, the same cohort.")
@click.option("--format", type=click.Choice(["nifti", "dicom"]), default=CONFIG["format"],
              help="Volumes to go on with step 3, or scans to go on with step 1.")  # fmt: skip
@click.option("--voxel-mm", type=float, default=CONFIG["voxel_mm"], help="Edge of the voxels, 1 to 12 mm.")
@click.option("--test-fraction", type=float, default=CONFIG["test_fraction"], help="Share of split test, 0 to 1.")
@click.option("--validation-fraction", type=float, default=0.0, help="Share of split validation, 0 to 1.")
@click.option("--variability", type=click.FloatRange(0, 10), default=CONFIG["variability"],
              help="0 makes the deterministic phantom: organs follow from the demographics alone.")  # fmt: skip
@click.option("--tracer", type=click.Choice(list(TRACERS)), default="fdg", help="Pattern of uptake.")
@click.option("--fwhm-mm", type=click.FloatRange(0, 50), default=PET.fwhm_mm, help="Blur of the PET scanner, mm.")
@click.option("--spheres", type=click.IntRange(0, 100), default=0, help="Small hot ones, in liver, muscle and lung.")
@click.option("--dose", "doses", type=float, multiple=True,
              help="Also this fraction of the normal dose, in <root>/doses; repeatable.")  # fmt: skip
@click.option("--mr", is_flag=True, help="Also a T1-weighted MR, in <root>/pairs.")
@spread_options
def main(root, subjects, **settings):
    write_cohort(root, subjects, **settings)
    if settings["format"] == "dicom":
        return ended(f"{root}/dicom, given and truth.csv", "0_Preprocess/1_dicom_to_metadata.py", "--root", root)
    recipe = "doses" if settings["doses"] else "pairs" if settings["mr"] else None
    if recipe:
        script = "0_Preprocess/6_pack_training_set.py"
        return ended(f"{root}/{recipe} and cohort.csv", script, "--root", root, "--recipe", recipe)
    files = f"{root}/resampled, given, cohort.csv and truth.csv"
    ended(files, "0_Preprocess/3_segment_organs.py", "--root", root, "--backend", "given")


if __name__ == "__main__":
    main()
