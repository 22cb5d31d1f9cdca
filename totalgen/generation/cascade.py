"""From demographics to a PET/CT: the global stage, then the super-resolution stage window by window."""

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import torch

from totalgen.data.axial_extent import AxialExtent
from totalgen.data.crop import ROUGH_HU, rough_body
from totalgen.data.demographics import Demographics, outside
from totalgen.data.intensity import AIR_HU
from totalgen.data.organs import MEASURED
from totalgen.data.resolution import CENTRE, FACTOR, missing, stretch, upsample
from totalgen.data.volume import Volume
from totalgen.errors import InputError, closest
from totalgen.generation.estimate_calibration import SIZE, UPTAKE, averaged_uptake, calibrated
from totalgen.generation.pipeline import Progress
from totalgen.generation.tiling import Tile, tiles
from totalgen.generation.trained import Trained
from totalgen.generation.window_sampler import WindowSampler
from totalgen.models.precision import autocast
from totalgen.models.samplers import STOCHASTIC, seeded_generator
from totalgen.schema import build
from totalgen.settings import (
    ORGAN_CALIBRATION,
    ComputeSettings,
    GenerationSettings,
    SamplingSettings,
    TilingSettings,
    WindowSettings,
)  # fmt: skip
from totalgen.tasks.petct import (
    GlobalTask,
    LowResolution,
    Person,
    SuperResolutionTask,
    decoded_channels,
    encodings_of,
)
from totalgen.tasks.task import Box
from totalgen.weights import STAGE_KIND, described, load_weights

SHIPPED = {"demo": "edm", "demo-flow": "flow"}  # name → family of the weights in totalgen.resource
NOISE_STREAMS = {"global": 0, "sr": 1}  # each stage has its own noise for the same seed


def as_validated(settings: GenerationSettings) -> GenerationSettings:
    """Settings with the calibration of organs that the weights of the global stage were validated with, where they have
    none at all. Raises InputError for weights that cannot be read or state one that no settings have."""
    if any(getattr(settings, name) for name in ORGAN_CALIBRATION):
        return settings
    with described(settings.weights.global_weights):
        return replace(settings, **_carried(settings))


def _carried(settings):
    """ORGAN_CALIBRATION → numbers, as the weights of the global stage state them; none where they state none."""
    carried = load_weights(settings.weights.global_weights)[1].get("sampling", {})
    return {name: tuple(carried.get(name, ())) for name in ORGAN_CALIBRATION}


def _say_what_is_left_out(settings):
    """Of a calibration the weights state all, and settings with a number of their own leave out what they lack."""
    given = [name for name in ORGAN_CALIBRATION if any(getattr(settings, name))]
    if not 0 < len(given) < len(ORGAN_CALIBRATION):
        return
    path = settings.weights.global_weights
    with described(path):
        carried = {name: numbers for name, numbers in _carried(settings).items() if not getattr(settings, name)}
    if any(any(numbers) for numbers in carried.values()):
        left = ", ".join(f"{name}={','.join(map(str, numbers))}" for name, numbers in carried.items() if any(numbers))
        said = f"{' and '.join(given)} given, {left} not: {path} was validated with that, too. Set all four"
        click.echo(f"Warning: {said}.", err=True)


def load_stage(
    path: str | Path, stage: str, device: torch.device | None = None, compute: ComputeSettings | None = None,
    guide: str | Path | None = None,
) -> Trained:  # fmt: skip
    """A stage of the cascade, "global" or "sr". Raises InputError for the other one, too (see Trained.load)."""
    found = Trained.load(path, STAGE_KIND, device, compute, guide)
    if found.settings.stage != stage:
        raise InputError(f"{path}: holds stage {found.settings.stage}, {stage} is needed. Swap the files?")
    return found


def whole_noise(stage: str, seed: int, shape: Sequence[int]) -> torch.Tensor:
    """The noise of a whole volume, [2, *shape]: sampled once per seed, whatever the windows."""
    return torch.randn((2, *shape), generator=seeded_generator(seed, NOISE_STREAMS[stage]))


@dataclass(frozen=True)
class Cascade:
    """Both stages, and how to sample them and to go over a volume: the pipeline from demographics to CT and SUV."""

    outputs: ClassVar[tuple[str, ...]] = ("CT", "SUV")
    global_stage: Trained
    sr_stage: Trained
    global_sampling: SamplingSettings
    sr_sampling: SamplingSettings
    tiling: TilingSettings
    air: bool = True
    self_start: float = 0.0
    consistency: float = 0.0
    consistency_of: str = "both"
    consistency_sigma: float = 0.3
    calibration_slope: float = 1.0
    size_calibration: tuple[float, ...] = ()
    uptake_calibration: tuple[float, ...] = ()
    size_cooling: tuple[float, ...] = ()
    uptake_averaging: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self.global_stage.check(self.global_sampling, "global")
        self.sr_stage.check(self.sr_sampling, "sr")
        both = (self.global_stage, self.sr_stage)
        shapes = [(*stage.settings.task.shape, stage.settings.task.axial) for stage in both]
        voxels_mm = [stage.data["voxel_mm"] for stage in both]
        if shapes[0] != shapes[1] or voxels_mm[0] != voxels_mm[1]:
            raise InputError(
                f"the stages do not belong together: {shapes[0]} voxels of {voxels_mm[0]} mm and "
                f"{shapes[1]} of {voxels_mm[1]} mm. Use two stages trained on the same archive."
            )
        codes = [encodings_of(stage.data) for stage in both]
        if codes[0] != codes[1]:
            texts = [", ".join(f"{name} {e.low:g} to {e.high:g}" for name, e in each.items()) for each in codes]
            raise InputError(
                f"the stages do not belong together: one learnt {texts[0]}, the other {texts[1]}. "
                "Use two stages trained on the same archive."
            )
        self._calibrated()
        stochastic = self.sr_sampling.sampler in STOCHASTIC or self.sr_sampling.churn
        if stochastic and self.tiling.windows == "slabs" and self.tiling.context and len(self.tiles()) > 1:
            raise InputError(
                f"sr_sampling: {self.sr_sampling.text()} adds other noise to every slab, so that context cannot hide "
                "their borders. Add --set windows=fused, or --set context=0."
            )
        for stage in filter(None, (self.sr_stage, self.sr_stage.guide)):
            network = stage.denoiser.network
            slabs = self.tiling.windows == "slabs" and self.tiling.slab < self.shape[2]  # along z they need not fit
            lengths = self.shape[:2] if slabs else self.shape
            if not network.any_shape and any(n % stride for n, stride in zip(lengths, network.stride, strict=False)):
                raise InputError(
                    f"the sr stage halves {'×'.join(map(str, self.shape))} voxels, which are not divisible by "
                    f"{max(network.stride)}. Train it with --init-from these weights and --set any_shape=True."
                )
            for name, stride in (("width", network.stride[0]), ("slab", network.stride[2])):
                length = getattr(self.tiling, name)
                if not network.any_shape and length % stride:
                    raise InputError(f"{name} {length} is not divisible by {stride}. Change it.")

    @classmethod
    def load(cls, settings: GenerationSettings, device: torch.device | None = None) -> "Cascade":
        """A cascade from weights files, its organs calibrated ``as_validated``.

        Raises InputError when they do not fit each other (see Trained.load).
        """
        _say_what_is_left_out(settings)
        settings = as_validated(settings)
        weights, compute = settings.weights, settings.compute
        return cls(
            load_stage(weights.global_weights, "global", device, compute, weights.global_guide),
            load_stage(weights.sr_weights, "sr", device, compute, weights.sr_guide),
            settings.global_sampling, settings.sr_sampling, settings.tiling, settings.air, settings.self_start,
            settings.consistency, settings.consistency_of, settings.consistency_sigma,
            settings.calibration_slope, settings.size_calibration, settings.uptake_calibration, settings.size_cooling,
            settings.uptake_averaging,
        )  # fmt: skip

    @classmethod
    def shipped(
        cls, name: str = "demo", device: torch.device | None = None, folder: Path | None = None
    ) -> "Cascade":  # fmt: skip
        """The cascade whose weights come with the package, sampled as these weights were validated.

        name: "demo" (EDM diffusion) or "demo-flow". Both were trained on phantoms: no evidence about patients.
        folder: where files of the same names are, instead.
        """
        family = closest(name, SHIPPED)
        folder = folder or Path(str(importlib.resources.files("totalgen.resource")))
        paths = [folder / f"demo-{stage}-{family}.safetensors" for stage in ("global", "sr")]
        carried: dict[str, Any] = dict(global_weights=paths[0], sr_weights=paths[1])
        for path in paths:
            carried |= load_weights(path)[1]["sampling"]
        return cls.load(build(GenerationSettings, carried), device)

    @property
    def trained_on(self) -> list[str]:
        """Kinds of data, such as phantom."""
        return self.global_stage.data["sources"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the full resolution, z stretched."""
        return self.global_stage.settings.task.shape

    @property
    def window(self) -> tuple[int, int, int]:
        """Voxels that the sr stage sees at once."""
        width, slab = self.tiling.width or max(self.shape), self.tiling.slab
        x, y, z = (min(n, length) for n, length in zip(self.shape, (width, width, slab), strict=True))
        return x, y, z

    def source(self, row: Mapping[str, Any]) -> Demographics:
        """The person of a row of a cohort table."""
        return Demographics.from_row(row)

    def doubts(self, source: Demographics) -> list[str]:
        """Values outside those of the training cohort; weights made before these were kept give none."""
        doubts = outside(source, self.global_stage.data.get("ranges", {}))
        return [f"{doubt}; expect an implausible body" for doubt in doubts]

    def describe(self, source: Demographics) -> dict[str, Any]:
        """The person, and what makes the study: weights, precision, sampling, tiling."""
        one, two = self.global_stage, self.sr_stage
        fused = self.tiling.windows == "fused"
        windows = dict(windows="fused", overlap=self.tiling.overlap) if fused else {}  # slabs had no name once
        windows |= dict(width=self.tiling.width) if self.tiling.width else {}
        windows |= dict(self_start=self.self_start) if self.self_start else {}
        agreeing = ("consistency", "consistency_of", "consistency_sigma")
        windows |= {name: getattr(self, name) for name in agreeing} if self.consistency else {}
        windows |= dict(calibration_slope=self.calibration_slope) if self.calibration_slope != 1 else {}
        windows |= {name: getattr(self, name) for name in ORGAN_CALIBRATION if getattr(self, name)}
        return vars(source) | windows | dict(
            source=f"generated, trained on {', '.join(self.trained_on)} data",
            global_weights=one.sha256, sr_weights=two.sha256,
            global_guide=one.guide and one.guide.sha256, sr_guide=two.guide and two.guide.sha256,
            precision=one.precision,
            global_sampling=self.global_sampling.text(), sr_sampling=self.sr_sampling.text(),
            slab=self.tiling.slab, context=self.tiling.context, air=self.air,
        ) | {f"{name}_window": f"{e.low:g} to {e.high:g}" for name, e in encodings_of(one.data).items()}  # fmt: skip

    def tiles(self) -> list[Tile]:
        """Windows of the sr stage."""
        if self.tiling.windows == "slabs":
            return tiles(self.shape, self.window, (0, 0, 2 * self.tiling.context))
        return self._sr_sampler().plan(self.shape, self.window)

    def operations(self, shape: Sequence[int] | None = None) -> int:
        """Floating-point operations of the networks for one subject; it has one shape only."""
        first = self.global_stage.operations(self.global_sampling, [n // FACTOR for n in self.shape])
        return first + sum(self.sr_stage.operations(self._sr_begun(), tile.box.shape) for tile in self.tiles())

    def generate_low(self, demographics: Demographics, seed: int, progress: Progress = iter) -> torch.Tensor:
        """[2, x/4, y/4, z/4] in [0, 1]: CT and PET of the global stage. progress: wraps the list of evaluations."""
        shape = self.global_stage.task.shape
        sampler = WindowSampler(self.global_stage, self.global_sampling, WindowSettings(), amend=self._calibrated())
        noise, counted = whole_noise("global", seed, shape)[None], sampler.counted(progress, 1)
        return sampler.box([Person(demographics)], Box.whole(shape), noise, counted)[0]

    def refine(
        self, low: torch.Tensor, demographics: Demographics, seed: int, progress: Progress = iter,
        offsets: Sequence[float] = CENTRE,
    ) -> torch.Tensor:  # fmt: skip
        """[2, x, y, z] in [0, 1]: the sr stage over a low-resolution volume, window by window.

        progress: wraps the list of evaluations, such as tqdm;  offsets: where the low-resolution voxels lie in their
        boxes (resolution.upsample); those of a generated volume are at the middle of their box.
        """
        source = LowResolution(demographics, low, offsets)
        noise = whole_noise("sr", seed, self.shape)[None]
        sampler = self._sr_sampler()
        if self.tiling.windows == "fused":
            return sampler.fused([source], noise, self.window, progress)[0]
        slabs: list[Any] = self.tiles()
        result = torch.empty(2, *self.shape)
        counted = sampler.counted(progress, len(slabs))
        for tile in slabs:
            sampled = sampler.box([source], tile.box, noise[(..., *tile.box.slices)], counted)[0]
            result[(slice(None), *tile.kept.slices)] = sampled[(slice(None), *tile.kept_inside)]
        return result

    def _calibrated(self):
        asked = ((SIZE, self.size_calibration), (UPTAKE, self.uptake_calibration))
        organs = {f"{organ} {kind}": s for kind, each in asked for organ, s in zip(MEASURED, each, strict=False)}
        cooling = zip(MEASURED, self.size_cooling, strict=False)
        along = {(f"{organ} {SIZE}", f"{organ} {UPTAKE}"): -factor for organ, factor in cooling if factor}
        return calibrated(self.global_stage.task, self.calibration_slope, organs, along, self._averaged())

    def _averaged(self):
        """Reading of an organ's uptake → the share of its averaging."""
        averaging = zip(MEASURED, self.uptake_averaging, strict=False)
        return {f"{organ} {UPTAKE}": share for organ, share in averaging if share}

    def _sr_sampler(self):
        begin = self._upsampled if self.self_start else None
        amend = self._amended if self.consistency or self._averaged() else None
        windows = WindowSettings(overlap=self.tiling.overlap)
        return WindowSampler(self.sr_stage, self._sr_begun(), windows, begin, amend)

    def _sr_begun(self):
        """How the sr stage is sampled from where it begins."""
        return self.sr_sampling.begun(self.self_start) if self.self_start else self.sr_sampling

    def _upsampled(self, source, box):
        """What self-start begins from: the upsampled volume, without a residual, and the noise level there."""
        task = self.sr_stage.task
        assert isinstance(task, SuperResolutionTask)
        upsampled = source.upsampled(box, self.sr_stage.device)
        known = torch.zeros_like(upsampled) if task.residual else upsampled
        return task.codec.encode(known[None]), self.self_start

    def _amended(self, clean, sigma, source, box):
        """An estimate [2, *box] of the sr stage, even where organs are to be, and agreeing with what it refines."""
        if averaged := self._averaged():
            task, whole = self.sr_stage.task, self.global_stage.task
            assert isinstance(task, SuperResolutionTask)
            assert isinstance(whole, GlobalTask)
            assert whole.organs is not None, "checked by _calibrated"
            maps = [(whole.organs.region(name, task.target.index("SUV")), share) for name, share in averaged.items()]
            regions = ((upsample(low, CENTRE, box.start, box.shape), share) for low, share in maps)
            clean = averaged_uptake(clean, sigma, task, source, box, regions)
        return self._consistent(clean, sigma, source, box) if self.consistency else clean

    def _consistent(self, clean, sigma, source, box):
        """An estimate [2, *box] with what it lacks to the low-resolution volume. That is a sample of the full one, so
        the true expectation lacks nothing there; a network that has not converged draws towards the usual. At the
        lowest noise levels, where it does not, it is left to smooth what was interpolated."""
        if sigma < self.consistency_sigma:
            return clean
        task, device = self.sr_stage.task, self.sr_stage.device
        with autocast(device, "float32"):
            decoded = task.codec.decode(clean[None].float())[0]
            composed = task.compose(decoded, source, box)
            lacking = missing(composed, source.low.to(device), source.offsets, box.start, self.consistency)
            agree = [self.consistency_of in ("both", name) for name in task.target]
            lacking = lacking * torch.tensor(agree, device=device).reshape(-1, 1, 1, 1)
            return task.codec.encode((decoded + lacking)[None])[0]

    def run(self, source: Demographics, seed: int = 0, progress: Progress = iter) -> dict[str, Volume]:
        """dict of CT (HU) and SUV with true extent: z is brought back from the stretched grid by the height."""
        high = self.refine(self.generate_low(source, seed, progress), source, seed, progress).numpy()
        return self.to_volumes(high, source)

    def to_volumes(self, high: np.ndarray, demographics: Demographics) -> dict[str, Volume]:
        """Encoded [2, x, y, z] on the archive's grid → dict of CT (HU, int16) and SUV (float32), RAS+, centred in x, y.

        A stretched axis z is brought back to the extent of the height; a padded one is kept, air included. No value is
        beyond the windows of the training, but that outside the body CT is AIR_HU, where ``air`` is asked for and there
        is a body.
        """
        data = self.global_stage.data
        voxel_mm = data["voxel_mm"]
        slices = high.shape[3]
        if self.global_stage.settings.task.axial == "stretch":
            slices = round(AxialExtent.from_dict(data["axial_extent"]).mm(demographics.height_m) / voxel_mm)
        affine = np.diag([voxel_mm] * 3 + [1.0])
        affine[:2, 3] = -(np.array(high.shape[1:3]) - 1) / 2 * voxel_mm
        codes = encodings_of(data)
        channels = decoded_channels(np.clip(high, 0, 1), codes)
        ct, suv = (np.clip(stretch(v, slices), codes[name].low, codes[name].high) for name, v in channels.items())
        if self.air and (ct > codes["CT"].low + ROUGH_HU).any():
            outside = ~rough_body(Volume(ct, affine), codes["CT"].low)
            ct[outside], suv[outside] = AIR_HU, 0.0
        return dict(CT=Volume(np.rint(ct).astype(np.int16), affine), SUV=Volume(suv.astype(np.float32), affine))
