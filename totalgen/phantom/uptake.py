"""One number per tissue: attenuation (HU) and FDG uptake (SUVbw, g/mL) of one subject.

Values are textbook ones for a contrast-enhanced portal-venous CT and a PET 60 minutes after injection; the liver,
spleen, kidneys and heart follow means sampled from Table 1.
"""

from collections.abc import Mapping

import numpy as np

from totalgen.data.demographics import Demographics
from totalgen.errors import closest


def attenuation(demographics: Demographics, rng: np.random.Generator, variability: float = 1.0) -> dict[str, float]:
    """Tissue → HU of one subject. Bone density falls with age, liver fat grows with BMI, contrast varies."""
    d = demographics

    def sample(mean: float, std: float) -> float:
        return float(mean + std * variability * np.clip(rng.standard_normal(), -2, 2))

    blood = sample(152, 14)
    liver = sample(108 - 1.3 * np.clip(d.bmi - 22, 0, 20), 9)
    bone = sample(1.0 - 0.006 * (d.age_years - 50), 0.08)
    return {
        "skin": 5.0, "subcutaneous fat": sample(-104, 3), "visceral fat": sample(-100, 3), "intermuscular fat": -70.0,
        "mediastinal fat": sample(-85, 6), "gland": 35.0, "muscle": sample(58 - 0.15 * (d.age_years - 50), 4),
        "cortical bone": 640 * bone, "marrow": 210 * bone, "flat bone": 480 * bone, "rib": 420 * bone, "disc": 85.0,
        "cartilage": 95.0, "cerebrospinal fluid": 12.0, "cord": 38.0, "lung": sample(-860, 15),
        "dependent lung": -720.0, "lung vessel": 20.0, "airway wall": 30.0, "gas": -960.0, "heart wall": 62.0,
        "blood": blood, "myocardium": 96.0, "bowel wall": 62.0, "bowel content": 22.0, "stool": -5.0,
        "pancreas": sample(88, 8), "stomach wall": 70.0, "stomach content": sample(25, 12), "spleen": sample(122, 8),
        "kidney cortex": sample(190, 12), "kidney medulla": sample(165, 12), "urine": sample(60, 30), "ureter": 60.0,
        "adrenal": 75.0, "liver": liver, "liver vein": liver + 42, "thyroid": 130.0, "bladder wall": 45.0,
        "bladder urine": 8.0, "genital organ": 85.0, "gall bladder": 10.0,
    }  # fmt: skip


# Other tracers than FDG, roughly: uptake relative to that of FDG in the organs of Table 1 and in tissues.
TRACERS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "fdg": ({}, {}),
    "psma": (
        dict(liver=2.0, heart=0.5, kidneys=9.0, spleen=3.0),
        {"muscle": 0.7, "marrow": 0.35, "rib": 0.4, "flat bone": 0.4, "bowel wall": 5.0, "bowel content": 2.0},
    ),
    "dotatate": (
        dict(liver=2.2, heart=0.35, kidneys=4.5, spleen=9.0),
        {"muscle": 0.6, "marrow": 0.5, "adrenal": 6.0, "bowel wall": 2.5, "pancreas": 2.5, "thyroid": 1.5},
    ),
    "fluoride": (
        dict(liver=0.3, heart=0.4, kidneys=1.2, spleen=0.3),
        {"marrow": 4.0, "cortical bone": 8.0, "flat bone": 7.0, "rib": 6.0, "muscle": 0.5, "bowel wall": 0.4,
         "bowel content": 0.3, "stomach wall": 0.3},
    ),
}  # fmt: skip


def organ_means(suv_mean: Mapping[str, float], tracer: str = "fdg") -> dict[str, float]:
    """Organ → mean SUV for a tracer, from that of FDG."""
    organs, _ = closest(tracer, TRACERS)
    return {name: value * organs.get(name, 1.0) for name, value in suv_mean.items()}


def tissue_uptake(
    demographics: Demographics, suv_mean: Mapping[str, float], rng: np.random.Generator, variability: float = 1.0,
    tracer: str = "fdg",
) -> dict[str, float]:  # fmt: skip
    """Tissue → SUV of one subject; the organs of Table 1 start near their mean and are calibrated by the scanner.

    suv_mean: organ → sampled mean (liver, heart, kidneys, spleen) of this tracer;  tracer: a key of TRACERS.
    """
    factors = closest(tracer, TRACERS)[1]
    tissues = _fdg(demographics, suv_mean, rng, variability)
    return {name: value * factors.get(name, 1.0) for name, value in tissues.items()}


def _fdg(demographics, suv_mean, rng, variability):

    def sample(mean: float, spread: float) -> float:
        return float(mean * np.exp(spread * variability * np.clip(rng.standard_normal(), -2, 2)))

    blood = min(sample(1.65, 0.16), 0.9 * suv_mean["heart"])
    muscle, fat, bowel, urine = sample(0.62, 0.15), sample(0.22, 0.2), sample(0.95, 0.22), sample(21, 0.45)
    marrow, lung = sample(1.3, 0.2), sample(0.42, 0.15)
    return {
        "skin": 0.35, "subcutaneous fat": fat, "visceral fat": 1.4 * fat, "intermuscular fat": 1.3 * fat,
        "mediastinal fat": 2.6 * fat, "gland": sample(0.8, 0.25), "muscle": muscle, "cortical bone": 0.6 * marrow,
        "marrow": 1.25 * marrow, "flat bone": 0.7 * marrow, "rib": 0.8 * marrow, "disc": 0.75, "cartilage": 0.55,
        "cerebrospinal fluid": 0.6, "cord": sample(1.4, 0.15), "lung": lung, "dependent lung": 1.9 * lung,
        "lung vessel": blood, "airway wall": 0.8, "gas": 0.1, "heart wall": blood, "blood": blood,
        "myocardium": 3 * suv_mean["heart"], "bowel wall": 1.3 * bowel, "bowel content": bowel, "stool": 0.9 * bowel,
        "pancreas": sample(1.4, 0.15), "stomach wall": sample(2.0, 0.2), "stomach content": 0.7,
        "spleen": suv_mean["spleen"], "kidney cortex": suv_mean["kidneys"],
        "kidney medulla": 1.05 * suv_mean["kidneys"],
        "urine": 0.75 * urine, "ureter": 0.4 * urine, "adrenal": 1.5, "liver": suv_mean["liver"],
        "liver vein": 0.5 * (blood + suv_mean["liver"]), "thyroid": sample(1.5, 0.25), "bladder wall": 1.5,
        "bladder urine": urine, "genital organ": sample(1.6, 0.2), "gall bladder": 0.9,
    }  # fmt: skip


# Tissues whose uptake is changed until an organ's mean is the sampled one; the rest of the organ keeps its uptake.
FREE_TISSUES = {
    "liver": ("liver",),
    "spleen": ("spleen",),
    "heart": ("myocardium",),
    "kidneys": ("kidney cortex", "kidney medulla"),
}
