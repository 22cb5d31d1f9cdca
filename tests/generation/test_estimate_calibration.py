"""What a global stage says too little of is measured in the slope of the truth on what it says."""

import numpy as np
import pandas as pd
import pytest
import torch

from totalgen.data.archive import Archive, pack
from totalgen.data.intensity import SUV
from totalgen.data.organs import MEASURED
from totalgen.data.recipes import PetCt
from totalgen.errors import InputError
from totalgen.generation import estimate_calibration
from totalgen.generation.cascade import load_stage
from totalgen.generation.estimate_calibration import SIGMAS, calibrated, measured_calibration
from totalgen.tasks.organ_calibration import OrganCalibration, believed_slopes
from totalgen.tasks.petct import Person
from totalgen.tasks.task import Box
from totalgen.weights import load_weights

SHARES = {"F": 0.5, "M": 0.8}  # of each departure that the denoiser keeps


class Timid:
    """A denoiser that takes every departure from the template, noise and all, for smaller than it is."""

    def __call__(self, z, sigma, condition):
        expected = 0.5 * condition[:, 4:]  # standardised, in the units of the process
        share = torch.where(condition[:, 3:4] > 0.5, SHARES["M"], SHARES["F"])
        return expected + share * (z - expected)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"), subjects=40, shape=(16, 16, 24))
    pack(root, PetCt(shape=(16, 16, 24)))
    return Archive(root / "training.zarr")


@pytest.fixture
def stage(archive, stage_file, monkeypatch):
    monkeypatch.setattr(estimate_calibration, "FEWEST", 4)
    people = [(archive.demographics(row), archive.tensor(row, "low", 0)) for row in archive.indices("train")]
    path = stage_file(
        stage="global", shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1, attention=(), template=True,
        people=people,
    )  # fmt: skip
    found = load_stage(path, "global", torch.device("cpu"))
    object.__setattr__(found, "denoiser", Timid())
    return found


def test_the_slope_is_what_a_timid_denoiser_takes_away(stage, archive, monkeypatch):
    """Of a reading of variance v and noise σ²·|w|² it keeps a share: the slope is v / (v + σ²|w|²) / share."""
    rows = archive.indices("train")
    monkeypatch.setattr(estimate_calibration, "believed_slopes", lambda *of: seen.append(of) or believed_slopes(*of))
    seen, targets = [], np.random.default_rng(0).standard_normal((len(rows), 2))
    names = ("liver volume", "liver SUVmean")
    found, correlations = measured_calibration(stage, archive, rows, targets, names, slope=1.0)
    stage.task.organs = found
    assert found.names == names
    assert correlations.shape == (2,)
    assert len(seen) == 2 * len(SIGMAS)
    power = found.readers.flatten(1).square().sum(1).numpy()
    for (true, said, _), (sigma, sex) in zip(seen, [(s, sex) for s in SIGMAS for sex in "FM"], strict=True):
        noise = said / SHARES[sex] - true  # what is left of it is the noise of this level
        assert noise.std(0) == pytest.approx(sigma * np.sqrt(power), rel=0.5), sex
    assert (found.slopes["F"][0] > 1.1).all()  # σ 0.2, each sex by its own
    assert (found.slopes["M"][0] < found.slopes["F"][0] - 0.1).all()
    person = Person(archive.demographics(rows[0]))
    clean = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    box, strengths = Box.whole(clean.shape[1:]), {"liver volume": 1.0, "liver SUVmean": 3.0}
    one = calibrated(stage.task, organs=strengths)
    departure = clean - stage.task.encoded_template(person, box)
    change = found.change(departure, 0.5, person.demographics.sex, strengths)
    assert torch.equal(one(clean, 0.5, person, box), clean + change)


def test_an_uptake_becomes_even_where_it_is_read_at_the_last_levels_but_the_lowest(stage, archive):
    """A patchy plateau: its sum is kept; all else stays, and all at other noise levels."""
    patterns = torch.zeros(1, 2, 4, 4, 6)
    patterns[0, 1, :3, :3, :3] = 1
    measured = OrganCalibration(("heart SUVmean",), patterns, patterns, np.array([1.0]), {})
    stage.task.organs = measured
    person, box = Person(archive.demographics(0)), Box.whole((4, 4, 6))
    suv = 8 * np.random.default_rng(0).uniform(0.8, 1.2, (4, 4, 6))
    suv[3], where = 0.5, measured.region("heart SUVmean", 1).numpy() == 1
    decoded = torch.from_numpy(np.stack([np.zeros_like(suv), SUV.encode(suv)])).float()
    clean = stage.task.codec.encode(decoded[None])[0]

    def made(share, sigma=0.5):
        amend = calibrated(stage.task, averaged={"heart SUVmean": share})
        found = amend(clean, sigma, person, box)
        assert torch.equal(found[0], clean[0])
        return SUV.decode(stage.task.codec.decode(found[None])[0, 1].numpy())

    half, whole = made(0.5), made(1.0)
    for each in (half, whole):
        assert np.allclose(each[~where], suv[~where], rtol=1e-5)
    assert whole[where].std() < half[where].std() < suv[where].std()
    assert whole[where].std() < 0.5 * suv[where].std()
    assert whole[where].sum() == pytest.approx(suv[where].sum(), rel=1e-5)
    for sigma in (0.1, 1.0):
        assert np.allclose(made(1.0, sigma), suv, rtol=1e-5)
    empty = clean.clone()
    empty[1] = stage.task.codec.encode(torch.zeros(1, 2, 4, 4, 6))[0, 1]
    assert torch.equal(calibrated(stage.task, averaged={"heart SUVmean": 1.0})(empty, 0.5, person, box), empty)
    stage.task.organs = OrganCalibration(("heart SUVmean",), patterns, -patterns, np.array([1.0]), {})
    assert np.allclose(made(1.0), suv, rtol=1e-5)  # a pattern that nowhere says more of it
    with pytest.raises(InputError, match="spleen SUVmean is to be calibrated"):
        calibrated(stage.task, averaged={"spleen SUVmean": 1.0})


def test_few_subjects_and_weights_without_template_are_refused(stage, archive, stage_file, monkeypatch):
    rows, targets = archive.indices("train"), np.zeros((len(archive.indices("train")), 1))
    monkeypatch.setattr(estimate_calibration, "FEWEST", 20)
    with pytest.raises(InputError, match="19 subjects of sex M, 20 are needed"):
        measured_calibration(stage, archive, rows, targets, ["one"], 1.0)
    small = dict(shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1, attention=())
    plain = load_stage(stage_file(stage="global", **small), "global")
    with pytest.raises(InputError, match="no template"):
        measured_calibration(plain, archive, rows, targets, ["one"], 1.0)
    with pytest.raises(InputError, match=r"not measured.*calibrate_organs"):
        calibrated(plain.task, organs={"liver volume": 1.0})


def test_what_is_not_finite_is_not_kept(stage, archive, monkeypatch):
    monkeypatch.setattr(estimate_calibration, "SIGMAS", (1.0,))
    rows = archive.indices("train")
    with pytest.raises(InputError, match=r"training\.zarr: the calibration .* is not finite, and not kept"):
        measured_calibration(stage, archive, rows, np.full((len(rows), 1), -np.inf), ["one"], 1.0)


def test_the_command_keeps_the_weights_and_adds_what_it_measured(archive, stage_file, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate_calibration, "FEWEST", 4)
    monkeypatch.setattr(estimate_calibration, "SIGMAS", (1.0,))
    root, random = archive.path.parent, np.random.default_rng(3)
    rows = [dict(subject=row["subject"], organ=organ, volume_l=random.uniform(1, 2), suv_mean=random.uniform(2, 3),
                 suv_max=4.0, suv_peak=4.0, flag="tiny" if row["subject"] == "s3" else "", z_share=0.5,
                 voxel_mm="6x6x6") for row in archive.subjects for organ in MEASURED]  # fmt: skip
    rows[4] |= dict(suv_mean=0.0)  # of s1: has no logarithm
    pd.DataFrame([*rows, rows[8] | dict(volume_l=9.0)]).to_csv(root / "organs.csv", index=False)
    people = [(archive.demographics(row), archive.tensor(row, "low", 0)) for row in archive.indices("train")]
    small = dict(shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1, attention=())
    weights = stage_file(stage="global", template=True, people=people, **small)
    given = ("--root", root, "--weights", weights, "--calibration-slope", 1.1)
    result = invoke("1_Trainings/calibrate_organs.py", *given, "--out", tmp_path / "calibrated.safetensors")
    assert result.exit_code == 0, result.output
    # 40 but for one of split test, one with tiny organs and one with an SUVmean of 0
    assert "Slopes of 37 subjects at σ 1:" in result.output
    assert "organs.csv: has an organ twice, of which the first row is taken: 1 training subjects (s2)." in result.stderr
    assert "not above 0 and finite, and is left out: 1 training subjects (s1)." in result.stderr
    (tensors, was), (same, now) = (load_weights(path) for path in (weights, tmp_path / "calibrated.safetensors"))
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    organs = now["data"].pop("organs")
    assert now == was
    assert organs["names"] == [f"{organ} {measure}" for measure in ("volume", "SUVmean") for organ in MEASURED]
    stage = load_stage(tmp_path / "calibrated.safetensors", "global")
    assert stage.task.organs.settings == organs


@pytest.mark.parametrize("kind", ["a folder", "a picture", "the other stage", "no place"])
def test_what_is_no_earlier_result_is_not_replaced(archive, stage_file, stage_files, refused, tmp_path, kind):
    taken = tmp_path / "taken"
    if kind == "a folder":
        taken.mkdir()
    elif kind == "the other stage":
        taken.write_bytes(stage_files[1].read_bytes())
    else:
        taken.write_bytes(b"\x89PNG")
    out = taken / "weights.safetensors" if kind == "no place" else taken
    before = None if taken.is_dir() else taken.read_bytes()
    given = ("--root", archive.path.parent, "--weights", stage_files[0], "--out", out)
    line = refused("1_Trainings/calibrate_organs.py", *given)
    assert str(taken) in line
    assert before is None or taken.read_bytes() == before


def test_a_cohort_that_was_not_measured_is_named(archive, template_file, refused, tmp_path):
    given = ("--root", tmp_path, "--weights", template_file, "--out", tmp_path / "out.safetensors")
    assert "no such" in refused("1_Trainings/calibrate_organs.py", *given)
    assert not (tmp_path / "out.safetensors").exists()
