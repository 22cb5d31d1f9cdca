"""Step 6: pack the cropped studies of a cohort into <root>/training.zarr, the only thing that training reads.

    python 0_Preprocess/6_pack_training_set.py --root cohorts/demo --shape 80 80 128

Needs <root>/cropped (step 4) and <root>/axial_extent.json (step 5). The defaults are the paper's, for 2 mm voxels.
Subjects that are packed and unchanged are skipped, new ones are added. Every subject carries its statistics, what it
was made from and a checksum. --recipe organs packs CT and organs into <root>/organs.zarr for the segmenter, whose
training does so itself when they are not packed; --recipe doses packs the PET of <root>/doses (phantoms with their
noise-free truth), or of --folder, for the denoiser; --recipe pairs packs <root>/pairs and --recipe latents
<root>/latents for the translation of CT to MR.
"""

import click

from totalgen.commands import PATH, command, ended, spread_options
from totalgen.data.archive import pack, report_splits, verify_archive
from totalgen.data.files import check_place
from totalgen.data.intensity import CT, SUV, Encoding
from totalgen.data.names import check_below
from totalgen.data.recipes import AXIAL, ORGANS, PetCt, doses, latents, pairs

POSITIVE = click.FloatRange(0, 1e6, min_open=True)
MR_HU_WINDOW = (-1000.0, 1000.0)  # lungs and bone tell a translator what MR shows


def petct(shape, axial, hu_window, suv_max, **_):
    """CT and SUV of a torso on one grid, for the cascade."""
    encodings = dict(CT=Encoding("window", *(hu_window or (CT.low, CT.high))), SUV=Encoding("log", 0.0, suv_max))
    return PetCt(encodings=encodings, shape=shape, axial=axial)


RECIPES = {  # name → (options) → recipe
    "petct": petct,
    "organs": lambda **_: ORGANS,
    "pairs": lambda hu_window, mr_scale, **_: pairs(hu_window or MR_HU_WINDOW, mr_scale),
    "latents": lambda latent_channels, **_: latents(latent_channels),
    "doses": lambda suv_scale, folder, **_: doses(suv_scale, folder is None, check_below(folder or "doses")),
}

TRAININGS = {  # recipe → script that learns from it, a preset of it
    "petct": ("train_totalgen.py", "PRESET"),
    "organs": ("train_segmenter.py", "demo"),
    "pairs": ("train_ct_to_mr.py", "demo-slices"),
    "latents": ("train_ct_to_mr.py", "demo-latent"),
    "doses": ("train_pet_denoising.py", "demo-edm"),
}
SHAPES = {(224, 224, 384): "paper-global-edm", (80, 80, 128): "demo-global-edm", (32, 32, 48): "smoke-global-edm"}


def training_of(recipe, shape):
    """(script, preset) that learns from a recipe; of the cascade's, the shape says which preset."""
    script, preset = TRAININGS[recipe]
    return script, SHAPES.get(tuple(shape), preset) if recipe == "petct" else preset


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort folder.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="petct", help="What is packed.")
@click.option("--shape", type=click.IntRange(min=4), nargs=3, default=PetCt.shape, help="Voxels; divisible by 4.")
@click.option("--axial", type=click.Choice(AXIAL), default=PetCt.axial, help="Fill axis z, or keep the length, in air.")
@click.option("--hu-window", type=float, nargs=2, help="HU that become 0 and 1: -500 500, of pairs -1000 1000.")
@click.option("--suv-max", type=POSITIVE, default=SUV.high, help="SUV that becomes 1.")
@click.option("--suv-scale", type=POSITIVE, default=16.0, help="Of doses: SUV that becomes 1; higher ones stay higher.")
@click.option("--mr-scale", type=POSITIVE, default=1000.0, help="Of pairs: MR signal that becomes 1.")
@click.option("--latent-channels", type=click.IntRange(1, 64), default=2, help="Of latents: channels of the VQ-VAE.")
@click.option("--folder", help="Of doses: below the root, with <subject>/SUV.nii.gz, such as resampled.")
@click.option("--overwrite", is_flag=True, help="Pack again: for other options, or when subjects left.")
@click.option("--verify", is_flag=True, help="Compare every subject of the archive with its checksum, and stop.")
@spread_options
def main(root, recipe, overwrite, verify, workers, scheduler, **options):
    chosen = RECIPES[recipe](**options)
    if verify:
        click.echo(f"{verify_archive(root / f'{chosen.name}.zarr')} subjects are intact.")
        return
    check_place(root)
    path, packed, failed = pack(root, chosen, overwrite, workers, scheduler)
    report_splits(path)
    files = f"{path} ({packed} subjects; {failed} failed)"
    script, preset = training_of(recipe, options["shape"])
    ended(files, f"1_Trainings/{script}", "--preset", preset, "--root", root, "--outdir", f"runs/{preset}")


if __name__ == "__main__":
    main()
