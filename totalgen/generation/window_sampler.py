"""Samples of a trained network over a volume of any shape: in windows averaged at every step or blended at the end.

A network of axial slices goes over the slices, a batch of them at a time.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from totalgen.errors import InputError
from totalgen.generation.pipeline import Progress
from totalgen.generation.tiling import Tile, TiledDenoiser, tiles, weights
from totalgen.generation.trained import Trained
from totalgen.models.precision import autocast
from totalgen.models.samplers import STOCHASTIC, ConditionalDenoiser, sample, seeded_generator
from totalgen.settings import SamplingSettings, WindowSettings
from totalgen.tasks.task import Box

Start = Callable[[Any, Box], tuple[torch.Tensor, float]]  # (source, box) → (encoded [1, C, *box], noise level)
Amend = Callable[[torch.Tensor, float, Any, Box], torch.Tensor]  # (estimate [C, *box], σ, source, box) → another


class Counted:
    """A denoiser whose evaluations move a bar. progress: wraps the list of their numbers, such as tqdm."""

    def __init__(self, denoiser: ConditionalDenoiser, progress: Progress, number: int):
        self.denoiser, self.number, self.done = denoiser, number, 0
        self.family = getattr(denoiser, "family", None)
        self.bar = iter(progress(list(range(number))))

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
        """That of the denoiser."""
        next(self.bar, None)
        result = self.denoiser(z, sigma, condition)
        self.done += 1
        if self.done == self.number:
            next(self.bar, None)  # ends the bar
        return result


@dataclass(frozen=True)
class WindowSampler:
    """How a trained network is sampled over volumes.

    begin: where an early start begins, None for pure noise;  amend: what becomes of the estimates of every step.
    """

    trained: Trained
    sampling: SamplingSettings
    windows: WindowSettings
    begin: Start | None = None
    amend: Amend | None = None

    def doubts(self, samples: int) -> list[str]:
        """Of the standard deviation of so many samples: windows that are blended at the end have noise of their own at
        every step of a stochastic sampler, and an average of two varies less."""
        fresh = self.sampling.sampler in STOCHASTIC or self.sampling.churn > 0
        uneven = samples > 1 and fresh and self.windows.tiling == "ramp"
        return ["where windows are blended (ramp) samples vary less than they should"] if uneven else []

    def operations(self, shape: Sequence[int]) -> int:
        """Floating-point operations of the network for one sample of a volume [x, y, z]."""
        window, whole = self.window(shape)
        shapes = Counter(tile.box.shape for tile in self.plan(whole, window))
        each = sum(number * self.trained.operations(self.sampling, space) for space, number in shapes.items())
        return each * (1 if len(window) == 3 else shape[2])

    def plan(self, whole: Sequence[int], window: Sequence[int]) -> list[Tile]:
        """The windows over a volume as long as a window. Those that are averaged at every step begin where the network
        halves, those that are blended at the end where the published ones do."""
        return tiles(whole, window, self._overlap(window), self._stride())

    def window(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(window, shape of the volume that windows cover): multiples of the network's stride, unless it takes any
        shape.

        Raises InputError for a window that the network cannot halve.
        """
        network = self.trained.denoiser.network
        wanted = self.windows.window or self.trained.task.space
        if len(wanted) < len(network.stride):
            raise InputError(f"window is {wanted!r}; this network has {len(network.stride)} axes. Give one for each.")
        up = [n if network.any_shape else -(-n // s) * s for n, s in zip(shape, network.stride, strict=False)]
        window = tuple(min(w, n) for w, n in zip(wanted, up, strict=False))[: len(network.stride)]
        if not network.any_shape and any(w % s for w, s in zip(window, network.stride, strict=True)):
            raise InputError(f"window {window} is not divisible by {network.stride}. Change it.")
        return window, tuple(up[: len(window)])

    @torch.no_grad()
    def __call__(
        self, volume: torch.Tensor, make: Callable[[torch.Tensor], Any], seed: Sequence[int], progress: Progress = iter
    ) -> torch.Tensor:
        """One composed sample [C, x, y, z] for a volume [K, x, y, z].

        make: (volume, or a slice of it, padded to the windows) → source of the task;  seed: key of the noise, which
        does not depend on windows or batches.
        """
        shape = volume.shape[1:]
        window, whole = self.window(shape)
        generator = seeded_generator(*seed)
        if len(window) == 3:
            return self._space([volume], make, window, whole, generator, progress)[0]
        slices, many = volume.unbind(-1), self.windows.window_batch
        groups = [slices[k : k + many] for k in range(0, shape[2], many)]
        made = [self._space(group, make, window, whole, generator, iter) for group in progress(groups)]
        return torch.cat(made).movedim(0, -1)

    def _space(self, volumes, make, window, whole, generator, progress):
        """One sample of each of ``volumes`` [K, *space] over all windows: [number, C, *space]."""
        space = volumes[0].shape[1:]
        lack = [part for n, m in zip(reversed(whole), reversed(space), strict=True) for part in (0, n - m)]
        sources = [make(nn.functional.pad(volume, lack)) for volume in volumes]
        channels = len(self.trained.task.target)
        noise = torch.stack([torch.randn((channels, *whole), generator=generator) for _ in volumes])
        over = self.fused if self.windows.tiling == "fused" else self._ramp
        made = over(sources, noise, window, progress)
        return made[(slice(None), slice(None), *(slice(n) for n in space))]

    @torch.no_grad()
    def fused(
        self, sources: Sequence[Any], noise: torch.Tensor, window: Sequence[int], progress: Callable = iter
    ) -> torch.Tensor:
        """Composed samples [number, C, *space] of the sources from noise [number, C', *space]: windows are averaged at
        every step."""
        box = Box.whole(noise.shape[2:])
        tiled = self._tiled(self.trained, sources, window)
        guide = None if self.trained.guide is None else self._tiled(self.trained.guide, sources, window)

        def condition(tile: Tile) -> torch.Tensor:
            return self._condition(sources, tile.box)

        return self._run(self.counted(progress, 1, tiled), condition, noise, sources, box, guide)

    def _tiled(self, trained, sources, window):
        batch = max(1, self.windows.window_batch // len(sources))
        return TiledDenoiser(trained.denoiser, window, self._overlap(window), self._stride(), batch=batch)

    def _ramp(self, sources, noise, window, progress):
        """Windows are sampled apart and then blended linearly over their overlap, as published."""
        overlap, whole = self._overlap(window), noise.shape[2:]
        total, share = torch.zeros(len(sources), noise.shape[1], *whole), torch.zeros(whole)
        for tile in progress(self.plan(whole, window)):
            box, weight = tile.box, weights(tile, whole, overlap, "ramp")
            total[(..., *box.slices)] += weight * self.box(sources, box, noise[(..., *box.slices)])
            share[box.slices] += weight
        return total / share

    @torch.no_grad()
    def box(
        self, sources: Sequence[Any], box: Box, noise: torch.Tensor, denoiser: ConditionalDenoiser | None = None
    ) -> torch.Tensor:
        """Composed samples [number, C, *box.shape] of the sources in one box from noise [number, C', *box.shape].

        denoiser: in place of the trained one, such as that of ``counted``.
        """
        guide = self.trained.guide and self.trained.guide.denoiser
        one = denoiser or self.trained.denoiser
        return self._run(one, self._condition(sources, box), noise, sources, box, guide)

    def counted(
        self, progress: Progress, samples: int, denoiser: ConditionalDenoiser | None = None
    ) -> ConditionalDenoiser:
        """The trained denoiser, or another, whose evaluations for so many samples move a bar."""
        return Counted(denoiser or self.trained.denoiser, progress, samples * self.trained.evaluations(self.sampling))

    def _condition(self, sources, box):
        return torch.stack([self.trained.task.condition(source, box, self.trained.device) for source in sources])

    def _stride(self):
        stride = self.trained.denoiser.network.stride
        return stride if self.windows.tiling == "fused" else (1,) * len(stride)

    def _overlap(self, window):
        limits = zip(window, self._stride(), strict=True)
        return tuple(max(min(self.windows.overlap, w // 2, w - s), 0) for w, s in limits)

    def _amended(self, sources, box):
        """The amendment of the estimates [number, C, *box] of all sources in a box."""
        amend = self.amend
        if amend is None:
            return None
        return lambda clean, sigma: torch.stack(
            [amend(one, sigma, source, box) for one, source in zip(clean, sources, strict=True)]
        )

    def _run(self, denoiser, condition, noise, sources, box, guide):
        """Composed samples [number, C, *box] of the sources in a box, from unit noise [number, C', *box]."""
        sampling, start, task = self.sampling, None, self.trained.task
        if self.begin is not None:
            begun = [self.begin(source, box) for source in sources]
            start = torch.cat([encoded for encoded, _ in begun])
            sampling = sampling.begun(begun[0][1])
        with autocast(self.trained.device, self.trained.precision):
            chosen = dict(dataclasses.asdict(sampling), time_shift_of=self.trained.shifted_alone(sampling))
            chosen |= dict(guide=guide, start=start, amend=self._amended(sources, box))
            z = sample(denoiser, condition, noise.to(self.trained.device), **chosen).float()
        made = [task.compose(task.codec.decode(one[None])[0], s, box) for one, s in zip(z, sources, strict=True)]
        return torch.stack(made).cpu()
