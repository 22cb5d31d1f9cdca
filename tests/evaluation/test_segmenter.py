import json

import numpy as np
import pandas as pd
import pytest
import torch

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, isotropic_grid, read_nifti, resample, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation import segmenter
from totalgen.evaluation.segmenter import build_network, dice, load_segmenter, segment_cohort, train_segmenter
from totalgen.settings import SegmenterSettings
from totalgen.weights import load_weights, save_weights

SCRIPT = "1_Trainings/train_segmenter.py"
TINY = dict(steps=4, batch=1, patch=16, channels=2, lr=0.003, checkpoint_steps=2)
IDS = [1, 2, 3, 5, 51]  # the organs of the blob cohort


@pytest.fixture
def trained(cohort, tmp_path):
    """(weights of a run of four steps, its cohort)."""
    return train_segmenter(cohort, tmp_path / "run", SegmenterSettings(**TINY))[0], cohort


class Threshold(torch.nn.Module):
    """A network of known result: liver where the encoded CT is above 0.55 (50 HU), spleen above 0.65 (150 HU)."""

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), (image - 0.55) * 10, (image - 0.65) * 40], dim=1)


def thresholds(voxel_mm):
    """The segmenter with Threshold in place of a trained network, working at ``voxel_mm``."""
    configuration = dict(voxel_mm=voxel_mm, patch=16, ids=[ORGANS["liver"], ORGANS["spleen"]])
    return lambda ct: segmenter._segment(Threshold(), configuration, torch.device("cpu"), ct)


def test_a_run_stopped_and_continued_equals_a_run_without_interruption(cohort, tmp_path, monkeypatch):
    straight, _ = train_segmenter(cohort, tmp_path / "straight", SegmenterSettings(**TINY))
    cut = segmenter._random_patch
    patches = []

    def interrupted(*arguments):
        patches.append(1)
        if len(patches) == 4:  # in step 4, after the checkpoint of step 2: step 3 is lost
            raise KeyboardInterrupt
        return cut(*arguments)

    monkeypatch.setattr(segmenter, "_random_patch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(cohort, tmp_path / "stopped", SegmenterSettings(**TINY))
    assert not (tmp_path / "stopped" / "segmenter.safetensors").exists()
    monkeypatch.setattr(segmenter, "_random_patch", cut)
    continued, _ = train_segmenter(cohort, tmp_path / "stopped", SegmenterSettings(**TINY))
    for name, value in load_weights(straight)[0].items():
        assert torch.equal(load_weights(continued)[0][name], value), name
    logs = [[json.loads(x) for x in (tmp_path / run / "log.jsonl").open()] for run in ("straight", "stopped")]
    assert [row["step"] for row in logs[1]] == [1, 2, 3, 4]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_the_script_trains_prints_dice_and_does_nothing_the_second_time(cohort, tmp_path, run_script):
    asked = [SCRIPT, "--root", cohort, "--outdir", tmp_path / "run", "--preset", "smoke", "--steps", 2]
    first = run_script(*asked)
    assert first.exit_code == 0, first.output
    assert "Dice kidneys" in first.output
    weights = tmp_path / "run" / "segmenter.safetensors"
    state, configuration = load_weights(weights)
    assert configuration["ids"] == IDS
    assert configuration["voxel_mm"] == 12.0
    assert configuration["test_subjects"] == 1
    assert all(value.dtype == torch.float16 for value in state.values())
    written = weights.stat().st_mtime_ns
    assert run_script(*asked).stdout == first.stdout
    assert weights.stat().st_mtime_ns == written


def test_another_setting_does_not_continue_a_run(trained, tmp_path):
    _, cohort = trained
    with pytest.raises(InputError, match="other channels"):
        train_segmenter(cohort, tmp_path / "run", SegmenterSettings(**TINY | dict(channels=4)))


def test_a_trained_network_gives_only_the_ids_of_its_cohort(trained):
    weights, cohort = trained
    ct = read_nifti(cohort / "cropped" / "s3" / "CT.nii.gz")
    labels = load_segmenter(weights)(ct)
    assert labels.voxels.dtype == np.uint8
    assert labels.shape == ct.shape
    assert np.array_equal(labels.affine, ct.affine)
    assert set(np.unique(labels.voxels)) <= {0, *IDS}


def test_classes_are_returned_as_their_organ_ids():
    ct = np.full((20, 20, 20), -1000, np.float32)
    ct[2:8, 2:8, 2:8], ct[12:18, 12:18, 12:18] = 100, 400
    labels = thresholds(6.0)(Volume(ct, np.diag([6.0, 6.0, 6.0, 1.0]))).voxels
    assert (labels[2:8, 2:8, 2:8] == ORGANS["liver"]).all()
    assert (labels[12:18, 12:18, 12:18] == ORGANS["spleen"]).all()
    assert np.count_nonzero(labels) == 2 * 6**3


def test_a_ct_on_another_grid_is_segmented_at_the_training_voxel_and_labelled_on_its_own():
    index = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), -1)
    affine = np.diag([-3.0, 3.0, 4.0, 1.0])  # mirrored and anisotropic
    world = index @ affine[:3, :3].T
    body = np.linalg.norm(world - [-60, 60, 80], axis=-1) <= 40
    ct = Volume(np.where(body, 100, -1000).astype(np.float32), affine)
    labels = thresholds(6.0)(ct)
    assert labels.shape == ct.shape
    assert np.array_equal(labels.affine, affine)
    assert dice(labels.voxels == ORGANS["liver"], body) > 0.9  # a shell of half a 6 mm voxel around 40 mm may differ


def test_a_voxel_within_one_percent_is_not_resampled(monkeypatch):
    calls = []
    monkeypatch.setattr(segmenter, "resample", lambda *a, **k: calls.append(1) or resample(*a, **k))
    ct = np.full((16, 16, 16), 100, np.float32)
    for edge, expected in ((6.05, 0), (6.07, 2)):
        calls.clear()
        thresholds(6.0)(Volume(ct, np.diag([edge] * 3 + [1.0])))
        assert len(calls) == expected


def test_only_the_largest_piece_of_an_organ_is_kept():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:5, 1:5, 1:5], labels[8:10, 8:10, 8:10], labels[6, 6, 6] = 5, 5, 51
    kept = segmenter._largest_pieces(labels)
    assert np.count_nonzero(kept == 5) == 64
    assert kept[6, 6, 6] == 51


def test_patches_are_never_mirrored_and_keep_image_and_label_together():
    image = np.zeros((20, 20, 20), np.float32)
    image[12:] = 1.0
    label = (image > 0.5).astype(np.uint8)
    label[:4] = 2  # class 2 lies at lower x than class 1, always
    for seed in range(20):
        cut_image, cut_label = segmenter._random_patch(image, label, 16, np.random.default_rng(seed))
        assert cut_image.shape == cut_label.shape == (16, 16, 16)
        found = {value: np.nonzero(cut_label == value)[0].mean() for value in np.unique(cut_label)}
        assert [v for v, _ in sorted(found.items(), key=lambda item: item[1])] == [v for v in (2, 0, 1) if v in found]
        assert cut_image[cut_label == 1].mean() > cut_image[cut_label != 1].mean() + 0.5


def test_rare_classes_have_more_weight_at_first_and_the_same_at_the_end():
    shares = torch.tensor([0.9, 0.09, 0.01])
    first = segmenter._class_weights(shares, 0.0)
    assert first[2] / first[0] == pytest.approx(90**0.5)
    assert (first * shares).sum() == pytest.approx(1)
    assert segmenter._class_weights(shares, 0.9).tolist() == pytest.approx([1, 1, 1])


def test_dice_is_its_formula():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[:4], b[2:8] = True, True
    assert dice(a, b) == 2 * 2 / (4 + 6)
    assert np.isnan(dice(a & ~a, b & ~b))


def test_a_generated_folder_is_segmented_once_and_a_bad_study_is_listed(trained, generated, run_script):
    weights, _ = trained
    (generated / "g1" / "CT.nii.gz").write_bytes(b"broken")
    script = ["3_Evaluations/1_segment_generated.py", "--root", generated, "--weights", weights]
    result = run_script(*script)
    assert result.exit_code == 0, result.output
    assert "1 of 4 subjects failed (g1)" in result.output
    assert list(pd.read_csv(generated / "failures.csv")["subject"]) == ["g1"]
    assert "0 subjects done, 3 were done before" in run_script(*script).output


def test_a_cohort_keeps_its_given_masks_next_to_the_segmented_ones(trained):
    weights, cohort = trained
    assert segment_cohort(cohort, weights) == []
    assert not (cohort / "cropped" / "s0" / "segmented.nii.gz").exists()
    assert segment_cohort(cohort, weights, masks="segmented") == []
    assert (cohort / "cropped" / "s0" / "segmented.nii.gz").exists()
    assert segment_cohort(cohort, weights, masks="split", split="test") == []
    assert [path.parent.name for path in cohort.glob("cropped/*/split.nii.gz")] == ["s3"]


def test_an_unreadable_training_subject_is_listed_and_left_out(cohort, tmp_path):
    (cohort / "cropped" / "s1" / "organs.nii.gz").unlink()
    weights, _ = train_segmenter(cohort, tmp_path / "run", SegmenterSettings(**TINY))
    assert load_weights(weights)[1]["subjects"] == 2
    assert list(pd.read_csv(cohort / "failures.csv")["subject"]) == ["s1"]


def test_a_cohort_of_two_voxel_sizes_is_refused(cohort, tmp_path):
    folder = cohort / "cropped" / "s1"
    for name in ("CT", "organs"):
        volume = read_nifti(folder / f"{name}.nii.gz")
        write_nifti(folder / f"{name}.nii.gz", resample(volume, *isotropic_grid(volume, 8.0), 0, nearest=True))
    with pytest.raises(InputError, match="voxels of 8×8×8 mm among 12 mm"):
        train_segmenter(cohort, tmp_path / "run", SegmenterSettings(**TINY))


def test_a_missing_cohort_ends_in_one_line_and_code_2(tmp_path, run_script):
    result = run_script(SCRIPT, "--root", tmp_path / "nowhere", "--outdir", tmp_path / "run", "--preset", "smoke")
    assert result.exit_code == 2
    assert "no such folder" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_damaged_checkpoint_is_ignored(cohort, tmp_path):
    path, _ = train_segmenter(cohort, tmp_path, SegmenterSettings(**TINY))
    complete = load_weights(path)[0]
    with pytest.raises(InputError, match="holds a run with other channels"):  # finished, and not to be overwritten
        train_segmenter(cohort, tmp_path, SegmenterSettings(**TINY | dict(channels=4)))
    path.unlink()
    sorted((tmp_path / "checkpoints").iterdir())[-1].write_bytes(b"cut short")
    again = load_weights(train_segmenter(cohort, tmp_path, SegmenterSettings(**TINY))[0])[0]
    assert all(torch.equal(complete[name], again[name]) for name in complete)


def test_weights_that_are_missing_damaged_or_of_another_network_are_refused(generated, run_script, tmp_path):
    damaged, other = tmp_path / "damaged.safetensors", tmp_path / "other.safetensors"
    damaged.write_bytes(b"\x00" * 40)
    save_weights(other, build_network(2, [5]).state_dict(), dict(kind="denoiser"))
    for path, words in (
        (tmp_path / "none.safetensors", "no such weights"), (damaged, "damaged"), (other, "holds no segmenter"),
    ):
        result = run_script("3_Evaluations/1_segment_generated.py", "--root", generated, "--weights", path)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:70"])
def test_a_device_that_is_not_here_is_refused(trained, device):
    with pytest.raises(InputError, match=f"device {device}: cannot be used here"):
        load_segmenter(trained[0], device)


def test_weights_of_another_version_are_refused_by_name(trained, tmp_path):
    state, configuration = load_weights(trained[0])
    save_weights(tmp_path / "old.safetensors", dict(list(state.items())[1:]), configuration)
    with pytest.raises(InputError, match=r"old.safetensors: was made by another version"):
        load_segmenter(tmp_path / "old.safetensors")


def test_a_patch_that_the_network_cannot_halve_three_times_is_refused():
    for patch, fact in ((20, "not a multiple of 8"), (8, "allowed is from 16")):
        with pytest.raises(InputError, match=fact):
            SegmenterSettings(**TINY | dict(patch=patch))


def test_an_unknown_preset_is_refused_with_the_most_similar_name(cohort, tmp_path, run_script):
    result = run_script(SCRIPT, "--root", cohort, "--outdir", tmp_path / "run", "--preset", "dmo")
    assert result.exit_code == 2
    assert 'Did you mean "demo"?' in result.stderr
