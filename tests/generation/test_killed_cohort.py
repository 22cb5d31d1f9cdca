"""Generating may be killed at any moment: the same call again leads to the same files, to the byte."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from totalgen.data.quality import Reference, SexReference
from totalgen.generation.checks import Checks
from totalgen.generation.cohort import Request, generate_cohort

WOMAN = dict(sex="F", age_years=60.0, height_m=1.65, weight_kg=66.0)
REQUESTS = [Request(f"p{n}", WOMAN, n) for n in range(8)]
LINE = dict(intercept=1000.0, per_m=0.0, per_kg=0.0, residual=(0.0, 1.0))  # nobody passes: all are made twice
CHECKS = Checks(reference=Reference({"F": SexReference(20, LINE, {})}, (-500.0, 500.0)), retry=1)
KILLS = [  # how many studies this process has finished, and the file of the next that it is about to put in place
    (0, "CT.nii.gz"), (0, "SUV.nii.gz"), (1, "CT.nii.gz"), (0, "preview.png"), (0, "mip.gif"), (1, "preview.png"),
    (0, "CT.nii.gz"), (1, "SUV.nii.gz"), (0, "mip.gif"), (0, "SUV.nii.gz"),
]  # fmt: skip


def generate(cascade, outdir, finished=0, file=None):
    """Generate, and be killed when so many studies are finished and ``file`` of the next is about to get its name."""
    names, done = {request.name for request in REQUESTS}, 0

    def kill(event, arguments):
        nonlocal done
        if event != "os.rename":
            return
        target = Path(os.fsdecode(arguments[1]))
        if target.parent == outdir and target.name in names:
            done += 1
        elif target.name == file and done >= finished:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    torch.set_num_threads(1)  # in a process that was forked there is one
    generate_cohort(cascade, REQUESTS, outdir, "tiny", checks=CHECKS)


def content(root):
    found = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert not any(part.startswith(".") for path in found for part in path.parts), "something was left behind"
    return found


@pytest.mark.slow
def test_a_cohort_that_was_killed_ten_times_is_that_of_one_run(cascade, tmp_path):
    start, chosen = multiprocessing.get_context("fork").Process, cascade()
    straight, killed = tmp_path / "straight", tmp_path / "killed"

    def run(*arguments):
        process = start(target=generate, args=(chosen, *arguments))
        process.start()
        process.join()
        return process.exitcode

    assert run(straight) == 0
    for finished, file in KILLS:
        assert run(killed, finished, file) == -signal.SIGKILL
    assert run(killed) == 0
    assert set(pd.read_csv(killed / "manifest.csv")["attempts"]) == {2}
    expected, found = content(straight), content(killed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
