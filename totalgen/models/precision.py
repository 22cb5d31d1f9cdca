"""Which number format the network computes in."""

import contextlib

import torch


def autocast(device):
    """bfloat16 on CUDA; full precision elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
