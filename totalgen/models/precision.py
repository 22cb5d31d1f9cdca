"""Which number format the network computes in."""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # of x86 and Arm processors, as torch names them


def has_bf16(device):
    """Whether a device multiplies bfloat16 in hardware. Without that it is slower than float32, often 50 times."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(unit, False) for unit in BF16_UNITS)


def autocast(device, precision="auto"):
    """Context in which the network computes in bfloat16 where ``precision`` says so, or, if "auto", where it pays."""
    bf16 = has_bf16(device) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
