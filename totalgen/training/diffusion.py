"""Training a diffusion model of any system: archive + settings → items, denoiser, run."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from totalgen.data.archive import Archive
from totalgen.data.demographics import ranges
from totalgen.data.files import report_full_disk
from totalgen.errors import InputError
from totalgen.models.networks import UNet, coarsest, cost
from totalgen.models.processes import Denoiser
from totalgen.schema import Settings, build, to_dict
from totalgen.settings import DiffusionSettings
from totalgen.tasks.items import Items
from totalgen.tasks.systems import SYSTEMS, kind_of
from totalgen.training.loop import fit
from totalgen.training.objectives import Denoising
from totalgen.weights import load_weights, network_arguments


def train_diffusion(root: Path, outdir: Path, preset: str, settings: DiffusionSettings) -> Path:
    """Train on the archive in ``root`` and leave weights, log and pictures in ``outdir`` (see loop.fit).

    preset: the name under which the settings were chosen; their class says which system. Returns the path of the
    weights. Raises InputError for settings that the archive or a run in ``outdir`` does not allow.
    """
    items = make_items(root, settings)
    configuration = configure(items, kind_of(settings), preset, settings)
    initial = initial_weights(settings.run.init_from, configuration)
    torch.manual_seed(settings.run.seed)
    process = settings.process
    network = UNet(**network_arguments(configuration))
    denoiser = Denoiser(network, process.family, process.uncertainty, process.loss)
    if initial is not None:
        denoiser.network.load_state_dict(initial)
    with report_full_disk(outdir):
        return fit(Denoising(denoiser, process, items.task.weight), items, outdir, configuration, settings)


def make_items(root: Path, settings: DiffusionSettings, split: str = "train") -> Items:
    """The items that these settings describe. Raises InputError when the archive in ``root`` does not fit them."""
    system = SYSTEMS[kind_of(settings)]
    archive = Archive(root / f"{system.archive}.zarr")
    task = system.task(settings, dict(template=None) | archive.data)  # Task.prepare measures what is None
    items = Items(task, archive, split, settings.run.seed)
    task.prepare(archive, archive.indices("train", task.partial))
    network = settings.network
    stride = coarsest(network.multipliers, network.strides, task.dims)
    if not network.any_shape and any(n % s for n, s in zip(task.space, stride, strict=True)):
        raise InputError(
            f"{'×'.join(map(str, task.space))} voxels are learnt at a time, not divisible by {max(stride)}. "
            "Use fewer levels, or --set any_shape=True."
        )
    return items


def configure(items: Items, kind: str, preset: str, settings: Settings, **found: Any) -> dict[str, Any]:
    """What is kept with the weights: settings, channels, codec, and what the archive knows of its data.

    kind: of the weights;  found: what else is known of the data.
    """
    archive, task = items.archive, items.task
    if archive.recipe.person:
        found["ranges"] = ranges(archive.demographics(row) for row in items.subjects)
    return dict(
        kind=kind,
        preset=preset,
        settings=to_dict(settings),
        channels=dict(target=list(task.target), condition=list(task.given)),
        codec=task.codec.settings,
        dims=task.dims,
        data=dict(
            **archive.data, **task.measured, **found,
            subjects=len(items.subjects), sources=sorted({row.get("source", "unknown") for row in archive.subjects}),
        ),
    )  # fmt: skip


def initial_weights(
    path: Path | None, configuration: dict[str, Any], decisive: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> dict[str, torch.Tensor] | None:
    """Tensors of the weights file ``path``, or None without one; its hash goes into ``configuration``.

    decisive: configuration → what both must share; default: what a stage of the cascade must.
    Raises InputError when the file is of another kind, or differs in what is decisive. Another family (a flow that
    begins with the layers of a diffusion) is said aloud.
    """
    if path is None:
        return None
    state, other = load_weights(path)
    if other.get("kind") != configuration["kind"]:
        raise InputError(f"{path}: holds no {configuration['kind']}. Give weights of the same training script.")
    theirs, ours = ((decisive or _decisive)(each) for each in (other, configuration))
    if decisive is None and (more := _added(*(each["channels"].get("condition", []) for each in (theirs, ours)))):
        click.echo(f"Warning: {path}: was not given {', '.join(more)}, which begin without weight.", err=True)
        theirs["channels"]["condition"] = ours["channels"]["condition"]
        ones = state["first.weight"][:, -1:]  # the network's own channel comes last
        new = torch.zeros_like(ones).repeat_interleave(len(more), dim=1)
        state["first.weight"] = torch.cat([state["first.weight"][:, :-1], new, ones], dim=1)
    if changed := [name for name in ours if theirs[name] != ours[name]]:
        raise InputError(f"{path}: differs in {', '.join(changed)} from what is trained. Give weights of the same.")
    families = [each["settings"].get("process", {}).get("family") for each in (other, configuration)]
    if families[0] != families[1]:
        said = f"Warning: {path}: of family {families[0]}, begins one of {families[1]}; what σ means is learnt anew."
        click.echo(said, err=True)
    configuration["initialised_from"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {name: value.float() for name, value in state.items()}


def _added(theirs, ours):
    """What follows in a list after all of another; nothing where it does not begin with that."""
    return ours[len(theirs) :] if ours[: len(theirs)] == theirs else []


def _decisive(configuration):
    """What weights must share with a training that starts from them; what was not a setting yet has its default."""
    settings = build(SYSTEMS[configuration["kind"]].settings, configuration["settings"])
    return dict(
        stage=getattr(settings, "stage", None),
        channels={name: list(each) for name, each in configuration["channels"].items()},
        target=settings.task.target, dims=configuration.get("dims", 3),
        network=dataclasses.replace(settings.network, any_shape=False),  # how it is computed, not what it holds
    )  # fmt: skip


def describe(root: Path, preset: str, settings: DiffusionSettings) -> str:
    """The configuration, the size and cost of its network and the data it found, as text. Nothing is allocated."""
    items = make_items(root, settings)
    configuration = configure(items, kind_of(settings), preset, settings)
    initial_weights(settings.run.init_from, configuration)
    parameters, flop = cost(network_arguments(configuration), items.task.space)
    gflop, count = flop / 1e9, settings.run.items
    if "template" in (data := configuration["data"]):
        data["template"] = f"{' x '.join(map(str, data['template']['shape']))} numbers"
    return "\n".join(
        [
            json.dumps(configuration, indent=1),
            f"parameters       {parameters:,} ({parameters / 1e6:.1f} M)",
            f"one evaluation   {gflop:,.1f} GFLOP at {'×'.join(map(str, items.task.space))}",
            f"whole training   {3 * gflop * count / 1e3:,.0f} TFLOP for {count:,} items (forward and backward)",
            f"data             {items.archive.path}: {len(items.subjects)} training subjects",
        ]
    )
