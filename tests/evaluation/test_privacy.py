"""Attacks find what is there and nothing else; a network overfitted on eight subjects is caught by both."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from totalgen.data.archive import Archive, pack
from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.demographics import Demographics
from totalgen.data.intensity import CT, Encoding
from totalgen.data.recipes import PetCt
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.privacy import (
    auc,
    distances,
    equal_numbers,
    fingerprint,
    membership,
    nearest,
    picture_pairs,
    privacy_section,
)
from totalgen.evaluation.sections import read_section
from totalgen.generation.cascade import load_stage
from totalgen.generation.window_sampler import WindowSampler
from totalgen.schema import build
from totalgen.settings import SamplingSettings, TrainingSettings, WindowSettings
from totalgen.tasks.item_losses import item_losses
from totalgen.tasks.petct import Person
from totalgen.tasks.task import Box
from totalgen.training.diffusion import train_diffusion
from totalgen.weights import load_weights, save_weights

RANDOM = np.random.default_rng(0)
SHAPE = (16, 16, 24)
EIGHT = dict(
    stage="global", family="edm", shape=SHAPE, channels=16, multipliers=(1, 2), blocks=1, attention=(), batch=16,
    microbatch=16, items=16_000, lr=0.01, lr_decay_steps=500, rampup_items=200, loader_processes=0,
    checkpoint_steps=1000, picture_steps=10_000, precision="float32",
)  # fmt: skip


def test_the_area_under_the_curve_is_sklearns():
    members, others = RANDOM.normal(0, 1, 30), RANDOM.normal(0.5, 1, 30)
    labels = np.r_[np.ones(30), np.zeros(30)]
    assert auc(members, others) == pytest.approx(roc_auc_score(labels, -np.r_[members, others]))


def attack_of(members, others, **options):
    member = np.arange(len(members) + len(others)) < len(members)
    return membership(dict(loss=np.r_[members, others]), member, **options)["loss"]


def test_members_with_lower_losses_are_caught_and_equal_ones_are_not():
    losses = RANDOM.normal(1, 0.1, (2, 40))
    assert not attack_of(losses[0], losses[1]).caught
    found = attack_of(losses[0] - 0.2, losses[1])
    assert found.caught
    assert found.auc == pytest.approx(auc(losses[0] - 0.2, losses[1]))
    assert found.low <= found.auc <= found.high
    assert found.chance_low < 0.5 < found.chance_high
    assert found.verdict == "members are told from others"
    assert attack_of(np.arange(7.0), np.arange(7.0)).verdict == "not told from others"
    with pytest.raises(InputError, match="3 members and 40 others: at least 4 of both are needed"):
        attack_of(losses[0][:3], losses[1])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_and_never_caught_or_cleared(wrong):
    losses = RANDOM.normal(1, 0.1, (2, 8))
    losses[1, 3] = wrong
    with pytest.raises(InputError, match="loss: 1 of 16 losses are not finite"):
        attack_of(*losses)
    for side in range(3):
        groups = [named(kind, RANDOM.normal(size=(4, 12))) for kind in "cth"]
        next(iter(groups[side].values()))[2] = wrong
        with pytest.raises(InputError, match=f"{'cth'[side]}0: has voxels that are no finite numbers"):
            nearest(*groups)


def test_chance_alone_is_mann_and_whitneys_distribution():
    """Of one area, without ties, the range and p by exchange are those of the U statistic; also of unequal numbers."""
    members, others = RANDOM.normal(0, 1, 9), RANDOM.normal(0.6, 1, 12)
    found = attack_of(members, others, resamples=20_000)
    p = stats.mannwhitneyu(members, others, alternative="less", method="exact").pvalue
    assert found.p == pytest.approx(p, abs=0.006)  # 4 standard errors of 20 000 exchanges at p = 0.05
    spread = np.sqrt((9 + 12 + 1) / (12 * 9 * 12))
    assert found.chance_high - found.chance_low == pytest.approx(2 * 1.96 * spread, rel=0.06)


def test_the_highest_of_several_attacks_is_caught_by_chance_no_oftener_than_said():
    caught, single, member = 0, 0, np.arange(40) < 20
    for n in range(300):
        losses = np.random.default_rng(n).normal(size=(5, 40))
        found = membership({str(i): row for i, row in enumerate(losses)}, member, seed=n, resamples=200)
        caught += any(attack.caught for attack in found.values())
        highest = max(losses, key=lambda row: auc(row[member], row[~member]))
        single += stats.mannwhitneyu(highest[member], highest[~member], alternative="less").pvalue < 0.025
    assert caught <= stats.binom.ppf(0.999, 300, 0.025)
    assert single > stats.binom.ppf(0.999, 300, 0.025)  # what a test that knows of one attack only would say


def test_numbers_are_made_equal():
    assert [len(group) for group in equal_numbers(range(100), range(7))] == [7, 7]
    assert [len(group) for group in equal_numbers(range(100), range(7), most=5)] == [5, 5]


def named(prefix, values):
    return {f"{prefix}{n}": value for n, value in enumerate(values)}


def test_copies_of_training_subjects_are_caught_and_strangers_are_not():
    train, held_out, strangers = RANDOM.normal(size=(3, 20, 50))
    copies = train + 0.1 * RANDOM.normal(size=train.shape)
    found = nearest(named("c", copies), named("t", train), named("h", held_out))
    assert found.caught
    assert found.votes == 20
    assert found.table["nearest_train"].tolist() == [f"t{n}" for n in range(20)]
    assert found.ratio < 0.2
    score = privacy_section({}, found, [], "w", {}).scores[0]
    p, ratio = f"{1 / 2001:.2g}", f"{found.ratio:.3f}"
    assert score.result == f"20 of 20 nearer to training (1.00, p = {p}), median ratio of distances {ratio}"
    assert score.limit == f"by chance alone {found.low:.2f} to {found.high:.2f}"
    assert found.low < 0.5 < found.high
    assert not nearest(named("c", strangers), named("t", train), named("h", held_out)).caught


def test_several_samples_of_a_person_have_one_vote_and_a_side_without_subjects_is_refused():
    train, held_out = RANDOM.normal(size=(2, 6, 50))
    made = {f"p{n // 4}_sample{n % 4}": train[0] for n in range(8)}
    found = nearest(made, named("t", train), named("h", held_out), person=lambda name: name.partition("_")[0])
    assert (found.votes, found.people) == (2, 2)
    assert not found.caught  # two people prove nothing
    with pytest.raises(InputError, match="8 candidates, 6 training and 0 held-out subjects"):
        nearest(made, named("t", train), {})


def test_a_vote_is_of_the_mean_distances_of_a_persons_samples():
    train, held_out, made = RANDOM.normal(size=(3, 8, 20))
    groups = named("t", train), named("h", held_out)
    found = nearest(named("c", made), *groups, person=lambda name: str(int(name[1:]) // 2))
    near, far = (distances(made, group).min(1).reshape(4, 2).mean(1) for group in (train, held_out))
    assert found.votes == (near < far).sum()
    assert found.ratio == pytest.approx(np.median(near / far))
    assert found.table["train_distance"].to_numpy() == pytest.approx(distances(made, train).min(1))


@pytest.mark.parametrize("sides", [(20, 20), (30, 12)])
def test_many_candidates_near_to_few_subjects_are_caught_by_chance_no_oftener_than_said(sides):
    """All candidates share the subjects that they may be near to; a binomial test of their votes is wrong."""
    caught, binomial, expected, repeats = 0, 0, [], 120
    for n in range(repeats):
        random = np.random.default_rng(n)
        train, held_out, made = (random.normal(size=(k, 12)) for k in (*sides, 60))
        found = nearest(named("c", made), named("t", train), named("h", held_out), permutations=200)
        caught += found.caught
        expected.append(found.expected)
        binomial += stats.binomtest(found.votes, found.people, sides[0] / sum(sides)).pvalue < 0.025
    assert caught <= stats.binom.ppf(0.999, repeats, 0.025)
    assert binomial > stats.binom.ppf(0.999, repeats, 0.025)
    assert np.mean(expected) == pytest.approx(sides[0] / sum(sides), abs=0.01)  # the larger side is nearer oftener


def test_distances_and_fingerprints_are_their_formulas():
    a, b = RANDOM.normal(size=(3, 10)), RANDOM.normal(size=(4, 10))
    by_hand = np.sqrt(((a[:, None] - b[None]) ** 2).mean(2))
    assert distances(a, b) == pytest.approx(by_hand)
    volume = RANDOM.normal(size=(2, 9, 8, 12)).astype(np.float32)
    assert fingerprint(volume)[:1] == pytest.approx(volume[0, :4, :4, :4].mean(), abs=1e-6)
    assert fingerprint(volume).shape == (2 * 2 * 2 * 3,)


def test_pictures_show_suv_whatever_window_the_archive_has(tmp_path):
    suv = RANDOM.uniform(0, 8, (8, 6, 10))
    row = dict(subject="c", nearest_train="t", train_distance=0.1, nearest_held_out="h", held_out_distance=0.2)
    for most in (25.0, 9.0):
        encodings = {"CT": CT, "SUV": Encoding("log", 0.0, most)}
        volume = np.stack([np.full(suv.shape, 0.5), encodings["SUV"].encode(suv)])
        picture_pairs(tmp_path / f"{most:g}.png", pd.DataFrame([row]), lambda kind, name, v=volume: v, encodings)
    assert np.array_equal(imread(tmp_path / "25.png"), imread(tmp_path / "9.png"))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A cohort of eight training and eight held-out subjects: smooth fields, nothing that one shares with another.

    One more of each is known as a partial torso.
    """
    root, random, rows = tmp_path_factory.mktemp("eight"), np.random.default_rng(1), []
    for n in range(18):
        smooth = [ndimage.gaussian_filter(random.standard_normal(SHAPE), 3) for _ in range(2)]
        ct, suv = (300 * each / each.std() for each in smooth)
        for name, voxels in (("CT", ct), ("SUV", np.abs(suv) / 100)):
            path = root / "cropped" / f"s{n}" / f"{name}.nii.gz"
            write_nifti(path, Volume(voxels.astype(np.float32), np.diag([6.0, 6.0, 6.0, 1.0])))
        person = dict(sex="FM"[n % 2], age_years=40 + n, height_m=1.6 + 0.02 * (n % 7), weight_kg=60 + 3 * (n % 5))
        split = "train" if n < 8 or n == 16 else "test"
        rows.append(dict(subject=f"s{n}", **person, split=split, source="random", covers_torso=n < 16))
    pd.DataFrame(rows).to_csv(root / "cohort.csv", index=False)
    (root / "axial_extent.json").write_text(json.dumps(PUBLISHED.to_dict()))
    pack(root, PetCt(shape=SHAPE))
    return root


def stage_of(root, name, **changes):
    path = train_diffusion(root, root / name, "tiny", build(TrainingSettings, EIGHT | changes))
    return path, load_stage(path, "global", torch.device("cpu"))


def attack(stage, archive):
    levels = (0.3, 1.0, 3.0)
    groups = equal_numbers(archive.indices("train"), archive.indices("test"))
    losses = [[item_losses(stage.denoiser, stage.task, archive, row, levels, 8).mean() for row in g] for g in groups]
    return attack_of(*map(np.array, losses))


def test_losses_follow_from_seed_and_repeat_and_a_young_network_gives_nobody_away(eight, invoke, refused, tmp_path):
    path, stage = stage_of(eight, "young", items=32)
    archive = Archive(eight / "training.zarr")
    first, again = (item_losses(stage.denoiser, stage.task, archive, 3, (0.5, 2.0), 2) for _ in range(2))
    assert first.shape == (2, 2)
    assert np.array_equal(first, again)
    assert np.array_equal(item_losses(stage.denoiser, stage.task, archive, 3, (2.0,), 1)[0], first[0, 1:])
    assert not attack(stage, archive).caught
    script, out = "3_Evaluations/5_privacy.py", tmp_path / "out"
    result = invoke(script, "--weights", path, "--archive", eight / "training.zarr", "--outdir", out, "--repeats", 2)
    assert result.exit_code == 0, result.output
    assert "not told from others" in result.output
    assert read_section(out).scores[0].n == "8 and 8"
    assert len(pd.read_csv(out / "losses.csv")) == 16
    nobody = invoke(script, "--weights", path, "--archive", eight / "training.zarr", "--outdir", out, "--held-out", "x")
    assert nobody.exit_code == 2
    assert "8 subjects of split train and 0 of x" in nobody.output
    for option, value in [("--held-out", "train"), ("--level", 0), ("--level", -1), ("--level", 1e300)]:
        asked = (option, value, "--outdir", tmp_path / "none")
        assert option in refused(script, "--weights", path, "--archive", eight / "training.zarr", *asked)
    assert not (tmp_path / "none").exists()


def test_weights_are_not_tested_with_others_than_they_learnt_from(eight, invoke, tmp_path):
    path, _ = stage_of(eight, "theirs", items=8)
    other = shutil.copytree(eight, tmp_path / "other", ignore=shutil.ignore_patterns("theirs", "*.zarr"))
    table = pd.read_csv(other / "cohort.csv")
    table["split"] = ["train" if n % 2 else "test" for n in range(len(table))]
    table.to_csv(other / "cohort.csv", index=False)
    pack(other, PetCt(shape=SHAPE))
    asked = ("3_Evaluations/5_privacy.py", "--weights", path, "--outdir", tmp_path / "out", "--repeats", 1)
    result = invoke(*asked, "--archive", other / "training.zarr")
    assert result.exit_code == 2
    assert "its subjects of split train are not those of the weights" in result.stderr
    assert not (tmp_path / "out" / "losses.csv").exists()
    state, about = load_weights(path)
    del about["data"]["learnt_from"]  # as an earlier version left it
    about["data"]["subjects"] += 1
    save_weights(path, state, about)
    result = invoke(*asked, "--archive", eight / "training.zarr")
    assert result.exit_code == 0
    assert "and the weights learnt from 9, so that members may be among those" in result.stderr


def test_members_are_those_that_the_training_takes(eight, invoke, tmp_path):
    path, _ = stage_of(eight, "partial", items=8, partial_torsos=True)
    script, out = "3_Evaluations/5_privacy.py", tmp_path / "out"
    result = invoke(script, "--weights", path, "--archive", eight / "training.zarr", "--outdir", out, "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert read_section(out).scores[0].n == "9 and 9"


@pytest.mark.slow
def test_a_network_overfitted_on_eight_subjects_is_caught_by_both_attacks(eight, invoke, tmp_path):
    path, stage = stage_of(eight, "overfitted")
    archive = Archive(eight / "training.zarr")
    found = attack(stage, archive)
    assert found.caught
    assert found.auc > 0.9
    strangers = [Demographics("FM"[n % 2], 45 + n, 1.63 + 0.01 * n, 62 + 2 * n) for n in range(12)]
    sampler, box = WindowSampler(stage, SamplingSettings(steps=12), WindowSettings()), Box.whole(stage.task.shape)
    candidates = {}
    for n, person in enumerate(strangers):
        noise = torch.randn((2, *stage.task.shape), generator=torch.Generator().manual_seed(n))
        candidates[f"c{n}"] = sampler.box([Person(person)], box, noise[None])[0].numpy().ravel()
    groups = [
        {f"s{row}": fingerprint(archive.tensor(row, "high").numpy()) for row in archive.indices(split)}
        for split in ("train", "test")
    ]
    assert nearest(candidates, *groups).caught
