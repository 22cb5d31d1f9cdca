"""What several rooms' tests share: a tiny cropped cohort, and running a script as a user does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.volume import Volume, write_nifti

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_script():
    """run_script("2_Tests/generate_petct.py", "--sex", "F", …) → the finished process, output as text."""

    def run(script, *arguments, environment=None):
        command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.fixture
def refused(run_script):
    """Runs a script that must refuse: exit code 2, one line "Error: …" on stderr and nothing else. Returns the line."""

    def run(script, *arguments):
        process = run_script(script, *arguments)
        lines = [line for line in process.stderr.splitlines() if line.strip() and "it/s" not in line]
        assert process.returncode == 2, process.stderr
        assert "Traceback" not in process.stderr
        assert lines[-1].startswith("Error: "), process.stderr
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
