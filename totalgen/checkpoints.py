"""Checkpoints of a training run: all its tensors in one file, written atomically; the newest intact one is read."""

import json
from pathlib import Path

import click
import torch

from totalgen.data.files import atomic
from totalgen.data.text_files import read_json_lines
from totalgen.errors import InputError
from totalgen.weights import load_weights, save_weights

KEEP = 2
RENAMED = {"volumes": "items", "volumes_per_s": "items_per_s"}  # in logs of format 1 (see weights)
MOMENTS = ("exp_avg", "exp_avg_sq")  # what torch's Adam and AdamW remember of a parameter


def save_checkpoint(folder: str | Path, step: int, tensors: dict[str, torch.Tensor]) -> None:
    """Write <folder>/step_########.safetensors and drop all but the newest KEEP; copies of other names stay.

    Checkpoints of later steps were passed over as damaged, or
    this one would not have been trained: they go first.
    """
    folder = Path(folder)
    path = folder / f"step_{step:08d}.safetensors"
    save_weights(path, tensors, {"step": step})
    files = sorted(folder.glob(f"step_{8 * '[0-9]'}.safetensors"))
    for old in (*files[files.index(path) + 1 :], *files[: files.index(path) + 1][:-KEEP]):
        old.unlink()


def checkpoints(folder: str | Path) -> list[Path]:
    """The files of checkpoints in ``folder``, the newest first, damaged ones too."""
    return sorted(Path(folder).glob("step_*.safetensors"), reverse=True)


def newest_checkpoint(folder: str | Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """(step, tensors) of the newest file that can be read, or None where there is none.

    A damaged one is named on standard error. Raises InputError when all are: a run that has checkpoints does not begin
    anew without being told.
    """
    damaged = []
    for path in checkpoints(folder):
        try:
            tensors, configuration = load_weights(path)
            step = int(configuration["step"])
        except (InputError, KeyError, TypeError, ValueError):
            damaged.append(path)
            continue
        for bad in damaged:
            click.echo(f"Warning: {bad}: is damaged; the run goes on from step {step}.", err=True)
        return step, tensors
    if damaged:
        raise InputError(f"{damaged[0]}: is damaged, and no other can be read. Remove {folder} to begin at step 0.")
    return None


def flatten(**parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Nested state: name → dict of tensors, flattened to "name/key"."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The entries under ``name``, without that prefix."""
    prefix = f"{name}/"
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
    found = read_json_lines(path, "Remove it: the run goes on and begins a new one.")
    lines = [{RENAMED.get(k, k): value for k, value in line.items()} for line in found]
    with atomic(path) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines if line.get("step", 0) <= done))
