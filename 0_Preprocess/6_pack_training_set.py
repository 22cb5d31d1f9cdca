"""Step 6: pack the cropped studies of a cohort into <root>/training.zarr, the only thing that training reads.

    python 0_Preprocess/6_pack_training_set.py --root cohorts/demo --shape 80 80 128

Needs <root>/cropped (step 4) and <root>/axial_extent.json (step 5). The default shape is the paper's, for 2 mm voxels.
Subjects that are packed and unchanged are skipped, new ones are added. Every subject carries its statistics, what it
was made from and a checksum.
"""

import click

from totalgen.commands import PATH, command, spread_options
from totalgen.data.archive import AXIAL, pack, verify_archive


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort folder.")
@click.option("--shape", type=int, nargs=3, default=(224, 224, 384), help="Voxels in x, y and z.")
@click.option("--axial", type=click.Choice(AXIAL), default="stretch", help="Fill axis z, or keep the length, in air.")
@click.option("--overwrite", is_flag=True, help="Pack again: for another shape, or when subjects left.")
@click.option("--verify", is_flag=True, help="Compare every subject of the archive with its checksum, and stop.")
@spread_options
def main(root, shape, axial, overwrite, verify, workers, scheduler):
    if verify:
        click.echo(f"{verify_archive(root)} subjects are intact.")
        return
    path, packed, failed = pack(root, shape, overwrite, workers, scheduler, axial)
    click.echo(f"{path}: {packed} subjects of {shape[0]}×{shape[1]}×{shape[2]} voxels, {failed} failed")


if __name__ == "__main__":
    main()
