"""A trained diffusion model of any system, rebuilt from its weights file and ready to be sampled."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from totalgen.errors import InputError
from totalgen.models.codec import codec_from
from totalgen.models.memory import keep_freed_memory
from totalgen.models.networks import UNet, cost, mp_layers
from totalgen.models.precision import resolved
from totalgen.models.processes import DDPM_STEPS, Denoiser
from totalgen.models.samplers import evaluations, noise_levels
from totalgen.schema import build
from totalgen.settings import ComputeSettings, SamplingSettings
from totalgen.tasks.systems import system_of
from totalgen.tasks.task import Task
from totalgen.weights import described, filled, known_data, load_weights, network_arguments

GUIDED = ("global", "sr")  # stages that may have a guide


@dataclass(frozen=True)
class Trained:
    """A trained network of one system.

    task: target, condition and codec, as in training;  settings: those it was trained with;
    data: what its archive knew (voxel_mm, statistics, …);
    sha256: of the weights file;  precision: "float32" or "bfloat16";  guide: a weaker one (samplers.sample).
    """

    denoiser: Denoiser
    task: Task
    settings: Any
    data: dict[str, Any]
    sha256: str
    device: torch.device
    precision: str
    guide: "Trained | None" = None

    @classmethod
    def load(
        cls, path: str | Path, kind: str, device: torch.device | None = None,
        compute: ComputeSettings | None = None, guide: str | Path | None = None,
    ) -> "Trained":  # fmt: skip
        """From a weights file of ``kind`` (a key of systems.SYSTEMS).

        guide: weights file of a weaker network.
        Raises InputError when a file is of another kind, damaged, or a guide of something else.
        """
        compute = compute or ComputeSettings()
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        keep_freed_memory(device)
        state, configuration = load_weights(path)
        system = system_of(configuration, path, (kind,))
        with described(path):
            settings = build(system.settings, configuration["settings"])
            network = filled(path, lambda: UNet(**network_arguments(configuration)), state)
            task = system.task(settings, configuration["data"])
            task.codec = codec_from(configuration["codec"]).to(device)
        for layer in mp_layers(network):
            layer.fold_()
        denoiser = Denoiser(network, settings.process.family).to(device).eval()
        if compute.compiled:
            network.compile()
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        weaker = None
        if guide is not None:
            weaker = cls.load(guide, kind, device, compute)
            same = weaker.settings.task == settings.task and weaker.task.given == task.given
            same &= weaker.task.shape == task.shape
            if not same or known_data(weaker.data) != known_data(configuration["data"]):
                raise InputError(f"{guide}: does not sample what {path} samples. Give an earlier average of that run.")
        precision = resolved(device, compute.precision)
        return cls(denoiser, task, settings, configuration["data"], sha256, device, precision, weaker)

    def operations(self, sampling: SamplingSettings, space: Sequence[int]) -> int:
        """Floating-point operations of one sample of ``space`` voxels, the guide's included."""
        networks = [each.denoiser.network for each in (self, self.guide) if each is not None]
        return self.evaluations(sampling) * sum(cost(network.settings, space)[1] for network in networks)

    def evaluations(self, sampling: SamplingSettings) -> int:
        """Number of evaluations of the network for one sample that begins at pure noise."""
        count = evaluations(sampling.sampler, sampling.steps)
        if self.shifted_alone(sampling) is not None:
            grid = (sampling.steps, sampling.levels, sampling.sigma_min, sampling.sigma_max, sampling.rho)
            levels = noise_levels(self.settings.process.family, *grid)[:-1]
            again = (levels >= sampling.time_shift_sigma_min) & (levels <= sampling.time_shift_sigma_max)
            count += int(again.sum()) + (int(again[1:].sum()) if sampling.sampler == "heun" else 0)
        return count

    def shifted_alone(self, sampling: SamplingSettings) -> int | None:
        """Channel of the only target that the network is told another noise level for; None: all of them are."""
        targets = tuple(self.task.target)
        return targets.index(sampling.time_shift_of) if sampling.time_shift_of and len(targets) > 1 else None

    def check(self, sampling: SamplingSettings, name: str) -> None:
        """InputError unless a guide comes with a guidance other than 1, and the reverse, and DDPM has as many steps.

        name: of the settings, such as "global" for global_sampling and global_guide.
        """
        if sampling.guidance != 1 and name not in GUIDED:
            raise InputError(f"{name}_sampling: guidance is {sampling.guidance:g}, but it has no guide. Set it to 1.")
        if (sampling.guidance != 1) != (self.guide is not None):
            raise InputError(
                f"{name}_sampling: guidance is {sampling.guidance:g} and {name}_guide is "
                f"{'given' if self.guide else 'not given'}. Give both, --set {name}_guide=FILE with an earlier "
                "average, and a guidance other than 1; or neither."
            )
        if sampling.time_shift_of and sampling.time_shift_of not in self.task.target:
            raise InputError(
                f"{name}_sampling: time_shift_of is {sampling.time_shift_of}, which is not made here. "
                f"Set it to {' or '.join(self.task.target)}, or leave it out."
            )
        family = self.settings.process.family
        own_steps = sampling.levels == "ddpm" or (sampling.levels == "auto" and family == "ddpm")
        if own_steps and sampling.steps > DDPM_STEPS:
            raise InputError(f"{name}_sampling: steps is {sampling.steps}; DDPM has {DDPM_STEPS}. Lower it.")
