"""A magnitude-preserving U-Net in two or three dimensions.

Source: Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models" (EDM2), section 2 and
appendix B; equation numbers below are that paper's. Written from the formulas, with boxes of 2^d voxels for resampling.
Every layer is built so that activations of unit variance stay at unit variance.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from totalgen.models.precision import spoils_gradients

CONVOLUTION = {4: F.conv2d, 5: F.conv3d}  # chosen by weight.ndim
MEMORY_FORMAT = {4: torch.channels_last, 5: torch.channels_last_3d}
ONEDNN = torch.backends.mkldnn.is_available()
CLIP = 256.0  # activations beyond ±256 would overflow half precision
SILU_RMS = 0.596  # root-mean-square of SiLU of a unit Gaussian (Eq. 81)
BRANCH = 0.3  # weight of a residual branch (Eq. 88, table 6)

# What a training step computes a second time, block by block, instead of storing it for the gradients:
CONVOLUTIONS = [torch.ops.aten.convolution.default, torch.ops.aten.mkldnn_convolution.default]
RECOMPUTE: dict[str, Callable | None] = {
    "pointwise": functools.partial(create_selective_checkpoint_contexts, CONVOLUTIONS),
    "blocks": None,  # everything
}


def memory_format(ndim: int, plain: bool = False) -> torch.memory_format:
    """Channels last, the format of the fastest convolutions; contiguous if ``plain``."""
    return torch.contiguous_format if plain else MEMORY_FORMAT[ndim]


def unit_norm(weight: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """Each output row (dimension 0) scaled to unit root-mean-square (Eq. 47 up to the factor √fan_in)."""
    fan_in = weight[0].numel()
    norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True, dtype=torch.float32)
    return weight / (eps + norm / math.sqrt(fan_in)).to(weight.dtype)


def pixel_norm(x: torch.Tensor, dim: int = 1, eps: float = 1e-4) -> torch.Tensor:
    """x scaled to unit root-mean-square along ``dim`` (Eq. 30)."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / (eps + norm / math.sqrt(x.shape[dim])).to(x.dtype)


def mp_silu(x: torch.Tensor) -> torch.Tensor:
    """SiLU divided by its gain on unit Gaussian input (Eq. 81)."""
    return F.silu(x) / SILU_RMS


def mp_sum(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """Weighted sum that keeps unit variance for independent a, b (Eq. 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Concatenate channels, scaled so that both contribute equally whatever their number (Eq. 103, t = 1/2)."""
    total = (a.shape[1] + b.shape[1]) / 2
    return torch.cat([a * math.sqrt(total / a.shape[1]), b * math.sqrt(total / b.shape[1])], dim=1)


def halve(x: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """Average of boxes of ``strides`` voxels, 2 or 1 per axis; an odd axis is extended by its last slice.

    Adds slices: pooling would leave the channels-last format on CPU.
    """
    for axis, stride in enumerate(strides, start=2):
        if stride == 1:
            continue
        every_other = [slice(None)] * axis
        if x.shape[axis] % 2:
            x = torch.cat([x, x[(*every_other, slice(-1, None))]], dim=axis)
        x = x[(*every_other, slice(0, None, 2))] + x[(*every_other, slice(1, None, 2))]
    return x * 0.5 ** sum(stride == 2 for stride in strides)


def double(x: torch.Tensor, strides: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Each voxel repeated ``strides`` times, cut to ``size``: the inverse of ``halve`` for odd axes too."""
    x = F.interpolate(x, scale_factor=tuple(float(stride) for stride in strides), mode="nearest")
    for axis, length in enumerate(size, start=2):
        x = x.narrow(axis, 0, length)
    return x


def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolution with zero padding that keeps the size.

    PyTorch computes a single float32 item of few voxels (channels × x × y ≤ 20 480 in 3D) with a convolution several
    times slower than oneDNN's. At generation these are all layers of the lower resolutions, so oneDNN is called
    directly. torch.compile makes its own choice.
    """
    padding = weight.shape[-1] // 2
    if padding and spoils_gradients(x):
        with torch.autocast("cpu", enabled=False):
            return CONVOLUTION[weight.ndim](x.float(), weight.float(), padding=padding)
    single = x.ndim == 5 and len(x) == 1 and x.device.type == "cpu" and x.dtype == torch.float32
    if single and ONEDNN and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu"):
        ones = [1] * 3
        return torch.mkldnn_convolution(x, weight, None, [padding] * 3, ones, ones, 1)
    return CONVOLUTION[weight.ndim](x, weight, padding=padding)


class MPLayer(nn.Module):
    """Linear map or convolution without bias whose weight has unit norm per output (Eq. 47 and 66).

    kernel: () for a linear layer, else one size per spatial axis. ``gain`` multiplies the output.
    While training, gradients pass through the normalisation; the stored weight itself is set back to unit norm once per
    optimiser step by ``normalise_``. ``fold_`` includes all factors in the weight, for inference.
    """

    plain = False  # see ``as_reference``

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))
        self.folded = False
        self.normalise_()

    @torch.no_grad()
    def normalise_(self) -> None:
        """Forced weight normalisation. Nothing is computed where there are no values yet (device meta)."""
        if not self.weight.is_meta:
            self.weight.copy_(unit_norm(self.weight))

    @torch.no_grad()
    def fold_(self) -> None:
        """Store the weight as it is used, normalised and divided by √fan_in."""
        self.weight.copy_(self._used())
        self.folded = True

    def _used(self):
        weight = unit_norm(self.weight.float())
        return weight / math.sqrt(weight[0].numel())

    def forward(self, x: torch.Tensor, gain: float | torch.Tensor = 1.0) -> torch.Tensor:
        weight = self.weight if self.folded else self._used()
        weight = (weight * gain).to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight)
        if weight[0, 0].numel() == 1 and not self.plain:  # a matrix product: a convolution would lose the format
            return F.linear(x.movedim(1, -1), weight.flatten(1)).movedim(-1, 1)
        weight = weight.contiguous(memory_format=memory_format(weight.ndim, self.plain))
        if self.plain:
            return CONVOLUTION[weight.ndim](x, weight, padding=weight.shape[-1] // 2)
        return convolve(x, weight)


class FourierFeatures(nn.Module):
    """Noise level [B] → [B, channels]: √2·cos(2π(f·c + φ)) with fixed random f ~ N(0, 1), φ ~ U(0, 1) (Eq. 75)."""

    frequency: torch.Tensor
    phase: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.randn(channels))
        self.register_buffer("phase", torch.rand(channels))

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        angle = torch.outer(c.float(), self.frequency.float()) + self.phase.float()
        return math.sqrt(2) * torch.cos(2 * math.pi * angle)


class Block(nn.Module):
    """Residual block with optional resampling and self-attention (EDM2 figure 21: encoder and decoder variants)."""

    plain = False

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, dims: int, decoder: bool,
        strides: Sequence[int] | None = None, attention: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        point, cube = (1,) * dims, (3,) * dims
        self.decoder, self.strides = decoder, strides  # None: no resampling
        self.heads = max(out_channels // 64, 1) if attention else 0  # one head per 64 channels
        self.skip = MPLayer(in_channels, out_channels, point) if in_channels != out_channels else None
        self.first = MPLayer(in_channels if decoder else out_channels, out_channels, cube)
        self.embed = MPLayer(embedding, out_channels)
        self.embed_gain = nn.Parameter(torch.zeros(()))
        self.second = MPLayer(out_channels, out_channels, cube)
        if self.heads:
            self.query_key_value = MPLayer(out_channels, 3 * out_channels, point)
            self.project = MPLayer(out_channels, out_channels, point)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, size: Sequence[int] = ()) -> torch.Tensor:
        """size: voxels after doubling the resolution."""
        if self.strides is not None:
            x = double(x, self.strides, size) if self.decoder else halve(x, self.strides)
        if not self.decoder:
            if self.skip is not None:
                x = self.skip(x)
            x = pixel_norm(x)
        y = self._after_silu(self.first, x)
        scale = self.embed(embedding, gain=self.embed_gain) + 1
        y = y * scale.to(y.dtype).reshape(*scale.shape, *[1] * (y.ndim - 2))
        if self.decoder and self.skip is not None:
            x = self.skip(x)
        x = self._sum(x, functools.partial(self._after_silu, self.second, y))
        if self.heads:
            x = self._sum(x, functools.partial(self.project, self._attend(self.query_key_value(x))))
        return x.clamp(-CLIP, CLIP)

    def _after_silu(self, layer, x, gain=1.0):
        """layer(mp_silu(x)), its constant in the weights: a pass over the activations less."""
        return layer(mp_silu(x), gain) if self.plain else layer(F.silu(x), gain / SILU_RMS)

    def _sum(self, x, branch):
        """mp_sum of x and branch(), whose weights take their share of it: a pass over the activations less."""
        if self.plain:
            return mp_sum(x, branch(), BRANCH)
        norm = math.hypot(1 - BRANCH, BRANCH)
        return torch.add(branch(gain=BRANCH / norm), x, alpha=(1 - BRANCH) / norm)

    def _attend(self, qkv):
        """Cosine self-attention over all voxels; memory is linear in their number."""
        batch, _, *space = qkv.shape
        if not self.plain:  # without channels last, PyTorch would compute the matrix of all pairs
            qkv = qkv.contiguous(memory_format=MEMORY_FORMAT[qkv.ndim])
        qkv = qkv.reshape(batch, 3, self.heads, -1, math.prod(space))
        query, key, value = pixel_norm(qkv, dim=3).transpose(3, 4).unbind(1)  # [B, heads, voxels, channels]
        if self.plain:
            y = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[3]), dim=3) @ value
        else:
            y = F.scaled_dot_product_attention(query, key, value)
        return y.transpose(2, 3).reshape(batch, -1, *space)


class UNet(nn.Module):
    """Magnitude-preserving U-Net.

    in_channels: noisy target and condition together;  out_channels: of the target;  channels: at full resolution;
    multipliers: per level;  blocks: per level;  attention: levels (0: full resolution) with self-attention;  dims: 2
    or 3;  lean: a decoder block that doubles the resolution has the number of channels of the higher resolution. In
    EDM2 it has that of the lower one, and this block at full resolution is the most expensive of the network;
    strides: 2 or 1 per axis, the factor of resampling between levels; all 2 when empty;  any_shape: take axes that
    halving does not divide, by extending an odd axis at each level and cutting it back.
    forward: x [B, in_channels, *space], every axis divisible by its ``stride`` unless any_shape, c_noise [B] →
    [B, out_channels, *space].
    ``recompute``, an attribute: a key of RECOMPUTE, to save memory in training. "pointwise" computes all but the
    convolutions a second time, "blocks" computes all a second time.
    """

    plain = False
    recompute: str | None = None

    def __init__(
        self, in_channels: int, out_channels: int, channels: int = 64, multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3, attention: Sequence[int] = (3,), dims: int = 3, lean: bool = False,
        strides: Sequence[int] = (), any_shape: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.settings = dict(
            in_channels=in_channels, out_channels=out_channels, channels=channels, multipliers=tuple(multipliers),
            blocks=blocks, attention=tuple(attention), dims=dims, lean=lean, strides=tuple(strides),
            any_shape=any_shape,
        )  # fmt: skip
        strides = tuple(strides) or (2,) * dims
        self.stride = coarsest(multipliers, strides, dims)
        self.any_shape = any_shape
        widths = [channels * m for m in multipliers]
        embedding = max(widths)
        cube = (3,) * dims
        self.fourier = FourierFeatures(channels)
        self.embed = MPLayer(channels, embedding)
        self.first = MPLayer(in_channels + 1, widths[0], cube)  # + 1: a channel of ones replaces biases
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        shared: dict[str, Any] = dict(embedding=embedding, dims=dims)
        for level, new in enumerate(widths):
            if level:
                self.encoder.append(Block(width, width, decoder=False, strides=strides, **shared))
                skips.append(width)
            for _ in range(blocks):
                self.encoder.append(Block(width, new, decoder=False, attention=level in attention, **shared))
                width = new
                skips.append(width)
        self.middle = nn.ModuleList(
            [Block(width, width, decoder=True, attention=attend, **shared) for attend in (bool(attention), False)]
        )
        for level, new in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                finer = new if lean else width
                self.decoder.append(Block(width, finer, decoder=True, strides=strides, **shared))
                width = finer
            for _ in range(blocks + 1):
                wide = width + skips.pop()
                self.decoder.append(Block(wide, new, decoder=True, attention=level in attention, **shared))
                width = new
        self.last = MPLayer(width, out_channels, cube)
        self.out_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        if not self.any_shape and any(n % s for n, s in zip(x.shape[2:], self.stride, strict=True)):
            raise ValueError(f"axes must be divisible by {self.stride}; got {tuple(x.shape[2:])}")
        embedding = mp_silu(self.embed(self.fourier(c_noise).to(x.dtype)))
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        x = self.first(x.contiguous(memory_format=memory_format(x.ndim, self.plain)))
        skips = [x]
        for block in self.encoder:
            x = self._run(block, x, embedding)
            skips.append(x)
        for block in self.middle:
            x = self._run(block, x, embedding)
        for block in self.decoder:
            if block.strides is None:
                x = mp_cat(x, skips.pop())
            x = self._run(block, x, embedding, skips[-1].shape[2:] if skips else ())
        return self.last(x, gain=self.out_gain)

    def _run(self, block, x, embedding, size=()):
        if self.recompute is None or not torch.is_grad_enabled():
            return block(x, embedding, size)
        contexts = RECOMPUTE[self.recompute]
        options: dict[str, Any] = dict(context_fn=contexts) if contexts else {}
        return checkpoint(block, x, embedding, size, use_reentrant=False, **options)


def coarsest(multipliers: Sequence[int], strides: Sequence[int], dims: int) -> tuple[int, ...]:
    """Voxels, per axis, that one of the coarsest level covers (see UNet)."""
    return tuple(n ** (len(multipliers) - 1) for n in strides or (2,) * dims)


def as_reference(module: nn.Module) -> nn.Module:
    """The same network computed by the simplest method: contiguous, attention as an explicit matrix.

    For benchmarks and tests, which compare the fast method with it. Returns the module.
    """
    for part in module.modules():
        if isinstance(part, (MPLayer, Block, UNet)):
            part.plain = True
    return module


def mp_layers(module: nn.Module) -> list[MPLayer]:
    """Every magnitude-preserving layer inside ``module``."""
    return [layer for layer in module.modules() if isinstance(layer, MPLayer)]


def cost(settings: Mapping[str, Any], space: Sequence[int]) -> tuple[int, int]:
    """(parameters, floating-point operations of one evaluation of one item of ``space`` voxels) of UNet(**settings).

    Nothing is allocated or computed.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = UNet(**settings)
        network(torch.empty(1, settings["in_channels"], *space), torch.empty(1))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()
