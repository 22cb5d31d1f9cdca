"""Fit the axial extent of the cropped torso as a line in height, by RANSAC.

    python 0_Preprocess/5_fit_axial_extent.py --root cohorts/demo

Uses the training subjects of <root>/cohort.csv that show the whole torso in <root>/crop.csv. With fewer than 10
of them, or heights and extents that determine no line, the published cohort's line is used; the file states which.
Writes <root>/axial_extent.json and <root>/axial_extent.png.
"""


import click

from totalgen.commands import PLACE, command, ended
from totalgen.data import axial_extent
from totalgen.data.demographics import check_people, read_cohort
from totalgen.data.subjects import read_table
from totalgen.data.text_files import check_columns, check_numbers
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError

LENGTHS = {80: 128, 224: 384}  # voxels along x and y → along z, of the presets demo-… and paper-…


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
def main(root):
    cohort = read_cohort(root / "cohort.csv")
    crops = read_table(root / "crop.csv")
    if crops.empty:
        raise InputError(f"{root / 'crop.csv'}: lists no cropped subject. Run 4_crop_torso.py first.")
    check_columns(crops, axial_extent.CROPPED, root / "crop.csv", "Run 4_crop_torso.py again.")
    check_numbers(crops, ("z_extent_mm",), root / "crop.csv")
    used = axial_extent.rows_of_line(cohort, crops)
    check_people(cohort[cohort["subject"].isin(used["subject"])], root / "cohort.csv")
    if (empty := used.loc[used["z_extent_mm"].isna(), "subject"]).any():
        raise InputError(f"{root / 'crop.csv'}: z_extent_mm of {empty.iloc[0]} is empty. Run 4_crop_torso.py again.")
    height_m, extent_mm = used["height_m"].to_numpy(float), used["z_extent_mm"].to_numpy(float)
    try:
        line = axial_extent.fit(height_m, extent_mm, source=f"{root.resolve().name}: RANSAC on {len(used)} subjects")
    except InputError as reason:
        line = axial_extent.PUBLISHED
        click.echo(f"The published cohort's line is used instead of a fit: {reason}", err=True)
    fitted = None if line is axial_extent.PUBLISHED else used
    axial_extent.write_axial_extent(root / "axial_extent.json", line, fitted)
    axial_extent.scatter(root / "axial_extent.png", height_m, extent_mm, line)
    spread = "" if line.residual_std_mm is None else f", ± {line.residual_std_mm:.0f} mm around it"
    click.echo(f"extent_mm = {line.slope_mm_per_m:.1f} · height_m + {line.intercept_mm:.1f}{spread} ({line.source})")
    cropped = root / "cropped" / crops["subject"].iloc[0] / "CT.nii.gz"
    side = 4 * -(-read_nifti(cropped).shape[0] // 4) if cropped.exists() else 224
    shape = ("--shape", side, side, LENGTHS.get(side, 4 * -(-3 * side // 7)))
    ended(root / "axial_extent.json", "0_Preprocess/6_pack_training_set.py", "--root", root, *shape)


if __name__ == "__main__":
    main()
