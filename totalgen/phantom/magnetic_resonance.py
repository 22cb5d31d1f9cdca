"""T1-weighted MR of a phantom: a spin echo of every tissue, a smooth bias field, Rician noise.

Source: signal of a spin echo, PD · (1 − exp(−TR/T1)) · exp(−TE/T2); relaxation times are textbook ones at 1.5 T.
Flowing blood and air give next to none.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from totalgen.phantom.canvas import Canvas
from totalgen.phantom.shapes import smooth_field

TR_MS, TE_MS = 500.0, 15.0
FAT_SIGNAL = 1000.0  # of subcutaneous fat: the unit, as in MR that is normalised by fat
BIAS_MM, BIAS = 220.0, 0.12  # length and standard deviation of the logarithm of the bias field
NOISE = 22.0  # standard deviation in each of the two channels of a receiver
BLUR_VOXELS = 0.5  # standard deviation


class Tissue(NamedTuple):
    """proton_density: relative to water;  t1_ms, t2_ms: relaxation times."""

    proton_density: float
    t1_ms: float
    t2_ms: float

    @property
    def signal(self) -> float:
        """Of the spin echo, 0…1."""
        return self.proton_density * (1 - np.exp(-TR_MS / self.t1_ms)) * np.exp(-TE_MS / self.t2_ms)


FAT, FLUID, WALL, FLOW = Tissue(0.95, 300, 85), Tissue(0.95, 3500, 1500), Tissue(0.8, 900, 50), Tissue(0.15, 1400, 200)
TISSUES = {
    "skin": Tissue(0.6, 900, 40), "subcutaneous fat": FAT, "visceral fat": FAT, "mediastinal fat": Tissue(0.9, 350, 75),
    "intermuscular fat": Tissue(0.9, 420, 70), "gland": Tissue(0.8, 680, 54), "muscle": Tissue(0.8, 1008, 44),
    "cortical bone": Tissue(0.05, 300, 5), "marrow": Tissue(0.8, 420, 60), "flat bone": Tissue(0.4, 420, 40),
    "rib": Tissue(0.35, 420, 40), "disc": Tissue(0.75, 1200, 80), "cartilage": Tissue(0.7, 1024, 30),
    "cerebrospinal fluid": FLUID, "cord": Tissue(0.8, 745, 74), "lung": Tissue(0.08, 1200, 30),
    "dependent lung": Tissue(0.2, 1200, 30), "lung vessel": FLOW, "airway wall": Tissue(0.5, 900, 50),
    "gas": Tissue(0.0, 1000, 50), "heart wall": Tissue(0.8, 1030, 40), "myocardium": Tissue(0.8, 1030, 40),
    "blood": FLOW, "bowel wall": WALL, "bowel content": Tissue(0.8, 1800, 300), "stool": Tissue(0.6, 1000, 80),
    "pancreas": Tissue(0.8, 584, 46), "stomach wall": WALL, "stomach content": Tissue(0.95, 2500, 500),
    "spleen": Tissue(0.85, 1057, 79), "kidney cortex": Tissue(0.85, 966, 87), "kidney medulla": Tissue(0.85, 1412, 85),
    "urine": FLUID, "ureter": WALL, "adrenal": Tissue(0.8, 700, 60), "liver": Tissue(0.75, 576, 46),
    "liver vein": FLOW, "thyroid": Tissue(0.85, 900, 70), "bladder wall": WALL, "bladder urine": FLUID,
    "genital organ": Tissue(0.85, 1200, 90), "gall bladder": Tissue(0.9, 1500, 500),
}  # fmt: skip


def scan_mr(canvas: Canvas, rng: np.random.Generator, variability: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(image, truth), float32 [x, y, z]: with and without the bias field, both without noise; fat is FAT_SIGNAL.

    variability: of the tissues, and of the bias field: 0 for the typical signal everywhere.
    """
    scale = FAT_SIGNAL / FAT.signal
    spread = {name: 1 + 0.06 * variability * np.clip(rng.standard_normal(), -2, 2) for name in TISSUES}
    table = {name: scale * tissue.signal * spread[name] for name, tissue in TISSUES.items()}
    texture = np.exp(0.05 * smooth_field(rng, 14, canvas.axes))
    truth = gaussian_filter(canvas.render(table, 0.0) * texture, BLUR_VOXELS, mode="nearest")
    bias = np.exp(BIAS * variability * smooth_field(rng, BIAS_MM, canvas.axes))
    return (truth * bias).astype(np.float32), truth.astype(np.float32)


def rician(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of a complex image with Gaussian noise of NOISE in both channels; air has its mean, 1.25 NOISE."""
    real, imaginary = (NOISE * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(image + real, imaginary).astype(np.float32)
