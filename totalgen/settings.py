"""Every setting of a training and of a generation: its name, type, default, allowed range and meaning, stated once."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from totalgen.data.archive import AXIAL
from totalgen.errors import InputError
from totalgen.models.networks import RECOMPUTE
from totalgen.models.precision import PRECISIONS
from totalgen.models.processes import FAMILIES, NOISE_LEVELS
from totalgen.models.samplers import SAMPLERS
from totalgen.schema import Settings, setting

EMA_WIDTHS = (0.01, 0.30)  # σ_rel: narrower is no average, wider is one of the untrained network
LEVELS = ("auto", "karras", "ddpm")
TARGETS = ("residual", "direct")
PLACEMENTS = ("uniform", "body", "heat")
STAGES = ("global", "sr")


@dataclass(frozen=True)
class TaskSettings(Settings):
    """What is learnt from the archive."""

    shape: tuple[int, ...] = setting((224, 224, 384), "voxels of the full resolution along x, y, z", low=1, length=3)
    axial: str = setting("stretch", "axis z of the archive: filled by every torso, or padded with air", words=AXIAL)
    patch: tuple[int, ...] = setting((56, 56, 96), "voxels of a patch of the sr stage", low=1, length=3)
    target: str = setting("residual", "of the sr stage: what is added to the upsampled volume, or all", words=TARGETS)
    condition_noise: float = setting(0.0, "standard deviation of noise on the sr stage's condition", low=0, high=10)
    placement: str = setting("uniform", "where patches are: anywhere, or where there is body or heat", words=PLACEMENTS)
    partial_torsos: bool = setting(False, "train also on scans that end within the torso")


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """The U-Net (totalgen.models.networks.UNet)."""

    channels: int = setting(64, "channels at the finest level", low=1, high=1024)
    multipliers: tuple[int, ...] = setting((1, 2, 3, 4), "channels per level, as multiples", low=1, high=64, least=1)
    blocks: int = setting(3, "residual blocks per level", low=1, high=16)
    attention: tuple[int, ...] = setting((3,), "levels with self-attention; 0 is the finest", low=0, high=15)
    lean: bool = setting(False, "narrow the decoder where it doubles the resolution")
    strides: tuple[int, ...] = setting((), "factor between levels, per axis; empty: 2 on all", low=1, high=2)
    any_shape: bool = setting(False, "take axes that halving does not divide")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.strides) not in (0, 2, 3):
            raise InputError(f"strides is {self.strides!r}; give one number per axis, or none. Change it.")
        if missing := [level for level in self.attention if level >= len(self.multipliers)]:
            raise InputError(f"attention names level {missing[0]}; the network has {len(self.multipliers)}. Change it.")
        for level in self.attention:
            width = self.channels * self.multipliers[level]
            if width > 64 and width % (width // 64):
                raise InputError(f"attention at level {level}: {width} channels do not divide into heads. Change them.")


@dataclass(frozen=True)
class ProcessSettings(Settings):
    """The diffusion process and how training samples its noise levels (totalgen.models.processes)."""

    family: str = setting("edm", "kind of process", words=FAMILIES)
    uncertainty: bool = setting(False, "learn the log-variance of the loss (EDM2)")
    noise_levels: str = setting("lognormal", "distribution of σ in training", words=NOISE_LEVELS)
    noise_mean: float = setting(-0.4, "of ln σ, for lognormal", low=-10, high=10)
    noise_std: float = setting(1.0, "of ln σ, for lognormal", above=0, high=10)


@dataclass(frozen=True)
class RunSettings(Settings):
    """One training (totalgen.training.loop.fit)."""

    items: int = setting(16_252_000, "items to train on; with more, a run goes on", low=1, may_change=True)
    batch: int = setting(2048, "items per optimiser step over all processes", low=1)
    microbatch: int = setting(8, "items per forward pass of one process", low=1, may_change=True)
    lr: float = setting(0.017, "highest learning rate", low=0, high=10)
    lr_decay_steps: int = setting(35_000, "steps after which the rate falls as 1/√step", low=1)
    rampup_items: int = setting(10_000_000, "items over which the rate rises", low=0)
    ema: tuple[float, ...] = setting(
        (0.05, 0.10), "relative widths σ_rel of the averages", low=EMA_WIDTHS[0], high=EMA_WIDTHS[1], least=1
    )
    seed: int = setting(0, "of weights, items and noise", low=0, high=2**63 - 1)
    loader_processes: int = setting(2, "that load items; 0: the training's own", low=0, high=256, may_change=True)
    checkpoint_steps: int = setting(100, "steps between checkpoints", low=1, may_change=True)
    snapshot_steps: int = setting(250, "steps between averages kept for reconstruct_ema.py", low=1, may_change=True)
    picture_steps: int = setting(1000, "steps between pictures of samples", low=1, may_change=True)
    weights_dtype: str = setting("float32", "of the weights files", words=("float32", "float16"), may_change=True)
    init_from: Path | None = setting(None, "weights of the same network that a new run starts from", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({f"{width:.3f}" for width in self.ema}) < len(self.ema):
            raise InputError(f"ema is {self.ema!r}: two widths are the same to three digits. Change one.")


@dataclass(frozen=True)
class ComputeSettings(Settings):
    """How a network is computed; what it computes stays the same."""

    precision: str = setting("auto", "number format", words=PRECISIONS, may_change=True)
    recompute: str = setting(
        "nothing", "what training computes twice to save memory", words=("nothing", *RECOMPUTE), may_change=True
    )
    compiled: bool = setting(False, "through torch.compile", may_change=True)


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How a stage is sampled (totalgen.models.samplers.sample). The noise of ancestral steps depends on no seed."""

    sampler: str = setting("heun", "integrator", words=[name for name in SAMPLERS if name != "ancestral"])
    steps: int = setting(35, "noise levels", low=1, high=100_000)
    levels: str = setting("auto", "Karras's grid, DDPM's own steps, or by the family", words=LEVELS)
    sigma_min: float = setting(0.002, "lowest noise level of Karras's grid", above=0)
    sigma_max: float = setting(80.0, "highest noise level of Karras's grid", above=0)
    rho: float = setting(7.0, "curvature of Karras's grid", above=0, high=1000)
    guidance: float = setting(1.0, "weight of the network against its guide; 1: no guide", low=-100, high=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise InputError(f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}. Change one.")


@dataclass(frozen=True)
class TilingSettings(Settings):
    """How the sr stage goes over a volume."""

    slab: int = setting(96, "slices of a window along z", low=1)
    context: int = setting(0, "slices discarded at inner borders of windows", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.context >= self.slab:
            raise InputError(f"context {self.context} is not less than half of the slab, {self.slab}. Change one.")


@dataclass(frozen=True)
class WeightsSettings(Settings):
    """Weights files of the cascade."""

    global_weights: Path = setting(dataclasses.MISSING, "of the global stage")
    sr_weights: Path = setting(dataclasses.MISSING, "of the super-resolution stage")
    global_guide: Path | None = setting(None, "an earlier average of the same run that guides the global stage")
    sr_guide: Path | None = setting(None, "the same for the sr stage")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """A training of one stage of the cascade."""

    stage: str = setting("global", "stage of the cascade", words=STAGES)
    task: TaskSettings = field(default_factory=TaskSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    run: RunSettings = field(default_factory=RunSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)


@dataclass(frozen=True)
class GenerationSettings(Settings):
    """A generation with the cascade."""

    weights: WeightsSettings
    global_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    sr_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    tiling: TilingSettings = field(default_factory=TilingSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)


SEGMENTER_STRIDE = 8  # its network halves each axis three times


@dataclass(frozen=True)
class SegmenterSettings(Settings):
    """A training of the small organ segmenter (totalgen.evaluation.segmenter)."""

    steps: int = setting(3500, "optimiser steps", low=1)
    batch: int = setting(2, "patches per step", low=1)
    patch: int = setting(48, "voxels of a patch along each axis", low=2 * SEGMENTER_STRIDE)
    channels: int = setting(8, "width of the network at the full resolution", low=1, high=256)
    lr: float = setting(0.003, "highest learning rate of AdamW; it falls to zero along a cosine", low=0, high=10)
    seed: int = setting(0, "of weights, patches and noise", low=0, high=2**63 - 1)
    checkpoint_steps: int = setting(50, "steps between checkpoints", low=1, may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch % SEGMENTER_STRIDE:
            raise InputError(f"patch {self.patch} is not a multiple of {SEGMENTER_STRIDE}. Change it.")
