"""The same work on many items: in this process, in several on this machine, or on a Dask cluster."""

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from totalgen.data.files import error_text
from totalgen.errors import InputError

ANSWER_WITHIN_S = 10  # of a scheduler
SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # an item whose worker dies is tried twice
    "distributed.scheduler.worker-saturation": 1.0,  # no item waits on a worker and fails when that worker dies
    # Dask's own list would also make malloc give back every large array at once, which halves our speed.
    "distributed.nanny.pre-spawn-environ": {f"{n}_NUM_THREADS": 1 for n in ("OMP", "MKL", "OPENBLAS")},
}


def spread(
    work: Callable[[Any], Any], items: Iterable[Any], workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[Any, Any, str | None]]:
    """Call ``work(item)`` for every item and yield (item, result, error) in the order in which they finish.

    error: None, or in words why work raised, and result is then None: one bad item never stops the others.
    workers: processes on this machine, each with one thread and an equal share of the memory; one that exceeds its
    share is ended and its item fails. With 1 the work is done here, without Dask.
    scheduler: address of a running Dask scheduler (tcp://host:8786) in place of these. Its workers need this package
    and the same paths.
    Raises InputError when no scheduler answers, or it has no worker.
    """
    items = list(items)
    if scheduler is None and min(workers, len(items)) <= 1:
        for item in items:
            yield item, *_attempt(work, None, item)
        return
    from distributed import KilledWorker, as_completed  # a second to import, and one process needs none of it

    with _client(min(workers, len(items)), scheduler) as client:
        task = functools.partial(_attempt, work, os.getcwd())
        futures = dict(zip(client.map(task, items, pure=False), items, strict=True))
        for future in as_completed(futures):
            try:
                result, error = future.result()
            except KilledWorker:
                result, error = None, "its worker died, usually because it ran out of memory. Use fewer --workers."
            except Exception as failed:  # what could not be sent there or back, a worker without this package, …
                result, error = None, error_text(failed)
            yield futures[future], result, error
            future.release()


def _attempt(work, folder, item):
    """(result, None), or (None, why it failed). folder: where relative paths begin, on a worker elsewhere."""
    try:
        if folder is not None:
            os.chdir(folder)
        return work(item), None
    except Exception as error:  # of any kind: the other items must still be done
        return None, error_text(error)


async def _answer(scheduler):
    """Returns once a scheduler has answered. Client itself waits for ever for what takes its greeting in silence."""
    from distributed.comm import connect

    await (await connect(scheduler)).close()


@contextlib.contextmanager
def _client(workers, scheduler):
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            asyncio.run(asyncio.wait_for(_answer(scheduler), ANSWER_WITHIN_S))
            client = Client(scheduler, timeout=ANSWER_WITHIN_S)
        except Exception as error:  # what is no scheduler answers in many ways
            why = " ".join(f"{type(error).__name__} {error}".split())[:100]
            raise InputError(f"{scheduler}: no Dask scheduler answers ({why}). Start one, or leave it out.") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=ANSWER_WITHIN_S)
            except TimeoutError:
                cure = f"Start one: dask worker {scheduler}."
                raise InputError(f"{scheduler}: this Dask scheduler has no worker. {cure}") from None
            yield client
        return
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
