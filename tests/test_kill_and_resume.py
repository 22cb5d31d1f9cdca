"""Every step of the preprocessing may be killed at any moment: the same command again leads to the same result."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zarr

from totalgen.data.made_with import RECORD

SCRIPTS = Path(__file__).resolve().parents[1] / "0_Preprocess"
COHORT = ("--subjects", "5", "--seed", "2", "--format", "dicom", "--voxel-mm", "8", "--test-fraction", "0.2")
STEPS = {  # script: its options
    "0_make_phantom_cohort": (*COHORT, "--workers", "2"),
    "1_dicom_to_metadata": ("--workers", "2"),
    "2_dicom_to_nifti": ("--voxel-mm", "8", "--workers", "2"),
    "3_segment_organs": ("--backend", "given"),
    "4_crop_torso": ("--field-mm", "480", "--workers", "2"),
    "5_fit_axial_extent": (),
    "6_pack_training_set": ("--shape", "64", "64", "96"),
}
KILLS = 2  # of each step


def start(root, step):
    command = [sys.executable, SCRIPTS / f"{step}.py", "--root", root, *STEPS[step]]
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output.decode()


def files(root):
    """How many there are, unfinished ones included."""
    return sum(len(names) for _, _, names in os.walk(root))


def gone(processes):
    """Whether they all end by themselves within half a minute."""
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not alive


def content(root):
    """Everything a cohort consists of, by name; the archive without the times of the files it was made from."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            hidden = [part for part in path.relative_to(root).parts if part.startswith(".")]
            assert hidden in ([], [RECORD]), f"{path} was left behind"
            found[path.relative_to(root)] = path.read_bytes()
    for path in root.glob("training.zarr/*/zarr.json"):
        attributes = json.loads(path.read_text())
        attributes["attributes"]["provenance"].pop("files")
        found[path.relative_to(root)] = attributes
    return found


@pytest.mark.slow
def test_a_cohort_whose_steps_were_killed_is_the_cohort_whose_steps_were_not(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    chance, hits = random.Random(0), 0
    for step in STEPS:
        finish(start(straight, step))
        for _ in range(KILLS):
            process, made = start(killed, step), files(killed)
            enough = made + chance.randrange(max(files(straight) - made, 1))
            while process.poll() is None and files(killed) < enough:
                time.sleep(0.01)
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            hits += process.poll() is None
            process.kill()
            process.communicate()
            assert gone(family), f"workers of {step} outlive it"
        finish(start(killed, step))
    print(f"{hits} of {KILLS * len(STEPS)} kills met a step at work")
    assert hits > len(STEPS)  # else the test proved little
    expected, found = content(straight), content(killed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert len(zarr.open_group(killed / "training.zarr", mode="r").attrs["subjects"]) == 5
