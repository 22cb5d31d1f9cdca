"""Weights and their configuration travel in one file that holds no code, and files of earlier formats are read."""

import errno
import json
import resource
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from totalgen.checkpoints import save_checkpoint
from totalgen.data.files import error_text
from totalgen.errors import InputError
from totalgen.schema import build
from totalgen.settings import TrainingSettings
from totalgen.weights import FORMAT_VERSION, STAGE_KIND, load_weights, network_arguments, save_weights

RESOURCE = Path(__file__).resolve().parents[1] / "Resource"
VERSION_1 = dict(
    preset="demo-sr-edm", stage="sr", family="edm",
    network=dict(in_channels=11, out_channels=2, channels=8, multipliers=[1, 4], blocks=1, attention=[], lean=True),
    shape=[80, 80, 128], patch=[24, 24, 24], target="residual", codec=dict(mean=[0.0, 0.0], std=[1.0, 2.0]),
    data=dict(voxel_mm=6.0),
    training=dict(
        batch=2, lr=0.01, lr_decay_steps=800, rampup_volumes=400, noise_levels="lognormal",
        noise_parameters=dict(mean=1.2, std=1.8), uncertainty=True, condition_noise=0.1, ema=[0.05, 0.1], seed=3,
    ),
    steps=4000, volumes=8000, hours=0.9, sigma_rel=0.1, precision="float32",
)  # fmt: skip


def test_tensors_and_configuration_survive(tmp_path):
    state = {"a.weight": torch.randn(3, 4), "n": torch.tensor(7)}
    save_weights(tmp_path / "w.safetensors", state, {"network": {"channels": 4}}, torch.float16)
    loaded, configuration = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a.weight"], state["a.weight"].half())
    assert int(loaded["n"]) == 7
    assert configuration == {"network": {"channels": 4}}
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it


def test_what_a_number_format_cannot_hold_stays_as_it_is(tmp_path):
    """A codebook that has just begun holds sums near 10⁵."""
    state = {"codes": torch.tensor([1e5, 1.0]), "weight": torch.tensor([6e4, 1.0])}
    save_weights(tmp_path / "w.safetensors", state, {}, torch.float16)
    loaded = load_weights(tmp_path / "w.safetensors")[0]
    assert [loaded[name].dtype for name in state] == [torch.float32, torch.float16]
    assert all(torch.equal(loaded[name].float(), value) for name, value in state.items())



def test_missing_cut_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(path)
    save_weights(path, {"a": torch.zeros(1000)}, {})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        load_weights(path)
    path.write_bytes(b"PK\x03\x04 a pickle in a zip, for example")
    with pytest.raises(InputError, match="damaged"):
        load_weights(path)


def test_a_full_disk_and_a_limit_of_the_size_of_files_are_the_systems_errors(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(10)}, {})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_weights(path, {"a": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))

    def full(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_checkpoint(tmp_path, 3, {"a": torch.zeros(10)})
    assert error_text(caught.value).startswith(f"{tmp_path}/step_00000003.safetensors: No space left on device. Free")
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == before


def written(path, configuration, **header):
    """A file as an earlier or later version wrote it."""
    header |= dict(configuration=json.dumps(configuration))
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata=header)
    return path


def test_a_file_of_format_1_is_converted(tmp_path):
    configuration = load_weights(written(tmp_path / "old.safetensors", VERSION_1))[1]
    assert configuration["kind"] == STAGE_KIND
    settings = build(TrainingSettings, configuration["settings"])
    assert (settings.stage, settings.task.patch, settings.task.condition_noise) == ("sr", (24, 24, 24), 0.1)
    assert (settings.process.noise_mean, settings.process.noise_std) == (1.2, 1.8)
    assert (settings.run.rampup_items, settings.run.seed) == (400, 3)
    assert network_arguments(configuration) == VERSION_1["network"] | dict(dims=3)
    assert configuration["channels"]["condition"].index("weight_kg / 100") == 3
    progress = dict(steps=4000, items=8000, hours=0.9, sigma_rel=0.1, precision="float32")
    assert configuration["progress"] == progress


def test_a_file_of_a_later_format_or_without_its_settings_is_refused(tmp_path):
    later = written(tmp_path / "later.safetensors", {}, format_version=str(FORMAT_VERSION + 1))
    with pytest.raises(InputError, match=f"is of format {FORMAT_VERSION + 1}, this version reads up to"):
        load_weights(later)
    with pytest.raises(InputError, match="its configuration lacks 'training'"):
        load_weights(written(tmp_path / "less.safetensors", dict(stage="sr")))


@pytest.mark.parametrize("path", sorted(RESOURCE.rglob("*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_file_is_read(path):
    state, configuration = load_weights(path)
    assert state
    if configuration["kind"] == STAGE_KIND:
        settings = build(TrainingSettings, configuration["settings"])
        assert path.stem.removeprefix("demo-") == f"{settings.stage}-{settings.process.family}"
