"""Step 6: pack the cropped studies of a cohort into <root>/training.zarr, the only thing that training reads.

    python 0_Preprocess/6_pack_training_set.py --root cohorts/demo --shape 80 80 128

Needs <root>/cropped (step 4) and <root>/axial_extent.json (step 5). The default shape is the paper's, for 2 mm voxels.
"""

from pathlib import Path

import click

from totalgen.data.archive import pack


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Cohort folder.")
@click.option("--shape", type=int, nargs=3, default=(224, 224, 384), help="Voxels in x, y and z.")
@click.option("--overwrite", is_flag=True, help="Replace an archive of other subjects or another shape.")
def main(root, shape, overwrite):
    path, packed, failed = pack(root, shape, overwrite)
    click.echo(f"{path}: {packed} subjects of {shape[0]}×{shape[1]}×{shape[2]} voxels, {failed} failed")


if __name__ == "__main__":
    main()
