"""What the numbered scripts share: the layout of their help, and the options that several of them take."""

import contextlib
import functools
import io
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from totalgen.data import progress
from totalgen.data.files import check_place, place_text
from totalgen.errors import InputError

PATH = click.Path(path_type=Path)


class Place(click.Path):
    """A folder to write into: whether that is possible is seen before anything is loaded."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        check_place(Path(os.fsdecode(path)))
        return path


PLACE = Place(path_type=Path)
MOST_PROCESSES = 256
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class Command(click.Command):
    """A command that ends in one line where a person or the place of an output stops it."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):  # texts contain σ and ×, whatever the locale
            if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
                stream.reconfigure(encoding="utf-8")
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:  # whose usage is lines before the one that matters
            raise InputError(f"{error.format_message()} See --help.") from None

    def invoke(self, ctx: click.Context) -> Any:
        check_finite(self, ctx.params)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped. The same command goes on from what is done.", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if (line := place_text(error)) is None:
                raise
            raise InputError(line) from None


def check_finite(made: click.Command, values: dict[str, Any]) -> None:
    """Raises InputError for an option that is not a finite number: ranges do not refuse what cannot be compared."""
    for option in made.params:
        value = values.get(option.name or "")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{option.opts[0]} is {number}. Give a finite number.")


def command(text: str, epilog: str | None = None) -> Callable[[Callable], click.Command]:
    """click.command with a script's docstring as its help, line by line as it is written.

    epilog: text below the options, kept line by line as well.
    """
    settings = dict(show_default=True, help_option_names=["-h", "--help"])
    made = click.command(
        cls=Command, help=_verbatim(text), epilog=epilog and "\b\n" + epilog, context_settings=settings
    )
    about = click.version_option(version("totalgen"), prog_name="totalgen")
    hush = click.option(
        "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="Print warnings and errors only."
    )
    return lambda function: made(hush(about(function)))


def _verbatim(text):
    return text.replace("\n\n", "\n\n\b\n")


def device_option(function: Callable) -> Callable:
    """Adds --device: where a network runs, as ``totalgen.distributed.usable_device`` takes it."""
    text = "Where the network runs: cpu, cuda, cuda:1, … or mps; default: CUDA when present."
    return click.option("--device", help=text)(function)


def held_out_option(text: str) -> Callable[[Callable], Callable]:
    """Adds --held-out, a split of subjects that were not trained on: that of the training is refused.

    text: its help.
    """
    return click.option("--held-out", default="test", callback=_not_trained_on, help=text)


def _not_trained_on(ctx: click.Context, _: click.Parameter, split: str) -> str:
    if split == "train":
        raise InputError("--held-out train: trainings take that split. Give one that was not trained on, such as test.")
    return split


def named(option: str, texts: Iterable[str]) -> dict[str, str]:
    """name → the rest of an option that is given several times as NAME=REST, or as REST, named after its last part.

    Raises InputError for a name that is empty or given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, given, rest = text.partition("=")
        name, rest = (name, rest) if given else (Path(text).name, text)
        if not name:
            raise InputError(f'{option} "{text}" has no name. Write NAME={rest}.')
        if name in found:
            raise InputError(f'{option}: "{name}" is {found[name]} and {rest}. Give each a name of its own.')
        found[name] = rest
    return found


def _be_quiet(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Of what is printed only warnings and errors, which go to standard error, remain."""
    if asked:
        progress.quiet = True
        ctx.call_on_close(functools.partial(setattr, progress, "quiet", False))
        ctx.with_resource(contextlib.redirect_stdout(io.StringIO()))


def spread_options(function: Callable) -> Callable:
    """Adds --workers and --scheduler, as ``totalgen.data.parallel.spread`` takes them."""
    count = click.IntRange(1, MOST_PROCESSES)
    workers = click.option("--workers", type=count, default=1, help="Processes on this machine.")
    scheduler = click.option(
        "--scheduler", metavar="ADDRESS", help="Running Dask scheduler to use instead, such as tcp://host:8786."
    )
    return workers(scheduler(function))


def input_options(function: Callable) -> Callable:
    """Adds the options of a script that makes something of images: what they are, and where the results go."""
    options = (
        click.option("--cohort", type=PATH, help="Or the root of a cohort, of whose subjects all are taken."),
        click.option("--split", help="Only subjects of this split of the cohort."),
        click.option("--seed", type=click.IntRange(min=0), default=1, help="Of the noise; each subject has its own."),
        click.option("--outdir", type=PLACE, required=True, help="Folder for the results."),
        click.option("--samples", type=int, help="How many; their mean is written, and their standard deviation."),
        click.option("--dicom", is_flag=True, help="Of a DICOM input: write <name>/dicom, a derived series, too."),
        click.option("--keep-identity", is_flag=True, help="Keep patient, study and dates in names and that series."),
        click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable."),
        device_option,
        click.option("--dry-run", is_flag=True, help="Print the settings, and exit."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def weights_of_runs(
    folder: Path | None, preset: dict[str, Any], given: dict[str, Path | None]
) -> dict[str, Path | None]:  # fmt: skip
    """The weights of a preset as they are left by trainings of one's own, <folder>/<name>/ema-0.100.safetensors.

    folder: None: only what was given;  preset: its settings, whose weights are shipped as <name>.safetensors or left by
    a training <name>;  given: setting → path that was given instead, or None. Raises InputError when one is missing.
    """
    found = dict(given)
    if folder is None:
        return found
    for key in (key for key, path in given.items() if path is None):
        path = Path(preset[key])
        name = path.parent.name if path.name.startswith("ema-") else path.stem
        found[key] = own = folder / name / "ema-0.100.safetensors"
        if not own.is_file():
            raise InputError(f"--runs {folder}: {name} has no {own.name}. Train preset {name} there first.")
    return found


def ended(written: str | Path, script: str, *arguments: object) -> None:
    """The last lines of a step: what it wrote, and the next command to type."""
    click.echo(f"Written: {written}\nNext: python {script} {shlex.join(map(str, arguments))}")


def section_ended(folder: Path) -> None:
    """The last lines of a script whose result is a section of the report."""
    arguments = ("--reference", "COHORT", "--candidate", "STUDIES", "--section", folder, "--outdir", "out/report")
    ended(folder, "3_Evaluations/3_compare_cohorts.py", *arguments)


def trained(weights: Path, use: str) -> str:
    """The last lines of a training: its weights, and the command that uses them."""
    return f"Weights: {weights}\nUse them: python {use.format(weights)}"


def check_dicom(dicom: bool, path: Path | None) -> None:
    """Raises InputError for --dicom without a folder to derive a series from."""
    if dicom and (path is None or not path.is_dir()):
        raise InputError("--dicom derives a series from the DICOM folder that --input names. Give one.")
