"""Two tiny stages with random weights, saved as training saves them."""

import pytest
import torch

from totalgen.data.axial_extent import PUBLISHED
from totalgen.generation.cascade import Cascade, Stage
from totalgen.models.networks import UNet
from totalgen.weights import save_weights

STATISTICS = dict(low_mean=[0.3, 0.1], low_std=[0.2, 0.1], residual_mean=[0.0, 0.0], residual_std=[0.05, 0.02])
SHAPE = (16, 16, 64)


@pytest.fixture(scope="session")
def stage_files(tmp_path_factory):
    """(path of the global stage, path of the second stage)."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    paths = []
    for stage, condition, name in (("global", 4, "low"), ("sr", 9, "residual")):
        network = dict(in_channels=2 + condition, out_channels=2, channels=4, multipliers=[1], blocks=1, attention=[])
        unet = UNet(**network)
        unet.out_gain.data.fill_(1)
        codec = dict(mean=STATISTICS[f"{name}_mean"], std=STATISTICS[f"{name}_std"])
        data = dict(voxel_mm=12.0, axial_extent=PUBLISHED.to_dict(), statistics=STATISTICS, sources=["phantom"])
        configuration = dict(stage=stage, family="edm", network=network, shape=SHAPE, target="residual", codec=codec)
        paths.append(folder / f"{stage}.safetensors")
        save_weights(paths[-1], unet.state_dict(), configuration | dict(data=data))
    return paths


@pytest.fixture(scope="session")
def cascade(stage_files):
    """cascade(**changes) → a Cascade of the two stages, one Euler step each unless changed."""

    def build(**changes):
        one_step = dict(sampler="euler", steps=1)
        settings = dict(global_sampling=one_step, sr_sampling=one_step, slab=64, context=0) | changes
        low, high = (Stage.load(path, name) for path, name in zip(stage_files, ("global", "sr"), strict=True))
        return Cascade(low, high, **settings)

    return build
