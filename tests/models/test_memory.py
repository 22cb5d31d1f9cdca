"""Memory freed by one layer stays with the process for the next one."""

import os
import sys
from pathlib import Path

import pytest
import torch

from totalgen.models.memory import keep_freed_memory

MIB = 64


def resident_mib():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_the_memory_of_a_large_tensor_is_kept_when_it_is_freed():
    keep_freed_memory(torch.device("cpu"))
    tensor = torch.empty(MIB * 2**20, dtype=torch.uint8).fill_(1)
    with_it = resident_mib()
    del tensor
    assert resident_mib() > with_it - MIB / 2
