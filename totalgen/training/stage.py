"""Training one stage of the cascade: archive + settings → task, denoiser, run."""

import hashlib
import inspect
import json
from pathlib import Path

import torch

from totalgen.data.archive import CHANNELS, Archive
from totalgen.data.files import report_full_disk
from totalgen.data.resolution import FACTOR
from totalgen.errors import InputError, closest
from totalgen.models.networks import RECOMPUTE, UNet, cost
from totalgen.models.precision import PRECISIONS
from totalgen.models.processes import FAMILIES, NOISE_LEVELS, Denoiser
from totalgen.training.loop import fit
from totalgen.training.tasks import GlobalTask, SuperResolutionTask
from totalgen.weights import load_weights

STAGES = {"global": GlobalTask, "sr": SuperResolutionTask}
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def train_stage(
    root, outdir, preset, *,
    stage, family,
    shape=(224, 224, 384), partial_torsos=False, patch=(56, 56, 96), target="residual", condition_noise=0.0,
    placement="uniform",
    channels=64, multipliers=(1, 2, 3, 4), blocks=3, attention=(3,), lean=False,
    noise_levels="lognormal", noise_parameters=None, uncertainty=False,
    batch=2048, microbatch=8, volumes=16_252_000, lr=0.017, lr_decay_steps=35_000, rampup_items=10_000_000,
    ema=(0.05, 0.10), seed=0, workers=2, checkpoint_steps=100, snapshot_steps=250, picture_steps=1000,
    weights_dtype="float32", precision="auto", recompute=None, compiled=False, init_from=None, dry_run=False,
):  # fmt: skip
    """Train one stage on <root>/training.zarr and leave weights, log and pictures in ``outdir`` (see loop.fit).

    stage: "global" or "sr";  family: a key of processes.FAMILIES;  shape: voxels of the full resolution;
    partial_torsos: train also on subjects whose scan ends within the torso;
    patch, target, condition_noise, placement: of the second stage (tasks.SuperResolutionTask);
    channels, multipliers, blocks, attention, lean: of the network (networks.UNet);
    noise_levels, noise_parameters, uncertainty: how training draws σ and weighs it (processes);
    batch, microbatch, volumes, lr, …: the run (loop.fit); more volumes later go on from the same folder;
    precision: "auto", "float32" or "bfloat16" (precision.autocast);  recompute: None, or what to compute again for the
    gradients rather than keep, "pointwise" or "blocks" (networks.RECOMPUTE);  compiled: through torch.compile;
    init_from: weights file of the same network, from which a new run starts instead of from random weights.
    dry_run: only describe. Returns the path of the weights, or the description as text.
    """
    closest(stage, STAGES)
    closest(family, FAMILIES)
    check_parameters(closest(noise_levels, NOISE_LEVELS), noise_parameters or {})
    closest(weights_dtype, DTYPES)
    closest(precision, dict.fromkeys(PRECISIONS))
    if recompute is not None:
        closest(recompute, RECOMPUTE)
    for name, voxels in (("shape", shape), ("patch", patch)):
        if len(voxels) != 3:
            raise InputError(f"{name} {tuple(voxels)} has {len(voxels)} numbers, not 3. Give voxels along x, y and z.")
    archive = Archive(root / "training.zarr")
    if stage == "global":
        task, space = GlobalTask(archive, shape, seed=seed, partial=partial_torsos), [n // FACTOR for n in shape]
    else:
        chosen = dict(seed=seed, partial=partial_torsos, target=target, condition_noise=condition_noise)
        chosen["placement"] = placement
        task, space = SuperResolutionTask(archive, shape, patch, **chosen), patch
    network = dict(
        in_channels=len(CHANNELS) + task.condition_channels, out_channels=len(CHANNELS),
        channels=channels, multipliers=list(multipliers), blocks=blocks, attention=list(attention),
        lean=lean,
    )  # fmt: skip
    stride = 2 ** (len(multipliers) - 1)
    if any(n % stride for n in space):
        raise InputError(f"{stage} stage works on {tuple(space)} voxels, not divisible by {stride}. Use fewer levels.")
    configuration = dict(
        preset=preset, stage=stage, family=family, network=network, shape=list(shape), patch=list(patch), target=target,
        codec=task.codec_parameters,
        data=dict(
            voxel_mm=archive.voxel_mm, axial_extent=archive.axial_extent, statistics=archive.statistics,
            subjects=len(task.subjects), sources=sorted({row.get("source", "unknown") for row in archive.subjects}),
        ),
        training=dict(
            batch=batch, lr=lr, lr_decay_steps=lr_decay_steps, rampup_items=rampup_items,
            noise_levels=noise_levels, noise_parameters=noise_parameters or {}, uncertainty=uncertainty,
            condition_noise=condition_noise, placement=placement, ema=list(ema), seed=seed,
        ),
    )  # fmt: skip
    initial = initial_weights(init_from, configuration)
    if dry_run:
        return describe(configuration, space, task, volumes)
    torch.manual_seed(seed)
    denoiser = Denoiser(UNet(**network), family, uncertainty)
    if initial is not None:
        denoiser.network.load_state_dict(initial)
    denoiser.network.recompute = recompute
    if compiled:
        denoiser.network.compile()
    run = dict(
        batch=batch, microbatch=microbatch, volumes=volumes, lr=lr, lr_decay_steps=lr_decay_steps,
        rampup_items=rampup_items, noise_levels=noise_levels, noise_parameters=noise_parameters or {},
        ema=tuple(ema), seed=seed, workers=workers, checkpoint_steps=checkpoint_steps, snapshot_steps=snapshot_steps,
        picture_steps=picture_steps, weights_dtype=DTYPES[weights_dtype],
        precision=precision,
    )  # fmt: skip
    with report_full_disk(outdir):
        return fit(denoiser, task, outdir, configuration, **run)


def initial_weights(path, configuration):
    """Tensors of the weights file ``path``, or None without one; its hash goes into ``configuration``.

    Raises InputError when the file is for another stage, or holds another network.
    """
    if path is None:
        return None
    state, other = load_weights(path)
    if changed := [k for k in ("stage", "family", "target", "network") if other.get(k) != configuration[k]]:
        raise InputError(f"{path}: differs in {', '.join(changed)} from what is trained. Give weights of the same.")
    configuration["initialised_from"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {name: value.float() for name, value in state.items()}


def check_parameters(levels, parameters):
    """InputError when a function of NOISE_LEVELS does not take ``parameters``."""
    if not isinstance(parameters, dict):
        raise InputError(f"noise_parameters is {parameters!r}, not a dict. Give {{'mean': 0, 'std': 1}}.")
    known = list(inspect.signature(levels).parameters)[1:]
    for name, value in parameters.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InputError(f"noise_parameters: {levels.__name__} has no {name}; {takes}. Change or leave out {name}.")
        if not isinstance(value, (int, float)):
            raise InputError(f"noise_parameters: {name} is {value!r}, not a number. Give one.")


def describe(configuration, space, task, volumes):
    """The configuration, the size and cost of its network and the data it found, as text. Nothing is allocated."""
    parameters, flop = cost(configuration["network"], space)
    gflop = flop / 1e9
    return "\n".join(
        [
            json.dumps(configuration, indent=1),
            f"parameters       {parameters:,} ({parameters / 1e6:.1f} M)",
            f"one evaluation   {gflop:,.1f} GFLOP at {'×'.join(map(str, space))}",
            f"whole training   {3 * gflop * volumes / 1e3:,.0f} TFLOP for {volumes:,} items (forward and backward)",
            f"data             {task.archive.path}: {len(task.subjects)} training subjects, "
            f"{'×'.join(map(str, task.shape))} voxels of {task.archive.voxel_mm:g} mm",
        ]
    )
