"""Small cohorts with organs whose volume and uptake are known."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, write_nifti

REPOSITORY = Path(__file__).parents[2]
SHAPE = (24, 20, 28)
VOXEL_MM = 12.0
BOXES = {  # organ: (box of voxels, HU, SUV); 12 mm voxels hold 1.728 mL
    "liver": ((slice(13, 20), slice(6, 14), slice(10, 18)), 60.0, 2.2),
    "spleen": ((slice(3, 7), slice(6, 10), slice(12, 17)), 130.0, 1.8),
    "heart": ((slice(8, 13), slice(10, 15), slice(20, 26)), 240.0, 3.0),
    "kidney_right": ((slice(14, 18), slice(6, 10), slice(3, 8)), 180.0, 2.6),
    "kidney_left": ((slice(5, 9), slice(6, 10), slice(3, 8)), 180.0, 2.6),
}


def blob_study(seed=0, scale=1.0):
    """(CT, SUV, organs) as Volumes: boxes of soft tissue in a body of fat; ``scale`` multiplies the uptake."""
    random = np.random.default_rng(seed)
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    ct = np.full(SHAPE, -1000, np.float32)
    ct[2:22, 2:18] = -100
    suv = np.full(SHAPE, 0.3, np.float32)
    organs = np.zeros(SHAPE, np.uint8)
    for name, (box, hu, uptake) in BOXES.items():
        ct[box], suv[box], organs[box] = hu, uptake * scale, ORGANS[name]
    ct += random.normal(0, 10, SHAPE).astype(np.float32)
    return tuple(Volume(voxels, affine) for voxels in (ct, suv, organs))


def write_study(folder, ct, suv, organs):
    for name, volume in (("CT", ct), ("SUV", suv), ("organs", organs)):
        if volume is not None:
            write_nifti(folder / f"{name}.nii.gz", volume)


def table_of(subjects, **columns):
    sexes = ["F" if i % 2 else "M" for i in range(len(subjects))]
    rows = dict(subject=subjects, sex=sexes, age_years=60.0, height_m=1.7, weight_kg=70.0, source="phantom")
    return pd.DataFrame(rows | columns)


@pytest.fixture
def cohort(tmp_path):
    """A cohort root of four subjects: three to train, one to test."""
    root = tmp_path / "cohort"
    subjects = [f"s{i}" for i in range(4)]
    for i, subject in enumerate(subjects):
        write_study(root / "cropped" / subject, *blob_study(i, scale=1 + 0.1 * i))
    table_of(subjects, split=["train", "train", "train", "test"]).to_csv(root / "cohort.csv", index=False)
    return root


@pytest.fixture
def generated(tmp_path):
    """A generated folder of four studies, without organs and without splits."""
    root = tmp_path / "generated"
    subjects = [f"g{i}" for i in range(4)]
    for i, subject in enumerate(subjects):
        ct, suv, _ = blob_study(10 + i, scale=1.2 + 0.1 * i)
        write_study(root / subject, ct, suv, None)
    table_of(subjects, seed=range(4), preset="demo").to_csv(root / "manifest.csv", index=False)
    return root


@pytest.fixture
def run_script():
    """Function (path in the repository, *arguments) → click's Result; the script runs in this process."""

    def run(path, *arguments):
        spec = importlib.util.spec_from_file_location("script", REPOSITORY / path)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        return CliRunner().invoke(script.main, [str(argument) for argument in arguments])

    return run
