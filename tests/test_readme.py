"""The README's block of commands is run as it stands, only smaller: README and code cannot part."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("0_Preprocess", "1_Trainings", "2_Tests", "3_Evaluations", "Resource")
SMALLER = {  # what the README says → what is run in its place, in minutes instead of hours; nothing else is changed
    "--subjects 764": "--subjects 12",
    "--voxel-mm 6": "--voxel-mm 12",
    "--shape 80 80 128": "--shape 32 32 48",
    "demo-global-edm": "smoke-global-edm",
    "demo-sr-edm": "smoke-sr-edm",
    "1_Trainings/train_segmenter.py --root": "1_Trainings/train_segmenter.py --preset smoke --root",
    "--preset demo ": "--preset smoke ",
}


def block():
    """The commands of the README's complete path, as they are written."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (found,) = [part for part in text.split("```")[1::2] if "0_make_phantom_cohort.py --root $R" in part]
    return found


def test_what_is_replaced_is_in_the_readme():
    assert [words for words in SMALLER if words not in block()] == []


def test_the_block_names_every_script_of_the_path():
    for stage in ("0_Preprocess", "1_Trainings", "2_Tests", "3_Evaluations"):
        assert stage in block()
    for line in block().splitlines():
        for word in line.split():
            if word.endswith(".py"):
                assert (REPOSITORY / word).exists(), word


@pytest.mark.slow
def test_the_block_of_commands_runs(tmp_path):
    commands = block()
    for words, smaller in SMALLER.items():
        commands = commands.replace(words, smaller)
    for folder in FOLDERS:
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"demo", "cohort", "table1"}
    used = pd.read_csv(tmp_path / "out" / "demo" / "manifest.csv")
    assert used["preset"].tolist() == ["smoke"]  # the weights just trained: there are no others of that name
    assert "phantom: not evidence about patients" in (tmp_path / "out" / "table1" / "table1.md").read_text()
    for stage in ("Written: ", "Weights: ", "Volumes: ", "Next: python ", "Use them: python "):
        assert stage in done.stdout
