"""The one training loop: any denoiser, the items of any task, one process or many, interrupted at will."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
from totalgen.models.processes import Denoiser, training_sigmas
from totalgen.models.samplers import sample, seeded_generator
from totalgen.schema import build, fixed
from totalgen.settings import ProcessSettings, RunSettings, TrainingSettings
from totalgen.tasks.items import Items
from totalgen.training.averages import average_path, snapshot_path
from totalgen.weights import FORMAT_VERSION, converted, save_weights

BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam on the sum of the loss over the values of an item (Karras 2024)
KIND = "diffusion model"
DTYPES = {"float32": torch.float32, "float16": torch.float16}
PICTURE_ITEMS = 4
PICTURE_STEPS = 16
PATIENCE = 100  # steps in a row with a non-finite gradient before the run stops


def fit(
    denoiser: Denoiser, items: Items, outdir: str | Path, configuration: dict[str, Any], settings: TrainingSettings
) -> Path:
    """Train ``denoiser`` on ``items``; the same call again goes on where it stopped.

    Writes into ``outdir``: configuration.json, log.jsonl, tensorboard/, checkpoints/, samples/*.png and, at every
    checkpoint, one ema-<σ_rel>.safetensors per averaging profile (weights with their configuration). Every
    ``snapshot_steps`` the averages are kept in snapshots/ too, from which averages.reconstruct makes any other profile.
    Returns the path of the widest average.
    Raises InputError when the folder holds another configuration or the gradients stay non-finite.
    """
    rank, ranks, device = distributed.start()
    outdir = Path(outdir)
    share = Share(rank, ranks, settings.run)
    distributed.first(rank, lambda: claim(outdir, configuration))
    torch.manual_seed(settings.run.seed)
    values = len(items.task.target) * math.prod(items.task.space)
    trainer = Trainer(denoiser.to(device).train(), settings, share, device, values)
    state = State(outdir, trainer, configuration, settings)
    done, steps = state.resume(), math.ceil(settings.run.items / settings.run.batch)
    watch = Watch(outdir, done, steps, settings.run.batch, rank)
    batches = load(items, share.indices(done, steps), share.microbatch, settings.run.loader_processes)
    for step in range(done + 1, steps + 1):
        loss, rate, bad = trainer.step(step, batches)
        state.seconds += watch.report(step, loss, rate, bad, state.seconds, device)
        if rank == 0 and _due(step, steps, settings.run.snapshot_steps):
            state.save_averages(step, functools.partial(snapshot_path, outdir, step))
        if rank == 0 and _due(step, steps, settings.run.picture_steps):
            watch.picture(step, sample_picture(trainer, items, settings.run.seed))
        if _due(step, steps, settings.run.checkpoint_steps):
            if rank == 0:
                state.save(step)
            distributed.barrier()
    watch.close()
    distributed.stop()
    return average_path(outdir, settings.run.ema[-1])


def _due(step, steps, interval):
    return step % interval == 0 or step == steps


class Share:
    """Which items a process sees: ``rounds`` forward passes of ``microbatch`` items in every step."""

    def __init__(self, rank: int, ranks: int, run: RunSettings):
        self.rank, self.ranks, self.batch = rank, ranks, run.batch
        self.microbatch = min(run.microbatch, max(run.batch // ranks, 1))
        self.rounds = run.batch // (ranks * self.microbatch)
        if self.rounds * ranks * self.microbatch != run.batch:
            raise InputError(
                f"batch {run.batch} is not divisible by {ranks} processes × microbatch {self.microbatch}. Change one."
            )

    def indices(self, done: int, steps: int) -> list[int]:
        """Numbers of this process's items from step ``done`` on, in order."""
        return [
            step * self.batch + (turn * self.ranks + self.rank) * self.microbatch + i
            for step in range(done, steps)
            for turn in range(self.rounds)
            for i in range(self.microbatch)
        ]


class Loss(nn.Module):
    """The denoiser's loss as a module's forward, the form that DistributedDataParallel needs."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.denoiser.loss(*arguments)


class Trainer:
    """A denoiser with its optimiser and averages: what one optimiser step changes.

    values: numbers in the target of an item. The loss is their mean; Adam's ε is divided by them as the gradients are,
    so that a step is that of the published loss, their sum, for items of any size.
    """

    def __init__(
        self, denoiser: Denoiser, settings: TrainingSettings, share: Share, device: torch.device, values: int
    ):
        self.denoiser, self.settings, self.share, self.device = denoiser, settings, share, device
        compute = settings.compute
        denoiser.network.recompute = None if compute.recompute == "nothing" else compute.recompute
        if compute.compiled:
            denoiser.network.compile()
        loss = Loss(denoiser)
        self.loss = DistributedDataParallel(loss, broadcast_buffers=False) if share.ranks > 1 else loss
        self.parameters = dict(denoiser.named_parameters())
        epsilon = EPSILON / values
        self.optimiser = torch.optim.Adam(self.parameters.values(), settings.run.lr, betas=BETAS, eps=epsilon)
        self.averages = PowerEMA(denoiser, settings.run.ema)
        self.layers = mp_layers(denoiser)

    def step(self, step: int, batches: Iterator) -> tuple[float, float, int]:
        """Optimiser step number ``step`` (1, 2, …).

        Returns (mean squared error over the items of all processes, learning rate, non-finite gradient values).
        """
        run, share = self.settings.run, self.share
        rate = learning_rate(step, step * run.batch, run.lr, run.lr_decay_steps, run.rampup_items)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for turn in range(share.rounds):
            inputs = self._with_noise(*next_batch(batches))
            last = turn == share.rounds - 1
            no_sync = contextlib.nullcontext if last or share.ranks == 1 else self.loss.no_sync
            with no_sync():  # type: ignore[operator]
                with autocast(self.device, self.settings.compute.precision):
                    weighted, error = self.loss(*inputs)
                (weighted.sum() * (share.ranks / run.batch)).backward()
            total += float(error.detach().sum()) / run.batch
        bad = clean_gradients(self.parameters.values())
        self.optimiser.step()
        for layer in self.layers:
            layer.normalise_()
        self.averages.update(step)
        return distributed.summed([total])[0], rate, bad

    def _with_noise(self, numbers, target, condition):
        uniform, noise = sample_noise(self.settings.run.seed, numbers.tolist(), target.shape[1:])
        sigma = noise_levels(uniform, self.settings.process)
        return [tensor.to(self.device) for tensor in (target, condition, sigma, noise)]


class State:
    """What a run keeps in its folder: checkpoints, from which it goes on, and averages."""

    def __init__(self, outdir: Path, trainer: Trainer, configuration: dict[str, Any], settings: TrainingSettings):
        self.outdir, self.trainer, self.configuration, self.settings = outdir, trainer, configuration, settings
        self.seconds = 0.0  # spent on training

    def resume(self) -> int:
        """Put the newest checkpoint back; returns the number of steps done."""
        checkpoint = newest_checkpoint(self.outdir / "checkpoints", KIND)
        if checkpoint is None:
            return 0
        done, tensors = checkpoint[0]["step"], checkpoint[1]
        self.seconds = float(tensors["spent"])
        self.trainer.denoiser.load_state_dict(part(tensors, "denoiser"))
        self.trainer.averages.load_state_dict(part(tensors, "ema"))
        load_adam_moments(self.trainer.optimiser, self.trainer.parameters, part(tensors, "adam"), done)
        return done

    def save(self, step: int) -> None:
        """The checkpoint comes last: a run killed before it does the step, and all that belongs to it, again."""
        self.save_averages(step, functools.partial(average_path, self.outdir))
        trainer = self.trainer
        moments = adam_moments(trainer.optimiser, trainer.parameters)
        tensors = flatten(denoiser=trainer.denoiser.state_dict(), ema=trainer.averages.state_dict(), adam=moments)
        tensors["spent"] = torch.tensor(self.seconds, dtype=torch.float64)
        save_checkpoint(self.outdir / "checkpoints", step, tensors, KIND)

    def save_averages(self, step: int, path: Callable[[float], Path]) -> None:
        """Write the network of every averaging profile. path: σ_rel → file."""
        run = self.settings.run
        progress: dict[str, Any] = dict(steps=step, items=step * run.batch, hours=round(self.seconds / 3600, 3))
        progress["precision"] = resolved(self.trainer.device, self.settings.compute.precision)
        for width, average in self.trainer.averages.averages.items():
            about = self.configuration | dict(progress=progress | dict(sigma_rel=width))
            save_weights(path(width), part(average, "network", "."), about, DTYPES[run.weights_dtype])


class Watch:
    """What a run reports, in process 0: progress bar, log.jsonl, tensorboard/, samples/*.png; and its clock."""

    def __init__(self, outdir: Path, done: int, steps: int, batch: int, rank: int):
        self.outdir, self.batch, self.active = outdir, batch, rank == 0
        if self.active:
            trim_log(outdir / "log.jsonl", done)
            self.board = SummaryWriter(str(outdir / "tensorboard"), purge_step=done + 1)
        self.bar = tqdm(
            total=steps * batch, initial=done * batch, unit="item", desc=outdir.name, disable=not self.active
        )
        self.bad_steps, self.total_bad = 0, 0
        self.clock = time.monotonic()

    def report(self, step: int, loss: float, rate: float, bad: int, before: float, device: torch.device) -> float:
        """Report a step. before: seconds spent before it. Returns the seconds that it took.

        Raises InputError when the gradients were not finite for PATIENCE steps in a row.
        """
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        self.total_bad += bad
        self.bad_steps = self.bad_steps + 1 if bad or not math.isfinite(loss) else 0  # the same in all processes
        if self.active:
            line = dict(
                step=step, items=step * self.batch, loss=loss, lr=rate, nonfinite_gradients=bad,
                items_per_s=self.batch / seconds, memory_gb=memory_gb(device), hours=(before + seconds) / 3600,
            )  # fmt: skip
            with open(self.outdir / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            for name in ("loss", "lr", "nonfinite_gradients", "items_per_s"):
                self.board.add_scalar(name, line[name], step)
            self.bar.update(self.batch)
            self.bar.set_postfix(loss=f"{loss:.4f}", nonfinite=self.total_bad, refresh=False)
        if self.bad_steps >= PATIENCE:
            raise InputError(
                f"{self.outdir}: gradients were not finite for {PATIENCE} steps in a row (step {step}). "
                "Lower lr, or look for broken volumes; the last checkpoint is intact."
            )
        return seconds

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Keep a picture of samples; the time it took does not count as training."""
        with atomic(self.outdir / "samples" / f"step_{step:08d}.png") as written:
            imageio.imwrite(written, picture)
        self.board.add_image("samples", picture, step, dataformats="HW")
        self.clock = time.monotonic()

    def close(self) -> None:
        """End the bar and the curves."""
        self.bar.close()
        if self.active:
            self.board.close()


def load(items: Items, indices: Sequence[int], microbatch: int, processes: int) -> Iterator:
    """Batches (numbers, target, condition) of the items ``indices``, loaded by so many processes (0: this one)."""
    return iter(DataLoader(items, microbatch, sampler=indices, num_workers=processes, drop_last=True))


def next_batch(loader: Iterator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loader's next batch. What its worker processes report comes with their traceback: only its last line, the
    error itself, is passed on."""
    try:
        return next(loader)
    except InputError as error:
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("totalgen.errors.InputError: ")) from None


def claim(outdir: Path, configuration: dict[str, Any]) -> None:
    """Write configuration.json into a new run folder, or check that the folder's own is the same.

    Settings that may change while a run goes on are not compared.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / "configuration.json"
    text = json.dumps(dict(format_version=FORMAT_VERSION, **configuration), indent=1)
    if path.exists():
        theirs, ours = _compared(read_configuration(outdir)), _compared(json.loads(json.dumps(configuration)))
        changed = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if changed:
            raise InputError(
                f"{outdir}: was started with another configuration ({', '.join(changed)} differ). "
                "Use the same one to go on, or another --outdir."
            )
        return
    with atomic(path) as written:
        written.write_text(text)


def read_configuration(run: Path) -> dict[str, Any]:
    """The configuration of a run folder, in the present format."""
    path = run / "configuration.json"
    stored = json.loads(path.read_text())
    return converted(stored, stored.pop("format_version", 1), path)


def _compared(configuration):
    """Name → value of what must stay the same."""
    kept = {name: configuration[name] for name in ("preset", "channels", "codec")}
    kept |= {f"data.{name}": value for name, value in configuration["data"].items() if name != "ranges"}
    return kept | fixed(build(TrainingSettings, configuration["settings"]))


def learning_rate(step: int, items: int, peak: float, decay_steps: int, rampup_items: int) -> float:
    """α_ref · min(items/rampup, 1) / √max(step/decay, 1) (Karras 2024, equation 67)."""
    return peak * min(items / max(rampup_items, 1), 1) / math.sqrt(max(step / decay_steps, 1))


def noise_levels(uniform: torch.Tensor, process: ProcessSettings) -> torch.Tensor:
    """σ of training items, [B] float32, from uniform numbers [B] in (0, 1)."""
    return training_sigmas(uniform, process.noise_levels, process.noise_mean, process.noise_std).float()


def sample_noise(seed: int, numbers: Sequence[int], shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(uniform numbers [B] float64 in (0, 1), Gaussian noise [B, *shape]) that belong to the items ``numbers``."""
    generators = [seeded_generator(seed, 2, n) for n in numbers]
    uniform = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
    return uniform.clamp(1e-6, 1 - 1e-6), noise


def clean_gradients(parameters: Iterable[nn.Parameter]) -> int:
    """Replace non-finite gradient values by 0; returns how many there were."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if math.isfinite(float(sum(torch._foreach_norm(gradients)))):
        return 0
    bad = 0
    for gradient in gradients:
        bad += int((~gradient.isfinite()).sum())
        torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0, out=gradient)
    return bad


def memory_gb(device: torch.device) -> float:
    """Memory in use: the peak on a CUDA device, the process's own elsewhere."""
    used = torch.cuda.max_memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss
    return round(used / 1e9, 3)


@torch.no_grad()
def sample_picture(trainer: Trainer, items: Items, seed: int) -> np.ndarray:
    """Truth (left) next to a sample of the widest average (right), for the first items, one row each.

    uint8 [rows, columns].
    """
    denoiser, device = trainer.denoiser, trainer.device
    current = {name: value.clone() for name, value in denoiser.state_dict().items()}
    denoiser.load_state_dict(current | list(trainer.averages.averages.values())[-1])
    denoiser.eval()
    rows = []
    for n in range(PICTURE_ITEMS):
        _, target, condition = items[n]
        noise = torch.randn(target.shape, generator=seeded_generator(seed, 3, n))
        given = condition[None].to(device), noise[None].to(device)
        with autocast(device, trainer.settings.compute.precision):
            sampled = sample(denoiser, *given, "dpm_solver", PICTURE_STEPS)
        pictures = [items.task.picture(items.volume(n, x.cpu())) for x in (target, sampled[0])]
        rows.append(np.concatenate(pictures, axis=1))
    denoiser.load_state_dict(current)
    denoiser.train()
    return np.concatenate([enlarged(row, 120) for row in rows])
