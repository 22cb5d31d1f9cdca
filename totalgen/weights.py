"""One file, one network: tensors as safetensors, the configuration that rebuilds it as JSON in the header."""

import json
from pathlib import Path

import safetensors
import safetensors.torch

from totalgen.data.files import atomic
from totalgen.errors import InputError


def save_weights(path, state_dict, configuration, dtype=None):
    """Write tensors (optionally converted to ``dtype``) and a JSON-serialisable configuration, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    if dtype is not None:
        tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    with atomic(path) as part:
        safetensors.torch.save_file(tensors, part, metadata={"configuration": json.dumps(configuration)})
        part.chmod(0o644)  # the library makes files that nobody else can read


def load_weights(path):
    """(state_dict on the CPU, configuration). Raises InputError when the file is missing, cut short or not ours."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file. Train it with 1_Trainings, or correct the path.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            configuration = json.loads((file.metadata() or {})["configuration"])
            return {name: file.get_tensor(name) for name in file.keys()}, configuration  # noqa: SIM118 not a dict
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged, or not a weights file of this project ({error}). Copy it again.") from None
