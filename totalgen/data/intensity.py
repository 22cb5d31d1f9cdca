"""Physical units ↔ what an archive stores and a network sees. The inverses are exact inside the range."""

from dataclasses import dataclass

import numpy as np

from totalgen.errors import InputError

KINDS = ("window", "log", "linear")
AIR_HU = -1000.0
BODY_HU = -500.0  # what is denser belongs to the body (or to the table)


@dataclass(frozen=True)
class Encoding:
    """How the values of a channel are stored: ``low`` becomes 0 and ``high`` becomes 1.

    kind: "window", linear, and what lies outside is cut; "log", log(value − low + 1), cut too; "linear", nothing is
    cut.
    """

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f'encoding "{self.kind}" is not known. Use one of {", ".join(KINDS)}.')
        if not self.low < self.high:
            raise InputError(f"encoding from {self.low:g} to {self.high:g}: the first is not below. Change one.")

    def encode(self, values: np.ndarray | float) -> np.ndarray:
        """Values in their unit → stored ones."""
        if self.kind == "linear":
            return (np.asarray(values) - self.low) / (self.high - self.low)
        inside = np.clip(values, self.low, self.high) - self.low
        span = self.high - self.low
        return np.log1p(inside) / np.log1p(span) if self.kind == "log" else inside / span

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Stored values → values in their unit."""
        span = self.high - self.low
        return (np.expm1(stored * np.log1p(span)) if self.kind == "log" else stored * span) + self.low


CT = Encoding("window", -500.0, 500.0)  # HU (the paper, section 2.2)
SUV = Encoding("log", 0.0, 25.0)  # SUVbw in g/mL: log(SUV + 1) / log 26 (the paper, section 2.2)
PET_CT = {"CT": CT, "SUV": SUV}
