"""Time and memory of 0_Preprocess on studies of clinical size, with one worker and with several.

    python benchmarks/preprocess.py --studies 2 --workers 1 --workers 2

Every study is a phantom written as DICOM: CT 512×512×300 (0.98×0.98×3 mm), PET 200×200×299 (4.07×4.07×3 mm), CT with
the noise of a low-dose scan, which is what makes files large and slow. --slices 600 makes a scan from head to toe.
Organ labels are given, so that segmentation is not counted. Prints, for each number of workers, the seconds of every
step, the studies per hour and the highest resident memory of any one process. Every process has one thread.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil

from totalgen.commands import PATH, command
from totalgen.data.intensity import AIR_HU
from totalgen.data.volume import Volume, resample, write_nifti
from totalgen.phantom import make_subject, sample_demographics
from totalgen.phantom.phantom_dicom import PET_BORDER, write_study

SCRIPTS = Path(__file__).resolve().parents[1] / "0_Preprocess"
STEPS = {  # script: further options
    "1_dicom_to_metadata": (),
    "2_dicom_to_nifti": ("--voxel-mm", "2"),
    "3_segment_organs": ("--backend", "given"),
    "4_crop_torso": (),
    "5_fit_axial_extent": (),
    "6_pack_training_set": (),
}
SLICE_MM = 3.0
CT_PIXELS, CT_MM, CT_NOISE_HU = 512, 500 / 512, 20.0
PET_PIXELS, PET_MM = 200, 4.0728
SAMPLE_S = 0.05  # between two looks at the memory


def write_cohort(root, studies, slices):
    """``studies`` phantom subjects as DICOM of so many slices under ``root``, with their organ labels."""
    for index in range(studies):
        random = np.random.default_rng(index)
        demographics = sample_demographics(random)
        made = make_subject(demographics, index, voxel_mm=4.0)
        middle = made.ct.world((np.array(made.ct.shape) - 1) / 2)
        ct = on_grid(made.ct, middle, (CT_PIXELS, CT_PIXELS, slices), CT_MM, fill=AIR_HU)
        noise = CT_NOISE_HU * random.standard_normal(ct.shape, dtype=np.float32)
        ct = Volume(np.where(ct.voxels > -950, ct.voxels + noise, ct.voxels), ct.affine)
        inner = PET_PIXELS - 2 * PET_BORDER  # the writer adds the border
        suv = on_grid(made.suv, middle, (inner, inner, slices), PET_MM, fill=0)
        name = f"study_{index}"
        write_study(root / "dicom" / name, name, dataclasses.replace(made, ct=ct, suv=suv), demographics, index)
        write_nifti(root / "given" / name / "organs.nii.gz", made.organs)


def on_grid(volume, middle, shape, pixel_mm, fill):
    """``volume`` on a scanner grid around the world point ``middle``."""
    affine = np.diag([pixel_mm, pixel_mm, SLICE_MM, 1.0])
    affine[:3, 3] = middle - (np.array(shape) - 1) / 2 * [pixel_mm, pixel_mm, SLICE_MM]
    return resample(volume, shape, affine, fill)


def watched(command):
    """(seconds, highest resident MiB of any one process) of a command and its children."""
    environment = os.environ | dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    start, highest = time.monotonic(), 0
    process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None:
        for each in [process, *children(process)]:
            try:
                highest = max(highest, each.memory_info().rss)
            except psutil.Error:  # it has just ended
                continue
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise click.ClickException(process.stderr.read().decode())
    return time.monotonic() - start, highest / 2**20


def children(process):
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


@command(__doc__)
@click.option("--studies", type=click.IntRange(min=1), default=2)
@click.option("--slices", type=click.IntRange(min=10), default=300, help="Of the CT.")
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 2), help="May be given repeatedly.")
@click.option("--folder", type=PATH, help="For the files; a temporary one when not given.")
def main(studies, slices, workers, folder):
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source = Path(place).resolve() / "source"
        write_cohort(source, studies, slices)
        size = sum(path.stat().st_size for path in (source / "dicom").rglob("*.dcm")) / 2**20
        click.echo(f"{studies} studies, {size / studies:.0f} MiB of DICOM each; {os.cpu_count()} cores\n")
        click.echo(f"{'step':22}" + "".join(f"{f'{n} worker(s)':>24}" for n in workers))
        roots = {n: Path(place) / f"workers{n}" for n in workers}
        total = dict.fromkeys(workers, 0.0)
        for root in roots.values():
            root.mkdir()
            for name in ("dicom", "given"):
                (root / name).symlink_to(source / name)
        for script, options in STEPS.items():
            cells = []
            for n, root in roots.items():
                spread = () if script.startswith("5") else ("--workers", str(n))
                command = [sys.executable, SCRIPTS / f"{script}.py", "--root", root, *options, *spread]
                seconds, mib = watched([str(part) for part in command])
                total[n] += seconds
                cells.append(f"{seconds:9.1f} s {mib:9.0f} MiB")
            click.echo(f"{script:22}" + "".join(f"{cell:>24}" for cell in cells))
        click.echo(f"{'per study':22}" + "".join(f"{f'{total[n] / studies:9.1f} s':>24}" for n in workers))
        click.echo(f"{'studies per hour':22}" + "".join(f"{3600 * studies / total[n]:24.0f}" for n in workers))


if __name__ == "__main__":
    main()
