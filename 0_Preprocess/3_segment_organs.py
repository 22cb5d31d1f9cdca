"""Label the organs of every resampled CT, with the ids of TotalSegmentator's `total` task.

    python 0_Preprocess/3_segment_organs.py --root cohorts/demo --backend given

Backends: `given` takes <root>/given/<subject>/organs.nii.gz (the phantom's own truth, or labels made elsewhere);
`totalsegmentator` calls TotalSegmentator (pip install -e .[totalsegmentator]); `network` calls a segmenter trained
with 1_Trainings/train_segmenter.py, whose weights are named with --weights.
Writes <root>/organs/<subject>.nii.gz. Subjects that have one are skipped; labels of another backend, of other
weights, or made from other images or given labels, are refused.
"""


import click

from totalgen.commands import PATH, PLACE, command, device_option, ended, spread_options
from totalgen.data import segmentation
from totalgen.data.made_with import fingerprint, made_in, merged, sources_of
from totalgen.data.subjects import for_each_subject, subjects_in
from totalgen.data.volume import read_nifti, write_nifti
from totalgen.errors import InputError


def network(weights, device):
    """Backend of this project's network. Imported here: the package `data` imports no network."""
    if weights is None:
        raise InputError("the network backend needs its weights. Name them with --weights FILE.")
    from totalgen.generation.segmenter import Segmenter, segmenter_of_process

    Segmenter.load(weights, device)  # an error in it is reported once, not for every subject

    def backend(subject, ct):
        labels = segmenter_of_process(weights, device).run(ct)["organs"]
        return segmentation.on_grid_of(ct, labels, f"the network's labels of {subject}")

    return backend


BACKENDS = {  # name → (root, weights, device) → backend(subject, ct)
    "given": lambda root, weights, device: segmentation.given(root),
    "totalsegmentator": lambda root, weights, device: segmentation.totalsegmentator(),
    "network": lambda root, weights, device: network(weights, device),
}


@command(__doc__)
@click.option("--root", type=PLACE, required=True, help="Folder of the cohort.")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default="given", help="Where the labels come from.")
@click.option("--weights", type=PATH, help="Weights of the network backend.")
@device_option
@spread_options
def main(root, backend, weights, device, workers, scheduler):
    subjects = subjects_in(root / "resampled", "Run 2_dicom_to_nifti.py or 0_make_phantom_cohort.py first.")
    label = BACKENDS[backend](root, weights, device)

    def work(subject):
        ct = read_nifti(root / "resampled" / subject / "CT.nii.gz")
        write_nifti(root / "organs" / f"{subject}.nii.gz", label(subject, ct), f"by {backend} (TotalGen)")

    def done(subject):
        return (root / "organs" / f"{subject}.nii.gz").exists()

    settings = dict(backend=backend) | (dict(weights=fingerprint(weights)) if backend == "network" else {})
    files = {subject: [root / "resampled" / subject / "CT.nii.gz"] for subject in subjects}
    sources = sources_of(files)
    if backend == "given":
        labels = sources_of({subject: [segmentation.given_file(root, subject)] for subject in subjects}, "labels")
        sources = {subject: merged(source, labels.get(subject, "")) for subject, source in sources.items()}
    made_with = made_in(root / "organs", settings, files, sources, resampled=root / "resampled")
    for_each_subject(root, "organs", subjects, work, done, None, workers, scheduler, made_with)
    ended(root / "organs", "0_Preprocess/4_crop_torso.py", "--root", root)


if __name__ == "__main__":
    main()
