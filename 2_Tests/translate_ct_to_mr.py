"""Translate a CT of any shape, voxel size and orientation to MR, on its own grid.

    python 2_Tests/translate_ct_to_mr.py --preset demo --input CT.nii.gz --outdir out/mr
    python 2_Tests/translate_ct_to_mr.py --preset demo --cohort cohorts/pairs --split test --outdir out/mr

--input is a NIfTI file in HU or a folder with a DICOM series. --cohort translates <root>/pairs/<subject>/CT.nii.gz of
every subject. --stage slices stops at the stacked slices, which the refinement learns from. The same command again
translates only what is missing; torchrun shares the files between processes.
"""

from pathlib import Path

import click

from totalgen import distributed
from totalgen.commands import PATH, check_dicom, command, input_options
from totalgen.generation.cohort import generate_cohort, written
from totalgen.generation.ct_translator import CtTranslator, dicom_export
from totalgen.generation.inputs import requests_of
from totalgen.schema import listed, resolve, to_dict
from totalgen.settings import MR_STAGES, TranslationInferenceSettings

HERE = Path(__file__).resolve().parents[1]

# The published method: 25 DDIM steps in both stages, whole slices and whole latent volumes.
WHOLE = 100_000
PUBLISHED = {
    "slices_sampling": dict(sampler="ddim", steps=25), "refiner_sampling": dict(sampler="ddim", steps=25),
    "slices_windows": dict(window=(WHOLE, WHOLE)), "refiner_windows": dict(window=(WHOLE, WHOLE, WHOLE)),
}  # fmt: skip
FEW = {
    "slices_sampling": dict(sampler="dpm_solver", steps=5, sigma_max=20.0),
    "refiner_sampling": dict(sampler="dpm_solver", steps=8, sigma_max=20.0),
    "slices_windows": dict(window=(WHOLE, WHOLE), window_batch=16),
    "refiner_windows": dict(window=(WHOLE, WHOLE, WHOLE)),
}  # fmt: skip
ONE = {"slices_sampling": dict(sampler="euler", steps=1), "slices_windows": dict(window=(128, 128, 104)),
       "stage": "slices"}  # fmt: skip


def networks(files, slices="slices", refiner="refiner"):
    """The three weights files: ``files`` with the name that each network has there."""
    names = {"slices": slices, "vqvae": "vqvae", "refiner": refiner}
    return {f"{network}_weights": HERE / files.format(name) for network, name in names.items()}


SHIPPED = "Resource/demo-mr-{}.safetensors"  # trained on phantoms
PAPER_RUNS = "runs/mr-paper-{}/ema-0.100.safetensors"  # of trainings started in the repository
SMOKE_RUNS = "runs/mr-smoke-{}/ema-0.100.safetensors"

PRESETS = {
    "paper": dict(PUBLISHED, **networks(PAPER_RUNS, refiner="latent")),
    "demo": dict(FEW, **networks(SHIPPED)),
    "demo-regression": dict(ONE, **networks(SHIPPED, slices="regression")),
    "smoke": dict(FEW, **networks(SMOKE_RUNS, refiner="latent")),
}


@command(__doc__, epilog=listed(TranslationInferenceSettings))
@click.option("--preset", default="demo", help=f"One of: {', '.join(PRESETS)}.")
@click.option("--input", "path", type=PATH, help="NIfTI file in HU, or a folder with a CT DICOM series.")
@click.option("--stage", type=click.Choice(MR_STAGES), help="Stacked slices, or the refined volume.")
@input_options
def main(preset, path, cohort, split, seed, outdir, dicom, keep_identity, changes, dry_run, **given):
    settings = resolve(TranslationInferenceSettings, PRESETS, preset, changes, given)
    if dry_run:
        return click.echo("\n".join(f"{name:16} {values}" for name, values in to_dict(settings).items()))
    check_dicom(dicom, path)
    rank, ranks, device = distributed.start(7, settings.compute.device)
    requests = requests_of(path, cohort, "pairs/{}/CT.nii.gz", seed, outdir, rank, split, keep_identity)
    translator = CtTranslator.load(settings, device)
    exports = {"dicom": dicom_export(outdir, keep_identity)} if dicom else {}
    generate_cohort(translator, requests, outdir, preset, rank, ranks, exports=exports)
    distributed.stop()
    if rank == 0:
        click.echo(written(outdir, requests))


if __name__ == "__main__":
    main()
