"""The segmenter is trained by the loop that trains everything; its patches and its loss are what they should be."""

import json
import math
import re
import shlex

import numpy as np
import pandas as pd
import pytest
import torch

from totalgen.data.archive import pack
from totalgen.data.recipes import ORGANS
from totalgen.data.volume import isotropic_grid, read_nifti, resample, write_nifti
from totalgen.errors import InputError
from totalgen.generation.segmenter import Segmenter
from totalgen.models.organ_network import segmentation_network
from totalgen.schema import build
from totalgen.settings import SegmenterSettings
from totalgen.tasks.organ_patches import SegmentationTask, random_patch
from totalgen.training import loop
from totalgen.training.averages import reconstruct
from totalgen.training.organ_training import Segmentation, class_weights, train_segmenter
from totalgen.weights import load_weights

SCRIPT = "1_Trainings/train_segmenter.py"
TINY = dict(
    items=4, batch=1, microbatch=1, patch=16, channels=2, lr=0.003, rampup_items=1, checkpoint_steps=2, ema=(0.1,),
    loader_processes=0, precision="float32",
)  # fmt: skip
IDS = [1, 2, 3, 5, 51]  # the organs of the blob cohort


def train(root, outdir, **changes):
    return train_segmenter(root, outdir, "tiny", build(SegmenterSettings, TINY | changes))


def test_a_run_stopped_and_continued_equals_a_run_without_interruption(cohort, tmp_path, monkeypatch):
    straight = load_weights(train(cohort, tmp_path / "straight"))[0]
    choose, asked = SegmentationTask.choose, []

    def interrupted(*arguments):
        asked.append(1)
        if len(asked) == 4:  # in step 4, after the checkpoint of step 2: step 3 is lost
            raise KeyboardInterrupt
        return choose(*arguments)

    monkeypatch.setattr(SegmentationTask, "choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(cohort, tmp_path / "stopped")
    monkeypatch.setattr(SegmentationTask, "choose", choose)
    continued = load_weights(train(cohort, tmp_path / "stopped"))[0]
    assert all(torch.equal(continued[name], straight[name]) for name in straight)
    logs = [[json.loads(x) for x in (tmp_path / run / "log.jsonl").open()] for run in ("straight", "stopped")]
    assert [row["step"] for row in logs[1]] == [1, 2, 3, 4]
    for name in ("loss", "dice"):
        assert [row[name] for row in logs[0]] == [row[name] for row in logs[1]]


def test_all_of_it_is_computed_on_its_device(cohort, tmp_path, monkeypatch, elsewhere):
    monkeypatch.setattr(loop.distributed, "start", lambda *_, **__: (0, 1, elsewhere))
    assert train(cohort, tmp_path / "run", picture_steps=2).exists()


def test_loss_and_dice_improve(cohort, tmp_path):
    train(cohort, tmp_path / "run", items=120, channels=4, batch=2, microbatch=2)
    log = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").open()]
    first, last = log[:10], log[-10:]
    assert np.mean([row["loss"] for row in last]) < 0.7 * np.mean([row["loss"] for row in first])
    assert np.mean([row["dice"] for row in last]) > np.mean([row["dice"] for row in first])


def test_the_script_trains_prints_dice_and_does_nothing_the_second_time(cohort, tmp_path, invoke):
    asked = [SCRIPT, "--root", cohort, "--outdir", tmp_path / "run", "--preset", "smoke", "--set", "items=4"]
    first = invoke(*asked)
    assert first.exit_code == 0, first.output
    assert "Dice kidneys" in first.output
    weights = tmp_path / "run" / "segmenter.safetensors"
    state, configuration = load_weights(weights)
    assert configuration["data"]["ids"] == IDS
    assert configuration["data"]["voxel_mm"] == 12.0
    assert configuration["test_subjects"] == 1
    assert all(value.dtype == torch.float16 for value in state.values())
    written = weights.stat().st_mtime_ns
    again = invoke(*asked)
    assert [line for line in again.stdout.splitlines() if "Dice" in line] == [
        line for line in first.stdout.splitlines() if "Dice" in line
    ]
    assert weights.stat().st_mtime_ns == written


def test_another_setting_does_not_continue_a_run(cohort, tmp_path):
    train(cohort, tmp_path / "run")
    with pytest.raises(InputError, match=r"another configuration \(channels differ"):
        train(cohort, tmp_path / "run", channels=4)


def test_a_run_starts_from_weights_of_the_same_network(cohort, tmp_path):
    first = train(cohort, tmp_path / "first")
    started = load_weights(train(cohort, tmp_path / "second", items=1, lr=0.0, init_from=first))[0]
    assert all(torch.equal(value, started[name]) for name, value in load_weights(first)[0].items())
    with pytest.raises(InputError, match="differs in channels"):
        train(cohort, tmp_path / "third", channels=4, init_from=first)


def test_any_average_of_a_finished_run_can_be_made(cohort, tmp_path):
    train(cohort, tmp_path, items=8, snapshot_steps=1)
    path, misfit = reconstruct(tmp_path, 0.12)
    assert misfit < 0.05
    assert Segmenter.load(path).data["ids"] == IDS


def test_an_unreadable_training_subject_is_listed_and_left_out(cohort, tmp_path):
    (cohort / "cropped" / "s1" / "organs.nii.gz").unlink()
    assert load_weights(train(cohort, tmp_path / "run"))[1]["data"]["subjects"] == 2
    assert list(pd.read_csv(cohort / "failures.csv")["subject"]) == ["s1"]


@pytest.mark.slow
def test_two_processes_pack_and_measure_once(cohort, tmp_path, run_script):
    asked = (SCRIPT, "--root", cohort, "--outdir", tmp_path / "run", "--preset", "smoke", "--set", "items=4")
    process = run_script(*asked, processes=2)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Dice kidneys") == 1
    assert load_weights(tmp_path / "run" / "segmenter.safetensors")[1]["test_subjects"] == 1


def test_gradients_in_bfloat16_are_those_in_float32():
    """The coarsest level of patches of 16 is 2 voxels long, where torch's own read memory that nothing was written to.
    Adam would hide it: its steps have a size of their own."""
    torch.manual_seed(0)
    objective = Segmentation(segmentation_network(4, 3), torch.tensor([0.8, 0.1, 0.1]), 10)
    batch = torch.randint(0, 3, (1, 1, 16, 16, 16)), torch.randn(1, 1, 16, 16, 16), torch.zeros(1)
    gradients = []
    for precision in ("float32", "bfloat16"):
        poison = [torch.full((n,), math.nan) for n in (64, 512, 4096, 32768)]
        del poison  # freed memory holds it
        objective.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = objective(*batch)[0]
        loss.sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in objective.parameters()]))
    assert torch.allclose(*gradients, atol=0.02 * float(gradients[0].abs().max()))


def test_a_cohort_of_two_voxel_sizes_is_refused(cohort, tmp_path):
    folder = cohort / "cropped" / "s1"
    for name in ("CT", "organs"):
        volume = read_nifti(folder / f"{name}.nii.gz")
        write_nifti(folder / f"{name}.nii.gz", resample(volume, *isotropic_grid(volume, 8.0), 0, nearest=True))
    with pytest.raises(InputError, match="voxels of 8×8×8 mm among 12 mm"):
        train(cohort, tmp_path / "run")


def test_patches_are_never_mirrored_and_keep_image_and_class_together():
    image = np.zeros((20, 20, 20), np.float32)
    image[12:] = 1.0
    classes = (image > 0.5).astype(np.uint8)
    classes[:4] = 2  # class 2 lies at lower x than class 1, always
    for seed in range(20):
        cut_image, cut = random_patch(image, classes, 16, np.random.default_rng(seed))
        assert cut_image.shape == cut.shape == (16, 16, 16)
        found = {value: np.nonzero(cut == value)[0].mean() for value in np.unique(cut)}
        assert [v for v, _ in sorted(found.items(), key=lambda item: item[1])] == [v for v in (2, 0, 1) if v in found]
        assert cut_image[cut == 1].mean() > cut_image[cut != 1].mean() + 0.5


def test_a_volume_smaller_than_the_patch_is_padded():
    image, classes = np.ones((5, 20, 9), np.float32), np.ones((5, 20, 9), np.uint8)
    cut_image, cut = random_patch(image, classes, 16, np.random.default_rng(0))
    assert cut_image.shape == cut.shape == (16, 16, 16)
    assert cut.sum() == 5 * 16 * 9


def test_rare_classes_have_more_weight_at_first_and_the_same_at_the_end():
    shares = torch.tensor([0.9, 0.09, 0.01])
    first = class_weights(shares, 0.0)
    assert first[2] / first[0] == pytest.approx(90**0.5)
    assert (first * shares).sum() == pytest.approx(1)
    assert class_weights(shares, 0.9).tolist() == pytest.approx([1, 1, 1])


def test_a_missing_cohort_ends_in_one_line_and_code_2(tmp_path, invoke):
    result = invoke(SCRIPT, "--root", tmp_path / "nowhere", "--outdir", tmp_path / "run", "--preset", "smoke")
    assert result.exit_code == 2
    assert "no such cohort table" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_patch_that_the_network_cannot_halve_three_times_is_refused():
    for patch, fact in ((20, "not a multiple of 8"), (8, "allowed is from 16")):
        with pytest.raises(InputError, match=fact):
            build(SegmenterSettings, TINY | dict(patch=patch))


def test_an_unknown_preset_is_refused_with_the_most_similar_name(cohort, tmp_path, invoke):
    result = invoke(SCRIPT, "--root", cohort, "--outdir", tmp_path / "run", "--preset", "dmo")
    assert result.exit_code == 2
    assert 'Did you mean "demo"?' in result.stderr



def test_a_damaged_checkpoint_is_ignored(cohort, tmp_path):
    complete = load_weights(train(cohort, tmp_path))[0]
    sorted((tmp_path / "checkpoints").iterdir())[-1].write_bytes(b"cut short")
    again = load_weights(train(cohort, tmp_path))[0]
    assert all(torch.equal(complete[name], again[name]) for name in complete)


def test_the_cure_for_masks_of_who_left_the_cohort_is_a_command_that_exists(cohort, tmp_path, invoke, refused):
    given = ("--root", cohort, "--outdir", tmp_path / "run", "--preset", "smoke", "--set", "items=2")
    pack(cohort, ORGANS)
    table = pd.read_csv(cohort / "cohort.csv")
    table[table["subject"] != "s1"].to_csv(cohort / "cohort.csv", index=False)
    line = refused(SCRIPT, *given)
    command = re.search("Give --overwrite to (.*), which packs it again", line)[1]
    assert invoke(*shlex.split(command), "--overwrite").exit_code == 0
    assert invoke(SCRIPT, *given).exit_code == 0
