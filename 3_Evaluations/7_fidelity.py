r"""Do the volumes look like the reference's: features of our segmenter, power spectra, histograms of HU and SUV.

    python 3_Evaluations/7_fidelity.py --reference Phantom=cohorts/demo --candidate EDM=out/demo \
        --weights runs/segmenter/segmenter.safetensors --outdir out/fidelity

Fréchet and kernel distances of the segmenter's bottleneck (of the CT; no network is fetched), each with the same figure
between two halves of the reference as its floor. Take the packed reference (0_pack_reference.py): the clip is no error
of a network. --features NAME=FILE takes the features of another network instead, a CSV of subject and numbers for every
cohort. Writes fidelity.csv and spectra.png; <outdir> is a --section of the report.
"""

from pathlib import Path

import click
import pandas as pd

from totalgen.commands import PATH, PLACE, command, device_option, named, section_ended, spread_options
from totalgen.data.files import atomic
from totalgen.data.made_with import MadeWith, fingerprint
from totalgen.data.measuring import measure_each
from totalgen.data.studies import read_studies
from totalgen.data.subjects import read_table
from totalgen.data.text_files import read_csv
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.evaluation.sections import write_section
from totalgen.evaluation.volume_fidelity import (
    FEATURE,
    check_voxels,
    describe_study,
    fidelity_section,
    figures_of,
    picture,
    read_features,
    with_features,
)
from totalgen.generation.bottleneck import bottleneck_features
from totalgen.generation.segmenter import segmenter_of_process

TABLE = "volume_features.csv"  # in a cohort's folder


def described(root, split, weights, device, workers, scheduler):
    """One row per study of a folder, kept in its volume_features.csv; those measured in the files that are there stay.

    Studies that fail, as those with voxels that are no finite numbers, are listed in failures.csv and left out. With
    weights, rows without features are measured again. Raises InputError for features of other weights.
    """
    folders, chosen = (read_studies(root, part).set_index("subject")["folder"] for part in (None, split))
    path = Path(root) / TABLE
    files = {subject: [folder / f"{name}.nii.gz" for name in ("CT", "SUV")] for subject, folder in folders.items()}
    kept = read_table(path).set_index("subject")
    featured = set(kept.index[kept.filter(regex=f"^{FEATURE}").notna().any(axis=1)])
    whole = set(kept.index[kept.filter(regex=f"^(?!{FEATURE})").notna().all(axis=1)])  # of earlier versions, not all
    made_with = weights and MadeWith(
        Path(root) / ".volume_features.made-with.json", dict(weights=fingerprint(weights)),
        f"remove {path} to measure again", list(folders.index),
    )  # fmt: skip

    def work(subject):
        ct, suv = (read_nifti(file) for file in files[subject])
        segmenter = weights and segmenter_of_process(weights, device)
        return describe_study(ct, suv, segmenter and (lambda volume: bottleneck_features(segmenter, volume)))

    def usable(subject):
        return subject in whole and (weights is None or subject in featured)

    measure_each(root, "volume_features", files, work, path, list(chosen.index), workers, scheduler, made_with, usable)
    table = read_csv(path, dtype=dict(subject=str))
    table = table[table["subject"].isin(chosen.index)].reset_index(drop=True)
    return table if weights else table[[name for name in table if not name.startswith(FEATURE)]]


@command(__doc__)
@click.option("--reference", required=True, metavar="NAME=FOLDER", help="Cohort root or folder of studies.")
@click.option("--candidate", "candidates", multiple=True, required=True, metavar="NAME=FOLDER", help="Repeatable.")
@click.option("--weights", type=PATH, help="segmenter.safetensors, whose features are compared.")
@click.option("--features", multiple=True, metavar="NAME=FILE", help="Features of another network, for every cohort.")
@click.option("--split", help="Only subjects of this split of a cohort root, e.g. test.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the random halves and subsets.")
@device_option
@click.option("--outdir", type=PLACE, required=True, help="Folder of the results.")
@spread_options
def main(reference, candidates, weights, features, split, seed, device, outdir, workers, scheduler):
    folders = named("--reference and --candidate", (reference, *candidates))
    files = named("--features", features)
    if files and files.keys() != folders.keys():
        raise InputError(f"--features names {', '.join(files)}; one file for each of {', '.join(folders)} is needed.")
    given = read_features(files)
    check_voxels(folders, split)
    if weights is not None:
        segmenter_of_process(weights, device)  # an error here concerns no single study
    tables = {name: described(root, split, weights, device, workers, scheduler) for name, root in folders.items()}
    if files:
        tables = {name: with_features(table, given[name], files[name]) for name, table in tables.items()}
    first = next(iter(tables))
    found = {name: figures_of(tables[first], table, seed) for name, table in tables.items() if name != first}
    with atomic(outdir / "fidelity.csv") as part:
        pd.concat([table.assign(candidate=name) for name, table in found.items()]).to_csv(part, index=False)
    picture(outdir / "spectra.png", tables)
    own = f"mean activations of the coarsest level of {weights.name}, of the CT" if weights else "none"
    what = ", ".join(Path(file).name for file in files.values()) or own
    section = fidelity_section(found, what, seed, outdir / "spectra.png")
    write_section(outdir, section)
    click.echo("\n".join(f"{score.what}, {score.n}: {score.result}; {score.limit}" for score in section.scores))
    section_ended(outdir)


if __name__ == "__main__":
    main()
