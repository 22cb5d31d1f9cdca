"""The newest intact checkpoint is the one that is read, whatever happened to the others."""

import shutil

import pytest
import torch

from totalgen.checkpoints import newest_checkpoint, save_checkpoint
from totalgen.errors import InputError


def save(folder, step):
    save_checkpoint(folder, step, {"weight": torch.full((3,), float(step))})


def test_the_two_newest_are_kept_and_the_newest_is_read(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert len(list(tmp_path.iterdir())) == 2
    copy = shutil.copy(tmp_path / "step_00000002.safetensors", tmp_path / "step_00000002_good.safetensors")
    save(tmp_path, 3)
    assert copy.exists()
    step, tensors = newest_checkpoint(tmp_path)
    assert step == 3
    assert tensors["weight"].tolist() == [3, 3, 3]


def test_after_damage_the_run_goes_on_from_what_is_intact_and_saves_again(tmp_path):
    for step in (200, 400):
        save(tmp_path, step)
    (tmp_path / "step_00000400.safetensors").write_bytes(b"cut short")
    assert newest_checkpoint(tmp_path)[0] == 200
    save(tmp_path, 300)  # it must survive although its step is lower than that of the damaged one
    assert newest_checkpoint(tmp_path)[0] == 300


def test_a_damaged_checkpoint_is_named_and_all_damaged_ones_end_the_run(tmp_path, capsys):
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"a": torch.tensor(float(step))})
    newest = tmp_path / "step_00000010.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    step, tensors = newest_checkpoint(tmp_path)
    assert (step, float(tensors["a"])) == (5, 5.0)
    assert f"{newest}: is damaged; the run goes on from step 5" in capsys.readouterr().err
    (tmp_path / "step_00000005.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="no other can be read. Remove .* to begin at step 0"):
        newest_checkpoint(tmp_path)
    assert newest_checkpoint(tmp_path / "nothing") is None
