"""Step 8, for the translation of CT to MR: aligned pairs of NIfTI files on one grid of cubes.

    python 0_Preprocess/8_pair_ct_mr.py --root cohorts/mine --ct "data/{}/CT.nii.gz" --mr "data/{}/MR.nii.gz"

{} stands for the patient. The MR must be registered to the CT; the box that both cover is kept. Writes
<root>/pairs/<patient>/{CT,MR}.nii.gz, pairs.csv and cohort.csv with a split by patient; whom it has stays as it is.
Bias correction and normalisation of the MR are not done here; --percentile scales it, and pairs.csv says by how much.
"""

from pathlib import Path

import click

from totalgen.commands import PLACE, command, ended, spread_options
from totalgen.data.ct_mr_pairs import pair
from totalgen.data.demographics import TEST_FRACTION, add_to_cohort
from totalgen.data.files import atomic
from totalgen.data.made_with import made_in
from totalgen.data.names import file_of, matching
from totalgen.data.plausibility import check_edges
from totalgen.data.subjects import for_each_subject
from totalgen.data.volume import placement_doubts, read_nifti, write_nifti


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--ct", required=True, metavar="PATTERN", help="CT in HU, with {} for the patient.")
@click.option("--mr", required=True, metavar="PATTERN", help="MR on any grid in the same world coordinates.")
@click.option("--voxel-mm", type=click.FloatRange(0.3, 50), default=1.0, help="Edge of the cubes.")
@click.option("--percentile", type=click.FloatRange(50, 100), help="This one of the MR in the body becomes 1000.")
@click.option("--source", default="unknown", help="Where the images are from, for table and weights.")
@click.option("--test-fraction", type=click.FloatRange(0, 1), default=TEST_FRACTION, help="Share of split test.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the split.")
@spread_options
def main(root, ct, mr, voxel_mm, percentile, source, test_fraction, seed, workers, scheduler):
    patients, lonely = matching(ct, mr)
    if lonely:
        click.echo(f"{len(lonely)} of {len(patients) + len(lonely)} patients have no MR and are left out.", err=True)

    def work(patient):
        files = [file_of(path, patient) for path in (ct, mr)]
        for doubt in (doubt for file in files for doubt in placement_doubts(file)):
            click.echo(f"Warning: {patient}: {doubt}.", err=True)
        volumes = [read_nifti(file) for file in files]
        for volume, file in zip(volumes, files, strict=True):
            check_edges(volume, file)
        made_ct, made_mr, report = pair(*volumes, voxel_mm, percentile)
        with atomic(root / "pairs" / patient) as part:
            for name, volume in (("CT", made_ct), ("MR", made_mr)):
                write_nifti(Path(part) / f"{name}.nii.gz", volume, f"{source}, paired (TotalGen)")
        return report

    def done(patient):
        return (root / "pairs" / patient).is_dir()

    sources = {patient: [Path(file_of(path, patient)) for path in (ct, mr)] for patient in patients}
    made_with = made_in(root / "pairs", dict(voxel_mm=voxel_mm, percentile=percentile), sources)
    failed = for_each_subject(root, "pair", patients, work, done, root / "pairs.csv", workers, scheduler, made_with)
    add_to_cohort(root / "cohort.csv", [p for p in patients if p not in failed], source, test_fraction, seed)
    files = f"{root}/pairs, pairs.csv and cohort.csv"
    ended(files, "0_Preprocess/6_pack_training_set.py", "--root", root, "--recipe", "pairs")


if __name__ == "__main__":
    main()
