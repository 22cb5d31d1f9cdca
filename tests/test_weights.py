"""Weights and their configuration travel in one file that holds no code."""

import pytest
import torch

from totalgen.errors import InputError
from totalgen.weights import load_weights, save_weights


def test_tensors_and_configuration_survive(tmp_path):
    state = {"a.weight": torch.randn(3, 4), "n": torch.tensor(7)}
    save_weights(tmp_path / "w.safetensors", state, {"network": {"channels": 4}}, torch.float16)
    loaded, configuration = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a.weight"], state["a.weight"].half())
    assert int(loaded["n"]) == 7
    assert configuration == {"network": {"channels": 4}}
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it


def test_missing_cut_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(path)
    save_weights(path, {"a": torch.zeros(1000)}, {})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        load_weights(path)
    path.write_bytes(b"PK\x03\x04 a pickle in a zip, say")
    with pytest.raises(InputError, match="damaged"):
        load_weights(path)
