"""From demographics to a PET/CT: the global stage, then the second stage window by window."""

import hashlib
import inspect
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from totalgen.data import intensity
from totalgen.data.axial_extent import AxialExtent
from totalgen.data.conditions import demographic_maps, standardised
from totalgen.data.resolution import CENTRE, FACTOR, position, stretch, upsample
from totalgen.data.volume import Volume
from totalgen.errors import InputError, closest
from totalgen.generation.tiling import windows
from totalgen.models.codec import Standardise
from totalgen.models.networks import UNet, cost, mp_layers
from totalgen.models.precision import PRECISIONS, autocast, resolved
from totalgen.models.processes import Denoiser
from totalgen.models.samplers import SAMPLERS, evaluations, sample, seeded_generator
from totalgen.weights import load_weights

# What a preset may say of sampling, with its defaults. Ancestral steps draw noise that no seed here decides.
SAMPLING = {
    name: parameter.default for name, parameter in inspect.signature(sample).parameters.items()
    if name not in ("denoiser", "condition", "noise", "guide")
}  # fmt: skip
REPEATABLE = {name: sampler for name, sampler in SAMPLERS.items() if name != "ancestral"}
SHARED_WITH_GUIDE = ("shape", "patch", "target", "codec", "data")
NOISE_STREAMS = {"global": 0, "sr": 1}  # each stage has its own noise for the same seed


@dataclass(frozen=True)
class Stage:
    """A trained stage, ready to be sampled.

    sha256: of the weights file;  precision: "float32" or "bfloat16";  guide: a weaker stage (samplers.sample).
    """

    denoiser: Denoiser
    codec: Standardise
    configuration: dict
    sha256: str
    device: torch.device
    precision: str
    guide: "Stage | None" = None

    @classmethod
    def load(cls, path, stage, device=None, precision="auto", compiled=False, guide=None):
        """Rebuild a stage from its weights file.

        precision: as in precision.autocast;  compiled: through torch.compile;  guide: weights file of a weaker network.
        Raises InputError when a file is for the other stage, damaged, or a guide of something else.
        """
        closest(precision, dict.fromkeys(PRECISIONS))
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state, configuration = load_weights(path)
        if configuration.get("stage") != stage:
            raise InputError(f"{path}: holds stage {configuration.get('stage')}, {stage} is needed. Swap the files?")
        network = UNet(**configuration["network"])
        network.load_state_dict({name: value.float() for name, value in state.items()})
        for layer in mp_layers(network):
            layer.fold_()
        denoiser = Denoiser(network, configuration["family"]).to(device).eval()
        if compiled:
            network.compile()
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        codec = Standardise(**configuration["codec"]).to(device)
        weaker = None
        if guide is not None:
            weaker = cls.load(guide, stage, device, precision, compiled)
            if any(weaker.configuration.get(key) != configuration.get(key) for key in SHARED_WITH_GUIDE):
                raise InputError(f"{guide}: does not draw what {path} draws. Give an earlier average of that run.")
        return cls(denoiser, codec, configuration, sha256, device, resolved(device, precision), weaker)

    def draw(self, condition, noise, sampling):
        """Sample [2, *space] in data units for a condition [K, *space] and unit noise [2, *space]."""
        with torch.no_grad(), autocast(self.device, self.precision):
            guide = self.guide and self.guide.denoiser
            z = sample(self.denoiser, condition[None], noise[None].to(self.device), **sampling, guide=guide)
        return self.codec.decode(z.float())[0]

    def noise(self, seed, shape):
        """The noise of a whole volume, [2, *shape]: one draw per seed, whatever the windows."""
        generator = seeded_generator(seed, NOISE_STREAMS[self.configuration["stage"]])
        return torch.randn((2, *shape), generator=generator)


@dataclass(frozen=True)
class Cascade:
    """Both stages and how to sample them.

    global_sampling, sr_sampling: keyword arguments of samplers.sample (sampler, steps, …);
    slab: slices per window of the second stage;  context: discarded slices at its borders.
    """

    low: Stage
    high: Stage
    global_sampling: dict
    sr_sampling: dict
    slab: int
    context: int

    def __post_init__(self):
        check_sampling("global_sampling", self.global_sampling, "low_guide", self.low.guide)
        check_sampling("sr_sampling", self.sr_sampling, "high_guide", self.high.guide)
        one, two = self.low.configuration, self.high.configuration
        if one["shape"] != two["shape"] or one["data"]["voxel_mm"] != two["data"]["voxel_mm"]:
            raise InputError(
                f"the stages do not belong together: {one['shape']} voxels of {one['data']['voxel_mm']} mm and "
                f"{two['shape']} of {two['data']['voxel_mm']} mm. Use two stages trained on the same archive."
            )
        for name in ("slab", "context"):
            if not isinstance(getattr(self, name), int):
                raise InputError(f"{name} {getattr(self, name)!r} is not a whole number of slices. Change it.")
        if not 0 <= 2 * self.context < self.slab:
            raise InputError(f"context {self.context} is not less than half of the slab, {self.slab}. Change one.")
        for stage in filter(None, (self.high, self.high.guide)):
            if self.slab % stage.denoiser.network.stride:
                raise InputError(f"slab {self.slab} is not divisible by {stage.denoiser.network.stride}. Change it.")

    @classmethod
    def load(
        cls, device=None, *, low, high, global_sampling, sr_sampling, slab, context,
        low_guide=None, high_guide=None, precision="auto", compiled=False,
    ):  # fmt: skip
        """A cascade from weights files: low, high, and those of weaker networks that guide them (see Stage.load)."""
        common = dict(device=device, precision=precision, compiled=compiled)
        coarse = Stage.load(low, "global", guide=low_guide, **common)
        fine = Stage.load(high, "sr", guide=high_guide, **common)
        return cls(coarse, fine, global_sampling, sr_sampling, slab, context)

    @property
    def shape(self):
        """Voxels of the full resolution, z stretched."""
        return tuple(self.low.configuration["shape"])

    def operations(self):
        """Floating-point operations of the networks for one subject."""
        x, y, z = self.shape
        drawn = [(self.low, self.global_sampling, [[n // FACTOR for n in self.shape]])]
        spaces = [(x, y, window.stop - window.start) for window in windows(z, self.slab, self.context)]
        drawn.append((self.high, self.sr_sampling, spaces))
        return sum(
            evaluations(sampling["sampler"], sampling["steps"]) * cost(part.denoiser.network.settings, space)[1]
            for stage, sampling, spaces in drawn
            for part in filter(None, (stage, stage.guide))
            for space in spaces
        )

    def generate_low(self, demographics, seed):
        """[2, x/4, y/4, z/4] in [0, 1]: CT and PET of the global stage."""
        shape = [n // FACTOR for n in self.shape]
        condition = demographic_maps(demographics, shape, self.low.device)
        return self.low.draw(condition, self.low.noise(seed, shape), self.global_sampling)

    def refine(self, low, demographics, seed, progress=lambda items: items, offsets=CENTRE):
        """[2, x, y, z] in [0, 1]: the second stage over a low-resolution volume, window by window.

        progress: wraps the list of windows, such as tqdm;  offsets: where the low-resolution voxels lie in their boxes
        (resolution.upsample); those of a generated volume stand for the whole box.
        """
        stage, (x, y, z) = self.high, self.shape
        noise = stage.noise(seed, self.shape)
        result = torch.empty(2, x, y, z)
        for window in progress(windows(z, self.slab, self.context)):
            start, shape = (0, 0, window.start), (x, y, window.stop - window.start)
            upsampled = upsample(low.to(stage.device), offsets, start, shape)
            condition = torch.cat(
                [
                    standardised(upsampled, stage.configuration["data"]["statistics"]),
                    demographic_maps(demographics, shape, stage.device),
                    position(start, shape, self.shape, device=stage.device),
                ]
            )
            drawn = stage.draw(condition, noise[..., window.start : window.stop], self.sr_sampling)
            if stage.configuration["target"] == "residual":
                drawn = drawn + upsampled
            kept = slice(window.keep_start - window.start, window.keep_stop - window.start)
            result[..., window.keep_start : window.keep_stop] = drawn[..., kept].cpu()
        return result

    def generate(self, demographics, seed, progress=lambda items: items):
        """(CT in HU, SUV) as Volumes with true extent: z is brought back from the stretched grid by the height."""
        high = self.refine(self.generate_low(demographics, seed), demographics, seed, progress).numpy()
        return self.to_volumes(high, demographics)

    def to_volumes(self, high, demographics):
        """Encoded [2, x, y, z] on the stretched grid → (CT in HU, SUV) Volumes, RAS+, centred in x and y."""
        data = self.low.configuration["data"]
        voxel_mm = data["voxel_mm"]
        slices = round(AxialExtent.from_dict(data["axial_extent"]).mm(demographics.height_m) / voxel_mm)
        affine = np.diag([voxel_mm] * 3 + [1.0])
        affine[:2, 3] = -(np.array(high.shape[1:3]) - 1) / 2 * voxel_mm
        high = np.clip(high, 0, 1)
        decoded = intensity.decode_ct(high[0]), intensity.decode_pet(high[1])
        return tuple(Volume(stretch(voxels, slices).astype(np.float32), affine) for voxels in decoded)


def check_sampling(name, sampling, guide_name, guide):
    """Raise InputError unless ``sampling`` can be given to samplers.sample for a stage with this guide (or None)."""
    if not isinstance(sampling, dict) or not {"sampler", "steps"} <= sampling.keys():
        raise InputError(f"{name} {sampling!r} lacks sampler or steps. Write {{'sampler': 'heun', 'steps': 35}}.")
    for key in sampling:
        closest(key, SAMPLING)
    closest(sampling["sampler"], REPEATABLE)
    values = SAMPLING | sampling
    numbers = [values[key] for key in ("sigma_min", "sigma_max", "rho", "guidance")]
    if not isinstance(values["steps"], int) or values["steps"] < 1:
        raise InputError(f"{name}: steps {values['steps']!r} is not a whole number from 1. Change it.")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise InputError(f"{name}: sigma_min, sigma_max, rho and guidance are numbers, not {numbers}. Change them.")
    if not 0 < values["sigma_min"] < values["sigma_max"] or values["rho"] <= 0:
        raise InputError(f"{name}: 0 < sigma_min < sigma_max and rho > 0 is needed, not {numbers[:3]}. Change them.")
    if (values["guidance"] != 1) != (guide is not None):
        raise InputError(
            f"{name}: guidance is {values['guidance']:g} and {guide_name} is {'given' if guide else 'not given'}. "
            f"Give both, --set {guide_name}=FILE with an earlier average, and a guidance other than 1; or neither."
        )
