"""Wrong doses and values that are not HU are noticed; real and phantom studies pass without a word."""

import numpy as np
import pytest

from totalgen.data.plausibility import body_doubts, check_edges, check_hu, pet_edge_doubts, suv_doubts
from totalgen.data.volume import Volume
from totalgen.errors import InputError

WEIGHT_KG = 60.0


def body(suv=0.8, litres=50.0, edge=40):
    """(PET with so many litres of body at a mean SUV, its body)."""
    mm = 10.0
    inside = np.zeros((edge, edge, 60), bool)
    inside[:30, :30, : round(litres * 1000 / 900)] = True  # voxels of 1 mL
    pet = np.where(inside, suv, 0).astype(np.float32)
    return Volume(pet, np.diag([mm, mm, mm, 1.0])), inside


@pytest.mark.parametrize(
    ("suv", "litres", "said"),
    [
        (1.1, 50, ""),
        (1.35, 50, ""),  # 1.13 times the dose
        (1.42, 50, "1.19 times the injected dose is in view"),
        (4.5, 18, "1.35 times the injected dose is in view"),  # a small field
    ],
)
def test_more_than_the_dose_is_doubted_in_any_field_of_view(suv, litres, said):
    doubts = suv_doubts(body(suv, litres)[0], WEIGHT_KG)
    assert len(doubts) == bool(said)
    assert "".join(doubts).startswith(said)


@pytest.mark.parametrize(("factor", "cause"), [(10, "10 times too small"), (1000, "1,000 times too small")])
def test_a_dose_that_is_seen_several_times_is_refused_with_its_likely_cause(factor, cause):
    pet, inside = body(0.8 * factor)
    with pytest.raises(InputError, match=cause):
        suv_doubts(pet, WEIGHT_KG)
    with pytest.raises(InputError, match=cause):
        body_doubts(pet, inside)


@pytest.mark.parametrize(
    ("suv", "litres", "said"),
    [
        (0.8, 50, ""),
        (0.41, 50, ""),
        (0.38, 50, "injection 2 h too late (a time zone?)"),
        (1.17 * 1.46, 50, "injection 2 h too early (a time zone?)"),
        (2.5, 50, "usually 0.6 to 1.1"),
        (6.0, 1.5, ""),  # a brain
        (25.0, 1.5, "check dose, weight and times"),
        (0.08, 9.0, "10 times too large"),  # legs, of a dose too large
    ],
)
def test_the_mean_of_a_body_is_doubted_outside_of_what_bodies_have(suv, litres, said):
    doubts = body_doubts(*body(suv, litres))
    assert len(doubts) == bool(said)
    assert said in "".join(doubts)


@pytest.mark.parametrize(
    ("suv", "cause"), [(0.08, "10 times too large"), (0.0008, "1,000 times too large"), (3.2, "the body is 3.2")]
)
def test_an_impossible_mean_of_a_whole_body_is_refused(suv, cause):
    with pytest.raises(InputError, match=cause):
        body_doubts(*body(suv, 40))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_pet_without_a_finite_voxel_above_0_is_refused(value):
    voxels = np.zeros((5, 5, 5), np.float32)
    voxels[2, 2, 2] = value
    with pytest.raises(InputError, match="no voxel of the PET is above 0, or some are not finite"):
        suv_doubts(Volume(voxels, np.eye(4)), WEIGHT_KG)


def ct(air=-1000.0, soft=40.0):
    voxels = np.full((30, 30, 30), air, np.float32)
    voxels[8:22, 8:22] = soft
    voxels[12:15, 12:15] = soft + 700
    return Volume(voxels, np.diag([10.0, 10, 10, 1]))


def test_hu_have_air_and_soft_tissue():
    check_hu(ct())
    check_hu(ct(air=-3024.0))  # padding that the header does not name
    for stored, words in ((ct(0, 1040), "air is -1000 HU"), (ct(-2024, -984), "soft tissue"), (ct(-600, 40), "air")):
        with pytest.raises(InputError, match=words):
            check_hu(stored)


@pytest.mark.parametrize("padding", [-1000.0, -2000.0])  # named by the header, or not
def test_padding_does_not_pass_for_the_air_of_values_without_their_rescale(padding):
    """Outside a round field of view a scanner stores −2000, air inside it as 24, tissue as 1064."""
    x, y = np.meshgrid(*[np.arange(60) - 29.5] * 2, indexing="ij")
    radius = np.repeat(np.hypot(x, y)[:, :, None], 10, axis=2)
    rng = np.random.default_rng(0)

    def scanned(offset):
        voxels = np.where(radius < 12, 40.0, -1000.0) + offset + rng.normal(0, 15, radius.shape)
        return Volume(np.where(radius < 29, voxels, padding).astype(np.float32), np.diag([8.0, 8, 5, 1]))

    check_hu(scanned(0))
    with pytest.raises(InputError, match="only its padding is dark"):
        check_hu(scanned(1024))


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ((4e-3, 4e-3, 3e-3), "edges of 0.004 × 0.004 × 0.003 mm; .* Is its affine in metres. Scale it to mm"),
        ((0.098, 0.098, 0.3), "in centimetres"),
        ((400.0, 400.0, 300.0), "in micrometres"),
        ((2.0, 2.0, 50.5), "in micrometres"),
    ],
)
def test_voxels_that_no_image_of_a_person_has_are_refused_with_their_likely_unit(edges, words):
    with pytest.raises(InputError, match=f"pet.nii: its voxels have .*{words}"):
        check_edges(Volume(np.zeros((2, 2, 2)), np.diag([*edges, 1.0])), "pet.nii")


@pytest.mark.parametrize(("edges", "doubtful"), [((0.1, 50, 1), True), ((0.8, 0.8, 0.8), False), ((0.41, 1, 1), True)])
def test_voxels_at_the_limits_are_read_and_those_of_no_pet_are_doubted(edges, doubtful):
    volume = Volume(np.zeros((2, 2, 2)), np.diag([*edges, 1.0]))
    check_edges(volume, "pet.nii")
    assert bool(pet_edge_doubts(volume)) == doubtful
