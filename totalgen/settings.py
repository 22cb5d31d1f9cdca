"""Every setting of a training and of a generation: its name, type, default, allowed range and meaning, stated once."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from totalgen.data.doses import DOSES
from totalgen.data.organs import MEASURED
from totalgen.data.recipes import AXIAL
from totalgen.errors import InputError
from totalgen.models.networks import RECOMPUTE
from totalgen.models.precision import PRECISIONS
from totalgen.models.processes import FAMILIES, LOSSES, NOISE_LEVELS
from totalgen.models.samplers import SAMPLERS, SIGMA_MAX
from totalgen.schema import Settings, setting

EMA_WIDTHS = (0.01, 0.30)  # σ_rel: narrower is no average, wider is one of the untrained network
LEVELS = ("auto", "karras", "ddpm")
TARGETS = ("residual", "direct")
PLACEMENTS = ("uniform", "body", "heat")
STAGES = ("global", "sr")
MR_STAGES = ("slices", "refined")
LEAST_CONSISTENCY = 0.25  # low-resolution voxels: over fewer a Gaussian averages nothing
ORGAN_CALIBRATION = ("size_calibration", "uptake_calibration", "size_cooling", "uptake_averaging")
SEGMENTER_STRIDE = 8  # its network halves each axis three times


@dataclass(frozen=True)
class TargetSettings(Settings):
    """What every task of a diffusion model states."""

    target: str = setting("residual", "what is added to the upsampled or low-dose volume, or all", words=TARGETS)


@dataclass(frozen=True)
class TaskSettings(TargetSettings):
    """What is learnt from the archive."""

    shape: tuple[int, ...] = setting((224, 224, 384), "voxels of the full resolution along x, y, z", low=1, length=3)
    axial: str = setting("stretch", "axis z of the archive: filled by every torso, or padded with air", words=AXIAL)
    patch: tuple[int, ...] = setting((56, 56, 96), "voxels of a patch of the sr stage", low=1, length=3)
    condition_noise: float = setting(0.0, "standard deviation of noise on the sr stage's condition", low=0, high=10)
    placement: str = setting("uniform", "where patches are: anywhere, or where there is body or heat", words=PLACEMENTS)
    partial_torsos: bool = setting(False, "train also on scans that end within the torso")
    template: bool = setting(False, "give the global stage the body to be expected of the demographics")
    emphasis: float = setting(
        0.0, "share of the encoded SUV, as the condition shows it, in a voxel's weight in the loss; 0: all count alike",
        low=0, high=1000,
    )  # fmt: skip


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
    loss: str = setting("mse", "mean squared or absolute error, or with that of slice differences", words=LOSSES)


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
    snapshot_steps: int = setting(
        0, "steps between averages kept for reconstruct_ema.py; 0: 250, of long runs a 64th", low=0, may_change=True
    )
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
    device: str = setting("auto", "cpu, cuda, cuda:1, … or mps; auto: CUDA when present", may_change=True)


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How a network is sampled (totalgen.models.samplers.sample)."""

    sampler: str = setting("heun", "integrator", words=SAMPLERS)
    steps: int = setting(35, "noise levels", low=1, high=100_000)
    levels: str = setting("auto", "Karras's grid, DDPM's own steps, or by the family", words=LEVELS)
    sigma_min: float = setting(0.002, "lowest noise level of Karras's grid", above=0)
    sigma_max: float = setting(SIGMA_MAX, "highest noise level of Karras's grid", above=0)
    rho: float = setting(7.0, "curvature of Karras's grid", above=0, high=1000)
    guidance: float = setting(1.0, "weight of the network against its guide; 1: no guide", low=-100, high=100)
    churn: float = setting(0.0, "noise that heun adds again along the way (S_churn of Karras 2022)", low=0, high=1000)
    noise_scale: float = setting(1.0, "its scale, and that of sde_dpm_solver's noise (S_noise)", low=0.5, high=2)
    time_shift: float = setting(1.0, "noise level that the network is told, over that of the sample", low=0.5, high=4)
    time_shift_sigma_min: float = setting(0.0, "lowest noise level at which it is told another", low=0)
    time_shift_sigma_max: float = setting(SIGMA_MAX, "highest noise level at which it is told another", above=0)
    time_shift_of: str = setting("", "the only target that it is told another for, such as SUV; empty: all")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise InputError(f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}. Change one.")
        if self.churn and self.sampler != "heun":
            raise InputError(f"churn is {self.churn:g} with sampler {self.sampler}; only heun has it. Change one.")
        if self.noise_scale != 1 and self.sampler != "sde_dpm_solver" and not self.churn:
            raise InputError(
                f"noise_scale is {self.noise_scale:g}, but {self.sampler} without churn adds no noise along the way. "
                "Leave it out, or choose sde_dpm_solver."
            )
        if not self.time_shift_sigma_min < self.time_shift_sigma_max:
            raise InputError(
                f"time_shift_sigma_min {self.time_shift_sigma_min:g} is not below time_shift_sigma_max "
                f"{self.time_shift_sigma_max:g}. Change one."
            )
        for name, usual in (("time_shift_sigma_min", 0.0), ("time_shift_sigma_max", SIGMA_MAX), ("time_shift_of", "")):
            if self.time_shift == 1 and (value := getattr(self, name)) != usual:
                raise InputError(
                    f"{name} is {value}, but time_shift is 1, which changes nothing. Set time_shift, or {name}={usual}."
                )

    def begun(self, sigma: float) -> "SamplingSettings":
        """Of an early start at noise level σ."""
        return dataclasses.replace(self, sigma_max=sigma, levels="karras")

    def text(self) -> str:
        """sampler, steps and what differs from the defaults, such as "sampler=heun steps=35"."""
        values = {item.name: (getattr(self, item.name), item.default) for item in dataclasses.fields(self)}
        always = ("sampler", "steps")
        shown = [f"{name}={value}" for name, (value, usual) in values.items() if name in always or value != usual]
        return " ".join(shown)


@dataclass(frozen=True)
class WindowSettings(Settings):
    """How a network goes over a volume (totalgen.generation.tiling)."""

    tiling: str = setting("fused", "windows averaged at every step, or blended at the end", words=("fused", "ramp"))
    window: tuple[int, ...] = setting((), "voxels of a window; empty: those of a training patch", low=1)
    overlap: int = setting(16, "voxels that neighbouring windows share along each axis", low=0)
    window_batch: int = setting(1, "windows per evaluation", low=1)


@dataclass(frozen=True)
class TilingSettings(Settings):
    """How the sr stage goes over a volume."""

    windows: str = setting("slabs", "one after the other, or all averaged at every step", words=("slabs", "fused"))
    slab: int = setting(96, "slices of a window along z", low=1)
    context: int = setting(0, "of slabs: slices discarded at inner borders", low=0)
    overlap: int = setting(16, "of fused windows: voxels that neighbours share", low=0)
    width: int = setting(0, "of fused windows: voxels along x and y; 0: the whole width", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width and self.windows != "fused":
            raise InputError(f"width {self.width} is of fused windows. Add --set windows=fused, or leave it out.")
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
class DiffusionSettings(Settings):
    """What the trainings of all diffusion models have."""

    task: TargetSettings
    network: NetworkSettings = field(default_factory=NetworkSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    run: RunSettings = field(default_factory=RunSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)


@dataclass(frozen=True)
class TrainingSettings(DiffusionSettings):
    """A training of one stage of the cascade."""

    task: TaskSettings = field(default_factory=TaskSettings)
    stage: str = setting("global", "stage of the cascade", words=STAGES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.emphasis and self.stage == "global" and not self.task.template:
            raise InputError(
                f"emphasis is {self.task.emphasis:g}, but the global stage is shown no SUV. "
                "--set emphasis=0, or --set template=True."
            )
        if self.task.emphasis and self.process.loss != "mse":
            raise InputError(f"emphasis is of loss mse; this one is {self.process.loss}. Change one.")


@dataclass(frozen=True)
class PetDenoisingTaskSettings(TargetSettings):
    """What a PET denoiser learns (totalgen.tasks.pet_denoising)."""

    voxel_mm: float = setting(1.65, "edge of the voxels; the archive has the same", above=0, high=20)
    patch: tuple[int, ...] = setting((96, 96, 96), "voxels of a patch; two numbers: of an axial slice", low=1)
    doses: tuple[float, ...] = setting(DOSES, "fractions of the normal dose that are learnt", above=0, high=1, least=1)
    dose_channel: bool = setting(True, "tell the network the dose")
    placement: str = setting("body", "where patches are: anywhere, or where there is uptake", words=PLACEMENTS[:2])
    noise: float = setting(0.10, "std / mean at the normal dose and SUV 2.3, to simulate low doses", above=0, high=1)
    noise_fwhm_mm: float = setting(5.0, "blur that correlates that noise", above=0, high=20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.patch) not in (2, 3):
            raise InputError(f"patch is {self.patch!r}; give three numbers, or two for axial slices. Change it.")
        if max(self.doses) >= 1:
            raise InputError(f"doses has {max(self.doses):g}; a low dose is below 1. Change it.")


@dataclass(frozen=True)
class PetDenoisingSettings(DiffusionSettings):
    """A training of a PET denoiser."""

    task: PetDenoisingTaskSettings = field(default_factory=PetDenoisingTaskSettings)


@dataclass(frozen=True)
class TranslationTaskSettings(TargetSettings):
    """What a translator of CT to MR learns (totalgen.tasks.translation)."""

    target: str = setting("direct", "the MR itself, or its difference from the stacked slices", words=TARGETS)
    voxel_mm: float = setting(1.0, "edge of the voxels; the archive has the same", above=0, high=20)
    patch: tuple[int, ...] = setting((160, 224), "voxels of a patch; two numbers: of an axial slice", low=1)
    neighbours: int = setting(0, "slices on either side that a network of slices is shown, too", low=0, high=16)
    placement: str = setting("uniform", "where patches are: anywhere, or where there is body", words=PLACEMENTS[:2])

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.patch) not in (2, 3):
            raise InputError(f"patch is {self.patch!r}; give three numbers, or two for axial slices. Change it.")
        if self.neighbours and len(self.patch) == 3:
            raise InputError(f"neighbours is {self.neighbours}; a network of volumes has none. Set it to 0.")


@dataclass(frozen=True)
class TranslationSettings(DiffusionSettings):
    """A training of a translator of CT to MR, of slices or of volumes."""

    task: TranslationTaskSettings = field(default_factory=TranslationTaskSettings)


@dataclass(frozen=True)
class VqvaeSettings(Settings):
    """A training of the VQ-VAE that compresses CT and MR (totalgen.training.vqvae_training)."""

    patch: tuple[int, ...] = setting((80, 112, 84), "voxels of a patch, divisible by 2 per halving", low=2, length=3)
    channels: tuple[int, ...] = setting((128, 256), "width after each halving", low=1, high=1024, least=1)
    residual_layers: int = setting(6, "residual layers of each side and level", low=1, high=32)
    codes: int = setting(512, "vectors of the codebook", low=2, high=65536)
    code_channels: int = setting(2, "channels of the latent volume", low=1, high=64)
    commitment: float = setting(0.25, "weight of the distance from the codes", low=0, high=10)
    run: RunSettings = field(default_factory=RunSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        factor = 2 ** len(self.channels)
        if any(n % factor for n in self.patch):
            raise InputError(f"patch {self.patch} is not divisible by {factor}, 2 per entry of channels. Change it.")

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of models.vqvae.VectorQuantised."""
        names = ("channels", "residual_layers", "codes", "code_channels", "commitment")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class RefinementTaskSettings(TargetSettings):
    """What the refinement of stacked slices learns in the space of the VQ-VAE (totalgen.tasks.refinement)."""

    patch: tuple[int, ...] = setting((20, 28, 21), "voxels of a patch of the latent volume", low=1, length=3)


@dataclass(frozen=True)
class RefinementSettings(DiffusionSettings):
    """A training of that refinement."""

    task: RefinementTaskSettings = field(default_factory=RefinementTaskSettings)


def check_start(name: str, sigma: float, sampling: SamplingSettings) -> None:
    """Raises InputError for an early start, the setting ``name``, that begins at noise level σ where sampling ends."""
    if 0 < sigma <= sampling.sigma_min:
        raise InputError(
            f"{name}: sampling begins at noise level {sigma:g}, not above sigma_min {sampling.sigma_min:g}. Raise it."
        )


@dataclass(frozen=True)
class GenerationSettings(Settings):
    """A generation with the cascade."""

    weights: WeightsSettings
    global_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    sr_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    tiling: TilingSettings = field(default_factory=TilingSettings)
    air: bool = setting(True, "outside the body CT becomes -1000 HU and SUV 0; otherwise as generated", may_change=True)
    self_start: float = setting(
        0.0, "noise level at which the sr stage begins, around the upsampled volume; 0: pure noise", low=0
    )  # fmt: skip
    consistency: float = setting(
        0.0, "low-resolution voxels over which the sr stage's estimates agree with the volume refined; 0: as they are",
        low=0, high=16,
    )  # fmt: skip
    consistency_of: str = setting("both", "which of CT and SUV agree", words=("both", "CT", "SUV"))
    consistency_sigma: float = setting(0.3, "noise level below which estimates stay as they are all the same", low=0)
    calibration_slope: float = setting(
        1.0, "times the departure of the global stage's SUV from its template, in every estimate; a body departs by "
        "more, with more steps by more; 1: as the network says", low=0.5, high=2,
    )  # fmt: skip
    size_calibration: tuple[float, ...] = setting(
        (), f"times what sizes of {', '.join(MEASURED)} were measured to lack in the global stage; if this and the "
        "next three are empty, what the weights were validated with; 0,0,0,0: none", low=-10, high=10,
    )  # fmt: skip
    uptake_calibration: tuple[float, ...] = setting((), "the same of their mean SUVs", low=-10, high=10)
    size_cooling: tuple[float, ...] = setting(
        (), "standard deviations that their mean SUVs fall for each that size_calibration adds to their sizes",
        low=-10, high=10,
    )  # fmt: skip
    uptake_averaging: tuple[float, ...] = setting(
        (), "share of what SUV differs by from like neighbours there which estimates of both stages lose", low=0, high=1
    )  # fmt: skip
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ORGAN_CALIBRATION:
            if len(numbers := getattr(self, name)) not in (0, len(MEASURED)):
                raise InputError(f"{name} is {numbers!r}. Give none, or a number for each of {', '.join(MEASURED)}.")
        added = self.size_calibration or (0.0,) * len(MEASURED)
        for organ, size, cooling in zip(MEASURED, added, self.size_cooling, strict=False):
            if cooling and not size:
                raise InputError(f"size_cooling of the {organ} is of what size_calibration adds. Give that, too.")
        check_start("self_start", self.self_start, self.sr_sampling)
        if 0 < self.consistency < LEAST_CONSISTENCY:
            raise InputError(
                f"consistency is {self.consistency:g} low-resolution voxels, an average over none. "
                f"Give 0, or at least {LEAST_CONSISTENCY:g}."
            )


@dataclass(frozen=True)
class SegmenterSettings(Settings):
    """A training of the organ segmenter (totalgen.training.organ_training)."""

    patch: int = setting(48, "voxels of a patch along each axis", low=2 * SEGMENTER_STRIDE)
    channels: int = setting(8, "width of the network at the full resolution", low=1, high=256)
    run: RunSettings = field(default_factory=RunSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch % SEGMENTER_STRIDE:
            raise InputError(f"patch {self.patch} is not a multiple of {SEGMENTER_STRIDE}. Change it.")


@dataclass(frozen=True)
class TranslationInferenceSettings(Settings):
    """A translation of CT to MR (totalgen.generation.ct_translator)."""

    slices_weights: Path = setting(dataclasses.MISSING, "of train_ct_to_mr.py: of slices, or a 3-D regression")
    vqvae_weights: Path | None = setting(None, "of the VQ-VAE, for stage refined")
    refiner_weights: Path | None = setting(None, "of the refinement, for stage refined")
    stage: str = setting("refined", "stacked slices, or what the 3-D latent model makes of them", words=MR_STAGES)
    samples: int = setting(1, "of which the mean is given, and from two on the standard deviation", low=1, high=1000)
    slices_start: float = setting(0.0, "noise level at which slices begin, around the CT; 0: pure noise", low=0)
    refiner_start: float = setting(0.0, "the same for the refinement, around the stacked slices", low=0)
    slices_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    refiner_sampling: SamplingSettings = field(default_factory=SamplingSettings)
    slices_windows: WindowSettings = field(default_factory=WindowSettings)
    refiner_windows: WindowSettings = field(default_factory=WindowSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start("slices_start", self.slices_start, self.slices_sampling)
        check_start("refiner_start", self.refiner_start, self.refiner_sampling)


@dataclass(frozen=True)
class PetDenoisingInferenceSettings(Settings):
    """Denoising with a trained PET denoiser (totalgen.generation.pet_denoiser)."""

    weights: Path = setting(dataclasses.MISSING, "of train_pet_denoising.py")
    samples: int = setting(1, "of which the mean is given, and from two on the standard deviation", low=1, high=1000)
    start: float = setting(0.0, "noise level of an early start, in std of the dose's noise; 0: none", low=0, high=1000)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    windows: WindowSettings = field(default_factory=WindowSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
