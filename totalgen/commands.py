"""What the numbered scripts share: the layout of their help, and the options that several of them take."""

from collections.abc import Callable
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


def command(text: str, epilog: str | None = None) -> Callable[[Callable], click.Command]:
    """click.command with a script's docstring as its help, line by line as it is written.

    epilog: text below the options, kept line by line as well.
    """
    settings = dict(show_default=True, help_option_names=["-h", "--help"])
    return click.command(help=_verbatim(text), epilog=epilog and "\b\n" + epilog, context_settings=settings)


def _verbatim(text):
    return text.replace("\n\n", "\n\n\b\n")


def spread_options(function: Callable) -> Callable:
    """Adds --workers and --scheduler, as ``totalgen.data.parallel.spread`` takes them."""
    workers = click.option("--workers", type=click.IntRange(min=1), default=1, help="Processes on this machine.")
    scheduler = click.option(
        "--scheduler", metavar="ADDRESS", help="Running Dask scheduler to use instead, such as tcp://host:8786."
    )
    return workers(scheduler(function))
