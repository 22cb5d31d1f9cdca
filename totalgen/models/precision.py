"""The number format in which the network computes."""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # of x86 and Arm processors, as torch names them


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware. In software it is slower than float32, often 50 times."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return any(torch.cpu.get_capabilities().get(unit, False) for unit in BF16_UNITS)


def resolved(device: torch.device, precision: str = "auto") -> str:
    """Number format, "float32" or "bfloat16": ``precision``, or, if "auto", bfloat16 where the device has it."""
    return ("bfloat16" if has_bf16(device) else "float32") if precision == "auto" else precision


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Context in which the network computes in the number format given by ``resolved``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(device, precision) == "bfloat16")
