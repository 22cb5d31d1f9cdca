"""The one training loop: any denoiser, any task, one process or many, interrupted at will."""

import contextlib
import functools
import json
import math
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import psutil
import torch
from tensorboardX import SummaryWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from totalgen import distributed
from totalgen.checkpoints import (
    adam_moments,
    flatten,
    load_adam_moments,
    newest_checkpoint,
    part,
    save_checkpoint,
    trim_log,
)
from totalgen.data.files import atomic
from totalgen.data.pictures import enlarged
from totalgen.errors import InputError
from totalgen.models.ema import PowerEMA
from totalgen.models.networks import mp_layers
from totalgen.models.precision import autocast, resolved
from totalgen.models.processes import NOISE_LEVELS
from totalgen.models.samplers import sample, seeded_generator
from totalgen.training.averages import snapshot_path
from totalgen.weights import save_weights

ADAM = dict(betas=(0.9, 0.99), eps=1e-8)
KIND = "diffusion model"
PICTURE_ITEMS = 4
PICTURE_STEPS = 16
PATIENCE = 100  # steps in a row with a non-finite gradient before the run stops


class Loss(nn.Module):
    """The denoiser's loss as a module's forward, the form that DistributedDataParallel needs."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *arguments):
        return self.denoiser.loss(*arguments)


def learning_rate(step, volumes, peak, decay_steps, rampup_items):
    """α_ref · min(volumes/rampup, 1) / √max(step/decay, 1) (Karras 2024, equation 67)."""
    return peak * min(volumes / max(rampup_items, 1), 1) / math.sqrt(max(step / decay_steps, 1))


def fit(
    denoiser, task, outdir, configuration, *, batch, microbatch, volumes, lr, lr_decay_steps, rampup_items,
    noise_levels, noise_parameters, ema, seed, workers, checkpoint_steps, snapshot_steps, picture_steps, weights_dtype,
    precision="auto",
):  # fmt: skip
    """Train ``denoiser`` on ``task`` until ``volumes`` items were seen; the same call again goes on where it stopped.

    Writes into ``outdir``: configuration.json, log.jsonl, tensorboard/, checkpoints/, samples/*.png and, at every
    checkpoint, one ema-<σ_rel>.safetensors per averaging profile (weights with their configuration). Every
    ``snapshot_steps`` the averages are kept in snapshots/ too, from which averages.reconstruct makes any other profile.
    batch: items per optimiser step over all processes;  microbatch: items per forward pass of one process, fewer where
    its share of the batch is smaller;
    precision: of the network (precision.autocast).
    Raises InputError when the folder holds another configuration or the gradients stay non-finite.
    """
    rank, ranks, device = distributed.start()
    outdir = Path(outdir)
    microbatch = min(microbatch, max(batch // ranks, 1))
    rounds = batch // (ranks * microbatch)
    if rounds * ranks * microbatch != batch:
        raise InputError(f"batch {batch} is not divisible by {ranks} processes × microbatch {microbatch}. Change one.")
    distributed.first(rank, lambda: claim(outdir, configuration))

    torch.manual_seed(seed)
    denoiser.to(device).train()
    loss_module = Loss(denoiser)
    if ranks > 1:
        loss_module = DistributedDataParallel(loss_module, broadcast_buffers=False)
    parameters = dict(denoiser.named_parameters())
    optimiser = torch.optim.Adam(parameters.values(), lr=lr, **ADAM)
    averages = PowerEMA(denoiser, ema)
    layers = mp_layers(denoiser)

    done, spent = 0, 0.0
    checkpoint = newest_checkpoint(outdir / "checkpoints", KIND)
    if checkpoint is not None:
        done, tensors = checkpoint[0]["step"], checkpoint[1]
        spent = float(tensors["spent"])
        denoiser.load_state_dict(part(tensors, "denoiser"))
        averages.load_state_dict(part(tensors, "ema"))
        load_adam_moments(optimiser, parameters, part(tensors, "adam"), done)
    steps = math.ceil(volumes / batch)
    board = None
    if rank == 0:
        trim_log(outdir / "log.jsonl", done)
        board = SummaryWriter(str(outdir / "tensorboard"), purge_step=done + 1)

    def save(step):
        """The checkpoint comes last: a run killed before it does the step, and all that belongs to it, again."""
        save_averages(step, lambda rel: outdir / f"ema-{rel:.2f}.safetensors")
        moments = adam_moments(optimiser, parameters)
        state = flatten(denoiser=denoiser.state_dict(), ema=averages.state_dict(), adam=moments)
        state["spent"] = torch.tensor(spent, dtype=torch.float64)
        save_checkpoint(outdir / "checkpoints", step, state, KIND)

    def save_averages(step, path):
        for rel, average in averages.averages.items():
            progress = dict(steps=step, volumes=step * batch, hours=round(spent / 3600, 3), sigma_rel=rel)
            progress |= dict(precision=resolved(device, precision))
            network = part(average, "network", ".")
            save_weights(path(rel), network, configuration | progress, weights_dtype)

    indices = [
        step * batch + (turn * ranks + rank) * microbatch + i
        for step in range(done, steps)
        for turn in range(rounds)
        for i in range(microbatch)
    ]
    loader = iter(DataLoader(Numbered(task), microbatch, sampler=indices, num_workers=workers, drop_last=True))
    progress = tqdm(total=steps * batch, initial=done * batch, unit="vol", desc=outdir.name, disable=rank > 0)
    bad_steps, total_bad, clock = 0, 0, time.monotonic()
    for step in range(done, steps):
        rate = learning_rate(step + 1, (step + 1) * batch, lr, lr_decay_steps, rampup_items)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        plain = 0.0
        for turn in range(rounds):
            numbers, target, condition = next_batch(loader)
            uniform, noise = sample_noise(seed, numbers.tolist(), target.shape[1:])
            sigma = NOISE_LEVELS[noise_levels](uniform, **noise_parameters).float()
            inputs = [tensor.to(device) for tensor in (target, condition, sigma, noise)]
            last = turn == rounds - 1
            with contextlib.nullcontext() if last or ranks == 1 else loss_module.no_sync():
                with autocast(device, precision):
                    weighted, error = loss_module(*inputs)
                (weighted.sum() * (ranks / batch)).backward()
            plain += float(error.detach().sum()) / batch
        bad = clean_gradients(parameters.values())
        optimiser.step()
        for layer in layers:
            layer.normalise_()
        averages.update(step + 1)
        now = time.monotonic()
        spent, seconds, clock = spent + now - clock, now - clock, now

        plain = distributed.summed([plain])[0]
        total_bad += bad
        bad_steps = bad_steps + 1 if bad or not math.isfinite(plain) else 0  # the same in all processes
        if rank == 0:
            line = dict(step=step + 1, volumes=(step + 1) * batch, loss=plain, lr=rate, nonfinite_gradients=bad)
            line |= dict(items_per_s=batch / seconds, memory_gb=memory_gb(device), hours=spent / 3600)
            with open(outdir / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            for name in ("loss", "lr", "nonfinite_gradients", "items_per_s"):
                board.add_scalar(name, line[name], step + 1)
            progress.update(batch)
            progress.set_postfix(loss=f"{plain:.4f}", nonfinite=total_bad, refresh=False)
        if bad_steps >= PATIENCE:
            raise InputError(
                f"{outdir}: gradients were not finite for {PATIENCE} steps in a row (step {step + 1}). "
                "Lower lr, or look for broken volumes; the last checkpoint is intact."
            )
        if rank == 0 and ((step + 1) % snapshot_steps == 0 or step + 1 == steps):
            save_averages(step + 1, functools.partial(snapshot_path, outdir, step + 1))
        if rank == 0 and ((step + 1) % picture_steps == 0 or step + 1 == steps):
            drawn = sample_picture(denoiser, averages, task, seed, device, precision)
            with atomic(outdir / "samples" / f"step_{step + 1:08d}.png") as written:
                imageio.imwrite(written, drawn)
            board.add_image("samples", drawn, step + 1, dataformats="HW")
            clock = time.monotonic()
        if (step + 1) % checkpoint_steps == 0 or step + 1 == steps:
            if rank == 0:
                save(step + 1)
            distributed.barrier()
    progress.close()
    if rank == 0:
        board.close()
    distributed.stop()
    return outdir / f"ema-{ema[-1]:.2f}.safetensors"


def next_batch(loader):
    """The loader's next batch. What its worker processes report comes with their traceback: only its last line, the
    error itself, is passed on."""
    try:
        return next(loader)
    except InputError as error:
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("totalgen.errors.InputError: ")) from None


class Numbered(torch.utils.data.Dataset):
    """Items of a task with their number in front, so that the loop can draw the noise that belongs to each."""

    def __init__(self, task):
        self.task = task

    def __getitem__(self, n):
        return n, *self.task[n]


def claim(outdir, configuration):
    """Write configuration.json into a new run folder, or check that the folder's own is the same."""
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / "configuration.json"
    text = json.dumps(configuration, indent=1)
    if path.exists():
        old, new = json.loads(path.read_text()), json.loads(text)
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise InputError(
                f"{outdir}: was started with another configuration ({', '.join(changed)} differ). "
                "Use the same one to go on, or another --outdir."
            )
        return
    with atomic(path) as part:
        part.write_text(text)


def sample_noise(seed, numbers, shape):
    """(uniform numbers [B] float64 in (0, 1), Gaussian noise [B, *shape]) that belong to the items ``numbers``."""
    generators = [seeded_generator(seed, 2, n) for n in numbers]
    uniform = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
    return uniform.clamp(1e-6, 1 - 1e-6), noise


def clean_gradients(parameters):
    """Replace non-finite gradient values by 0; returns how many there were."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if math.isfinite(float(sum(torch._foreach_norm(gradients)))):
        return 0
    bad = 0
    for gradient in gradients:
        bad += int((~gradient.isfinite()).sum())
        torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0, out=gradient)
    return bad


def memory_gb(device):
    """Memory in use: the peak on a CUDA device, the process's own elsewhere."""
    used = torch.cuda.max_memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss
    return round(used / 1e9, 3)


@torch.no_grad()
def sample_picture(denoiser, averages, task, seed, device, precision):
    """Truth (left) beside a sample of the widest average (right), for the first items of the task, one row each.

    uint8 [rows, columns].
    """
    current = {name: value.clone() for name, value in denoiser.state_dict().items()}
    denoiser.load_state_dict(current | list(averages.averages.values())[-1])
    denoiser.eval()
    rows = []
    for n in range(PICTURE_ITEMS):
        target, condition = task[n]
        noise = torch.randn(target.shape, generator=seeded_generator(seed, 3, n))
        with autocast(device, precision):
            drawn = sample(denoiser, condition[None].to(device), noise[None].to(device), "dpm_solver", PICTURE_STEPS)
        rows.append(np.concatenate([task.picture(x.cpu(), condition) for x in (target, drawn[0])], axis=1))
    denoiser.load_state_dict(current)
    denoiser.train()
    return np.concatenate([enlarged(row, 120) for row in rows])
