"""Settings are checked against their fields, and presets, --set and stored files all go through that check."""

import dataclasses
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from totalgen.errors import InputError
from totalgen.schema import Settings, build, fixed, flat, listed, resolve, setting, to_dict
from totalgen.settings import (
    GenerationSettings,
    PetDenoisingInferenceSettings,
    PetDenoisingSettings,
    RunSettings,
    SegmenterSettings,
    TrainingSettings,
)


@dataclass(frozen=True)
class Net(Settings):
    channels: int = setting(64, "width", low=1, high=512)
    shape: tuple[int, ...] = setting((8, 8, 8), "voxels", low=1, length=3)
    rate: float = setting(0.1, "rate", above=0)
    compiled: bool = setting(False, "compiled", may_change=True)


@dataclass(frozen=True)
class Sampling(Settings):
    sampler: str = setting("heun", "integrator", words=("heun", "euler"))
    steps: int = setting(35, "steps", low=1)


@dataclass(frozen=True)
class Everything(Settings):
    weights: Path = setting(dataclasses.MISSING, "file")
    net: Net = field(default_factory=Net)
    first: Sampling = field(default_factory=Sampling)
    second: Sampling = field(default_factory=Sampling)
    guide: Path | None = setting(None, "file")


PRESETS = {"demo": dict(weights="a.safetensors", channels=8, first=dict(sampler="euler", steps=6))}


def test_a_preset_is_changed_by_short_and_full_names():
    made = resolve(Everything, PRESETS, "demo", ["channels=16", "net.rate=1e-3", "second.steps=7", "compiled=True"])
    assert made.net == Net(channels=16, rate=1e-3, compiled=True)
    assert (made.first, made.second) == (Sampling("euler", 6), Sampling("heun", 7))
    assert (made.weights, made.guide) == (Path("a.safetensors"), None)
    assert PRESETS["demo"]["channels"] == 8  # the table itself is untouched


def test_a_name_of_one_setting_changes_it_alone_and_a_group_puts_the_others_to_their_defaults():
    presets = {"demo": dict(weights="a", first=dict(sampler="euler", steps=6))}
    assert resolve(Everything, presets, "demo", ["first.steps=9"]).first == Sampling("euler", 9)
    assert resolve(Everything, presets, "demo", ["first={'steps': 9}"]).first == Sampling("heun", 9)


def test_options_of_their_own_come_last_and_none_is_not_given():
    given = dict(weights=Path("b=c"), guide=None)
    assert resolve(Everything, PRESETS, "demo", ["weights=x"], given).weights == Path("b=c")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ("chanels=3", 'Did you mean "channels"'),
        ("net.chanels=3", "unknown name"),
        ("first={'step': 3}", 'Did you mean "steps"'),
        ("steps=3", '"steps" may be first.steps or second.steps'),
        ("channels", 'has no "="'),
        ("channels=0", "channels is 0; allowed is from 1 up to 512"),
        ("channels=513", "allowed is from 1 up to 512"),
        ("channels=10k", "channels is '10k', not a whole number"),
        ("channels=1e2", "not a whole number"),
        ("channels=True", "not a whole number"),
        ("shape=80", "shape is 80, not a tuple of 3 whole numbers"),
        ("shape=(1, 2)", "not a tuple of 3 whole numbers"),
        ("shape=(8, 8.5, 8)", "not a tuple of 3 whole numbers"),
        ("shape=(8, 0, 8)", "allowed is from 1"),
        ("rate=fast", "rate is 'fast', not a number"),
        ("rate=0", "allowed is above 0"),
        ("rate=1e400", "rate is inf; allowed is above 0"),
        ("rate=float('nan')", "not a number"),
        (f"rate={'9' * 400}", "allowed is above 0"),
        (f"rate=0x{'f' * 5000}", "not a number"),
        (f"rate={'-' * 5000}1", "not a number"),
        ("first={[]: 1}", "first is '{[]: 1}', not a dict of settings"),
        ("compiled=false", "compiled is 'false', not True or False"),
        ("compiled=1", "not True or False"),
        ("first.sampler=heunn", 'sampler: unknown name "heunn". Did you mean "heun"'),
        ("first.sampler=3", "not a word"),
        ("first=heun", "first is 'heun', not a dict of settings"),
        ("weights=3", "weights is 3, not a path"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(change, fact):
    with pytest.raises(InputError) as refusal:
        resolve(Everything, PRESETS, "demo", [change])
    assert fact in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_preset_suggests_the_nearest_and_a_missing_setting_is_named():
    with pytest.raises(InputError, match='unknown name "demoo". Did you mean "demo"'):
        resolve(Everything, PRESETS, "demoo")
    with pytest.raises(InputError, match="weights is not given"):
        build(Everything, dict(channels=3))


def test_plain_values_survive_json_and_a_list_is_a_tuple():
    made = build(Everything, dict(weights="a", shape=[1, 2, 3]))
    assert made.net.shape == (1, 2, 3)
    assert to_dict(made)["net"]["shape"] == [1, 2, 3]
    assert build(Everything, to_dict(made)) == made


def test_what_may_change_is_not_fixed():
    assert set(fixed(build(Everything, dict(weights="a")))) == set(flat(Everything)) - {"net.compiled"}


@pytest.mark.parametrize("cls", [TrainingSettings, GenerationSettings, SegmenterSettings])
def test_every_setting_has_a_meaning_an_allowed_default_and_a_line_in_help(cls):
    given = dict(global_weights="a", sr_weights="b") if cls is GenerationSettings else {}
    made = build(cls, given)  # the defaults pass their own checks
    lines = listed(cls).splitlines()[1:]
    for (name, item), line in zip(flat(cls).items(), lines, strict=True):
        assert name in line
        assert item.metadata["meaning"] in line
    assert build(cls, to_dict(made)) == made


def test_averages_that_would_share_a_file_are_refused():
    with pytest.raises(InputError, match="two widths are the same to three digits"):
        RunSettings(ema=(0.08, 0.0801))


@pytest.mark.parametrize(
    ("script", "cls"),
    [
        ("1_Trainings/train_totalgen.py", TrainingSettings),
        ("1_Trainings/train_pet_denoising.py", PetDenoisingSettings),
        ("1_Trainings/train_segmenter.py", SegmenterSettings),
        ("2_Tests/generate_petct.py", GenerationSettings),
        ("2_Tests/denoise_pet.py", PetDenoisingInferenceSettings),
    ],
)
def test_every_preset_of_every_script_is_allowed(script, cls):
    presets = runpy.run_path(str(Path(__file__).resolve().parents[1] / script))["PRESETS"]
    for name in presets:
        assert resolve(cls, presets, name, ())
