"""The one training loop: any objective, the items of any task, one process or many, interrupted at will."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import imageio.v3 as imageio
import numpy as np
import psutil
import torch
from tensorboardX import SummaryWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from totalgen import distributed
from totalgen.checkpoints import (
    adam_moments,
    checkpoints,
    flatten,
    load_adam_moments,
    newest_checkpoint,
    part,
    save_checkpoint,
    trim_log,
)
from totalgen.data.files import atomic, locked
from totalgen.data.pictures import enlarged
from totalgen.data.progress import progress
from totalgen.data.recipes import LEARNT_FROM
from totalgen.data.text_files import read_json
from totalgen.errors import InputError
from totalgen.models.codec import codec_from
from totalgen.models.ema import PowerEMA
from totalgen.models.networks import UNet, mp_layers
from totalgen.models.precision import autocast, exact, resolved
from totalgen.schema import build, fixed
from totalgen.settings import ComputeSettings, RunSettings
from totalgen.tasks.items import Items
from totalgen.training.averages import average_path, snapshot_path
from totalgen.training.objectives import Objective
from totalgen.weights import FORMAT_VERSION, converted, known_data, load_weights, save_weights

BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam on the sum of the loss over the values of an item (Karras 2024)
DTYPES = {"float32": torch.float32, "float16": torch.float16}
PICTURE_ITEMS = 4
SNAPSHOT_STEPS, MOST_SNAPSHOTS = 250, 64  # a snapshot of a published network is 300 MB to a GB
PATIENCE = 100  # steps in a row with a non-finite gradient before the run stops


class RunnableSettings(Protocol):
    """The settings of any training: those of its run, and how it is computed."""

    @property
    def run(self) -> RunSettings: ...
    @property
    def compute(self) -> ComputeSettings: ...


def fit(
    objective: Objective, items: Items, outdir: str | Path, configuration: dict[str, Any], settings: RunnableSettings
) -> Path:
    """Minimise ``objective`` over ``items``; the same call again goes on where it stopped.

    Writes into ``outdir``: configuration.json, log.jsonl, tensorboard/, checkpoints/, samples/*.png and, at every
    checkpoint, one ema-<σ_rel>.safetensors per averaging profile (weights with their configuration). Every
    ``snapshot_steps`` the averages are kept in snapshots/ too, from which averages.reconstruct makes any other profile.
    Returns the path of the widest average.
    Raises InputError when the folder holds another configuration or the gradients stay non-finite.
    """
    rank, ranks, device = distributed.start(device=settings.compute.device)
    outdir = Path(outdir)
    with locked(outdir, "a training") if rank == 0 else contextlib.nullcontext():
        loss = _fit(objective, items, outdir, configuration, settings, rank, ranks, device)
    distributed.stop()  # now that everything of _fit is gone
    if loss is not None and not math.isfinite(loss):
        raise InputError(f"{outdir}: the loss is not finite at the end. Lower lr, or look for such values in the data.")
    return average_path(outdir, settings.run.ema[-1])


def _fit(objective, items, outdir, configuration, settings, rank, ranks, device):
    """The loss of the last step, None where nothing was left to do."""
    share = Share(rank, ranks, settings.run)
    distributed.first(rank, lambda: claim(outdir, configuration, type(settings)))
    torch.manual_seed(settings.run.seed)
    values = len(items.task.target) * math.prod(items.task.space)
    trainer = Trainer(objective.to(device).train(), settings, share, device, values)
    state = State(outdir, trainer, configuration, settings)
    done, steps = state.resume(), math.ceil(settings.run.items / settings.run.batch)
    if rank == 0 and done:
        state.report(done, steps)
    watch = Watch(outdir, done, steps, settings.run.batch, rank)
    between_snapshots = settings.run.snapshot_steps or max(SNAPSHOT_STEPS, math.ceil(steps / MOST_SNAPSHOTS))
    numbered = Numbered(items, objective.extras, settings.run.seed)
    batches = load(numbered, Order(share, done, steps), settings.run.loader_processes, device)
    for step in range(done + 1, steps + 1):
        figures, rate, bad = trainer.step(step, batches)
        state.seconds += watch.report(step, figures, rate, bad, state.seconds, device)
        if rank == 0 and _due(step, steps, between_snapshots):
            state.save_averages(step, functools.partial(snapshot_path, outdir, step))
        if rank == 0 and _due(step, steps, settings.run.picture_steps):
            watch.picture(step, sample_picture(trainer, items, settings.run.seed))
        if _due(step, steps, settings.run.checkpoint_steps):
            if rank == 0:
                state.save(step)
            distributed.barrier()
    watch.close()
    return figures["loss"] if steps > done else None


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

    def batches(self, done: int, steps: int) -> Iterator[list[int]]:
        """Numbers of the items of this process's forward passes from step ``done`` on, in order."""
        for step in range(done, steps):
            for turn in range(self.rounds):
                first = step * self.batch + (turn * self.ranks + self.rank) * self.microbatch
                yield list(range(first, first + self.microbatch))


@dataclass(frozen=True)
class Order:
    """Batches of item numbers for a loader, made as they are needed: a run has millions of items."""

    share: Share
    done: int
    steps: int

    def __iter__(self) -> Iterator[list[int]]:
        return self.share.batches(self.done, self.steps)

    def __len__(self) -> int:
        return (self.steps - self.done) * self.share.rounds


class Trainer:
    """An objective with its optimiser and averages: what one optimiser step changes.

    values: numbers in the target of an item. The loss is their mean; Adam's ε is divided by them as the gradients are,
    so that a step is that of the published loss, their sum, for items of any size.
    """

    def __init__(
        self, objective: Objective, settings: RunnableSettings, share: Share, device: torch.device, values: int
    ):
        self.objective, self.settings, self.share, self.device = objective, settings, share, device
        compute, network = settings.compute, objective.network
        if isinstance(network, UNet):
            network.recompute = None if compute.recompute == "nothing" else compute.recompute
        if compute.compiled:
            network.compile()
        torch.backends.cudnn.benchmark = device.type == "cuda"  # items of a run have one shape
        self.loss = DistributedDataParallel(objective, broadcast_buffers=False) if share.ranks > 1 else objective
        self.parameters = {name: p for name, p in objective.model.named_parameters() if p.requires_grad}
        epsilon = EPSILON / values
        self.optimiser = torch.optim.Adam(self.parameters.values(), settings.run.lr, betas=BETAS, eps=epsilon)
        self.averages = PowerEMA(objective.model, settings.run.ema)
        self.layers = mp_layers(objective.model)
        self.exact = exact(device)

    def step(self, step: int, batches: Iterator) -> tuple[dict[str, float], float, int]:
        """Optimiser step number ``step`` (1, 2, …).

        Returns (the objective's figures, means over the items of all processes; learning rate; non-finite gradient
        values).
        """
        run, share = self.settings.run, self.share
        rate = learning_rate(step, step * run.batch, run.lr, run.lr_decay_steps, run.rampup_items)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        totals: dict[str, torch.Tensor] = {}  # read once per step: the host waits for them
        for turn in range(share.rounds):
            inputs = [self._moved(tensor) for tensor in next_batch(batches)]
            last = turn == share.rounds - 1
            no_sync = contextlib.nullcontext if last or share.ranks == 1 else self.loss.no_sync
            with no_sync():  # type: ignore[operator]
                with autocast(self.device, self.settings.compute.precision):
                    weighted, figures = self.loss(*inputs)
                (weighted.sum() * (share.ranks / run.batch)).backward()
            for name, values in figures.items():
                totals[name] = totals.get(name, 0) + values.detach().sum(dtype=self.exact)
        bad = clean_gradients(self.parameters.values())
        self.optimiser.step()
        for layer in self.layers:
            layer.normalise_()
        self.averages.update(step)
        means = distributed.summed([float(total) / run.batch for total in totals.values()])
        return dict(zip(totals, means, strict=True)), rate, bad

    def _moved(self, tensor):
        known = tensor.to(self.exact) if tensor.dtype == torch.float64 else tensor
        return known.to(self.device, non_blocking=True)


class State:
    """What a run keeps in its folder: checkpoints, from which it goes on, and averages."""

    def __init__(self, outdir: Path, trainer: Trainer, configuration: dict[str, Any], settings: RunnableSettings):
        self.outdir, self.trainer, self.configuration, self.settings = outdir, trainer, configuration, settings
        self.seconds = 0.0  # spent on training

    def resume(self) -> int:
        """Put the newest checkpoint back; returns the number of steps done."""
        checkpoint = newest_checkpoint(self.outdir / "checkpoints")
        if checkpoint is None:
            return 0
        done, tensors = checkpoint
        self.seconds = float(tensors["spent"])
        model = part(tensors, "model") or part(tensors, "denoiser")  # as the only kind of model was called until 2026
        self.trainer.objective.model.load_state_dict(model)
        self.trainer.averages.load_state_dict(part(tensors, "ema"))
        load_adam_moments(self.trainer.optimiser, self.trainer.parameters, part(tensors, "adam"), done)
        return done

    def report(self, done: int, steps: int) -> None:
        """Say what of the settings a run that goes on at step ``done`` does not follow, and write the averages of that
        step again where one is missing or damaged."""
        run = self.settings.run
        if run.init_from is not None:
            click.echo(f"{self.outdir}: goes on from its own checkpoint, not from {run.init_from}.", err=True)
        if done > steps:
            more = f"has learnt {done * run.batch} items, more than the {run.items} that are asked for"
            click.echo(f"{self.outdir}: {more}.", err=True)
        for width in run.ema:
            try:
                load_weights(average_path(self.outdir, width))
            except InputError:
                return self.save_averages(done, functools.partial(average_path, self.outdir))

    def save(self, step: int) -> None:
        """The checkpoint comes last: a run killed before it does the step, and all that belongs to it, again."""
        self.save_averages(step, functools.partial(average_path, self.outdir))
        trainer = self.trainer
        moments = adam_moments(trainer.optimiser, trainer.parameters)
        model = trainer.objective.model.state_dict()
        tensors = flatten(model=model, ema=trainer.averages.state_dict(), adam=moments)
        tensors["spent"] = torch.tensor(self.seconds, dtype=torch.float64)
        save_checkpoint(self.outdir / "checkpoints", step, tensors)

    def save_averages(self, step: int, path: Callable[[float], Path]) -> None:
        """Write the network of every averaging profile. path: σ_rel → file."""
        run = self.settings.run
        progress: dict[str, Any] = dict(steps=step, items=step * run.batch, hours=round(self.seconds / 3600, 3))
        progress["precision"] = resolved(self.trainer.device, self.settings.compute.precision)
        objective = self.trainer.objective
        prefix = "" if objective.network is objective.model else "network."
        for width in run.ema:
            state = self.trainer.averages.state_of_module(width)
            average = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            taken = sorted(name for name in average if f"{prefix}{name}" not in self.trainer.parameters)
            about = self.configuration | dict(progress=progress | dict(sigma_rel=width), taken=taken)
            save_weights(path(width), average, about, DTYPES[run.weights_dtype])


class Watch:
    """What a run reports, in process 0: progress bar, log.jsonl, tensorboard/, samples/*.png; and its clock."""

    def __init__(self, outdir: Path, done: int, steps: int, batch: int, rank: int):
        self.outdir, self.batch, self.active = outdir, batch, rank == 0
        distributed.first(rank, lambda: trim_log(outdir / "log.jsonl", done))
        if self.active:
            self.board = SummaryWriter(str(outdir / "tensorboard"), purge_step=done + 1)
        self.bar = progress(None, outdir.name, "item", steps * batch, done * batch, show=self.active)
        self.bad_steps, self.total_bad = 0, 0
        self.clock = time.monotonic()

    def report(
        self, step: int, figures: dict[str, float], rate: float, bad: int, before: float, device: torch.device
    ) -> float:
        """Report a step. before: seconds spent before it. Returns the seconds that it took.

        Raises InputError when the gradients were not finite for PATIENCE steps in a row.
        """
        now, loss = time.monotonic(), figures["loss"]
        seconds, self.clock = now - self.clock, now
        self.total_bad += bad
        self.bad_steps = self.bad_steps + 1 if bad or not math.isfinite(loss) else 0  # the same in all processes
        if self.active:
            line = dict(
                step=step, items=step * self.batch, **figures, lr=rate, nonfinite_gradients=bad,
                items_per_s=self.batch / seconds, memory_gb=memory_gb(device), hours=(before + seconds) / 3600,
            )  # fmt: skip
            with open(self.outdir / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            for name in (*figures, "lr", "nonfinite_gradients", "items_per_s"):
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


class Numbered(torch.utils.data.Dataset):
    """Items without their number, followed by the random numbers that belong to each (Objective.extras)."""

    def __init__(self, items: Items, extras: Callable[..., tuple[torch.Tensor, ...]], seed: int):
        self.items, self.extras, self.seed = items, extras, seed

    def __getitem__(self, n: int) -> tuple[torch.Tensor, ...]:
        _, *item = self.items[n]
        return *item, *self.extras(self.seed, n, item[0])


def load(numbered: Numbered, order: Order, processes: int, device: torch.device) -> Iterator:
    """Batches of the items in ``order``, loaded by so many processes (0: this one)."""
    pinned = device.type == "cuda"
    return iter(DataLoader(numbered, batch_sampler=order, num_workers=processes, pin_memory=pinned))  # type: ignore


def next_batch(loader: Iterator) -> list[torch.Tensor]:
    """The loader's next batch. What its worker processes report comes with their traceback: only its last line, the
    error itself, is passed on."""
    try:
        return next(loader)
    except InputError as error:
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("totalgen.errors.InputError: ")) from None


def claim(outdir: Path, configuration: dict[str, Any], settings: Any) -> None:
    """Write configuration.json into a new run folder, or check that the folder's own is the same; without a checkpoint
    the run begins anew, and its configuration with it.

    settings: the class of the configuration's settings. Settings that may change while a run goes on are not compared.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / "configuration.json"
    text = json.dumps(dict(format_version=FORMAT_VERSION, **configuration), indent=1)
    if path.exists():
        begun, asked = read_configuration(outdir), json.loads(json.dumps(configuration))
        if begun.get("kind") != asked.get("kind"):
            raise InputError(f"{outdir}: holds a run of a {begun.get('kind')}. Choose another --outdir.")
        theirs, ours = (_compared(each, settings) for each in (begun, asked))
        changed = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        rows = [each["data"].get(LEARNT_FROM) for each in (begun, asked)]
        if None not in rows and rows[0] != rows[1]:
            changed.append("people or volumes of the training's subjects")
        if changed:
            raise InputError(
                f"{outdir}: was started with another configuration ({', '.join(changed)} differ). "
                "Use the same one to go on, or another --outdir."
            )
        if checkpoints(outdir / "checkpoints"):
            return
    with atomic(path) as written:
        written.write_text(text)


def read_configuration(run: Path) -> dict[str, Any]:
    """The configuration of a run folder, in the present format."""
    path = run / "configuration.json"
    stored = read_json(path, "Restore it, or give another --outdir.")
    return converted(stored, stored.pop("format_version", 1), path)


def _compared(configuration, settings):
    """Name → value of what must stay the same."""
    kept = {name: configuration[name] for name in ("preset", "channels")}
    kept |= dict(codec=codec_from(configuration["codec"]).settings)
    kept |= {f"data.{name}": value for name, value in known_data(configuration["data"]).items()}
    return kept | fixed(build(settings, configuration["settings"]))


def learning_rate(step: int, items: int, peak: float, decay_steps: int, rampup_items: int) -> float:
    """α_ref · min(items/rampup, 1) / √max(step/decay, 1) (Karras 2024, equation 67)."""
    return peak * min(items / max(rampup_items, 1), 1) / math.sqrt(max(step / decay_steps, 1))


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
    """The first items next to what the widest average makes of them (Objective.picture), one row each, uint8."""
    model = trainer.objective.model
    current = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(trainer.averages.state_of_module(trainer.settings.run.ema[-1]))
    model.eval()
    with autocast(trainer.device, trainer.settings.compute.precision):
        rows = [trainer.objective.picture(items, n, seed, trainer.device) for n in range(PICTURE_ITEMS)]
    model.load_state_dict(current)
    model.train()
    return np.concatenate([enlarged(row, 120) for row in rows])
