"""Processes started by torchrun leave nothing behind, and networks without values cost nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

GROUP = """
import os, sys
from totalgen import distributed
rank, ranks, device = distributed.start()
import torch._dynamo  # what a compiled network, or an operation on device meta, imports
distributed.gathered({rank: ranks})
distributed.stop()
threads = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
sys.exit(any("gloo" in name for name in threads))
"""

META = """
import sys, torch
from totalgen.models.networks import MPLayer
with torch.device("meta"):
    MPLayer(4, 8, (3, 3, 3))
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_no_thread_outlives_the_process_group(tmp_path):
    """One that did could need Python while it ends, which aborted one process in ten."""
    script = tmp_path / "group.py"
    script.write_text(GROUP)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    process = subprocess.run([sys.executable, *launch], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_a_network_without_values_imports_no_compiler():
    """It took seconds at the start of every script that loads weights."""
    process = subprocess.run([sys.executable, "-c", META], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
