"""Segment the organs of every study of a folder with the project's own segmenter.

    python 3_Evaluations/1_segment_generated.py --root out/demo --weights runs/segmenter/segmenter.safetensors

The folder is the output of 2_Tests/generate_petct.py (<root>/<name>/CT.nii.gz) or a cohort root
(<root>/cropped/<subject>/CT.nii.gz). Masks are written beside the CT; one that exists is left alone. To measure a real
cohort with the same ruler as the generated one, segment it as well, under another name: --masks segmented.
"""

from pathlib import Path

import click

from totalgen.evaluation.segmenter import segment_cohort


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n"), context_settings=dict(show_default=True))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Generated folder or cohort root.")
@click.option("--weights", type=click.Path(path_type=Path), required=True, help="segmenter.safetensors of a run.")
@click.option("--masks", default="organs", help="Name of the mask file, without .nii.gz.")
@click.option("--split", help="Only subjects of this split of a cohort root, e.g. test.")
@click.option("--device", help="cpu, cuda, cuda:1 …; default CUDA when present.")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Running Dask scheduler to use instead, such as tcp://host:8786.")
def main(root, weights, masks, split, device, workers, scheduler):
    segment_cohort(root, weights, masks, device, workers, scheduler, split)


if __name__ == "__main__":
    main()
