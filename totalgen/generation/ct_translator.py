"""Translating a CT of any shape, voxel size and orientation to MR: slice by slice, then as one volume."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from totalgen.data.ct_input import Ct, read_ct
from totalgen.data.derived_series import MR, Original, write_derived
from totalgen.data.input_names import discreet_input
from totalgen.data.intensity import AIR_HU
from totalgen.data.made_with import fingerprint
from totalgen.data.recipes import VQVAE
from totalgen.data.volume import Volume, canonical, isotropic_grid, resample
from totalgen.errors import InputError
from totalgen.generation.latent_volumes import LatentVolumes
from totalgen.generation.pipeline import Progress
from totalgen.generation.sample_statistics import mean_and_std
from totalgen.generation.trained import Trained
from totalgen.generation.window_sampler import WindowSampler
from totalgen.models.codec import SIGMA_DATA
from totalgen.settings import TranslationInferenceSettings
from totalgen.tasks.refinement import Latents
from totalgen.tasks.task import VOXEL_TOLERANCE
from totalgen.tasks.translation import Pair, TranslationTask, with_neighbours
from totalgen.weights import REFINER_KIND, TRANSLATOR_KIND

NOISE_STREAMS = {"slices": 5, "refiner": 6}  # those before belong to the cascade, to training and to the denoiser
COARSE = 1.5  # voxels; a CT with longer ones is doubtful


@dataclass(frozen=True)
class CtSource:
    """What is translated. ct: as the user brings it;  name: of the input, where it may be written."""

    ct: Ct
    name: str = ""


@dataclass(frozen=True)
class CtTranslator:
    """The pipeline from a CT to an MR, on the grid of the CT.

    slices: translates CT, of slices or of volumes;  latent, refiner: compress the result and refine it, for stage
    "refined";  settings: how all of them are sampled.
    """

    slices: Trained
    settings: TranslationInferenceSettings
    latent: LatentVolumes | None = None
    refiner: Trained | None = None

    def __post_init__(self) -> None:
        self.slices.check(self.settings.slices_sampling, "slices")
        if self.refiner is not None:
            self.refiner.check(self.settings.refiner_sampling, "refiner")
        families = [each.settings.process.family for each in (self.slices, self.refiner) if each is not None]
        if self.settings.samples > 1 and set(families) == {"regression"}:
            raise InputError(f"samples is {self.settings.samples}: a regression has one result only. Set it to 1.")

    @classmethod
    def load(cls, settings: TranslationInferenceSettings, device: torch.device | None = None) -> "CtTranslator":
        """From weights of train_ct_to_mr.py. Raises InputError when they are something else, or one is missing."""
        slices = Trained.load(settings.slices_weights, TRANSLATOR_KIND, device, settings.compute)
        if settings.stage == "slices":
            return cls(slices, settings)
        if settings.vqvae_weights is None or settings.refiner_weights is None:
            raise InputError("stage refined needs vqvae_weights and refiner_weights. Give both, or --stage slices.")
        latent = LatentVolumes.load(settings.vqvae_weights, device)
        refiner = Trained.load(settings.refiner_weights, REFINER_KIND, device, settings.compute)
        channels = latent.codec.settings["code_channels"]
        if len(refiner.task.target) != channels:
            raise InputError(
                f"{settings.refiner_weights}: refines {len(refiner.task.target)} latent channels, the VQ-VAE has "
                f"{channels}. Give those that belong together."
            )
        if refiner.data.get(VQVAE, own := fingerprint(settings.vqvae_weights)) != own:  # not noted by earlier versions
            raise InputError(
                f"{settings.refiner_weights}: learnt in the latents of another VQ-VAE than {settings.vqvae_weights}. "
                "Give those that belong together: vqvae_weights that encode_latents.py was given, and refiner_weights."
            )
        return cls(slices, settings, latent, refiner)

    @property
    def task(self) -> TranslationTask:
        """That of the slices."""
        assert isinstance(self.slices.task, TranslationTask)
        return self.slices.task

    @property
    def outputs(self) -> tuple[str, ...]:
        """The MR and, of several samples, their standard deviation."""
        return ("MR", "MR_std") if self.settings.samples > 1 else ("MR",)

    def source(self, row: Mapping[str, Any]) -> CtSource:
        """The CT in the file or folder ``input``; ``name`` stands for it in tables."""
        path = Path(row["input"])
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder. Correct the path.")
        name = str(row.get("name") or path.name)
        with discreet_input(path, name):
            return CtSource(_last_read(path.resolve(), path.stat().st_mtime_ns), name)

    def doubts(self, source: CtSource) -> list[str]:
        """What the reader of the file warns of, voxels much longer than those that were learnt, a doubtful spread."""
        longest, own = float(source.ct.ct.voxel_mm.max()), self.task.settings.voxel_mm
        coarse = f"voxels of {longest:.3g} mm are interpolated to {own:g} mm: what lies between is not in the CT"
        found = [*source.ct.warnings, *([coarse] if longest > COARSE * own else [])]
        for name in ["slices", *(["refiner"] if self.refiner else [])]:
            found += self._sampler(name).doubts(self.settings.samples)
        return found

    def describe(self, source: CtSource) -> dict[str, Any]:
        """The input's name and voxels, and all that decides what is made of it."""
        settings, used = self.settings, {"slices": self.slices, "refiner": self.refiner}
        found: dict[str, Any] = dict(
            source=f"translated from CT, trained on {', '.join(self.slices.data['sources'])} data", input=source.name,
            input_sha256=source.ct.ct.sha256, stage=settings.stage, samples=settings.samples,
            precision=self.slices.precision,
        )  # fmt: skip
        for name, trained in used.items():
            if trained is not None:
                found[f"{name}_weights"] = trained.sha256
                found[f"{name}_sampling"] = getattr(settings, f"{name}_sampling").text()
                found[f"{name}_start"] = getattr(settings, f"{name}_start")
                windows = getattr(settings, f"{name}_windows")
                found[f"{name}_windows"] = f"{windows.tiling} {'×'.join(map(str, windows.window))}/{windows.overlap}"
        return found | (dict(vqvae_weights=self.latent.sha256) if self.latent else {})

    def operations(self, shape: Sequence[int]) -> int:
        """Floating-point operations of the diffusion networks for a volume of so many of its own voxels."""
        count = self._sampler("slices").operations(shape)
        if self.refiner is not None and self.latent is not None:
            count += self._sampler("refiner").operations([-(-n // self.latent.codec.factor) for n in shape])
        return self.settings.samples * count

    def run(self, source: CtSource, seed: int = 0, progress: Progress = iter) -> dict[str, Volume]:
        """dict of MR and, with several samples, MR_std, on the grid of the CT."""
        given, voxel_mm = source.ct.ct, self.task.settings.voxel_mm
        grid = canonical(given)
        if np.abs(grid.affine[:3, :3] - voxel_mm * np.eye(3)).max() > VOXEL_TOLERANCE * voxel_mm:
            grid = resample(given, *isotropic_grid(given, voxel_mm), fill=AIR_HU)
        samples = (self._sample(grid, seed, number, progress) for number in range(self.settings.samples))
        return mean_and_std("MR", samples, given)

    def _sample(self, grid, seed, number, progress):
        """One MR, in its unit, of a CT on the network's voxels."""
        task = self.task
        ct = torch.from_numpy(task.ct.encode(grid.voxels).astype(np.float32))
        shown = with_neighbours(ct, task.settings.neighbours) if len(task.space) == 2 else ct[None]
        made = self._sampler("slices")(shown, Pair, (seed, NOISE_STREAMS["slices"], number), progress)[0]
        stacked = Volume(task.mr.decode(made.numpy()).astype(np.float32), grid.affine)
        if self.latent is None or self.refiner is None:
            return stacked
        latents = torch.stack([torch.from_numpy(each.voxels) for each in self.latent.encode(stacked)])
        refined = self._sampler("refiner")(latents, Latents, (seed, NOISE_STREAMS["refiner"], number), progress)
        return self.latent.decode(refined, stacked)

    def _sampler(self, name):
        settings, trained = self.settings, getattr(self, name)
        level = getattr(settings, f"{name}_start")

        def begin(source, box):  # at the condition: the CT, or the stacked slices
            if name == "refiner":
                stacked = source.slices[(slice(None), *box.slices)][None].to(trained.device)
                return trained.task.codec.encode(0 * stacked if trained.task.residual else stacked), level
            middle = source.ct.shape[0] // 2
            return trained.task.condition(source, box, trained.device)[None, middle : middle + 1] * SIGMA_DATA, level

        sampling, windows = (getattr(settings, f"{name}_{what}") for what in ("sampling", "windows"))
        return WindowSampler(trained, sampling, windows, begin if level else None)


def dicom_export(
    outdir: Path, keep_identity: bool
) -> Callable[[Path, CtSource, dict[str, Volume], dict[str, Any]], None]:
    """What ``generate_cohort`` calls to write <study>/dicom, a series derived from the input's; see derived_series."""

    def export(folder, source, volumes, row):
        made = f"MR made of a CT with TotalGen {row['totalgen']}, weights {row['slices_weights']}: not acquired"
        original = Original(source.ct.ct, source.ct.headers, source.ct.values)
        about = json.dumps(row, sort_keys=True)
        write_derived(folder / "dicom", volumes["MR"], original, MR, made, outdir, about, keep_identity)

    return export


@lru_cache(maxsize=1)
def _last_read(path, changed):
    """The CT at ``path`` as of its time of change: one translation asks for it several times."""
    return read_ct(path)
