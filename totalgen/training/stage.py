"""Training one stage of the cascade: archive + settings → items, denoiser, run."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from totalgen.data.archive import Archive
from totalgen.data.demographics import ranges
from totalgen.data.files import report_full_disk
from totalgen.errors import InputError
from totalgen.models.networks import UNet, cost
from totalgen.models.processes import Denoiser
from totalgen.schema import to_dict
from totalgen.settings import TrainingSettings
from totalgen.tasks.items import Items
from totalgen.tasks.petct import STAGES
from totalgen.training.loop import fit
from totalgen.training.objectives import Denoising
from totalgen.weights import STAGE_KIND, load_weights, network_arguments


def train_stage(root: Path, outdir: Path, preset: str, settings: TrainingSettings) -> Path:
    """Train one stage on <root>/training.zarr and leave weights, log and pictures in ``outdir`` (see loop.fit).

    preset: the name under which the settings were chosen. Returns the path of the weights.
    Raises InputError for settings that the archive or a run in ``outdir`` does not allow.
    """
    items = make_items(root, settings)
    configuration = configure(items, preset, settings)
    initial = initial_weights(settings.run.init_from, configuration)
    torch.manual_seed(settings.run.seed)
    denoiser = Denoiser(UNet(**network_arguments(configuration)), settings.process.family, settings.process.uncertainty)
    if initial is not None:
        denoiser.network.load_state_dict(initial)
    with report_full_disk(outdir):
        return fit(Denoising(denoiser, settings.process), items, outdir, configuration, settings)


def make_items(root: Path, settings: TrainingSettings, split: str = "train") -> Items:
    """The items of ``settings.stage`` on <root>/training.zarr. Raises InputError when the archive does not fit it."""
    archive, about, stage = Archive(root / "training.zarr"), settings.task, settings.stage
    task = STAGES[stage](about, dict(statistics=archive.statistics))
    if archive.axial != about.axial:
        raise InputError(
            f"{archive.path}: was packed with --axial {archive.axial}, the preset expects {about.axial}. "
            f"Pack it again, or choose another preset."
        )
    network = settings.network
    strides = [n ** (len(network.multipliers) - 1) for n in network.strides or (2,) * task.dims]
    if not network.any_shape and any(n % stride for n, stride in zip(task.space, strides, strict=True)):
        raise InputError(
            f"{stage} stage works on {task.space} voxels, not divisible by {max(strides)}. "
            "Use fewer levels, or --set any_shape=True."
        )
    return Items(task, archive, about.shape, split, settings.run.seed, about.partial_torsos)


def configure(items: Items, preset: str, settings: TrainingSettings) -> dict[str, Any]:
    """What is kept with the weights: settings, channels, codec, and what the archive knows of its data."""
    archive, task = items.archive, items.task
    return dict(
        kind=STAGE_KIND,
        preset=preset,
        settings=to_dict(settings),
        channels=dict(target=list(task.target), condition=list(task.given)),
        codec=task.codec_settings,
        data=dict(
            voxel_mm=archive.voxel_mm, axial_extent=archive.axial_extent, statistics=archive.statistics,
            ranges=ranges(archive.demographics(row) for row in items.subjects),
            subjects=len(items.subjects), sources=sorted({row.get("source", "unknown") for row in archive.subjects}),
        ),
    )  # fmt: skip


def initial_weights(path: Path | None, configuration: dict[str, Any]) -> dict[str, torch.Tensor] | None:
    """Tensors of the weights file ``path``, or None without one; its hash goes into ``configuration``.

    Raises InputError when the file is for another stage, or holds another network.
    """
    if path is None:
        return None
    state, other = load_weights(path)
    if other.get("kind") != STAGE_KIND:
        raise InputError(f"{path}: holds no stage of the cascade. Give weights of train_totalgen.py.")
    pairs = {"channels": (other["channels"], configuration["channels"])}
    for name in ("stage", "network"):
        pairs[name] = other["settings"][name], configuration["settings"][name]
    pairs["family"] = tuple(c["settings"]["process"]["family"] for c in (other, configuration))
    pairs["target"] = tuple(c["settings"]["task"]["target"] for c in (other, configuration))
    if changed := [name for name, (theirs, ours) in pairs.items() if theirs != ours]:
        raise InputError(f"{path}: differs in {', '.join(changed)} from what is trained. Give weights of the same.")
    configuration["initialised_from"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {name: value.float() for name, value in state.items()}


def describe(root: Path, preset: str, settings: TrainingSettings) -> str:
    """The configuration, the size and cost of its network and the data it found, as text. Nothing is allocated."""
    items = make_items(root, settings)
    configuration = configure(items, preset, settings)
    initial_weights(settings.run.init_from, configuration)
    parameters, flop = cost(network_arguments(configuration), items.task.space)
    gflop, count = flop / 1e9, settings.run.items
    return "\n".join(
        [
            json.dumps(configuration, indent=1),
            f"parameters       {parameters:,} ({parameters / 1e6:.1f} M)",
            f"one evaluation   {gflop:,.1f} GFLOP at {'×'.join(map(str, items.task.space))}",
            f"whole training   {3 * gflop * count / 1e3:,.0f} TFLOP for {count:,} items (forward and backward)",
            f"data             {items.archive.path}: {len(items.subjects)} training subjects, "
            f"{'×'.join(map(str, items.archive.shape))} voxels of {items.archive.voxel_mm:g} mm",
        ]
    )
