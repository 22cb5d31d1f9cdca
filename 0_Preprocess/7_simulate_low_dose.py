"""Step 7, for the PET denoiser: lower doses of every PET of a cohort, simulated in image space.

    python 0_Preprocess/7_simulate_low_dose.py --root cohorts/mine --dose 0.1 --dose 0.02

Reads <root>/resampled/<subject>/SUV.nii.gz, any voxel size and tracer; --voxel-mm resamples. Writes
<root>/doses/<subject>/{SUV,SUV_<dose>}.nii.gz, in which noise of the excess variance was added to what was there: no
counts, no reconstruction, and the noise of the normal dose stays in both. Phantoms get theirs with step 0.
"""

import hashlib

import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.doses import NoiseModel, check_doses, has_doses, write_doses
from totalgen.data.made_with import made_in
from totalgen.data.names import check_below
from totalgen.data.pet_input import read_pet
from totalgen.data.subjects import for_each_subject, subjects_in
from totalgen.data.volume import isotropic_grid, resample

NOTE = "Simulated low dose (TotalGen)"


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--folder", default="resampled", help="Below the root, with <subject>/SUV.nii.gz.")
@click.option("--dose", "doses", type=float, multiple=True, required=True, help="Fraction of the normal; repeatable.")
@click.option("--voxel-mm", type=click.FloatRange(0.5, 50), help="Resample to such cubes first.")
@click.option("--noise", type=click.FloatRange(0, 10, min_open=True), default=NoiseModel.relative,
              help="std / mean of tissue of SUV 2.3, normal dose.")  # fmt: skip
@click.option("--fwhm-mm", type=click.FloatRange(0, 50), default=NoiseModel.fwhm_mm,
              help="Blur of the noise, mm: that of the scanner.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Of the noise; each subject has its own.")
@spread_options
def main(root, folder, doses, voxel_mm, noise, fwhm_mm, seed, workers, scheduler):
    check_doses(doses)
    check_below(folder)
    model = NoiseModel(relative=noise, fwhm_mm=fwhm_mm)

    def work(subject):
        pet = read_pet(root / folder / subject / "SUV.nii.gz")
        for doubt in pet.warnings:
            click.echo(f"Warning: {subject}: {doubt}.", err=True)
        suv = pet.suv
        if voxel_mm:
            suv = resample(suv, *isotropic_grid(suv, voxel_mm), fill=0.0)
        own = int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8])
        write_doses(root / "doses" / subject, suv, doses, own, NOTE, model)

    def done(subject):
        return has_doses(root / "doses" / subject, doses)

    subjects = subjects_in(root / folder, "Run 2_dicom_to_nifti.py first, or put <subject>/SUV.nii.gz there.")
    settings = dict(folder=folder, voxel_mm=voxel_mm, noise=noise, fwhm_mm=fwhm_mm, seed=seed)
    files = {subject: [root / folder / subject / "SUV.nii.gz"] for subject in subjects}
    made_with = made_in(root / "doses", settings, files, resampled=root / folder)
    for_each_subject(root, "simulate_dose", subjects, work, done, None, workers, scheduler, made_with)
    ended(root / "doses", "2_Tests/denoise_pet.py", "--cohort", root, "--dose", doses[0], "--outdir", "out/denoised")


if __name__ == "__main__":
    main()
