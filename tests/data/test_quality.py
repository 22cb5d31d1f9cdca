"""The check of a study against its training cohort: mass, organs, and what it says of each fault."""

import json

import numpy as np
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.organs import ORGANS
from totalgen.data.quality import Reference, SexReference, study_figures, wider
from totalgen.data.volume import Volume
from totalgen.errors import InputError

MM, WINDOW = 10.0, (-500.0, 500.0)  # voxels of 1 mL
WOMAN = Demographics("F", 60, 1.7, 70.0)
MASS = dict(intercept=-10.0, per_m=10.0, per_kg=0.5, residual=(-2.0, 3.0))  # 42 kg for her
LIVER = dict(volume=(1000.0, 2000.0), hu=(40.0, 80.0), suv=(1.0, 3.0))
KNOWN = Reference({"F": SexReference(20, MASS, {"liver": LIVER, "spleen": dict(LIVER, volume=(0.0, 300.0))})}, WINDOW)
FIGURES = {"mass_kg": 42.0, "liver.volume": 1500.0, "liver.hu": 60.0, "liver.suv": 2.0, "spleen.volume": 0.0,
           "spleen.hu": np.nan, "spleen.suv": np.nan}  # fmt: skip


def box_of_water(air=-1000.0):
    """A block of water, 20×20×30 voxels, and a liver of 30 HU more in it."""
    affine = np.diag([MM, MM, MM, 1.0])
    hu = np.full((40, 40, 30), air, np.float32)
    hu[10:30, 10:30] = 0.0
    organs = np.zeros(hu.shape, np.uint8)
    organs[12:18, 12:20, 5:15] = ORGANS["liver"]
    hu[organs > 0] = 30.0
    suv = np.where(organs > 0, 2.0, 0.5).astype(np.float32)
    return (Volume(voxels, affine) for voxels in (hu, suv, organs))


def test_figures_are_those_of_a_body_that_is_known():
    figures = study_figures(*box_of_water(), WINDOW)
    water, rim = 20 * 20 * 30, 4 * 18 * 30  # body_mask adds a rim of one voxel, but not where it rounds the corners
    liver = 6 * 8 * 10
    assert figures["mass_kg"] == pytest.approx((water + 0.5 * rim + 0.03 * liver) / 1000)  # air is cut to −500: half
    assert figures["liver.volume"] == pytest.approx(liver)
    assert (figures["liver.hu"], figures["liver.suv"]) == (30.0, 2.0)
    assert figures["heart.volume"] == 0
    assert np.isnan(figures["heart.suv"])


def test_a_generated_ct_has_the_mass_of_a_measured_one():
    """Air of −1000 HU, and air as the window leaves it, rough: the same body."""
    measured, generated = (study_figures(*box_of_water(air), WINDOW)["mass_kg"] for air in (-1000.0, -450.0))
    assert generated == pytest.approx(measured, rel=0.02)


def test_a_study_without_a_body_weighs_nothing():
    ct, suv, _ = box_of_water()
    figures = study_figures(Volume(np.full_like(ct.voxels, -1000), ct.affine), suv, None, WINDOW)
    assert figures == {"mass_kg": 0.0}


def test_what_is_as_in_the_training_has_no_fault():
    assert KNOWN.faults(WOMAN, FIGURES) == []
    assert KNOWN.faults(WOMAN, {"mass_kg": 42.0}) == []  # without organs


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"mass_kg": 30.0}, "mass 30.0 kg, 39.0 to 46.0 in training"),
        ({"mass_kg": 46.5}, "mass 46.5 kg, 39.0 to 46.0 in training"),
        ({"liver.volume": 0.0}, "liver empty"),
        ({"liver.volume": 750.0}, "liver volume 750 mL, 800 to 2200 in training"),
        ({"liver.hu": -20.0}, "liver median -20 HU, 32 to 88 in training"),
        ({"liver.suv": 3.5}, "liver median 3.5 g/mL, 0.6 to 3.4 in training"),
        ({"liver.suv": np.nan}, "liver median nan g/mL, 0.6 to 3.4 in training"),
    ],
)
def test_a_fault_is_named_with_its_range(change, fault):
    assert KNOWN.faults(WOMAN, FIGURES | change) == [fault]


def test_all_faults_are_named():
    assert len(KNOWN.faults(WOMAN, FIGURES | {"mass_kg": 0.0, "liver.hu": 500.0, "liver.suv": 9.0})) == 3


def test_a_range_is_a_fifth_wider_on_both_sides():
    assert wider((1.0, 3.0)) == pytest.approx((0.6, 3.4))


@pytest.mark.parametrize("text", ["{}", '{"format_version": 1}', '{"format_version": 9}', "no JSON"])
def test_what_is_no_reference_is_refused(tmp_path, text):
    (tmp_path / "reference.json").write_text(text)
    with pytest.raises(InputError, match="reference.json"):
        Reference.load(tmp_path / "reference.json")


def written():
    about = dict(format_version=1, window_hu=WINDOW, sexes={sex: vars(known) for sex, known in KNOWN.sexes.items()})
    return json.loads(json.dumps(about))


GONE = [
    "window_hu", "sexes", "sexes F subjects", "sexes F mass", "sexes F organs", "sexes F mass intercept",
    "sexes F mass per_m", "sexes F mass per_kg", "sexes F mass residual", "sexes F organs liver volume",
]  # fmt: skip
WRONG = [(name, value) for name in ("sexes F mass intercept", "sexes F mass per_kg") for value in
         (float("nan"), float("inf"), "1", None, True, [1])]  # fmt: skip
WRONG += [(name, value) for name in ("window_hu", "sexes F mass residual", "sexes F organs spleen suv") for value in
          ([2, 1], [1], [1, 2, 3], ["1", "2"], [0, float("nan")], [-float("inf"), 1], 1, None, "12")]  # fmt: skip
WRONG += [("sexes X", {}), ("sexes F organs tail", {"volume": [0, 1]}), ("sexes F organs liver mass", [0, 1]),
          ("sexes F organs liver", []), ("sexes F organs", [1]), ("format_version", "1")]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, KeyError) for name in GONE] + WRONG)
def test_a_reference_that_lacks_what_a_check_takes_is_refused_when_it_is_read(tmp_path, name, value):
    about = inside = written()
    *path, last = name.split()
    for part in path:
        inside = inside[part]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    (tmp_path / "reference.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="reference.json: is no reference of this version"):
        Reference.load(tmp_path / "reference.json")


def test_a_reference_reads_back(tmp_path):
    about = written()
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(about))
    read = Reference.load(path)
    assert len(read.sha256) == 64
    assert read.faults(WOMAN, FIGURES | {"mass_kg": 30.0}) == KNOWN.faults(WOMAN, FIGURES | {"mass_kg": 30.0})
