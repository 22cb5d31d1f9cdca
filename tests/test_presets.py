"""Presets are checked against the signature they feed."""

import pytest

from totalgen.errors import InputError
from totalgen.presets import resolve


def function(place, *, channels=(64,), family="edm"):
    return place, channels, family


PRESETS = {"paper-global-edm": dict(channels=(64,)), "paper-global-flow": dict(channels=(64,), family="flow")}


def test_changes_are_read_as_python_values_or_bare_words():
    row = resolve(PRESETS, "paper-global-edm", ["channels=(1, 2)", "family=flow"], function)
    assert row == dict(channels=(1, 2), family="flow")
    assert PRESETS["paper-global-edm"] == dict(channels=(64,))  # the table itself is untouched


def test_a_dict_changes_only_what_it_names_and_a_flag_is_true_or_false():
    def draw(*, sampling=None, compiled=False):
        return sampling, compiled

    presets = {"demo": dict(sampling=dict(sampler="heun", sigma_min=0.5))}
    row = resolve(presets, "demo", ["sampling={'sampler': 'euler'}", "compiled=True"], draw)
    assert row == dict(sampling=dict(sampler="euler", sigma_min=0.5), compiled=True)
    assert presets["demo"]["sampling"]["sampler"] == "heun"
    with pytest.raises(InputError, match="compiled is True or False"):
        resolve(presets, "demo", ["compiled=false"], draw)


def test_unknown_preset_and_key_suggest_the_nearest():
    with pytest.raises(InputError, match='unknown name "paper-global-emd". Did you mean "paper-global-edm"?'):
        resolve(PRESETS, "paper-global-emd", [], function)
    with pytest.raises(InputError, match='Did you mean "channels"'):
        resolve(PRESETS, "paper-global-edm", ["chanels=3"], function)
    with pytest.raises(InputError, match="no \"=\""):
        resolve(PRESETS, "paper-global-edm", ["channels"], function)


def test_a_value_of_another_kind_is_refused_with_an_example():
    def train(*, shape=(80, 80, 128), lr=0.01, volumes=100, target="residual", attention=(), dry_run=False):
        return shape, lr, volumes, target, attention, dry_run

    for right in ("shape=(16, 16, 24)", "lr=1", "lr=1e-3", "volumes=1_000", "target=direct", "attention=[1]"):
        assert resolve({"demo": {}}, "demo", [right], train)
    for wrong, fact in {
        "shape=80": r"a tuple of numbers, such as \(80, 80, 128\)",
        "shape=(80, 80.5, 128)": "a tuple of numbers",
        "lr=fast": "a number, such as 0.01",
        "volumes=10k": "a whole number, such as 100",
        "volumes=1e3": "a whole number",
        "volumes=True": "a whole number",
        "target=3": "a word, such as 'residual'",
    }.items():
        with pytest.raises(InputError, match=fact):
            resolve({"demo": {}}, "demo", [wrong], train)
    with pytest.raises(InputError, match='unknown name "dry_run"'):
        resolve({"demo": {}}, "demo", ["dry_run=True"], train)
