"""Classical filters of low-dose PET, each with the parameter that is best on training subjects, to compare with.

    python benchmarks/pet_filters.py --root cohorts/doses --dose 0.1 --split test --outdir out/filters-0.1

Writes <outdir>/<filter>/<subject>/SUV.nii.gz for 3_Evaluations/4_image_quality.py, and filters.csv: the parameter that
was chosen (lowest mean squared error against the normal dose on the first training subjects) and seconds per volume.
"""

import time

import click
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from skimage import restoration
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.data.demographics import read_cohort
from totalgen.data.files import atomic
from totalgen.data.text_files import read_csv
from totalgen.data.volume import Volume, read_nifti, write_nifti

FWHM = 2 * np.sqrt(2 * np.log(2))


def bilateral(suv, sigma, noise):
    """Slice by slice: skimage has it in two dimensions only."""
    slices = [
        restoration.denoise_bilateral(s, sigma_color=sigma * noise, sigma_spatial=2.0, mode="edge") for s in
        np.moveaxis(suv - suv.min(), 2, 0)
    ]  # fmt: skip
    return np.stack(slices, 2) + suv.min()


# name: (function of SUV, parameter, noise level), parameters that are tried. The noise level is that of the wavelets.
FILTERS = {
    "gaussian": (lambda suv, fwhm_voxels, noise: gaussian_filter(suv, fwhm_voxels / FWHM), (0.8, 1.1, 1.5, 2, 3, 4)),
    "nlm": (
        lambda suv, h, noise: restoration.denoise_nl_means(
            suv, patch_size=3, patch_distance=4, h=h * noise, sigma=noise, fast_mode=True
        ),
        (1.5, 3.0, 5.0, 8.0),
    ),
    "bilateral": (bilateral, (2.0, 4.0, 8.0)),
    "tv": (lambda suv, weight, noise: restoration.denoise_tv_chambolle(suv, weight=weight * noise), (1, 2, 4, 8, 16)),
    "wavelet": (
        lambda suv, factor, noise: restoration.denoise_wavelet(
            suv, sigma=factor * noise, wavelet="sym4", method="BayesShrink", rescale_sigma=True
        ),
        (0.5, 1.0, 2.0, 4.0),
    ),
}


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort with <root>/doses.")
@click.option("--dose", type=float, required=True, help="Fraction of the normal dose.")
@click.option("--split", default="test", help="Subjects that are filtered.")
@click.option("--subjects", type=int, default=1000, help="At most so many of them.")
@click.option("--training-subjects", type=int, default=3, help="To choose the parameters on.")
@click.option("--parameters", type=PATH, help="filters.csv of other subjects whose choice is used.")
@click.option("--filter", "only", multiple=True, type=click.Choice(list(FILTERS)), help="Only these; repeatable.")
@click.option("--outdir", type=PATH, required=True, help="Folder for the filtered volumes.")
def main(root, dose, split, subjects, training_subjects, parameters, only, outdir):
    table = read_cohort(root / "cohort.csv", person=False)
    train = table[table["split"] == "train"]["subject"].head(training_subjects)
    chosen = table[table["split"] == split]["subject"].head(subjects)
    pairs = [[read(root, subject, name) for name in (f"SUV_{dose:g}", "SUV")] for subject in train]
    rows = []
    given = {} if parameters is None else read_csv(parameters).set_index("filter")["parameter"].to_dict()
    for name, (run, tried) in ((name, row) for name, row in FILTERS.items() if not only or name in only):
        errors = {given[name]: 0.0} if name in given else {}
        for parameter in tqdm([] if errors else tried, desc=f"choose {name}", disable=None):
            found = [run(low.voxels, parameter, level(low.voxels)) - normal.voxels for low, normal in pairs]
            errors[parameter] = np.mean([np.mean(difference**2) for difference in found])
        best = min(errors, key=errors.get)
        clock = time.perf_counter()
        for subject in tqdm(chosen, desc=name, disable=None):
            low = read(root, subject, f"SUV_{dose:g}")
            made = run(low.voxels, best, level(low.voxels)).astype(np.float32)
            write_nifti(outdir / name / subject / "SUV.nii.gz", Volume(made, low.affine))
        seconds = (time.perf_counter() - clock) / max(len(chosen), 1)
        rows.append(dict(filter=name, dose=dose, parameter=best, seconds=round(seconds, 2)))
    result = pd.DataFrame(rows)
    with atomic(outdir / "filters.csv") as part:
        result.to_csv(part, index=False)
    click.echo(result.to_string(index=False))


def read(root, subject, name):
    """A volume of a subject."""
    return read_nifti(root / "doses" / subject / f"{name}.nii.gz")


def level(suv):
    """Standard deviation of the noise, from the finest wavelet coefficients (air included, so rather low)."""
    return float(restoration.estimate_sigma(suv))


if __name__ == "__main__":
    main()
