"""A cohort packed and unpacked as a generated study is: what generation alone does to a perfect network's volume."""

from pathlib import Path

import numpy as np

from totalgen.data.demographics import Demographics
from totalgen.data.files import atomic
from totalgen.data.made_with import made_in, merged, sources_of
from totalgen.data.recipes import PetCt
from totalgen.data.studies import read_studies
from totalgen.data.subjects import for_each_subject
from totalgen.data.text_files import read_text
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.generation.cascade import Cascade
from totalgen.tasks.petct import encodings_of
from totalgen.tasks.task import VOXEL_TOLERANCE

PRESET = "packed and unpacked"  # in manifest.csv


def pack_and_unpack(
    folder: Path, person: Demographics, cascade: Cascade, ct_noise_hu: float = 0.0, seed: int = 0
) -> dict[str, Volume]:
    """CT and SUV of a study as ``cascade`` would return them if it generated exactly this study.

    The values are clipped, stored as an archive stores them, stretched and brought back by the line in height of the
    cascade's weights.  folder: with CT.nii.gz and SUV.nii.gz;  ct_noise_hu: standard deviation of noise that is added
    to the CT of the body, such as that of generated CT; it is clipped with it. Raises InputError for other voxels than
    those of the weights.
    """
    voxel_mm, found = cascade.global_stage.data["voxel_mm"], read_nifti(folder / "CT.nii.gz").voxel_mm
    if np.abs(found / voxel_mm - 1).max() > VOXEL_TOLERANCE:
        raise InputError(f"{folder}: voxels of {found[0]:g} mm, the weights have {voxel_mm:g}. Resample the cohort.")
    recipe = PetCt(
        encodings=encodings_of(cascade.global_stage.data), shape=cascade.shape,
        axial=cascade.global_stage.settings.task.axial,
    )  # fmt: skip
    high = recipe.encode(folder)[0]["high"].astype(np.float32)
    if ct_noise_hu:
        code = recipe.encodings["CT"]
        values = np.random.default_rng((seed, 5)).normal(0, ct_noise_hu, high.shape[1:])
        high[0] = np.where(high[0] > 0, np.clip(high[0] + values / (code.high - code.low), 0, 1), high[0])
    return cascade.to_volumes(high, person)


def pack_cohort(
    root: Path, outdir: Path, cascade: Cascade, split: str | None = None, ct_noise_hu: float = 0.0, workers: int = 1,
    scheduler: str | None = None,
) -> Path:  # fmt: skip
    """Write <outdir>/<subject>/{CT,SUV}.nii.gz and manifest.csv, as a generated cohort has them.

    Subjects that are there are not made again; one that fails is listed in <outdir>/failures.csv. Returns the manifest.
    Raises InputError for an ``outdir`` among the studies of ``root`` or with others, and for subjects that are there
    and were made with other weights, other noise, from other images or for another height.
    """
    studies = read_studies(root, split)
    _check_outdir(outdir, root, studies["folder"])
    folders = studies.set_index("subject")["folder"]
    people = {row["subject"]: Demographics.from_row(row) for row in studies.to_dict("records")}
    seeds = {subject: number for number, subject in enumerate(sorted(people))}

    def work(subject: str) -> None:
        made = pack_and_unpack(folders[subject], people[subject], cascade, ct_noise_hu, seeds[subject])
        with atomic(outdir / subject) as part:
            for name, volume in made.items():
                write_nifti(part / f"{name}.nii.gz", volume, "packed and unpacked, not generated")

    def done(subject: str) -> bool:
        return (outdir / subject / "SUV.nii.gz").exists()

    settings = dict(weights=f"sha256 {cascade.global_stage.sha256[:16]}", ct_noise_hu=ct_noise_hu)
    files = {subject: [folder / f"{name}.nii.gz" for name in ("CT", "SUV")] for subject, folder in folders.items()}
    heights = {subject: f"height_m={person.height_m:g}" for subject, person in people.items()}  # which set the length
    sources = {subject: merged(source, heights[subject]) for subject, source in sources_of(files).items()}
    made_with = made_in(outdir, settings, files, sources)
    for_each_subject(outdir, "pack_reference", list(people), work, done, None, workers, scheduler, made_with)
    everyone = read_studies(root)  # those of other splits, packed before, stay listed
    table = everyone[[done(subject) for subject in everyone["subject"]]].drop(columns="folder")
    with atomic(outdir / "manifest.csv") as part:
        table.assign(preset=PRESET, ct_noise_hu=ct_noise_hu).to_csv(part, index=False)
    return outdir / "manifest.csv"


def _check_outdir(outdir, root, folders):
    """Raise InputError for an outdir that is the root, lies among its studies or holds studies of another kind."""
    taken = {folder.parent.resolve() for folder in folders}
    out = outdir.resolve()
    if out == root.resolve() or not taken.isdisjoint((out, *out.parents)):
        raise InputError(f"--outdir {outdir}: the studies that are packed lie there. Choose another place.")
    manifest = outdir / "manifest.csv"
    if manifest.exists() and set(read_text(manifest).get("preset", [""])) != {PRESET}:
        raise InputError(f"--outdir {outdir}: holds other studies, listed in manifest.csv. Choose another place.")
