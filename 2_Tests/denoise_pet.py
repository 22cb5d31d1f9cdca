"""Denoise a low-dose PET of any shape, voxel size, orientation and tracer, on its own grid.

    python 2_Tests/denoise_pet.py --preset demo --input low.nii.gz --dose 0.1 --outdir out/denoised
    python 2_Tests/denoise_pet.py --preset demo --cohort cohorts/doses --dose 0.1 --split test --outdir out/dose-0.1

--input is a NIfTI file in SUV, an npz file or a folder with a DICOM series. --cohort denoises
<root>/doses/<subject>/SUV_<dose>.nii.gz of every subject. The same command again denoises only what is missing;
torchrun shares the files between processes. --samples K gives their mean and standard deviation.
"""

from pathlib import Path

import click

from totalgen import distributed
from totalgen.commands import PATH, check_dicom, command, input_options
from totalgen.generation.cohort import generate_cohort, written
from totalgen.generation.inputs import requests_of
from totalgen.generation.pet_denoiser import PetDenoiser, dicom_export
from totalgen.schema import listed, resolve, to_dict
from totalgen.settings import PetDenoisingInferenceSettings

HERE = Path(__file__).resolve().parents[1]

# The published method: 1000 steps, slabs of 96 slices that share 10, blended at the end.
PUBLISHED = dict(sampler="ancestral", steps=1000, tiling="ramp", window=(100_000, 100_000, 96), overlap=10)
ONE = dict(sampler="euler", steps=1, window=(128, 128, 104))  # one evaluation: the expected PET
FEW = dict(sampler="dpm_solver", steps=16, sigma_max=20.0, window=(128, 128, 104))


def run(name):
    """Weights that 1_Trainings/train_pet_denoising.py --outdir runs/<name>, started in the repository, leaves."""
    return HERE / f"runs/{name}/ema-0.100.safetensors"


def shipped(name):
    """Weights that come with this repository, trained on phantoms."""
    return HERE / f"Resource/{name}.safetensors"


# fmt: off
PRESETS = {
    # name                     sampling         weights
    "paper-ddpm":         dict(PUBLISHED,       weights=run("pet-paper-ddpm")),
    "paper-ddpm-2d":      dict(PUBLISHED, window=(100_000, 100_000), weights=run("pet-paper-ddpm-2d")),
    "edm":                dict(FEW,             weights=run("pet-edm")),
    "regression":         dict(ONE,             weights=run("pet-regression")),
    "demo":               dict(FEW,             weights=shipped("demo-pet-edm")),
    "demo-one":           dict(ONE,             weights=shipped("demo-pet-edm")),
    "demo-regression":    dict(ONE,             weights=shipped("demo-pet-regression")),
    "demo-ddpm-2d":       dict(sampler="ddim", steps=25, window=(100_000, 100_000), weights=run("pet-demo-ddpm-2d")),
    "smoke":              dict(sampler="euler", steps=2, window=(16, 16, 16), overlap=4, weights=run("pet-smoke-edm")),
}
# fmt: on


@command(__doc__, epilog=listed(PetDenoisingInferenceSettings))
@click.option("--preset", default="demo", help=f"One of: {', '.join(PRESETS)}.")
@click.option("--input", "path", type=PATH, help="NIfTI or npz file in SUV, or a folder with a PET DICOM series.")
@click.option("--dose", type=float, required=True, help="Fraction of the normal dose, such as 0.1.")
@click.option("--weights", type=PATH, help="Weights of a denoiser, in place of the preset's.")
@click.option("--tiling", type=click.Choice(["fused", "ramp"]), help="Average windows at every step, or at the end.")
@input_options
def main(preset, path, cohort, split, dose, seed, outdir, dicom, keep_identity, changes, dry_run, **given):
    settings = resolve(PetDenoisingInferenceSettings, PRESETS, preset, changes, given)
    if dry_run:
        return click.echo("\n".join(f"{name:16} {values}" for name, values in to_dict(settings).items()))
    check_dicom(dicom, path)
    rank, ranks, device = distributed.start(7, settings.compute.device)
    files = f"doses/{{}}/SUV_{dose:g}.nii.gz"
    requests = requests_of(path, cohort, files, seed, outdir, rank, split, keep_identity, dose=dose)
    denoiser = PetDenoiser.load(settings, device)
    exports = {"dicom": dicom_export(outdir, keep_identity)} if dicom else {}
    generate_cohort(denoiser, requests, outdir, preset, rank, ranks, exports=exports)
    distributed.stop()
    if rank == 0:
        click.echo(written(outdir, requests))


if __name__ == "__main__":
    main()
