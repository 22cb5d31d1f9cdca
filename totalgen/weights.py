"""One file, one network: tensors as safetensors, the configuration that rebuilds it as JSON in the header.

Files carry a format version. Those of an earlier version are converted when they are read, so that no file is lost:

    1  everything at the top level: stage, family, network, shape, patch, target, training, volumes, …
    2  settings (settings.TrainingSettings), channels by name, codec, data, progress
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from totalgen.data.files import atomic
from totalgen.errors import InputError

FORMAT_VERSION = 2
STAGE_KIND = "stage of the cascade"


def save_weights(
    path: str | Path, state_dict: dict[str, torch.Tensor], configuration: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Write tensors (optionally converted to ``dtype``) and a JSON-serialisable configuration, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    if dtype is not None:
        tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    header = {"format_version": str(FORMAT_VERSION), "configuration": json.dumps(configuration)}
    with atomic(path) as part:
        safetensors.torch.save_file(tensors, part, metadata=header)
        part.chmod(0o644)  # the library makes files that nobody else can read


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
            version, configuration = int(header.get("format_version", 1)), json.loads(header["configuration"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not a weights file of this project ({error}). Copy it again.") from None
    return tensors, converted(configuration, version, path)


def converted(configuration: dict[str, Any], version: int, path: Path) -> dict[str, Any]:
    """A configuration of format ``version``, of whatever is kept with tensors, in the present format.

    path: where it is from, for messages. Raises InputError for a later version and for one that lacks something.
    """
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: is of format {version}, this version reads up to {FORMAT_VERSION}. Update totalgen.")
    if version == 1 and "stage" in configuration:
        try:
            return _stage_from_version_1(configuration)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: its configuration lacks {error}. Copy the file again.") from None
    return configuration


def network_arguments(configuration: dict[str, Any]) -> dict[str, Any]:
    """Arguments of UNet for the network that a configuration describes."""
    target, condition = (len(configuration["channels"][name]) for name in ("target", "condition"))
    return dict(in_channels=target + condition, out_channels=target, **configuration["settings"]["network"])


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
