"""The one error a user can cause and cure."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import click

Value = TypeVar("Value")


class InputError(click.ClickException):
    """Something the user gave cannot be used: the message names the input, the fact and the cure.

    A script that lets it through prints ``Error: …`` on one line and exits with code 2.
    """

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(" ".join(line.strip() for line in message.splitlines()))  # what is cited may have several

    def __str__(self) -> str:
        return self.message


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within this context an InputError about values begins with the file that holds them."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def closest(name: str, known: Mapping[str, Value]) -> Value:
    """The row of the dict ``known`` called ``name``.

    Raises InputError that suggests the nearest spelling and lists what there is.
    """
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    raise InputError(f'unknown name "{name}". {hint}Known: {", ".join(known)}.')
