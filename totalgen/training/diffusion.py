"""Training a diffusion model of any system: archive + settings → items, denoiser, run."""

import json
from pathlib import Path

import torch

from totalgen.data.archive import Archive
from totalgen.data.files import report_full_disk
from totalgen.errors import InputError
from totalgen.models.networks import UNet, coarsest, cost
from totalgen.models.processes import Denoiser
from totalgen.settings import DiffusionSettings
from totalgen.tasks.items import Items
from totalgen.tasks.petct import CascadeTask
from totalgen.tasks.systems import SYSTEMS, kind_of
from totalgen.training.beginning import configure, initial_weights
from totalgen.training.loop import fit
from totalgen.training.objectives import Denoising
from totalgen.weights import network_arguments


def train_diffusion(root: Path, outdir: Path, preset: str, settings: DiffusionSettings) -> Path:
    """Train on the archive in ``root`` and leave weights, log and pictures in ``outdir`` (see loop.fit).

    preset: the name under which the settings were chosen; their class says which system. Returns the path of the
    weights. Raises InputError for settings that the archive or a run in ``outdir`` does not allow.
    """
    items = make_items(root, settings)
    configuration = configure(items, kind_of(settings), preset, settings)
    initial = initial_weights(settings.run.init_from, configuration, outdir)
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
    if len(network.strides) not in (0, task.dims):
        raise InputError(f"strides is {network.strides!r}; this network has {task.dims} axes. Give one for each.")
    stride = coarsest(network.multipliers, network.strides, task.dims)
    wide = task.shape[:2] if isinstance(task, CascadeTask) else ()  # the sr stage goes over whole slices
    for space, what in ((task.space, "learnt"), (wide, "generated")):
        if not network.any_shape and any(n % s for n, s in zip(space, stride, strict=False)):
            raise InputError(
                f"{'×'.join(map(str, space))} voxels are {what} at a time, not divisible by {max(stride)}. "
                "Use fewer levels, or --set any_shape=True."
            )
    return items


def describe(root: Path, outdir: Path, preset: str, settings: DiffusionSettings) -> str:
    """The configuration, the size and cost of its network and the data it found, as text: what ``train_diffusion``
    would begin, or go on with, in ``outdir``. Nothing is allocated."""
    items = make_items(root, settings)
    configuration = configure(items, kind_of(settings), preset, settings)
    initial_weights(settings.run.init_from, configuration, outdir)
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
