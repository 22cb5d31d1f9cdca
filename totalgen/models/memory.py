"""What the C library does with memory that a network's layers leave."""

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 1 << 30  # bytes of a tensor; with 128 MiB the peak of a volume of 224×224×384 is 13 % higher
KEPT = (1 << 31) - 1  # bytes free at the end of the heap: the most that mallopt takes


def keep_freed_memory(device: torch.device) -> None:
    """Memory freed on a CPU stays with this process, as CUDA's caching allocator keeps a GPU's.

    glibc takes every tensor beyond 32 MiB from the kernel and gives it back, page by page, for each layer of a volume:
    a third of the time of an evaluation of 80×80×128 voxels. Other systems and C libraries are left as they are.
    """
    if device.type == "cpu" and sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGEST)
            mallopt(M_TRIM_THRESHOLD, KEPT)
