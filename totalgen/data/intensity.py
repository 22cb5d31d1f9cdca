"""Physical units ↔ the unit interval (the paper, section 2.2). The inverses are exact inside the clip range."""

import numpy as np

HU_RANGE = (-500.0, 500.0)  # CT window of the paper
SUV_MAX = 25.0  # PET clip of the paper, SUVbw in g/mL
AIR_HU = -1000.0
BODY_HU = -500.0  # what is denser belongs to the body (or to the table)


def encode_ct(hu: np.ndarray | float) -> np.ndarray:
    """HU → [0, 1]: clip to HU_RANGE, then linear."""
    low, high = HU_RANGE
    return (np.clip(hu, low, high) - low) / (high - low)


def decode_ct(value: np.ndarray) -> np.ndarray:
    """[0, 1] → HU."""
    low, high = HU_RANGE
    return value * (high - low) + low


def encode_pet(suv: np.ndarray | float) -> np.ndarray:
    """SUV → [0, 1]: clip to [0, SUV_MAX], then log(SUV + 1) / log(SUV_MAX + 1)."""
    return np.log1p(np.clip(suv, 0, SUV_MAX)) / np.log1p(SUV_MAX)


def decode_pet(value: np.ndarray) -> np.ndarray:
    """[0, 1] → SUV: 26^value − 1."""
    return np.expm1(value * np.log1p(SUV_MAX))
