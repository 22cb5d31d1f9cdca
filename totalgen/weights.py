"""One file, one network: tensors as safetensors, the configuration that rebuilds it as JSON in the header.

Files carry a format version. Those of an earlier version are converted when they are read, so that no file is lost:

    1  everything at the top level: stage, family, network, shape, patch, target, training, volumes, …
    2  settings (settings.TrainingSettings), channels by name, codec, data, progress; segmenters as in 1
    3  the same for segmenters; data has the encodings
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from totalgen.data.files import atomic
from totalgen.data.intensity import PET_CT
from totalgen.data.recipes import LEARNT_FROM, VQVAE
from totalgen.data.text_files import loads
from totalgen.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
FORMAT_VERSION = 3
STAGE_KIND, SEGMENTER_KIND, PET_DENOISER_KIND = "stage of the cascade", "segmenter", "PET denoiser"
TRANSLATOR_KIND, VQVAE_KIND, REFINER_KIND = "CT-to-MR translator", "VQ-VAE", "refiner of stacked slices"


def save_weights(
    path: str | Path, state_dict: dict[str, torch.Tensor], configuration: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Write tensors (optionally converted to ``dtype``) and a JSON-serialisable configuration, atomically.

    A tensor with values that ``dtype`` cannot hold, such as a codebook that has just begun, stays as it is.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    if dtype is not None:
        tensors = {name: _as(value, dtype) for name, value in tensors.items()}
    header = {"format_version": str(FORMAT_VERSION), "configuration": json.dumps(configuration)}
    with atomic(path) as part:
        with _system_errors(path):
            safetensors.torch.save_file(tensors, part, metadata=header)
        part.chmod(0o644)  # the library makes files that nobody else can read


def _as(value, dtype):
    fits = value.is_floating_point() and bool((value.abs() <= torch.finfo(dtype).max).all())
    return value.to(dtype) if fits else value


@contextlib.contextmanager
def _system_errors(path):
    """Within this context, what the system refuses to safetensors, which says so in words alone, is an OSError."""
    try:
        yield
    except safetensors.SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


def load_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(state_dict on the CPU, configuration of the present format version).

    Raises InputError when the file is missing, cut short, not ours, or of a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file. Train it with 1_Trainings, or correct the path.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            version, configuration = int(header.get("format_version", 1)), loads(header["configuration"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not a weights file of this project ({error}). Copy it again.") from None
    if not isinstance(configuration, dict):
        raise InputError(f"{path}: its configuration is a {type(configuration).__name__}. Copy the file again.")
    return tensors, converted(configuration, version, path)


@contextlib.contextmanager
def described(path: str | Path) -> Iterator[None]:
    """Within this context, what a configuration lacks or has of another kind is an InputError that names the file."""
    try:
        yield
    except InputError as error:
        message = str(error)
        raise (error if str(path) in message else InputError(f"{path}: {message}")) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(f"{path}: its header describes no network of this version ({why}). Copy it again.") from None


def filled(path: str | Path, make: Callable[[], Network], state: dict[str, torch.Tensor]) -> Network:
    """make() with the tensors of a file, in float32. Names and shapes are compared before anything is allocated.

    Raises InputError for tensors that are not those of the network, and for values that are not finite.
    """
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if differing := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = differing[0]
        shapes = " where ".join(str(each.get(name, "nothing")) for each in (found, expected))
        raise InputError(
            f"{path}: {len(differing)} tensors do not fit the network of its header, {name} first ({shapes} is "
            "expected). It was damaged, or made by another version: copy it again, or train it again."
        )
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite. Take an earlier average of the run.")
    network = make()
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network


def converted(configuration: dict[str, Any], version: int, path: Path) -> dict[str, Any]:
    """A configuration of format ``version``, of whatever is kept with tensors, in the present format.

    path: where it is from, for messages. Raises InputError for a later version and for one that lacks something.
    """
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: is of format {version}, this version reads up to {FORMAT_VERSION}. Update totalgen.")
    old_stage = version == 1 and "stage" in configuration
    old_segmenter = version < 3 and configuration.get("kind") == SEGMENTER_KIND and "step" not in configuration
    if old_stage or old_segmenter:
        try:
            return (_stage_from_version_1 if old_stage else _segmenter_from_version_2)(configuration)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: its configuration lacks {error}. Copy the file again.") from None
    return configuration


def known_data(data: dict[str, Any]) -> dict[str, Any]:
    """What files of one run agree on about its data: ranges, encodings, the VQ-VAE of latents and what tells
    the training's rows from others were not kept from the first; what calibrate_organs.py measured is of one file."""
    known = {name: value for name, value in data.items() if name not in ("ranges", "organs", VQVAE, LEARNT_FROM)}
    return dict(encodings={name: asdict(code) for name, code in PET_CT.items()}) | known


def network_arguments(configuration: dict[str, Any]) -> dict[str, Any]:
    """Arguments of UNet for the network that a configuration describes."""
    target, condition = (len(configuration["channels"][name]) for name in ("target", "condition"))
    dims = configuration.get("dims", 3)
    return dict(in_channels=target + condition, out_channels=target, dims=dims, **configuration["settings"]["network"])


def _segmenter_from_version_2(old):
    data = {name: old[name] for name in ("ids", "shares", "voxel_mm", "subjects")}
    run = dict(items=old["steps"] * old["batch"], batch=old["batch"], lr=old["lr"], seed=old["seed"])
    new = dict(
        kind=SEGMENTER_KIND,
        preset="",
        settings=dict(patch=old["patch"], channels=old["channels"], run=run),
        channels=dict(target=["organs"], condition=["CT"]),
        codec=dict(kind="identity"),
        data=data | dict(sources=old.get("source", [])),
    )
    return new | {name: old[name] for name in ("dice", "test_subjects") if name in old}


_DEMOGRAPHICS_1 = ["height_m", "weight_kg / 100", "age_years / 100", "sex"]
_CONDITION_1 = {"global": _DEMOGRAPHICS_1, "sr": ["CT", "SUV", *_DEMOGRAPHICS_1, "x", "y", "z"]}


def _stage_from_version_1(old):
    training, network, stage = old["training"], dict(old["network"]), old["stage"]
    for channels in ("in_channels", "out_channels"):
        network.pop(channels)
    noise = training.get("noise_parameters", {})
    run = {name: training[name] for name in ("batch", "lr", "lr_decay_steps", "ema", "seed")}
    new = dict(
        kind=STAGE_KIND,
        preset=old["preset"],
        settings=dict(
            stage=stage,
            task=dict(
                shape=old["shape"], patch=old["patch"], target=old["target"],
                condition_noise=training["condition_noise"], placement=training.get("placement", "uniform"),
            ),
            network=network,
            process=dict(
                family=old["family"], uncertainty=training["uncertainty"], noise_levels=training["noise_levels"],
                **{f"noise_{name}": value for name, value in noise.items()},
            ),
            run=run | dict(rampup_items=training["rampup_volumes"]),
        ),
        channels=dict(target=["CT", "SUV"], condition=_CONDITION_1[stage]),
        codec=old["codec"],
        data=old["data"],
    )  # fmt: skip
    if "initialised_from" in old:
        new["initialised_from"] = old["initialised_from"]
    if "steps" in old:
        names = dict(steps="steps", items="volumes", hours="hours", sigma_rel="sigma_rel", precision="precision")
        new["progress"] = {name: old[key] for name, key in names.items() if key in old}
    return new
