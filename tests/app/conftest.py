"""Weights of the shipped names, of untrained networks that take a moment, and the page served from them."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest
import torch
import uvicorn

from totalgen.app.server import LOOPBACK, create_app
from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.conditions import DEMOGRAPHICS, POSITION, UPSAMPLED
from totalgen.models.networks import UNet
from totalgen.schema import build, to_dict
from totalgen.settings import PetDenoisingSettings, TrainingSettings
from totalgen.weights import PET_DENOISER_KIND, STAGE_KIND, network_arguments, save_weights

RESOURCE = Path(__file__).resolve().parents[2] / "Resource"
SMOKE = dict(shape=(32, 32, 48), channels=8, multipliers=(1, 2), blocks=1, attention=(1,))
STATISTICS = dict(low_mean=[0.3, 0.1], low_std=[0.2, 0.1], residual_mean=[0.0, 0.0], residual_std=[0.05, 0.02])
WOMEN = dict(
    subjects=3, mass=dict(intercept=0.0, per_m=0.0, per_kg=1.0, residual=[-1.0, 1.0]),
    organs=dict(liver=dict(volume=[1000.0, 2000.0], hu=[50.0, 60.0], suv=[2.0, 3.0])),
)  # fmt: skip
REFERENCE = dict(format_version=1, window_hu=[-500.0, 500.0], sexes=dict(F=WOMEN))  # no untrained network is like it
SAMPLING = {
    "global": dict(global_sampling=dict(sampler="euler", steps=3)),
    "sr": dict(sr_sampling=dict(sampler="euler", steps=2), tiling=dict(slab=32, context=4)),
}


def write_stage(path, stage):
    """An untrained stage of the smoke presets, with the sampling that shipped weights carry."""
    given = {"global": DEMOGRAPHICS, "sr": (*UPSAMPLED, *DEMOGRAPHICS, *POSITION)}[stage]
    name = {"global": "low", "sr": "residual"}[stage]
    configuration = dict(
        kind=STAGE_KIND, preset="untrained", settings=to_dict(build(TrainingSettings, SMOKE | dict(stage=stage))),
        channels=dict(target=["CT", "SUV"], condition=given), sampling=SAMPLING[stage],
        codec=dict(mean=STATISTICS[f"{name}_mean"], std=STATISTICS[f"{name}_std"]),
        data=dict(
            voxel_mm=12.0, axial_extent=PUBLISHED.to_dict(), statistics=STATISTICS, sources=["phantom"],
            ranges=dict(age_years=[20, 90], height_m=[1.5, 1.9], weight_kg=[45, 120]),
        ),
    )  # fmt: skip
    network = UNet(**network_arguments(configuration))
    network.out_gain.data.fill_(1)
    save_weights(path, network.state_dict(), configuration)


def write_denoiser(path):
    """An untrained PET denoiser of 16 mm voxels."""
    asked = dict(voxel_mm=16.0, patch=(8, 8, 8), channels=4, multipliers=(1, 2), blocks=1, attention=())
    configuration = dict(
        kind=PET_DENOISER_KIND, preset="untrained", settings=to_dict(build(PetDenoisingSettings, asked)), dims=3,
        channels=dict(target=["SUV"], condition=["low-dose SUV", "log10 dose"]),
        codec=dict(kind="standardise", mean=[0.0], std=[0.01]),
        data=dict(
            encodings=dict(SUV=dict(kind="linear", low=0.0, high=16.0)), sources=["phantom"],
            statistics=dict(volumes_mean=[0.02], volumes_std=[0.05]),
        ),
    )  # fmt: skip
    network = UNet(**network_arguments(configuration))
    network.out_gain.data.fill_(1)
    save_weights(path, network.state_dict(), configuration)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Folder with untrained networks of cascade and denoiser, a reference, and the shipped segmenter."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    for family in ("edm", "flow"):
        for stage in ("global", "sr"):
            write_stage(folder / f"demo-{stage}-{family}.safetensors", stage)
    (folder / "demo-reference.json").write_text(json.dumps(REFERENCE))
    write_denoiser(folder / "demo-pet-edm.safetensors")
    (folder / "demo-segmenter.safetensors").symlink_to(RESOURCE / "demo-segmenter.safetensors")
    return folder


@contextlib.contextmanager
def serving(results, weights):
    """(port, jobs) of the page, served on the loopback interface by a thread."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    app = create_app(results, weights, port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listener]))
    thread.start()
    try:
        yield port, app.state.jobs
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory, weights):
    """(results folder, port, jobs) of the page."""
    results = tmp_path_factory.mktemp("app") / "results"
    with serving(results, weights) as (port, jobs):
        yield results, port, jobs
