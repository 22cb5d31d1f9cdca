"""From demographics to a PET/CT: the global stage, then the super-resolution stage window by window."""

import hashlib
import importlib.resources
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from totalgen.data import intensity
from totalgen.data.axial_extent import AxialExtent
from totalgen.data.demographics import Demographics, outside
from totalgen.data.resolution import CENTRE, FACTOR, stretch
from totalgen.data.volume import Volume
from totalgen.errors import InputError, closest
from totalgen.generation.tiling import Tile, tiles
from totalgen.models.codec import Standardise
from totalgen.models.networks import UNet, cost, mp_layers
from totalgen.models.precision import autocast, resolved
from totalgen.models.processes import DDPM_STEPS, Denoiser
from totalgen.models.samplers import evaluations, sample, seeded_generator
from totalgen.schema import build, from_dict
from totalgen.settings import ComputeSettings, GenerationSettings, SamplingSettings, TilingSettings, TrainingSettings
from totalgen.tasks.petct import STAGES, LowResolution, Person
from totalgen.tasks.task import Box, Task
from totalgen.weights import STAGE_KIND, load_weights, network_arguments

SHIPPED = {"demo": "edm", "demo-flow": "flow"}  # name → family of the weights in totalgen.resource
NOISE_STREAMS = {"global": 0, "sr": 1}  # each stage has its own noise for the same seed
Progress = Callable[[list[Tile]], Iterable[Tile]]


@dataclass(frozen=True)
class Stage:
    """A trained stage, ready to be sampled.

    task: target, condition and codec, as in training;  settings: those it was trained with;
    data: what its archive knew (voxel_mm, statistics, …);
    sha256: of the weights file;  precision: "float32" or "bfloat16";  guide: a weaker stage (samplers.sample).
    """

    denoiser: Denoiser
    task: Task
    settings: TrainingSettings
    data: dict[str, Any]
    sha256: str
    device: torch.device
    precision: str
    guide: "Stage | None" = None

    @classmethod
    def load(
        cls, path: str | Path, stage: str, device: torch.device | None = None,
        compute: ComputeSettings | None = None, guide: str | Path | None = None,
    ) -> "Stage":  # fmt: skip
        """Rebuild a stage from its weights file.

        guide: weights file of a weaker network.
        Raises InputError when a file is for the other stage, damaged, or a guide of something else.
        """
        compute = compute or ComputeSettings()
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state, configuration = load_weights(path)
        if configuration.get("kind") != STAGE_KIND:
            raise InputError(f"{path}: holds no stage of the cascade. Give weights of train_totalgen.py.")
        settings = from_dict(TrainingSettings, configuration["settings"])
        if settings.stage != stage:
            raise InputError(f"{path}: holds stage {settings.stage}, {stage} is needed. Swap the files?")
        network = UNet(**network_arguments(configuration))
        network.load_state_dict({name: value.float() for name, value in state.items()})
        for layer in mp_layers(network):
            layer.fold_()
        denoiser = Denoiser(network, settings.process.family).to(device).eval()
        if compute.compiled:
            network.compile()
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        task = STAGES[stage](settings.task, configuration["data"])
        task.codec = Standardise(**configuration["codec"]).to(device)
        weaker = None
        if guide is not None:
            weaker = cls.load(guide, stage, device, compute)
            same_task = weaker.settings.task == settings.task and weaker.settings.stage == settings.stage
            if not same_task or weaker.data != configuration["data"]:
                raise InputError(f"{guide}: does not sample what {path} samples. Give an earlier average of that run.")
        precision = resolved(device, compute.precision)
        return cls(denoiser, task, settings, configuration["data"], sha256, device, precision, weaker)

    def sample(self, source: Any, box: Box, noise: torch.Tensor, sampling: SamplingSettings) -> torch.Tensor:
        """The volume of a box, [2, *box.shape] in [0, 1], for a source of the task and unit noise [2, *box.shape]."""
        condition = self.task.condition(source, box, self.device)
        with torch.no_grad(), autocast(self.device, self.precision):
            guide = None if self.guide is None else self.guide.denoiser
            z = sample(self.denoiser, condition[None], noise[None].to(self.device), **asdict(sampling), guide=guide)
        return self.task.compose(self.task.codec.decode(z.float())[0], source, box)

    def noise(self, seed: int, shape: Sequence[int]) -> torch.Tensor:
        """The noise of a whole volume, [2, *shape]: sampled once per seed, whatever the windows."""
        generator = seeded_generator(seed, NOISE_STREAMS[self.settings.stage])
        return torch.randn((2, *shape), generator=generator)

    def operations(self, sampling: SamplingSettings, space: Sequence[int]) -> int:
        """Floating-point operations of one sample of ``space`` voxels, the guide's included."""
        networks = [stage.denoiser.network for stage in (self, self.guide) if stage is not None]
        count = evaluations(sampling.sampler, sampling.steps)
        return sum(count * cost(network.settings, space)[1] for network in networks)


@dataclass(frozen=True)
class Cascade:
    """Both stages, and how to sample them and to go over a volume."""

    global_stage: Stage
    sr_stage: Stage
    global_sampling: SamplingSettings
    sr_sampling: SamplingSettings
    tiling: TilingSettings

    def __post_init__(self) -> None:
        check_sampling(self.global_stage, self.global_sampling)
        check_sampling(self.sr_stage, self.sr_sampling)
        both = (self.global_stage, self.sr_stage)
        shapes = [(*stage.settings.task.shape, stage.settings.task.axial) for stage in both]
        voxels_mm = [stage.data["voxel_mm"] for stage in both]
        if shapes[0] != shapes[1] or voxels_mm[0] != voxels_mm[1]:
            raise InputError(
                f"the stages do not belong together: {shapes[0]} voxels of {voxels_mm[0]} mm and "
                f"{shapes[1]} of {voxels_mm[1]} mm. Use two stages trained on the same archive."
            )
        for stage in filter(None, (self.sr_stage, self.sr_stage.guide)):
            network = stage.denoiser.network
            if not network.any_shape and self.tiling.slab % (stride := network.stride[2]):
                raise InputError(f"slab {self.tiling.slab} is not divisible by {stride}. Change it.")

    @classmethod
    def load(cls, settings: GenerationSettings, device: torch.device | None = None) -> "Cascade":
        """A cascade from weights files. Raises InputError when they do not fit each other (see Stage.load)."""
        weights, compute = settings.weights, settings.compute
        return cls(
            Stage.load(weights.global_weights, "global", device, compute, weights.global_guide),
            Stage.load(weights.sr_weights, "sr", device, compute, weights.sr_guide),
            settings.global_sampling, settings.sr_sampling, settings.tiling,
        )  # fmt: skip

    @classmethod
    def shipped(cls, name: str = "demo", device: torch.device | None = None) -> "Cascade":
        """The cascade whose weights come with the package, sampled as these weights were validated.

        name: "demo" (EDM diffusion) or "demo-flow". Both were trained on phantoms: no evidence about patients.
        """
        family = closest(name, SHIPPED)
        folder = Path(str(importlib.resources.files("totalgen.resource")))
        paths = [folder / f"demo-{stage}-{family}.safetensors" for stage in ("global", "sr")]
        carried: dict[str, Any] = dict(global_weights=paths[0], sr_weights=paths[1])
        for path in paths:
            carried |= load_weights(path)[1]["sampling"]
        return cls.load(build(GenerationSettings, carried), device)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the full resolution, z stretched."""
        return self.global_stage.settings.task.shape

    def doubts(self, person: Demographics) -> list[str]:
        """In words, what is doubtful about generating a person: values outside those of the training cohort.

        Weights made before these were kept give none.
        """
        return outside(person, self.global_stage.data.get("ranges", {}))

    def tiles(self) -> list[Tile]:
        """Windows of the sr stage: slabs along z."""
        window, overlap = (*self.shape[:2], self.tiling.slab), (0, 0, 2 * self.tiling.context)
        return tiles(self.shape, window, overlap)

    def operations(self) -> int:
        """Floating-point operations of the networks for one subject."""
        first = self.global_stage.operations(self.global_sampling, [n // FACTOR for n in self.shape])
        return first + sum(self.sr_stage.operations(self.sr_sampling, tile.box.shape) for tile in self.tiles())

    def generate_low(self, demographics: Demographics, seed: int) -> torch.Tensor:
        """[2, x/4, y/4, z/4] in [0, 1]: CT and PET of the global stage."""
        stage = self.global_stage
        noise, box = stage.noise(seed, stage.task.shape), Box.whole(stage.task.shape)
        return stage.sample(Person(demographics), box, noise, self.global_sampling)

    def refine(
        self, low: torch.Tensor, demographics: Demographics, seed: int, progress: Progress = iter,
        offsets: Sequence[float] = CENTRE,
    ) -> torch.Tensor:  # fmt: skip
        """[2, x, y, z] in [0, 1]: the sr stage over a low-resolution volume, window by window.

        progress: wraps the list of windows, such as tqdm;  offsets: where the low-resolution voxels lie in their boxes
        (resolution.upsample); those of a generated volume are at the middle of their box.
        """
        stage, source = self.sr_stage, LowResolution(demographics, low, offsets)
        noise = stage.noise(seed, self.shape)
        result = torch.empty(2, *self.shape)
        for tile in progress(self.tiles()):
            sampled = stage.sample(source, tile.box, noise[(slice(None), *tile.box.slices)], self.sr_sampling)
            result[(slice(None), *tile.kept.slices)] = sampled[(slice(None), *tile.kept_inside)].cpu()
        return result

    def generate(self, demographics: Demographics, seed: int, progress: Progress = iter) -> tuple[Volume, Volume]:
        """(CT in HU, SUV) with true extent: z is brought back from the stretched grid by the height."""
        high = self.refine(self.generate_low(demographics, seed), demographics, seed, progress).numpy()
        return self.to_volumes(high, demographics)

    def to_volumes(self, high: np.ndarray, demographics: Demographics) -> tuple[Volume, Volume]:
        """Encoded [2, x, y, z] on the archive's grid → (CT in HU, SUV) Volumes, RAS+, centred in x and y.

        A stretched axis z is brought back to the extent of the height; a padded one is kept, air included.
        """
        data = self.global_stage.data
        voxel_mm = data["voxel_mm"]
        slices = high.shape[3]
        if self.global_stage.settings.task.axial == "stretch":
            slices = round(AxialExtent.from_dict(data["axial_extent"]).mm(demographics.height_m) / voxel_mm)
        affine = np.diag([voxel_mm] * 3 + [1.0])
        affine[:2, 3] = -(np.array(high.shape[1:3]) - 1) / 2 * voxel_mm
        high = np.clip(high, 0, 1)
        ct, suv = (stretch(v, slices) for v in (intensity.decode_ct(high[0]), intensity.decode_pet(high[1])))
        return Volume(ct.astype(np.float32), affine), Volume(suv.astype(np.float32), affine)


def check_sampling(stage: Stage, sampling: SamplingSettings) -> None:
    """InputError unless a guide comes with a guidance other than 1, and the reverse, and DDPM has as many steps."""
    name = stage.settings.stage
    if (sampling.guidance != 1) != (stage.guide is not None):
        raise InputError(
            f"{name}_sampling: guidance is {sampling.guidance:g} and {name}_guide is "
            f"{'given' if stage.guide else 'not given'}. Give both, --set {name}_guide=FILE with an earlier average, "
            "and a guidance other than 1; or neither."
        )
    family = stage.settings.process.family
    own_steps = sampling.levels == "ddpm" or (sampling.levels == "auto" and family == "ddpm")
    if own_steps and sampling.steps > DDPM_STEPS:
        raise InputError(f"{name}_sampling: steps is {sampling.steps}; DDPM has {DDPM_STEPS}. Lower it.")
