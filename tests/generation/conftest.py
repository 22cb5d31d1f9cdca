"""Two tiny stages with random weights, saved as training saves them."""

import pytest
import torch

from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.conditions import DEMOGRAPHICS, POSITION, TEMPLATE, UPSAMPLED
from totalgen.data.demographics import Demographics
from totalgen.generation.cascade import Cascade
from totalgen.models.networks import UNet
from totalgen.schema import build, to_dict
from totalgen.settings import GenerationSettings, TrainingSettings
from totalgen.tasks.template import Template
from totalgen.weights import STAGE_KIND, network_arguments, save_weights

STATISTICS = dict(low_mean=[0.3, 0.1], low_std=[0.2, 0.1], residual_mean=[0.0, 0.0], residual_std=[0.05, 0.02])
SHAPE = (16, 16, 64)
GIVEN = {"global": DEMOGRAPHICS, "sr": (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)}


def write_stage(path, voxel_mm=12.0, people=(), **settings):
    """Weights of an untrained stage, saved as training saves them; its output gain is 1, so that it has one.

    people: (demographics, low-resolution volume) of whom a global stage has a template.
    """
    stage = settings["stage"]
    name = {"global": "low", "sr": "residual"}[stage]
    template = dict(template=Template.fit(people).settings) if people else {}
    configuration = dict(
        kind=STAGE_KIND, preset="untrained", settings=to_dict(build(TrainingSettings, settings)),
        channels=dict(target=["CT", "SUV"], condition=(*GIVEN[stage], *(TEMPLATE if people else ()))),
        codec=dict(mean=STATISTICS[f"{name}_mean"], std=STATISTICS[f"{name}_std"]),
        data=template
        | dict(voxel_mm=voxel_mm, axial_extent=PUBLISHED.to_dict(), statistics=STATISTICS, sources=["phantom"]),
    )  # fmt: skip
    unet = UNet(**network_arguments(configuration))
    unet.out_gain.data.fill_(1)
    save_weights(path, unet.state_dict(), configuration)
    return path


@pytest.fixture(scope="session")
def stage_files(tmp_path_factory):
    """(path of the global stage, path of the sr stage)."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tiny = dict(shape=SHAPE, channels=4, multipliers=(1,), blocks=1, attention=())
    return [write_stage(folder / f"{stage}.safetensors", stage=stage, **tiny) for stage in ("global", "sr")]


@pytest.fixture
def stage_file(tmp_path):
    """stage_file(**settings) → weights of one more untrained stage."""
    return lambda **settings: write_stage(tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors", **settings)


@pytest.fixture(scope="session")
def template_file(tmp_path_factory):
    """A global stage that belongs to the sr stage of ``stage_files`` and has a template of two people."""
    torch.manual_seed(2)
    persons = Demographics("F", 50, 1.6, 70), Demographics("M", 50, 1.8, 70)
    people = [(person, torch.rand(2, *(n // 4 for n in SHAPE)).cumsum(-1) / 10) for person in persons]
    tiny = dict(stage="global", shape=SHAPE, channels=4, multipliers=(1,), blocks=1, attention=(), template=True)
    return write_stage(tmp_path_factory.mktemp("template") / "global.safetensors", people=people, **tiny)


@pytest.fixture(scope="session")
def smoke_files(tmp_path_factory):
    """The same for the networks of the smoke presets."""
    folder = tmp_path_factory.mktemp("smoke")
    torch.manual_seed(1)
    smoke = dict(shape=(32, 32, 48), channels=8, multipliers=(1, 2), blocks=1, attention=(1,))
    return [write_stage(folder / f"{stage}.safetensors", stage=stage, **smoke) for stage in ("global", "sr")]


@pytest.fixture(scope="session")
def cascade(stage_files):
    """cascade(**changes) → a Cascade of the two stages, one Euler step each unless changed."""

    def load(device=None, **changes):
        one_step = dict(sampler="euler", steps=1)
        weights = dict(global_weights=stage_files[0], sr_weights=stage_files[1])
        settings = dict(weights, global_sampling=one_step, sr_sampling=one_step, slab=64, context=0) | changes
        return Cascade.load(build(GenerationSettings, settings), device)

    return load
