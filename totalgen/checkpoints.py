"""Checkpoints of a training run: all its tensors in one file, written atomically; the newest intact one is read."""

import json
from pathlib import Path
from typing import Any

import torch

from totalgen.data.files import atomic
from totalgen.errors import InputError
from totalgen.weights import load_weights, save_weights

KEEP = 2
RENAMED = {"volumes": "items", "volumes_per_s": "items_per_s"}  # in logs of format 1 (see weights)
MOMENTS = ("exp_avg", "exp_avg_sq")  # what torch's Adam and AdamW remember of a parameter


def save_checkpoint(
    folder: str | Path, step: int, tensors: dict[str, torch.Tensor], kind: str, **more: Any
) -> None:
    """Write <folder>/step_########.safetensors and drop all but the newest KEEP.

    kind: of training;  more: JSON values that go with it. Checkpoints of later steps were passed over as damaged, or
    this one would not have been trained: they go first.
    """
    folder = Path(folder)
    path = folder / f"step_{step:08d}.safetensors"
    save_weights(path, tensors, {"kind": kind, "step": step, **more})
    files = sorted(folder.glob("step_*.safetensors"))
    for old in (*files[files.index(path) + 1 :], *files[: files.index(path) + 1][:-KEEP]):
        old.unlink()


def newest_checkpoint(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """(dict of the step and what was saved with it, tensors) of the newest file that can be read, or None.

    Raises InputError when it belongs to another kind of training.
    """
    for path in sorted(Path(folder).glob("step_*.safetensors"), reverse=True):
        try:
            tensors, configuration = load_weights(path)
        except InputError:
            continue
        if configuration.get("kind") != kind:
            raise InputError(f"{path}: is a checkpoint of another training, not of a {kind}. Choose another --outdir.")
        return configuration, tensors
    return None


def flatten(**parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Nested state: name → dict of tensors, flattened to "name/key"."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def part(tensors: dict[str, torch.Tensor], name: str, separator: str = "/") -> dict[str, torch.Tensor]:
    """The entries under ``name``, without that prefix."""
    prefix = name + separator
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def adam_moments(
    optimiser: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Flat name → tensor: the two moments of every parameter. parameters: dict of name → parameter."""
    return {f"{k}/{name}": optimiser.state[p][k] for name, p in parameters.items() for k in MOMENTS}


def load_adam_moments(
    optimiser: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], moments: dict[str, torch.Tensor],
    step: int,
) -> None:  # fmt: skip
    """Put them back, after optimiser step ``step``."""
    for name, parameter in parameters.items():
        optimiser.state[parameter] = {
            "step": torch.tensor(float(step)),
            **{k: moments[f"{k}/{name}"].to(parameter.device) for k in MOMENTS},
        }


def trim_log(path: Path, done: int) -> None:
    """Drop the log lines after step ``done``: they were trained after the checkpoint and are trained again."""
    if not path.exists():
        return
    complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    lines = [{RENAMED.get(k, k): value for k, value in json.loads(line).items()} for line in complete]
    with atomic(path) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] <= done))
