"""Organs are read in bodies, patterns undo what was taken from them, and few subjects are believed little."""

import json

import numpy as np
import pytest
import torch

from totalgen.errors import InputError
from totalgen.tasks.organ_calibration import DOUBT, LIMIT, OrganCalibration, believed_slopes, directions

SPACE = (2, 3, 4, 5)


def bodies(subjects=60, repeats=3, seed=0):
    """(two sets of departures [repeats, n, *SPACE], sizes [n, 2]): two organs of their own shapes, and noise."""
    random = torch.Generator().manual_seed(seed)
    shapes = torch.linalg.qr(torch.randn(120, 2, generator=random)).Q.T.reshape(2, *SPACE)
    sizes = torch.randn(subjects, 2, generator=random)
    clean = torch.einsum("nk,kcxyz->ncxyz", sizes, shapes)
    sets = [clean + 0.1 * torch.randn(repeats, subjects, *SPACE, generator=random) for _ in range(2)]
    return *sets, sizes.numpy().astype(float), shapes


def test_readers_say_the_sizes_of_organs_and_patterns_are_their_shapes():
    departures, again, sizes, shapes = bodies()
    readers, patterns, correlations = directions(departures, again, sizes)
    assert (correlations > 0.95).all()
    assert torch.allclose(torch.einsum("icxyz,jcxyz->ij", readers, patterns), torch.eye(2), atol=1e-3)
    likeness = torch.cosine_similarity(patterns.flatten(1), shapes.flatten(1))
    assert (likeness > 0.95).all()
    said = (again.flatten(0, 1).flatten(1) @ readers.flatten(1).T).std(0)
    assert torch.allclose(said, torch.ones(2), atol=1e-5)


def test_what_is_no_organ_is_not_found_and_few_subjects_are_refused():
    departures, again, sizes, _ = bodies()
    nothing = np.random.default_rng(1).standard_normal(sizes.shape)
    assert (directions(departures, again, nothing)[2] < 0.5).all()
    with pytest.raises(InputError, match="too few"):
        directions(departures[:, :15], again[:, :15], sizes[:15])


def calibration(slopes, seed=0):
    departures, again, sizes, _ = bodies(seed=seed)
    readers, patterns, _ = directions(departures, again, sizes)
    return OrganCalibration(("liver volume", "heart volume"), readers, patterns, np.array([0.5, 2.0]), slopes), again


def test_a_body_that_was_said_too_usual_becomes_what_it_was():
    """Take from each departure a known share along the patterns of the organs: the change brings it back, no more."""
    slopes = {"F": np.array([[1.25, 2.0], [1.0, 1.0]]), "M": np.array([[1.0, 1.0], [4.0, 1.0]])}
    found, again = calibration(slopes)
    names = ("liver volume", "heart volume")
    once, twice = (dict.fromkeys(names, strength) for strength in (1.0, 2.0))
    for departure in again[0, :4]:
        lost = (found.readings(departure[None])[0] * (1 - 1 / torch.tensor([1.25, 2.0]))).float()
        usual = departure - torch.tensordot(lost, found.patterns, dims=1)
        assert torch.allclose(usual + found.change(usual, 0.5, "F", once), departure, atol=1e-5)
        assert torch.allclose(found.change(usual, 0.5, "F", twice), 2 * (departure - usual), atol=1e-5)
        assert not found.change(usual, 0.5, "M", once).any()
        assert not found.change(usual, 0.5, "F", {"liver SUVmean": 1.0}).any()
        assert not found.change(usual, 2.0, "F", once).any()
        cooled = found.change(usual, 0.5, "F", once, {("liver volume", "heart volume"): -1.5})
        liver = found.readings((departure - usual)[None])[0, 0]
        assert torch.allclose(departure - usual - cooled, 1.5 * liver * found.patterns[1], atol=1e-5)
    assert found.slope("M", 1.0) == pytest.approx([2.5, 1.0])  # half way in ln σ
    for outside in (0.4, 2.1, 80.0):
        assert found.slope("M", outside) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_reading_is_moved_to_the_limit_and_not_further(side):
    found, _ = calibration({"F": np.array([[3.0, 1.0], [1.0, 1.0]]), "M": np.ones((2, 2))})
    more, less = ({"liver volume": strength} for strength in (1.0, -0.25))
    for before, after in ((0.5, 1.5), (1.5, LIMIT), (LIMIT, LIMIT), (4.0, 4.0)):
        departure = side * before * found.patterns[0]
        moved = departure + found.change(departure, 0.5, "F", more)
        assert found.readings(moved[None])[0, 0] == pytest.approx(side * after, abs=1e-4)
        moved = departure + found.change(departure, 0.5, "F", less)  # towards the usual from anywhere
        assert found.readings(moved[None])[0, 0] == pytest.approx(side * before / 2, abs=1e-4)


def test_a_region_is_where_a_reading_says_most_of_a_channel():
    patterns = torch.zeros(1, 2, 2, 2, 2)
    patterns[0, 1, 0, 0] = torch.tensor([0.8, 0.1])
    patterns[0, 1, 1, 0] = torch.tensor([0.2, -0.8])
    patterns[0, 0] = 5
    found = OrganCalibration(("heart SUVmean",), patterns, patterns, np.array([1.0]), {})
    region = found.region("heart SUVmean", 1)
    assert torch.allclose(region, torch.tensor([[[1, 0], [0, 0]], [[0.5, 0], [0, 0]]]))


def test_slopes_are_those_of_the_truth_on_what_is_said_and_few_subjects_are_doubted():
    random = np.random.default_rng(2)

    def drawn(n):
        design = np.column_stack([np.ones(n), random.standard_normal((n, 2))])
        said = random.standard_normal((n, 2))
        true = said * (1.3, 1.0) + 0.2 * random.standard_normal((n, 2))
        return true + design @ random.standard_normal((3, 2)), said, design  # demographics say nothing of the slope

    assert believed_slopes(*drawn(4000)) == pytest.approx([1.3, 1.0], abs=0.02)
    true, said, design = drawn(12)
    left = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in (true, said)]
    power = (left[1] ** 2).sum(0)
    plain = (left[0] * left[1]).sum(0) / power
    errors = ((left[0] - plain * left[1]) ** 2).sum(0) / (12 - 3 - 1) / power
    believed = believed_slopes(true, said, design)
    assert believed == pytest.approx(1 + (plain - 1) / (1 + errors / DOUBT**2))
    assert (np.abs(believed - 1) < np.abs(plain - 1)).all()


def test_json_keeps_a_calibration_and_damage_is_noticed():
    found, again = calibration({sex: np.array([[1.25, 2.0], [1.0, 1.5]]) for sex in "FM"})
    kept = json.loads(json.dumps(found.settings))
    same = OrganCalibration.from_settings(kept, SPACE)
    again_change, change = (each.change(again[0, 0], 0.7, "M", {"heart volume": 1.0}) for each in (same, found))
    assert torch.allclose(again_change, change, atol=2e-3)
    assert OrganCalibration.from_settings(same.settings, SPACE).settings == same.settings
    broken = dict(float16=kept["float16"][:-8], sigmas=[2.0, 0.5], names=["liver volume"], shape=[2, 2, 3, 5, 4],
                  slopes=dict(F=[[1.0, 1.0]], M=[[1.0, 1.0]]))  # fmt: skip
    for name, value in broken.items():
        with pytest.raises(ValueError, match=r"reshape|damaged"):
            OrganCalibration.from_settings(kept | {name: value}, SPACE)
    with pytest.raises(ValueError, match="damaged"):
        OrganCalibration.from_settings(kept | dict(slopes=dict(kept["slopes"], M=[[1, np.nan], [1, 1]])), SPACE)
