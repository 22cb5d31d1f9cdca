"""Processes started by torchrun, or a single one."""

import datetime
import gc
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed

from totalgen.errors import InputError


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """A torch.device of this machine: ``device``, or, for None and "auto", CUDA when present.

    Raises InputError when it is not there.
    """
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"device {device}: cannot be used here ({why}). Try cpu.") from None
    return found


def start(wait_days: float | None = None, device: str | None = None) -> tuple[int, int, torch.device]:
    """Join the process group that torchrun describes, if any. Returns (rank, number of processes, device).

    wait_days: after which one that waits for the others gives up; default: torch's own, minutes.
    device: as of usable_device; of several processes on GPUs each has its own.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    found = usable_device(device)
    cuda = found.type == "cuda"
    if ranks > 1 and found.index is not None:
        raise InputError(f"device {found}: is one, for {ranks} processes. Give cuda, or leave it out.")
    if cuda:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if found.index is None else found.index)
        torch.cuda.set_device(found)
    if ranks > 1 and not torch.distributed.is_initialized():
        importlib.import_module("torch.distributed.nn")  # imported later, its default arguments would keep the group
        timeout = None if wait_days is None else datetime.timedelta(days=wait_days)
        torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
    return own_rank(), ranks, found


def own_rank() -> int:
    """The number of this process among those that torchrun started, also after ``stop``."""
    return int(os.environ.get("RANK", 0))


def stop() -> None:
    """Leave the process group.

    Call it when every DistributedDataParallel is out of use. One that is freed later is the last to hold the group, and
    frees it while it keeps Python's lock, for which gloo's threads, that it waits for, may be waiting: for ever.
    """
    if torch.distributed.is_initialized():
        gc.collect()  # such a module is part of reference cycles
        torch.distributed.destroy_process_group()


def barrier() -> None:
    """Wait for the others."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def first(rank: int, work: Callable[[], Any]) -> None:
    """Call ``work()`` in process 0 while the others wait. An InputError there ends them all, rather than leave the
    others waiting."""
    refusal = None
    if rank == 0:
        try:
            work()
        except InputError as error:
            refusal = error
    if summed([float(refusal is not None)])[0]:
        stop()
        raise refusal or InputError("process 0 refused to go on and reports why.")


def gathered(entries: dict) -> dict:
    """The entries of a dict of every process, in all of them."""
    parts = [entries]
    if torch.distributed.is_initialized():
        parts *= torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, entries)
    return {key: value for part in parts for key, value in part.items()}


def summed(values: Sequence[float]) -> list[float]:
    """A list of numbers, each summed over all processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if torch.distributed.is_initialized():
        total = total.cuda() if torch.distributed.get_backend() == "nccl" else total
        torch.distributed.all_reduce(total)
    return total.tolist()
