"""The package can be installed, and used from Python in any folder as the README shows."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import totalgen
from totalgen import Cascade
from totalgen.phantom import make_subject, sample_demographics
from totalgen.phantom.phantom_dicom import write_study
from totalgen.schema import resolve
from totalgen.settings import ORGAN_CALIBRATION, GenerationSettings

REPOSITORY = Path(__file__).resolve().parents[1]
WHEEL_LIMIT_MIB = 30
SUPPORTED = ("3.11", "3.12", "3.13")


def readme_lines():
    """The Python block of the README."""
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    return block


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds one study of a phantom as DICOM, called patient."""
    folder = tmp_path_factory.mktemp("elsewhere")
    person = sample_demographics(np.random.default_rng(1))
    write_study(folder / "patient", "p1", make_subject(person, seed=1, voxel_mm=10.0), person, 1)
    return folder


def run_lines(python, folder):
    script = folder / "lines.py"
    script.write_text(readme_lines())
    process = subprocess.run([python, script], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def pip(*arguments, python=sys.executable):
    command = [python, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def registry():
    """Skips where no package registry answers."""
    if pip("index", "versions", "click").returncode:
        pytest.skip("no package registry can be reached")


@pytest.mark.slow
def test_the_lines_of_the_readme_run_in_any_folder(folder):
    printed = run_lines(sys.executable, folder)
    assert "HU" in printed
    assert "SUV" in printed
    assert len(readme_lines().splitlines()) <= 12


def test_the_version_is_that_of_the_metadata_and_public_names_are_there():
    assert totalgen.__version__ == re.search(r'version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text())[1]
    assert all(getattr(totalgen, name) for name in totalgen.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = totalgen.nothing


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_runs_the_lines_of_the_readme(registry, folder, tmp_path):
    source = tmp_path / "source"  # building leaves files behind
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        source.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, source)
    for name in ("totalgen", "Resource"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = pip("wheel", "--no-deps", "--wheel-dir", tmp_path, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("totalgen-*.whl")
    assert wheel.stat().st_size < WHEEL_LIMIT_MIB * 2**20
    pins = tmp_path / "pins.txt"
    pins.write_text("\n".join(line for line in requirements() if "==" in line))
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    installed = pip("install", "-c", pins, "-c", REPOSITORY / "requirements.lock", wheel, python=python)
    assert installed.returncode == 0, installed.stderr
    assert "HU" in run_lines(python, folder)


@pytest.mark.slow
@pytest.mark.parametrize("version", SUPPORTED)
def test_every_pin_has_a_wheel(registry, tmp_path, version):
    """Names, versions and wheels are looked up; nothing is installed."""
    pins = tmp_path / "pins.txt"
    lock = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins.write_text("\n".join(line for line in [*requirements(), *lock] if "==" in line))
    found = pip(
        "install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:",
        "--python-version", version, "--target", tmp_path / "nowhere", "-r", pins,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def requirements():
    return (REPOSITORY / "requirements.txt").read_text().splitlines()


@pytest.mark.parametrize(("missing", "words"), [("python", "no Python 3.11 or later"), ("venv", "has no venv module")])
def test_setup_states_in_one_line_what_is_missing(tmp_path, missing, words):
    """make in an empty folder, with a Python that lacks something."""
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    command = ["make", "setup", f"PYTHON={fake if missing == 'venv' else ''}"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert process.returncode
    lines = [line for line in process.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.parametrize("preset", ["demo", "demo-flow"])
def test_the_sampling_that_shipped_weights_carry_is_that_of_their_preset(preset):
    spec = importlib.util.spec_from_file_location("generate_petct", REPOSITORY / "2_Tests" / "generate_petct.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    settings, shipped = resolve(GenerationSettings, script.PRESETS, preset), Cascade.shipped(preset)
    agreeing = ("consistency", "consistency_of", "consistency_sigma")
    calibration = ("calibration_slope", *ORGAN_CALIBRATION)
    made = Cascade.load(settings)
    for name in ("global_sampling", "sr_sampling", "tiling", "self_start", "air", *agreeing, *calibration):
        assert getattr(made, name) == getattr(shipped, name), name
    assert bool(made.size_calibration) == (preset == "demo")
