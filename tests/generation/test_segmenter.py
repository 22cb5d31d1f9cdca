"""Labels of the segmenter are on the grid of the CT they are of, whatever that is."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, read_nifti, resample, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.overlap import dice
from totalgen.generation import segmenter
from totalgen.generation.segmenter import Segmenter, largest_pieces, segment_cohort
from totalgen.models.organ_network import segmentation_network
from totalgen.schema import build, to_dict
from totalgen.settings import SegmenterSettings
from totalgen.weights import load_weights, save_weights

IDS = [1, 2, 3, 5, 51]  # the organs of the blob cohort


@pytest.fixture
def weights(tmp_path):
    """A file of an untrained segmenter of the organs of the blob cohort."""
    torch.manual_seed(0)
    settings = build(SegmenterSettings, dict(patch=16, channels=2))
    about = dict(
        kind="segmenter", preset="", settings=to_dict(settings), channels=dict(target=["organs"], condition=["CT"]),
        codec=dict(kind="identity"), data=dict(ids=IDS, shares=[], voxel_mm=12.0, subjects=3, sources=[]),
    )  # fmt: skip
    save_weights(tmp_path / "segmenter.safetensors", segmentation_network(2, 6).state_dict(), about)
    return tmp_path / "segmenter.safetensors"


class Threshold(torch.nn.Module):
    """A network of known result: liver where the encoded CT is above 0.55 (50 HU), spleen above 0.65 (150 HU)."""

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), (image - 0.55) * 10, (image - 0.65) * 40], dim=1)


def thresholds(voxel_mm):
    """The segmenter with Threshold in place of a trained network, working at ``voxel_mm``."""
    data = dict(voxel_mm=voxel_mm, ids=[ORGANS["liver"], ORGANS["spleen"]])
    return lambda ct: Segmenter(Threshold(), 16, data, torch.device("cpu")).run(ct)["organs"]


def test_a_trained_network_gives_only_the_ids_of_its_cohort(weights, cohort):
    ct = read_nifti(cohort / "cropped" / "s3" / "CT.nii.gz")
    labels = Segmenter.load(weights).run(ct)["organs"]
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
    kept = largest_pieces(labels)
    assert np.count_nonzero(kept == 5) == 64
    assert kept[6, 6, 6] == 51


def test_a_generated_folder_is_segmented_once_and_a_bad_study_is_listed(weights, generated, invoke):
    (generated / "g1" / "CT.nii.gz").write_bytes(b"broken")
    script = ["3_Evaluations/1_segment_generated.py", "--root", generated, "--weights", weights]
    result = invoke(*script)
    assert result.exit_code == 0, result.output
    assert "1 of 4 subjects failed (g1)" in result.output
    assert list(pd.read_csv(generated / "failures.csv")["subject"]) == ["g1"]
    assert "0 subjects done, 3 were done before" in invoke(*script).output


def test_a_cohort_keeps_its_given_masks_next_to_the_segmented_ones(weights, cohort):
    assert segment_cohort(cohort, weights) == []
    assert not (cohort / "cropped" / "s0" / "segmented.nii.gz").exists()
    assert segment_cohort(cohort, weights, masks="segmented") == []
    assert (cohort / "cropped" / "s0" / "segmented.nii.gz").exists()
    assert segment_cohort(cohort, weights, masks="split", split="test") == []
    assert [path.parent.name for path in cohort.glob("cropped/*/split.nii.gz")] == ["s3"]


def test_weights_that_are_missing_damaged_or_of_another_network_are_refused(generated, invoke, tmp_path):
    damaged, other = tmp_path / "damaged.safetensors", tmp_path / "other.safetensors"
    damaged.write_bytes(b"\x00" * 40)
    save_weights(other, segmentation_network(2, 2).state_dict(), dict(kind="denoiser"))
    for path, words in (
        (tmp_path / "none.safetensors", "no such weights"), (damaged, "damaged"), (other, "holds no segmenter"),
    ):
        result = invoke("3_Evaluations/1_segment_generated.py", "--root", generated, "--weights", path)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:70"])
def test_a_device_that_is_not_here_is_refused(weights, device):
    with pytest.raises(InputError, match=f"device {device}: cannot be used here"):
        Segmenter.load(weights, device)


def test_weights_of_another_version_are_refused_by_name(weights, tmp_path):
    state, configuration = load_weights(weights)
    save_weights(tmp_path / "old.safetensors", dict(list(state.items())[1:]), configuration)
    with pytest.raises(InputError, match=r"old.safetensors: .* or made by another version"):
        Segmenter.load(tmp_path / "old.safetensors")


def test_a_segmenter_of_the_second_format_is_converted(tmp_path):
    old = dict(
        kind="segmenter", steps=3500, batch=2, patch=16, channels=2, lr=0.003, seed=0, voxel_mm=12.0, ids=IDS,
        shares=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], subjects=178, source=["phantom"], dice=dict(liver=0.9), test_subjects=62,
    )  # fmt: skip
    tensors = {name: value.contiguous() for name, value in segmentation_network(2, 6).state_dict().items()}
    header = dict(format_version="2", configuration=json.dumps(old))
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    found = load_weights(tmp_path / "old.safetensors")[1]
    settings = build(SegmenterSettings, found["settings"])
    assert (settings.patch, settings.channels, settings.run.items) == (16, 2, 7000)
    assert (found["data"]["ids"], found["data"]["sources"], found["dice"]) == (IDS, ["phantom"], dict(liver=0.9))
    assert Segmenter.load(tmp_path / "old.safetensors").patch == (16, 16, 16)


def test_windows_of_a_volume_agree_with_the_volume_in_one_piece():
    """Where a voxel depends on itself alone, tiling changes nothing; a volume smaller than a window is padded."""
    random = np.random.default_rng(0)
    for shape in ((40, 33, 21), (5, 16, 9)):
        hu = random.choice([-1000.0, 100.0, 400.0], size=shape).astype(np.float32)
        data = dict(voxel_mm=6.0, ids=[5, 1])
        found = Segmenter(Threshold(), 16, data, torch.device("cpu"))._classes(hu)
        assert np.array_equal(found, np.searchsorted([-1000.0, 100.0, 400.0], hu))


def test_the_segmenter_is_a_pipeline_that_describes_itself(weights, cohort):
    pipeline = Segmenter.load(weights)
    path = cohort / "cropped" / "s0" / "CT.nii.gz"
    ct = pipeline.source(dict(input=path))
    assert pipeline.run(ct)["organs"].shape == ct.shape
    assert len(pipeline.describe(ct)["weights"]) == 64
    one = pipeline.operations((16, 16, 16))
    assert one > 0
    assert pipeline.operations((5, 16, 9)) == one  # a smaller volume is padded to one window
    assert pipeline.operations((28, 16, 16)) == 2 * one
    assert pipeline.operations((40, 16, 28)) == 6 * one


def test_a_ct_in_metres_is_refused(weights, tmp_path):
    write_nifti(tmp_path / "ct.nii.gz", Volume(np.zeros((4, 4, 4), np.float32), np.diag([4e-3] * 3 + [1.0])))
    with pytest.raises(InputError, match=r"ct\.nii\.gz: .* Is its affine in metres"):
        Segmenter.load(weights).source(dict(input=tmp_path / "ct.nii.gz"))


def test_all_of_it_is_computed_where_the_weights_are(weights, cohort, elsewhere):
    ct = read_nifti(cohort / "cropped" / "s3" / "CT.nii.gz")
    assert not Segmenter.load(weights, elsewhere).run(ct)["organs"].voxels.any()
