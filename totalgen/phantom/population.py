"""The patients: demographics, organ sizes and tracer uptake, sampled around the published cohort.

Source: means and standard deviations of Table 1, AutoPET column (the male kidneys' printed 0.30 L contradicts the
percentages next to it, which give 0.355 L). What the table does not contain is textbook anatomy, as noted below.
"""

from dataclasses import dataclass

import numpy as np

from totalgen.data.demographics import Demographics

MALE_SHARE = 108 / 200
AGE_RANGE = (18.0, 95.0)
BMI_RANGE = (16.0, 48.0)

#            (mean, standard deviation) of Table 1
POPULATION = {
    "M": dict(height_m=(1.77, 0.07), weight_kg=(83.0, 15.0), age_years=(58.0, 17.0)),
    "F": dict(height_m=(1.65, 0.07), weight_kg=(76.0, 19.0), age_years=(59.0, 15.0)),
}
HEIGHT_WEIGHT_CORRELATION = 0.4  # adults of one sex

# Volume in mL (mean, std) and the exponent of weight that it follows; liver, heart, kidneys: Table 1, others textbook.
VOLUME_ML = {
    "M": dict(liver=(1760, 440), heart=(680, 150), kidneys=(355, 80), spleen=(240, 85), stomach=(330, 90),
              pancreas=(95, 20), bladder=(170, 90)),
    "F": dict(liver=(1550, 370), heart=(550, 90), kidneys=(300, 60), spleen=(205, 75), stomach=(290, 80),
              pancreas=(80, 18), bladder=(150, 80)),
}  # fmt: skip
WEIGHT_EXPONENT = dict(liver=0.6, heart=0.4, kidneys=0.4, spleen=0.4, stomach=0.2, pancreas=0.3, bladder=0.0)

# SUVmean over the whole organ (mean, std); liver, heart, kidneys: Table 1, others textbook.
SUV_MEAN = {
    "M": dict(liver=(2.26, 0.42), heart=(2.48, 1.03), kidneys=(2.50, 0.41), spleen=(1.95, 0.35)),
    "F": dict(liver=(2.34, 0.33), heart=(3.07, 1.39), kidneys=(2.70, 0.45), spleen=(2.00, 0.35)),
}


@dataclass(frozen=True)
class Organs:
    """What is sampled for one subject. volume_ml, suv_mean: organ → value (kidneys together)."""

    volume_ml: dict[str, float]
    suv_mean: dict[str, float]


def sample_demographics(rng: np.random.Generator) -> Demographics:
    """Demographics of one patient of the published population.

    Height and weight are correlated normals, sampled again until age is 18–95 years, BMI 16–48 kg/m² and height and
    weight within 3.2 standard deviations.
    """
    sex = "M" if rng.random() < MALE_SHARE else "F"
    rows = POPULATION[sex]
    while True:
        z_height, z_other, z_age = rng.standard_normal(3)
        z_weight = HEIGHT_WEIGHT_CORRELATION * z_height + np.sqrt(1 - HEIGHT_WEIGHT_CORRELATION**2) * z_other
        height, weight, age = (
            rows[name][0] + z * rows[name][1]
            for name, z in (("height_m", z_height), ("weight_kg", z_weight), ("age_years", z_age))
        )
        usual = max(abs(z_height), abs(z_weight)) < 3.2
        if usual and AGE_RANGE[0] <= age <= AGE_RANGE[1] and BMI_RANGE[0] <= weight / height**2 <= BMI_RANGE[1]:
            return Demographics(sex, round(float(age)), round(float(height), 2), round(float(weight), 1))


def sample_organs(demographics: Demographics, rng: np.random.Generator, variability: float = 1.0) -> Organs:
    """Organ volumes (mL) and mean uptake (SUV) of one subject.

    Volume follows weight to the power WEIGHT_EXPONENT; the rest of the published spread is random (log-normal), so
    that a cohort sampled from POPULATION has the published mean and spread. ``variability`` scales the random part.
    """
    weight_mean, weight_std = POPULATION[demographics.sex]["weight_kg"]
    ratio = demographics.weight_kg / weight_mean
    volume = {}
    for name, (mean, std) in VOLUME_ML[demographics.sex].items():
        exponent = WEIGHT_EXPONENT[name]
        explained = exponent * weight_std / weight_mean
        rest = np.sqrt(max((std / mean) ** 2 - explained**2, 0.0))
        volume[name] = mean * ratio**exponent * _lognormal(rng, rest, variability)
    uptake = {
        name: mean * _lognormal(rng, std / mean, variability)
        for name, (mean, std) in SUV_MEAN[demographics.sex].items()
    }
    return Organs(volume, uptake)


def _lognormal(rng, coefficient_of_variation, variability):
    """A positive factor of mean 1; exactly 1 without variability."""
    spread = np.sqrt(np.log1p((coefficient_of_variation * variability) ** 2))
    return float(np.exp(spread * np.clip(rng.standard_normal(), -2.2, 2.2) - spread**2 / 2))
