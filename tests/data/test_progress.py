"""Progress is a bar on a terminal, a line now and then in a log, and nothing when it is not asked for."""

import io
import sys

import pytest
from tqdm import tqdm

from totalgen.data import progress as module
from totalgen.data.progress import Lines, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by clock.second at every look."""

    class Clock:
        now, second = 0.0, 1.0

        def __call__(self):
            self.now += self.second
            return self.now

    found = Clock()
    monkeypatch.setattr("tqdm.std.time", found)
    return found


def test_what_is_soon_done_prints_nothing_in_a_log(capsys):
    assert list(progress(range(1000), "quick")) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_in_a_log_lines_come_ever_more_rarely(clock, capsys):
    done = list(progress(range(10_000), "slow", "subject"))
    lines = capsys.readouterr().err.splitlines()
    assert done == list(range(10_000))
    assert 20 < len(lines) < 70  # one in 10 s at first, then one when a tenth more time has passed
    assert lines[0].startswith("slow: ")
    assert " of 10000 subjects after 00:1" in lines[0]
    assert "left." in lines[0]
    assert "\r" not in "".join(lines)


def test_a_loop_that_reports_itself_counts_and_shows_its_figures(clock, capsys):
    bar = progress(None, "run", "item", total=100, done=40)
    for _ in range(60):
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(1)
    bar.close()
    assert bar.n == 100
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all("of 100 items" in line and line.endswith("loss=0.5.") for line in lines)


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress([1], "x")
    assert type(bar) is tqdm
    assert type(bar) is not Lines
    assert list(bar) == [1]


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_and_hidden_ones_print_nothing(clock, monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert list(progress(range(200), "hidden", show=False)) == list(range(200))
    monkeypatch.setattr(module, "quiet", True)
    assert list(progress(range(200), "quiet")) == list(range(200))
    assert sys.stderr.getvalue() == ""
