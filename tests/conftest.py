"""What several rooms' tests share: a tiny cropped cohort, and running a script as a user does."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from distributed.protocol.pickle import dumps, loads
from scipy import ndimage

from totalgen.data import metadata, parallel, subjects
from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, write_nifti

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def work_that_can_be_sent(monkeypatch):
    """Whatever a step does to subjects in this process could be sent to others: --workers 2 never ends in a traceback
    of Dask."""

    def checked(work, *arguments):
        loads(dumps(work))
        return parallel.spread(work, *arguments)

    for module in (subjects, metadata):
        monkeypatch.setattr(module, "spread", checked)


@pytest.fixture
def elsewhere(monkeypatch):
    """A device that is not the processor: tensors on "meta" have no values, and none works with one of the processor's.
    What is brought back from it is 0."""
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: torch.zeros(x.shape, dtype=x.dtype) if x.is_meta else x)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda x: float(x.cpu().item()))
    monkeypatch.setattr(torch.Tensor, "__int__", lambda x: int(x.cpu().item()))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which meta does not have
    return torch.device("meta")


@pytest.fixture
def run_script():
    """run_script("2_Tests/generate_petct.py", "--sex", "F", …) → the finished process, output as text."""

    def run(script, *arguments, environment=None, processes=1):
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(several if processes > 1 else []), str(REPOSITORY / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.fixture
def refused(invoke):
    """Runs a script that must refuse: exit code 2, one line "Error: …" on stderr and nothing else. Returns the line."""

    def run(script, *arguments):
        result = invoke(script, *arguments)
        lines = [line for line in result.stderr.splitlines() if line.strip() and "it/s" not in line]
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit)
        assert lines[-1].startswith("Error: "), result.output
        assert sum(line.startswith("Error") for line in lines) == 1
        return lines[-1]

    return run


@pytest.fixture(scope="session")
def cropped_cohort():
    """cropped_cohort(root, subjects, shape): a cohort root as step 4 and 5 leave it, of smooth random volumes."""

    def write(root, subjects=3, shape=(16, 16, 24)):
        random = np.random.default_rng(0)
        affine = np.diag([6.0, 6.0, 6.0, 1.0])
        rows = []
        for n in range(subjects):
            folder = root / "cropped" / f"s{n}"
            smooth = [ndimage.gaussian_filter(random.standard_normal(shape), 1.5).astype(np.float32) for _ in range(2)]
            write_nifti(folder / "CT.nii.gz", Volume(1500 * smooth[0], affine))
            write_nifti(folder / "SUV.nii.gz", Volume(np.abs(20 * smooth[1]), affine))
            split = "test" if n == subjects - 1 else "train"
            person = dict(sex="FM"[n % 2], age_years=60, height_m=1.7, weight_kg=70)
            rows.append(dict(subject=f"s{n}", **person, split=split, source="random"))
        pd.DataFrame(rows).to_csv(root / "cohort.csv", index=False)
        (root / "axial_extent.json").write_text(json.dumps(PUBLISHED.to_dict()))
        return root

    return write


BLOB_SHAPE = (24, 20, 28)
BLOB_MM = 12.0
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
    affine = np.diag([BLOB_MM] * 3 + [1.0])
    ct = np.full(BLOB_SHAPE, -1000, np.float32)
    ct[2:22, 2:18] = -100
    suv = np.full(BLOB_SHAPE, 0.3, np.float32)
    organs = np.zeros(BLOB_SHAPE, np.uint8)
    for name, (box, hu, uptake) in BOXES.items():
        ct[box], suv[box], organs[box] = hu, uptake * scale, ORGANS[name]
    ct += random.normal(0, 10, BLOB_SHAPE).astype(np.float32)
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
def invoke():
    """Function (path in the repository, *arguments) → click's Result; the script runs in this process."""

    def run(path, *arguments):
        spec = importlib.util.spec_from_file_location("script", REPOSITORY / path)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        return CliRunner().invoke(script.main, [str(argument) for argument in arguments])

    return run
