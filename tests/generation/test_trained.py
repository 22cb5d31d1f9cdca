"""A weights file that is not what its header says is refused in one line, before anything is allocated."""

import copy
from pathlib import Path

import pytest
import torch

from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage
from totalgen.generation.segmenter import Segmenter
from totalgen.weights import load_weights, save_weights

SEGMENTER = Path(__file__).resolve().parents[2] / "Resource/demo-segmenter.safetensors"


def setting(*keys, value):
    """A change of a configuration: the value below these keys."""

    def change(state, configuration):
        place = configuration
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def without(*keys):
    def change(state, configuration):
        place = configuration
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def tensor(change):
    """A change of the first tensor that has two axes or more: its new value, or None to remove it."""

    def apply(state, configuration):
        name = next(name for name, value in state.items() if value.ndim > 1)
        made = change(state.pop(name))
        if made is not None:
            state[name] = made

    return apply


def poisoned(value):
    value = value.clone()
    value.view(-1)[0] = float("nan")
    return value


BROKEN = {
    "no settings": without("settings"),
    "settings are a list": setting("settings", value=[1]),
    "an unknown setting": setting("settings", "network", "chanels", value=4),
    "no network": without("settings", "network"),
    "another number of channels": setting("settings", "network", "channels", value=8),
    "channels beyond any memory": setting("settings", "network", "channels", value=10**7),
    "negative blocks": setting("settings", "network", "blocks", value=-1),
    "no levels": setting("settings", "network", "multipliers", value=[]),
    "an unknown family": setting("settings", "process", "family", value="gan"),
    "no channels": without("channels"),
    "channels without names": setting("channels", value=7),
    "no codec": without("codec"),
    "a codec of nothing": setting("codec", value={}),
    "an unknown codec": setting("codec", value=dict(kind="zip")),
    "no data": without("data"),
    "data is text": setting("data", value="phantom"),
    "another kind": setting("kind", value="recipe"),
    "no kind": without("kind"),
    "a tensor is missing": tensor(lambda value: None),
    "a tensor of another shape": tensor(lambda value: value[:1]),
    "a value is not a number": tensor(poisoned),
    "one tensor too many": lambda state, configuration: state.update(more=torch.zeros(3)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stage_whose_file_is_broken_is_refused_by_name(stage_files, tmp_path, name):
    state, configuration = load_weights(stage_files[0])
    state, configuration = dict(state), copy.deepcopy(configuration)
    BROKEN[name](state, configuration)
    save_weights(tmp_path / "broken.safetensors", state, configuration)
    with pytest.raises(InputError, match=r"broken\.safetensors: ") as caught:
        load_stage(tmp_path / "broken.safetensors", "global")
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_a_list_is_refused(stage_files, tmp_path):
    save_weights(tmp_path / "w.safetensors", load_weights(stage_files[0])[0], [1, 2])
    with pytest.raises(InputError, match="its configuration is a list"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "change", [without("data", "ids"), setting("settings", "channels", value=4), tensor(poisoned), without("settings")]
)
def test_a_segmenter_whose_file_is_broken_is_refused_by_name(tmp_path, change):
    state, configuration = load_weights(SEGMENTER)
    state, configuration = dict(state), copy.deepcopy(configuration)
    change(state, configuration)
    save_weights(tmp_path / "broken.safetensors", state, configuration)
    with pytest.raises(InputError, match=r"broken\.safetensors: "):
        Segmenter.load(tmp_path / "broken.safetensors")
