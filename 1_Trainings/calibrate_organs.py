"""Measure how far a global stage's estimates of organs are to be believed, and keep it with its weights.

    python 3_Evaluations/2_measure_organs.py --root cohorts/demo
    python 1_Trainings/calibrate_organs.py   --root cohorts/demo --weights runs/demo-global-edm/ema-0.100.safetensors \
        --calibration-slope 1.06 --out runs/demo-global-edm/calibrated.safetensors

A network that has not converged takes sizes and uptakes of organs for more usual than they are, of one sex more than of
the other. From the training subjects: what a low-resolution volume says of ln volume and ln SUVmean of each organ
(ridge regressions; demographics regressed out), and the slope of what it says of the truth on what it says of the
network's estimate, at five noise levels. Prints both; the weights are the same. Generation amends every estimate by
them: --set size_calibration=1,1,1,1, or more to make up for what the sr stage loses.
"""


import click
import numpy as np

from totalgen.commands import PATH, command, device_option, ended
from totalgen.data.archive import Archive
from totalgen.data.demographics import SEXES
from totalgen.data.files import check_place
from totalgen.data.names import first_of
from totalgen.data.organs import MEASURED
from totalgen.distributed import usable_device
from totalgen.errors import InputError
from totalgen.evaluation.measured import read_measured
from totalgen.generation.cascade import load_stage
from totalgen.generation.estimate_calibration import SIZE, UPTAKE, measured_calibration
from totalgen.weights import load_weights, save_weights

MEASURES = {"volume_l": SIZE, "suv_mean": UPTAKE}


def organ_targets(root, masks, archive):
    """(rows of the archive's training subjects in whom every organ is whole, names, ln values [n, k]).

    Lines on standard error say who is left out for a value without a logarithm, and who was measured twice.
    """
    table, path = read_measured(root, "train", masks), root / f"{masks}.csv"
    again = table.duplicated(["subject", "organ"])
    warn_of(table["subject"][again], f"{path}: has an organ twice, of which the first row is taken")
    table = table[~again & table["organ"].isin(list(MEASURED)) & (table["flag"] == "")]
    wide = table.pivot(index="subject", columns="organ", values=list(MEASURES)).dropna()
    known = ((wide > 0) & np.isfinite(wide)).all(axis=1)
    warn_of(wide.index[~known], f"{path}: has a volume or SUVmean that is not above 0 and finite, and is left out")
    wide = np.log(wide[known])
    rows = [row for row in archive.indices("train") if archive.subjects[row]["subject"] in wide.index]
    if not rows:
        raise InputError(f"{root}: no training subject of the archive has all of {', '.join(MEASURED)} measured.")
    columns = [(measure, organ) for measure in MEASURES for organ in MEASURED]
    found = wide.loc[[archive.subjects[row]["subject"] for row in rows], columns].to_numpy()
    return rows, [f"{organ} {MEASURES[measure]}" for measure, organ in columns], found


def warn_of(subjects, words):
    """A line on standard error that names the first of some subjects, where there are any."""
    if names := list(dict.fromkeys(subjects)):
        click.echo(f"Warning: {words}: {len(names)} training subjects ({first_of(names)}).", err=True)


def check_free(path):
    """InputError unless ``path`` can be written, and is free or holds an earlier result, weights of a global stage."""
    check_place(path.parent)
    if path.exists():
        try:
            load_stage(path, "global")
        except InputError:
            raise InputError(f"{path}: is there, and no weights of a global stage. Choose another --out.") from None


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr, measured.")
@click.option("--weights", type=PATH, required=True, help="Of a global stage with a template.")
@click.option("--masks", default="organs", help="Table of the cohort: <root>/<masks>.csv.")
@click.option(
    "--calibration-slope", "slope", type=click.FloatRange(0.5, 2), default=1.0,
    help="That of the generation, which comes first.",
)
@click.option("--out", "path", type=PATH, required=True, help="Weights file to write.")
@device_option
def main(root, weights, masks, slope, path, device):
    check_free(path)
    stage, archive = load_stage(weights, "global", usable_device(device)), Archive(root / "training.zarr")
    stage.task.check(archive)
    rows, names, targets = organ_targets(root, masks, archive)
    found, correlations = measured_calibration(stage, archive, rows, targets, names, slope)
    tensors, configuration = load_weights(weights)
    save_weights(path, tensors, configuration | dict(data=configuration["data"] | dict(organs=found.settings)))
    click.echo(f"Slopes of {len(rows)} subjects at σ {', '.join(f'{sigma:g}' for sigma in found.sigmas)}:")
    for k, name in enumerate(names):
        texts = [f"{sex} {' '.join(f'{slope:.2f}' for slope in found.slopes[sex][:, k])}" for sex in SEXES]
        click.echo(f"{name:16} {'; '.join(texts)}; r {correlations[k]:.2f}")
    person = ("--sex", "F", "--age", 60, "--height-cm", 165, "--weight-kg", 66, "--set", "size_calibration=1,1,1,1")
    ended(path, "2_Tests/generate_petct.py", *person, "--global-weights", path, "--outdir", "out/calibrated")


if __name__ == "__main__":
    main()
