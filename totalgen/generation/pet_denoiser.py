"""Denoising a PET of any shape, voxel size and orientation."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from totalgen.data.derived_series import PET, Original, write_derived
from totalgen.data.input_names import discreet_input
from totalgen.data.pet_input import Pet, read_pet
from totalgen.data.volume import Volume, canonical, isotropic_grid, resample
from totalgen.errors import InputError
from totalgen.generation.pipeline import Progress
from totalgen.generation.sample_statistics import mean_and_std
from totalgen.generation.trained import Trained
from totalgen.generation.window_sampler import WindowSampler
from totalgen.models.codec import SIGMA_DATA
from totalgen.settings import PetDenoisingInferenceSettings, SamplingSettings, WindowSettings, check_start
from totalgen.tasks.pet_denoising import LowDose, PetDenoisingTask
from totalgen.tasks.task import VOXEL_TOLERANCE
from totalgen.weights import PET_DENOISER_KIND

NOISE_STREAM = 4  # the cascade has 0 and 1, training 2 and 3


@dataclass(frozen=True)
class Input:
    """Source of the denoiser. pet: what the user brings;  dose: fraction of the normal dose it was taken at;
    name: of the input, where it may be written."""

    pet: Pet
    dose: float
    name: str = ""


@dataclass(frozen=True)
class PetDenoiser:
    """The pipeline from a low-dose PET to a normal-dose one, on the grid of the input.

    samples: of them the mean is given, and from two on the standard deviation;  start: noise level that sampling begins
    at, around the input, in standard deviations of the noise of its dose; 0: from pure noise.
    """

    trained: Trained
    sampling: SamplingSettings
    windows: WindowSettings
    samples: int = 1
    start: float = 0.0

    def __post_init__(self) -> None:
        self.trained.check(self.sampling, "denoiser")
        if self.task.residual:
            check_start("start", self.start * SIGMA_DATA, self.sampling)
        if self.samples > 1 and self.trained.settings.process.family == "regression":
            raise InputError(f"samples is {self.samples}: a regression has one result only. Set it to 1.")

    @classmethod
    def load(cls, settings: PetDenoisingInferenceSettings, device: torch.device | None = None) -> "PetDenoiser":
        """From a weights file of train_pet_denoising.py. Raises InputError when it is something else."""
        trained = Trained.load(settings.weights, PET_DENOISER_KIND, device, settings.compute)
        return cls(trained, settings.sampling, settings.windows, settings.samples, settings.start)

    @property
    def sampler(self) -> WindowSampler:
        """Over windows or slices."""
        return WindowSampler(self.trained, self.sampling, self.windows, self._begin if self.start else None)

    @property
    def task(self) -> PetDenoisingTask:
        """Target, condition and codec."""
        assert isinstance(self.trained.task, PetDenoisingTask)
        return self.trained.task

    @property
    def outputs(self) -> tuple[str, ...]:
        """The SUV and, of several samples, their standard deviation."""
        return ("SUV", "SUV_std") if self.samples > 1 else ("SUV",)

    def source(self, row: Mapping[str, Any]) -> Input:
        """The PET in the file or folder ``input``, at its ``dose``; ``name`` stands for it in tables."""
        dose = float(row["dose"])
        if not 0 < dose < 1:
            raise InputError(f"dose is {dose:g}; give the fraction of the normal dose, above 0 and below 1.")
        path = Path(row["input"])
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder. Correct the path.")
        name = str(row.get("name") or path.name)
        with discreet_input(path, name):
            return Input(_last_read(path.resolve(), path.stat().st_mtime_ns), dose, name)

    def doubts(self, source: Input) -> list[str]:
        """What the reader of the file warns of, a dose that was not learnt, and a doubtful spread."""
        doses = self.task.settings.doses
        outside = f"dose {source.dose:g} is outside {min(doses):g} to {max(doses):g} of the training"
        known = min(doses) <= source.dose <= max(doses)
        return [*source.pet.warnings, *([] if known else [outside]), *self.sampler.doubts(self.samples)]

    def describe(self, source: Input) -> dict[str, Any]:
        """The input's name and voxels, and all that decides what is made of it."""
        trained, windows = self.trained, self.windows
        made = f"denoised, trained on {', '.join(trained.data['sources'])} data"
        return dict(
            source=made, input=source.name, input_sha256=source.pet.suv.sha256, dose=source.dose,
            weights=trained.sha256, precision=trained.precision, sampling=self.sampling.text(),
            samples=self.samples, start=self.start, tiling=windows.tiling,
            window="×".join(map(str, windows.window)), overlap=windows.overlap,
        )  # fmt: skip

    def operations(self, shape: Sequence[int]) -> int:
        """Floating-point operations of the network for a volume of so many of its own voxels."""
        return self.samples * self.sampler.operations(shape)

    def run(self, source: Input, seed: int = 0, progress: Progress = iter) -> dict[str, Volume]:
        """dict of SUV and, with several samples, SUV_std, on the input's grid."""
        given, voxel_mm = source.pet.suv, self.task.settings.voxel_mm
        grid = canonical(given)
        if np.abs(grid.affine[:3, :3] - voxel_mm * np.eye(3)).max() > VOXEL_TOLERANCE * voxel_mm:
            grid = resample(given, *isotropic_grid(given, voxel_mm), fill=0.0)
        encoded = torch.from_numpy(self.task.encoding.encode(grid.voxels.astype(np.float32)).astype(np.float32))

        def sample(number):
            keys = (seed, NOISE_STREAM, number)
            made = self.sampler(encoded[None], lambda low: LowDose(low, source.dose), keys, progress)[0].numpy()
            return Volume(self.task.encoding.decode(made).astype(np.float32), grid.affine)

        return mean_and_std("SUV", map(sample, range(self.samples)), given)

    def _begin(self, source, box):
        """The input in process units, and the noise level there: what an early start begins from."""
        task = self.task
        low = source.low[(slice(None), *box.slices)][None].to(self.trained.device)
        if task.residual:
            return task.codec.encode(torch.zeros_like(low)), self.start * SIGMA_DATA
        activity = task.encoding.decode(np.array(task.mean))  # the mean of the training's volumes
        added = float(task.model.std(activity)) * np.sqrt(1 / source.dose - 1)
        std = task.codec.settings["std"][0]
        added *= SIGMA_DATA / std / (task.encoding.high - task.encoding.low)
        check_start("start", level := float(self.start * added), self.sampling)
        return task.codec.encode(low), level


def dicom_export(outdir: Path, keep_identity: bool) -> Callable[[Path, Input, dict[str, Volume], dict[str, Any]], None]:
    """What ``generate_cohort`` calls to write <study>/dicom, a series derived from the input's; see derived_series."""

    def export(folder, source, volumes, row):
        made = f"Low dose ({source.dose:g}) PET denoised with TotalGen {row['totalgen']}, weights {row['weights']}"
        pet, about = source.pet, json.dumps(row, sort_keys=True)
        original = Original(pet.suv, pet.headers, pet.values, pet.factors)
        write_derived(folder / "dicom", volumes["SUV"], original, PET, made, outdir, about, keep_identity)

    return export


@lru_cache(maxsize=1)
def _last_read(path, changed):
    """The PET at ``path`` as of its time of change: one denoising asks for it several times."""
    return read_pet(path)
