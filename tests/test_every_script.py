"""What all scripts have in common: help, version, quiet, a text for every option, a device where a network runs."""

import importlib.util
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from totalgen import distributed
from totalgen.commands import command, device_option
from totalgen.data import progress
from totalgen.data.subjects import for_each_subject
from totalgen.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("0_Preprocess", "1_Trainings", "2_Tests", "3_Evaluations")
SCRIPTS = sorted(f"{path.parent.name}/{path.name}" for stage in STAGES for path in (REPOSITORY / stage).glob("*.py"))
NETWORKS = (
    "0_Preprocess/3_segment_organs.py", "1_Trainings/calibrate_organs.py", "1_Trainings/encode_latents.py",
    "1_Trainings/train_ct_to_mr.py", "1_Trainings/train_pet_denoising.py", "1_Trainings/train_segmenter.py",
    "1_Trainings/train_totalgen.py",
    "2_Tests/denoise_pet.py", "2_Tests/generate_petct.py", "2_Tests/translate_ct_to_mr.py",
    "3_Evaluations/1_segment_generated.py", "3_Evaluations/5_privacy.py",
    "3_Evaluations/7_fidelity.py", "3_Evaluations/8_usefulness.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def commands():
    """script → its click command."""
    found = {}
    for name in SCRIPTS:
        spec = importlib.util.spec_from_file_location("script", REPOSITORY / name)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        found[name] = script.main
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_version(commands, name):
    for argument in ("-h", "--help", "--version"):
        result = CliRunner().invoke(commands[name], [argument])
        assert result.exit_code == 0
        assert ("totalgen, version" if argument == "--version" else "--quiet") in result.output


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_has_a_text(commands, name):
    options = [option for option in commands[name].params if isinstance(option, click.Option)]
    assert [option.opts[0] for option in options if not (option.help or "").endswith(".")] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_one_line_with_exit_code_2(commands, name):
    result = CliRunner().invoke(commands[name], ["--no-such-option", "x"])
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_where_it_is_told(commands, name):
    assert "--device" in [option.opts[0] for option in commands[name].params]


def test_no_other_script_runs_a_network(commands):
    others = [name for name in SCRIPTS if any("device" in option.name for option in commands[name].params)]
    assert others == sorted(NETWORKS)


@pytest.mark.parametrize("device", ["gpu", "cuda:70", "cpu:x", "meta?"])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(InputError, match="cannot be used here .* Try cpu"):
        distributed.usable_device(device)


def test_one_gpu_is_not_for_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="device cpu:0: is one, for 2 processes"):
        distributed.start(device="cpu:0")


def test_quiet_leaves_warnings_and_errors(tmp_path):
    @command("Loops.")
    @device_option
    def main(device):
        for_each_subject(tmp_path, "step", ["a"], lambda subject: None, lambda subject: False)
        assert progress.quiet
        click.echo("Warning: b.", err=True)
        raise InputError("c. Cure it.")

    result = CliRunner().invoke(main, ["--quiet"])
    assert result.stdout == ""
    assert result.stderr == "Warning: b.\nError: c. Cure it.\n"
    assert not progress.quiet
    assert "step: 1 subjects done" in CliRunner().invoke(main, []).stdout
