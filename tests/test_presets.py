"""Presets are checked against the signature they feed."""

import pytest

from totalgen.errors import InputError
from totalgen.presets import resolve


def function(place, *, channels=64, family="edm"):
    return place, channels, family


PRESETS = {"paper-global-edm": dict(channels=64), "paper-global-flow": dict(channels=64, family="flow")}


def test_changes_are_read_as_python_values_or_bare_words():
    row = resolve(PRESETS, "paper-global-edm", ["channels=(1, 2)", "family=flow"], function)
    assert row == dict(channels=(1, 2), family="flow")
    assert PRESETS["paper-global-edm"] == dict(channels=64)  # the table itself is untouched


def test_unknown_preset_and_key_suggest_the_nearest():
    with pytest.raises(InputError, match='unknown name "paper-global-emd". Did you mean "paper-global-edm"?'):
        resolve(PRESETS, "paper-global-emd", [], function)
    with pytest.raises(InputError, match='Did you mean "channels"'):
        resolve(PRESETS, "paper-global-edm", ["chanels=3"], function)
    with pytest.raises(InputError, match="no \"=\""):
        resolve(PRESETS, "paper-global-edm", ["channels"], function)
