"""How far long work is: a bar on a terminal, a line now and then in a log, nothing where quiet is asked for."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
from tqdm import tqdm

FIRST_S, GROWTH = 10.0, 0.1  # without a terminal: a line after 10 s, then each when a tenth more time has passed

quiet = False  # set by --quiet


def progress(
    items: Iterable[Any] | None = None, label: str = "", unit: str = "part", total: int | None = None, done: int = 0,
    show: bool = True,
) -> tqdm:  # fmt: skip
    """The items, to go through them; or, without items, an object whose ``update(n)`` says that n more are done.

    total: how many there are, where the items do not know;  done: so many were done before.
    """
    bar = tqdm if sys.stderr.isatty() else Lines
    return bar(items, desc=label, unit=unit, total=total, initial=done, disable=quiet or not show)


class Lines(tqdm):
    """A bar that is a line of its own now and then, as a log has them; none for what is soon done."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, mininterval=FIRST_S, delay=FIRST_S, miniters=1, **options)

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            yield item
            self.update()
        self.close()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the line that a terminal would show as a bar."""
        if self.n == self.total:
            return
        state = self.format_dict
        form = self.format_interval
        line = f"{self.desc}: {self.n} of {self.total} {self.unit}s" if self.total else f"{self.desc}: {self.n}"
        line += f" after {form(state['elapsed'])}"
        if self.total and self.n > self.initial:
            left = state["elapsed"] * (self.total - self.n) / (self.n - self.initial)
            line += f", about {form(left)} left"
        click.echo(", ".join([line, *filter(None, [self.postfix])]) + ".", err=True)
        self.mininterval = max(FIRST_S, GROWTH * state["elapsed"])

    def close(self) -> None:
        """Nothing more is printed: what was done is said by whoever did it."""
        self.disable = True
