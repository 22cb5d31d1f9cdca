"""Any averaging profile of a finished run, put together from the averages that were kept during training."""

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from totalgen.errors import InputError
from totalgen.models.ema import combination
from totalgen.models.networks import UNet
from totalgen.settings import EMA_WIDTHS
from totalgen.weights import VQVAE_KIND, load_weights, network_arguments, save_weights

MISFIT_LIMIT = 0.05  # of a combined profile, relative to the wanted one


def average_path(outdir: str | Path, sigma_rel: float, step: int | None = None) -> Path:
    """Where a run keeps its average of width ``sigma_rel``, of its end or as if it had ended after ``step``."""
    at = "" if step is None else f"-step_{step:08d}"
    return Path(outdir) / f"ema-{sigma_rel:.3f}{at}.safetensors"


def snapshot_path(outdir: str | Path, step: int, sigma_rel: float) -> Path:
    """Where a run keeps its average of width ``sigma_rel`` after a step, for ``reconstruct``."""
    return Path(outdir) / "snapshots" / f"step_{step:08d}-{sigma_rel:.3f}.safetensors"


def snapshots(run: Path) -> dict[Path, tuple[int, float]]:
    """Files of the averages that a run keeps → (step, width). Others among them, such as copies, are named and left."""
    found = {}
    for path in sorted((run / "snapshots").glob("step_*.safetensors")):
        parts = re.fullmatch(r"step_(\d+)-(\d+\.\d+)", path.stem)
        if parts is None:
            click.echo(f"Warning: {path}: has no name of a snapshot and is left out.", err=True)
            continue
        found[path] = int(parts[1]), float(parts[2])
    return found


def reconstruct(run: str | Path, sigma_rel: float, step: int | None = None) -> tuple[Path, float]:
    """Write the average of relative width ``sigma_rel`` after ``step`` (the last snapshot's) of the run in a folder.

    Returns (path, misfit): <run>/ema-<σ_rel>.safetensors, or …-step_… when a step is given, and how far the combined
    profile is from the wanted one (see ema.combination). Raises InputError when there are no snapshots, when they do
    not reach the step, and when their combination is not near enough.
    """
    run = Path(run)
    paths = snapshots(run)
    if not paths:
        raise InputError(f"{run / 'snapshots'}: holds no snapshot. Give the folder of a run of train_totalgen.py.")
    low, high = EMA_WIDTHS
    if not low <= sigma_rel <= high:
        raise InputError(f"sigma_rel is {sigma_rel:g}; {low:g} to {high:g} can be made. Change it.")
    stored = list(paths.values())
    last = max(at for at, _ in stored)
    wanted = last if step is None else step
    first = min(at for at, _ in stored)
    if not first <= wanted <= last:
        raise InputError(f"{run}: step {wanted} is not from {first} to {last}, its snapshots. Choose one of these.")
    coefficients, misfit = combination(stored, wanted, sigma_rel)
    if misfit > MISFIT_LIMIT:
        raise InputError(
            f"{run}: its snapshots meet an average of width {sigma_rel:g} after step {wanted} within "
            f"{100 * misfit:.0f} % only, {100 * MISFIT_LIMIT:g} % are allowed. Choose a later step or another width."
        )
    made = average_path(run, sigma_rel, step)
    _refuse_replacing(made, sigma_rel, wanted)
    nearest = min(paths, key=lambda each: abs(paths[each][0] - wanted))
    fixed, configuration = load_weights(nearest)
    if paths[nearest][0] != wanted and configuration["kind"] == VQVAE_KIND:
        raise InputError(f"{run}: no snapshot is of step {wanted}, and a codebook is not averaged. Choose one that is.")
    total: dict[str, torch.Tensor] = {}
    hours: dict[int, float] = {}
    for path, (at, _), coefficient in zip(paths, stored, coefficients, strict=True):
        tensors, configuration = load_weights(path)
        progress = configuration["progress"]
        hours[at] = progress["hours"]
        for name, value in tensors.items():
            total[name] = total.get(name, 0) + coefficient * value.double()
    taken = configuration["taken"] if "taken" in configuration else buffers(configuration)
    total |= {name: fixed[name] for name in taken}  # fixed numbers and codebooks, not learnt: as they are
    dtype = next(iter(tensors.values())).dtype
    items = progress["items"] // progress["steps"] * wanted
    spent = round(float(np.interp(wanted, [0, *hours], [0, *hours.values()])), 3)
    configuration["progress"] = progress | dict(steps=wanted, items=items, hours=spent, sigma_rel=sigma_rel)
    save_weights(made, total, configuration, dtype)
    return made, misfit


def _refuse_replacing(made, sigma_rel, step):
    """InputError where ``made`` is of another width, or of a later step."""
    if not made.exists():
        return
    there = load_weights(made)[1]["progress"]
    if (width := there.get("sigma_rel", sigma_rel)) != sigma_rel:
        raise InputError(f"{made}: is of width {width:g}, and {sigma_rel:g} would replace it. Move it away.")
    if there["steps"] > step:
        raise InputError(
            f"{made}: is of step {there['steps']}, and the last snapshot is of {step}. Give --step {step}, which makes "
            "another file, or move it away."
        )


def buffers(configuration: dict[str, Any]) -> set[str]:
    """Names of the tensors of a network that are not learnt, where its file does not list them: until 2026 there was
    one kind of network. Nothing is allocated.
    """
    with torch.device("meta"):
        return {name for name, _ in UNet(**network_arguments(configuration)).named_buffers()}
