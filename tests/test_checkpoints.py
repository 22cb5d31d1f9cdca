"""The newest intact checkpoint is the one that is read, whatever happened to the others."""

import pytest
import torch

from totalgen.checkpoints import newest_checkpoint, save_checkpoint
from totalgen.errors import InputError


def save(folder, step, kind="test"):
    save_checkpoint(folder, step, {"weight": torch.full((3,), float(step))}, kind, more=step)


def test_the_two_newest_are_kept_and_the_newest_is_read(tmp_path):
    assert newest_checkpoint(tmp_path, "test") is None
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert len(list(tmp_path.iterdir())) == 2
    saved, tensors = newest_checkpoint(tmp_path, "test")
    assert saved == dict(kind="test", step=3, more=3)
    assert tensors["weight"].tolist() == [3, 3, 3]


def test_after_damage_the_run_goes_on_from_what_is_intact_and_saves_again(tmp_path):
    for step in (200, 400):
        save(tmp_path, step)
    for path in tmp_path.iterdir():
        path.write_bytes(b"cut short")
    assert newest_checkpoint(tmp_path, "test") is None
    save(tmp_path, 100)  # begun anew: it must survive although its step is lower
    assert newest_checkpoint(tmp_path, "test")[0]["step"] == 100


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    save(tmp_path, 1, "segmenter")
    with pytest.raises(InputError, match="of another training, not of a test"):
        newest_checkpoint(tmp_path, "test")
