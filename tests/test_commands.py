"""How commands end: interrupted, where they cannot write, while another is at work; and what they say of themselves."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from totalgen.commands import INTERRUPTED, command, named, weights_of_runs
from totalgen.data.files import HELD, PLACES, error_text, locked
from totalgen.data.subjects import for_each_subject
from totalgen.errors import InputError


def made(work):
    @command("Does something.")
    def main():
        work()

    return main


def raising(error):
    def work():
        raise error

    return work


def test_an_interrupted_command_says_that_it_goes_on_and_exits_as_shells_expect():
    result = CliRunner().invoke(made(raising(KeyboardInterrupt())), [])
    assert result.exit_code == INTERRUPTED == 130
    assert "The same command goes on" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("number", PLACES)
def test_a_place_that_cannot_be_written_is_one_line(number):
    result = CliRunner().invoke(made(raising(OSError(number, "it does not go", "out/x"))), [])
    assert result.exit_code == 2
    assert result.output.strip() == f"Error: out/x: it does not go. {PLACES[number]}"
    assert error_text(OSError(number, "it does not go", "out/x")) == result.output.strip().removeprefix("Error: ")


def test_an_unforeseen_error_keeps_its_traceback():
    result = CliRunner().invoke(made(raising(OSError(errno.EIO, "broken disk"))), [])
    assert isinstance(result.exception, OSError)


def test_names_of_an_option_that_is_repeated():
    assert named("--x", ["a=out/b=c", "out/d"]) == {"a": "out/b=c", "d": "out/d"}
    for texts, words in ((["a=1", "a=2"], '"a" is 1 and 2'), (["out/a", "a=2"], "Give each"), (["=2"], "has no name")):
        with pytest.raises(InputError, match=words):
            named("--x", texts)


def test_every_command_tells_its_version_and_its_help():
    for argument in ("--version", "-h", "--help"):
        result = CliRunner().invoke(made(lambda: None), [argument])
        assert result.exit_code == 0
        assert ("totalgen" if argument == "--version" else "Does something.") in result.output


def test_output_is_utf8_in_any_locale(tmp_path):
    script = tmp_path / "s.py"
    lines = ("import click", "from totalgen.commands import command", "@command('σ × °')", "def main():",
             "    click.echo('σ × °')", "main()")  # fmt: skip
    script.write_text("\n".join(lines), encoding="utf-8")
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PATH": ""}
    for arguments in ([], ["-h"]):
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, env=ascii_only, check=False)
        assert done.returncode == 0, done.stderr
        assert "σ × °" in done.stdout.decode("utf-8")


def test_one_process_works_in_a_folder_and_the_second_is_told_who(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time\nfrom totalgen.data.files import locked\n"
         f"with locked({str(tmp_path)!r}, 'step crop'):\n    print('held', flush=True)\n    sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"step crop is at work there \(host .*, process {other.pid}\)"):
        for_each_subject(tmp_path, "crop", ["a"], lambda subject: None, lambda subject: False)
    assert for_each_subject(tmp_path, "other", ["a"], lambda subject: None, lambda subject: False) == []
    other.kill()  # a lock dies with its process
    other.wait()
    assert for_each_subject(tmp_path, "crop", ["a"], lambda subject: None, lambda subject: False) == []
    assert not list(tmp_path.glob(".*.lock"))


def test_a_process_does_not_lock_itself_out(tmp_path):
    with locked(tmp_path, "a training"), locked(tmp_path, "a training"):
        assert len(HELD) == 1
        with (tmp_path / ".a-training.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not HELD


def test_click_is_what_scripts_are_made_with():
    assert isinstance(made(lambda: None), click.Command)


def test_weights_of_runs_are_those_of_the_presets_names(tmp_path):
    for name in ("demo-global-edm", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ema-0.100.safetensors").touch()
    shipped, trained = Path("Resource/demo-global-edm.safetensors"), Path("runs/mine/ema-0.100.safetensors")
    preset = dict(global_weights=shipped, sr_weights=trained)
    found = weights_of_runs(tmp_path, preset, dict(global_weights=None, sr_weights=None))
    assert [path.parent.name for path in found.values()] == ["demo-global-edm", "mine"]
    other = Path("given.safetensors")
    assert weights_of_runs(tmp_path, preset, dict(global_weights=other))["global_weights"] == other
    assert weights_of_runs(None, preset, dict(global_weights=None)) == dict(global_weights=None)
    with pytest.raises(InputError, match="demo-sr-edm has no ema-0.100.safetensors. Train preset demo-sr-edm there"):
        weights_of_runs(tmp_path, dict(sr_weights="Resource/demo-sr-edm.safetensors"), dict(sr_weights=None))
