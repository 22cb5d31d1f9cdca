"""The trivial translation, to compare with: each CT value becomes the mean MR value that it has in training pairs.

    python benchmarks/mr_per_hu.py --root cohorts/pairs --split test --outdir out/mr-per-hu

Learnt inside the bodies of the training subjects, in steps of HU; values between and beyond are interpolated and held.
Writes <outdir>/<subject>/MR.nii.gz for 3_Evaluations/4_image_quality.py, <outdir>/<subject>/body.nii.gz, the mask to
measure in, and mr_per_hu.csv.
"""

import click
import numpy as np
import pandas as pd
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.data.crop import body_mask
from totalgen.data.demographics import read_cohort
from totalgen.data.files import atomic
from totalgen.data.volume import Volume, read_nifti, write_nifti

HU = np.arange(-1000, 1501, 20)  # edges of the steps


def read(root, subject, name):
    """A volume of a subject."""
    return read_nifti(root / "pairs" / subject / f"{name}.nii.gz")


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort with <root>/pairs.")
@click.option("--split", default="test", help="Subjects that are translated.")
@click.option("--outdir", type=PATH, required=True, help="Folder for the volumes.")
def main(root, split, outdir):
    table = read_cohort(root / "cohort.csv", person=False)
    total, count = np.zeros(len(HU) - 1), np.zeros(len(HU) - 1)
    for subject in tqdm(table[table["split"] == "train"]["subject"], desc="learn", disable=None):
        ct, mr = read(root, subject, "CT"), read(root, subject, "MR")
        body = body_mask(ct)
        values = np.clip(ct.voxels[body], HU[0], HU[-1] - 1)
        count += np.histogram(values, HU)[0]
        total += np.histogram(values, HU, weights=mr.voxels[body])[0]
    middle, seen = (HU[:-1] + HU[1:]) / 2, count > 0
    curve = pd.DataFrame(dict(hu=middle[seen], mr=total[seen] / count[seen], voxels=count[seen].astype(int)))
    for subject in tqdm(table[table["split"] == split]["subject"], desc="translate", disable=None):
        ct = read(root, subject, "CT")
        body = body_mask(ct)
        made = np.where(body, np.interp(ct.voxels, curve["hu"], curve["mr"]), 0).astype(np.float32)
        write_nifti(outdir / subject / "MR.nii.gz", Volume(made, ct.affine))
        write_nifti(outdir / subject / "body.nii.gz", Volume(body.astype(np.uint8), ct.affine))
    with atomic(outdir / "mr_per_hu.csv") as part:
        curve.to_csv(part, index=False)
    click.echo(curve.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
