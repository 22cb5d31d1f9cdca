"""The number format in which the network computes."""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
BF16_UNITS = ("amx_bf16", "bf16")  # of x86 and Arm processors, as torch names them


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32. In software it is often 50 times slower.

    AVX-512's instruction for it is the faster one on AMD's processors only. On Intel's, where AMX is missing or hidden
    from a virtual machine, it has half the throughput: measured there, matrix products and convolutions of 16 to 72
    channels took 1.5 to 1.9 times as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    units = torch.cpu.get_capabilities()
    if any(units.get(unit, False) for unit in BF16_UNITS):
        return True
    return bool(units.get("avx512_bf16", False)) and not str(units.get("cpu_name", "")).startswith("Intel")


def resolved(device: torch.device, precision: str = "auto") -> str:
    """Number format, "float32" or "bfloat16": ``precision``, or, if "auto", bfloat16 where the device has it."""
    return ("bfloat16" if has_bf16(device) else "float32") if precision == "auto" else precision


def spoils_gradients(x: torch.Tensor) -> bool:
    """Whether the gradient of the weights of a 3×3×3 convolution of ``x`` [B, C, x, y, z] would be wrong here.

    In bfloat16 on a processor, torch 2.13 reads memory that nothing was written to where the first axis has 2 voxels.
    """
    bfloat16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return bfloat16 and x.ndim == 5 and x.shape[2] == 2 and torch.is_grad_enabled()


def exact(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Context in which the network computes in the number format given by ``resolved``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(device, precision) == "bfloat16")
