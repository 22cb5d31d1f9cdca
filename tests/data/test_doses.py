"""Simulated low doses have the noise that their definition says: how much, where and how correlated."""

import numpy as np
import pytest

from totalgen.data.doses import FWHM, NoiseModel, local_activity, thin, unit_noise

MM = (2.0, 3.0, 4.0)


def repeated(count, make):
    return np.stack([make(np.random.default_rng(n)) for n in range(count)])


def test_unit_noise_has_standard_deviation_one_up_to_the_border():
    noise = repeated(400, lambda rng: unit_noise((9, 1, 6), MM, 6.0, rng))
    assert noise.shape == (400, 9, 1, 6)
    assert noise.std(0).min() > 0.85
    assert noise.std(0).max() < 1.15
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_the_noise_power_spectrum_is_that_of_the_blur():
    """|FFT|² of white noise through a Gaussian of FWHM 10 mm: exp(−4π²σ²f²)."""
    noise = repeated(60, lambda rng: unit_noise((64, 8, 8), (2.0, 2.0, 2.0), 10.0, rng))
    power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2, 3))
    frequency = np.fft.rfftfreq(64, d=2.0)
    expected = np.exp(-4 * np.pi**2 * (10.0 / FWHM) ** 2 * frequency**2)
    low = frequency < 0.06
    assert power[low] / power[1] == pytest.approx(expected[low] / expected[1], rel=0.25)
    assert (power[frequency > 0.15] < 0.02 * power[1]).all()


@pytest.mark.parametrize("dose", [0.5, 0.1, 0.01])
def test_the_added_variance_is_that_of_the_missing_counts(dose):
    activity = np.ones((6, 6, 6)) * np.array([0.5, 2.3, 9.0]).repeat(2)[:, None, None]
    model = NoiseModel(relative=0.1, fwhm_mm=6.0)
    low = repeated(500, lambda rng: thin(activity, MM, dose, rng, model=model, activity=activity))
    assert low.mean(0) == pytest.approx(activity, abs=5 * np.sqrt(9 * 2.3 * 0.01 / dose / 500))
    expected = 0.01 * (2.3 * activity + 0.02) * (1 / dose - 1)
    assert low.var(0).mean((1, 2)) == pytest.approx(expected.mean((1, 2)), rel=0.1)


def test_thinning_to_a_quarter_twice_is_thinning_to_a_sixteenth():
    activity = np.full((8, 8, 8), 2.0)

    def twice(rng):
        return thin(thin(activity, MM, 1 / 4, rng, activity=activity), MM, 1 / 16, rng, before=1 / 4, activity=activity)

    one, two = (
        repeated(400, make).var()
        for make in (lambda rng: thin(activity, MM, 1 / 16, rng, activity=activity), twice)
    )
    assert two == pytest.approx(one, rel=0.05)


def test_without_truth_a_local_mean_stands_for_the_activity():
    random = np.random.default_rng(0)
    activity = np.full((30, 30, 30), 3.0)
    activity[:15] = 1.0
    noisy = activity + random.normal(0, 0.5, activity.shape)
    assert local_activity(noisy, (3.0,) * 3)[20:].mean() == pytest.approx(3, rel=0.05)
    assert local_activity(noisy - 5, (3.0,) * 3).min() == 0
    known, guessed = (
        thin(noisy, (3.0,) * 3, 0.1, np.random.default_rng(1), activity=given) - noisy for given in (activity, None)
    )
    for half in (slice(0, 10), slice(20, 30)):
        assert guessed[half].std() == pytest.approx(known[half].std(), rel=0.1)


def test_a_dose_that_is_not_lower_is_refused():
    for dose, before in ((0.0, 1.0), (0.5, 0.25), (2.0, 1.0)):
        with pytest.raises(ValueError, match="is not above 0 and at most"):
            thin(np.ones((3, 3, 3)), MM, dose, np.random.default_rng(0), before=before)
