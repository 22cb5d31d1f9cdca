"""Work spread over processes gives the results of one process, even if workers die."""

import os
import socket
import threading
import time

import pandas as pd
import pytest
from distributed import LocalCluster

from totalgen.data import parallel
from totalgen.data.parallel import spread
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.errors import InputError


def unsendable(number):
    return threading.Lock() if number == 2 else number


def half(number):
    if number == 3:
        raise InputError("3 is odd. Give 4.")
    return number / 2


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_with_its_result_or_the_reason(workers):
    results = {item: (result, error) for item, result, error in spread(half, [1, 2, 3, 4], workers)}
    assert results == {1: (0.5, None), 2: (1.0, None), 3: (None, "3 is odd. Give 4."), 4: (2.0, None)}


def test_a_running_scheduler_is_used_and_relative_paths_begin_here(tmp_path, monkeypatch):
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.chdir(tmp_path)
        where = spread(lambda _: (os.getpid(), os.getcwd()), range(3), scheduler=cluster.scheduler_address)
        ((pid, folder),) = {result for _, result, _ in where}
    assert pid != os.getpid()
    assert folder == str(tmp_path)


def test_a_result_that_cannot_be_sent_is_a_failure_of_its_item_alone():
    results = {item: (result, error) for item, result, error in spread(unsendable, [1, 2, 3], workers=2)}
    assert results[1] == (1, None)
    assert results[3] == (3, None)
    assert results[2][0] is None
    assert "pickle" in results[2][1]


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(parallel, "ANSWER_WITHIN_S", 0.5)
    with pytest.raises(InputError, match="127.0.0.1:9: no Dask scheduler answers"):
        list(spread(half, [1], scheduler="tcp://127.0.0.1:9"))


def test_a_worker_that_dies_fails_only_its_own_subject(tmp_path):
    def work(subject):
        if subject == "b":
            time.sleep(0.3)
            os._exit(1)  # as when the system ends a process that ran out of memory
        return dict(pid=os.getpid())

    table = tmp_path / "table.csv"
    failed = for_each_subject(tmp_path, "step", list("abcd"), work, lambda s: False, table, workers=2)
    assert failed == ["b"]
    assert "worker died" in pd.read_csv(tmp_path / "failures.csv")["error"][0]
    assert sorted(read_table(table)["subject"]) == ["a", "c", "d"]


def test_what_is_no_scheduler_and_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parallel, "ANSWER_WITHIN_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address}: no Dask scheduler answers"):
            list(spread(half, [1], scheduler=address))


@pytest.mark.parametrize("address", ["nowhere", "http://127.0.0.1:1", "tcp://no.such.host.invalid:1", "", "::::"])
def test_an_address_that_is_none_is_refused(monkeypatch, address):
    monkeypatch.setattr(parallel, "ANSWER_WITHIN_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        list(spread(half, [1], scheduler=address))


def test_a_scheduler_without_workers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parallel, "ANSWER_WITHIN_S", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        pytest.raises(InputError, match="has no worker. Start one: dask worker tcp"),
    ):
        list(spread(half, [1], scheduler=cluster.scheduler_address))
