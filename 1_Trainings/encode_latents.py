"""Encode the MR of a cohort, and the stacked slices predicted for it, by a VQ-VAE: what the refinement learns from.

    python 1_Trainings/encode_latents.py --root cohorts/pairs --slices out/mr-slices --vqvae VQVAE.safetensors

Reads <root>/pairs/<subject>/MR.nii.gz and <slices>/<subject>/MR.nii.gz (2_Tests/translate_ct_to_mr.py --stage slices)
and writes <root>/latents/<subject>/{MR,slices}_<channel>.nii.gz, with voxels as long as the VQ-VAE makes
them. Subjects that are done are skipped. Go on with 6_pack_training_set.py --recipe latents --latent-channels N.
"""

import click

from totalgen.commands import PATH, PLACE, command, device_option, ended
from totalgen.data.files import atomic
from totalgen.data.made_with import fingerprint, made_in
from totalgen.data.recipes import VQVAE
from totalgen.data.subjects import for_each_subject, subjects_in
from totalgen.data.text_files import read_json
from totalgen.data.volume import check_finite, read_nifti, write_nifti
from totalgen.distributed import usable_device
from totalgen.errors import InputError
from totalgen.generation.latent_volumes import LatentVolumes


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Cohort folder with <root>/pairs.")
@click.option("--slices", type=PATH, required=True, help="Folder with <subject>/MR.nii.gz, predicted slice by slice.")
@click.option("--vqvae", type=PATH, required=True, help="Weights of the VQ-VAE.")
@device_option
def main(root, slices, vqvae, device):
    codec = LatentVolumes.load(vqvae, usable_device(device))
    subjects = subjects_in(slices, "Run 2_Tests/translate_ct_to_mr.py --stage slices first.")
    subjects = [subject for subject in subjects if (slices / subject / "MR.nii.gz").exists()]

    for study in (slices / subject / "study.json" for subject in subjects):
        if study.exists() and read_json(study).get("stage") == "refined":
            raise InputError(f"{study.parent}: is refined already. Translate with --stage slices, into another folder.")

    def work(subject):
        true, stacked = (read_nifti(folder / subject / "MR.nii.gz") for folder in (root / "pairs", slices))
        if not true.same_grid(stacked):
            raise InputError(f"{slices / subject}: its grid {stacked.shape} is not that of the MR {true.shape}.")
        check_finite(slices / subject, stacked)
        with atomic(root / "latents" / subject) as part:
            for name, volume in (("MR", true), ("slices", stacked)):
                for channel, latent in enumerate(codec.encode(volume)):
                    write_nifti(part / f"{name}_{channel}.nii.gz", latent, f"of {name} (TotalGen)", "latent")

    def done(subject):
        return (root / "latents" / subject).is_dir()

    files = {subject: [folder / subject / "MR.nii.gz" for folder in (root / "pairs", slices)] for subject in subjects}
    made_with = made_in(root / "latents", {VQVAE: fingerprint(vqvae)}, files)
    for_each_subject(root, "encode", subjects, work, done, made_with=made_with)
    arguments = ("--root", root, "--recipe", "latents", "--latent-channels", codec.codec.settings["code_channels"])
    ended(root / "latents", "0_Preprocess/6_pack_training_set.py", *arguments)


if __name__ == "__main__":
    main()
