"""Which number format the network computes in."""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # of x86 and Arm processors, as torch names them


def has_bf16(device):
    """Whether a device multiplies bfloat16 in hardware. Without that it is slower than float32, often 50 times."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(unit, False) for unit in BF16_UNITS)


def resolved(device, precision="auto"):
    """"float32" or "bfloat16": as asked, or, if "auto", bfloat16 where the device has it."""
    return ("bfloat16" if has_bf16(device) else "float32") if precision == "auto" else precision


def autocast(device, precision="auto"):
    """Context in which the network computes in the ``resolved`` number format."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(device, precision) == "bfloat16")
