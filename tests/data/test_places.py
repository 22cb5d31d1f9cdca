"""Whether a folder can be written is seen before any work, by trying it."""

import contextlib
import errno
import tempfile

import pytest
from click.testing import CliRunner

from totalgen.commands import PLACE, command
from totalgen.data.files import check_place
from totalgen.errors import InputError


@pytest.fixture
def script():
    """A command that would work for hours, and says that it has begun."""
    import click

    @command("Works.")
    @click.option("--outdir", type=PLACE, required=True, help="Folder.")
    def main(outdir):
        click.echo("begun")

    return lambda path: CliRunner().invoke(main, ["--outdir", str(path)])


def test_a_folder_that_is_there_or_can_be_made(tmp_path, script):
    for path in (tmp_path, tmp_path / "new" / "deep"):
        assert script(path).output == "begun\n"
    assert list(tmp_path.iterdir()) == []  # nothing is made, nothing is left


def file(tmp_path):
    (tmp_path / "f").write_text("kept")
    return tmp_path / "f"


def below_a_file(tmp_path):
    return file(tmp_path) / "x" / "y"


def link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    return tmp_path / "link" / "x"


def circle(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    return tmp_path / "circle" / "x"


PLACES = {
    "a file": (file, "is a file, where a folder is needed"),
    "below a file": (below_a_file, "is a file, where a folder is needed"),
    "a link to nothing": (link_to_nothing, "is a link to what is not there"),
    "a circle of links": (circle, "link"),
    "a long name": (lambda tmp_path: tmp_path / ("x" * 300), "too long"),
    "a long path": (lambda tmp_path: tmp_path.joinpath(*["x" * 200] * 30), "too long"),
    "no file system for files": (lambda tmp_path: "/proc/totalgen", "cannot be written"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_written_is_one_line_before_the_work(tmp_path, script, name):
    make, words = PLACES[name]
    result = script(make(tmp_path))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_what_the_system_refuses_is_said(tmp_path, monkeypatch, number):
    @contextlib.contextmanager
    def refused(**_):
        raise OSError(number, errno.errorcode[number])
        yield

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(InputError, match=rf"cannot be written \({errno.errorcode[number]}\)"):
        check_place(tmp_path / "new")
