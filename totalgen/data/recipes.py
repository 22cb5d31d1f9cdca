"""What an archive holds of every subject: which arrays, of which channels, and how they are encoded.

    PetCt     high  float16 [channel, x, y, z]                CT and SUV in [0, 1] on one grid for all subjects
              low   float16 [phase, channel, x/4, y/4, z/4]   its 64 stratified subsamplings
    Volumes   volumes  float16 [channel, x, y, z]             named volumes on a grid of the subject's own, any shape
              labels   uint8 [channel, x, y, z]               masks on the same grid, when there are some
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from totalgen.data.axial_extent import read_axial_extent
from totalgen.data.intensity import AIR_HU, BODY_HU, CT, PET_CT, Encoding
from totalgen.data.made_with import RECORD, read_record
from totalgen.data.plausibility import check_hu, check_suv
from totalgen.data.resolution import FACTOR, PHASES, phase_offsets, stretch, subsample, upsample
from totalgen.data.volume import Volume, moved, read_labels, read_nifti
from totalgen.errors import InputError

AXIAL = ("stretch", "pad")
CUBE = 0.01  # relative difference of edges up to which a voxel is a cube
VQVAE = "vqvae"  # what latents were made with, in the record beside them: the fingerprint of its weights
LEARNT_FROM = "learnt_from"  # in the data of weights: Archive.fingerprint of the rows of their training
KIND = {"CT": check_hu, "SUV": check_suv, "truth": check_suv}  # whether a volume of that name is one
SLAB = 8  # planes of a volume that are worked on at a time
STATISTICS_PHASES = (21, 42)  # the channel statistics use the two middle phases on the diagonal, not all 64


class Array(NamedTuple):
    """An array of a subject. axes: their names; parts: into so many chunks each of x, y and z is cut."""

    axes: tuple[str, ...]
    parts: int
    dtype: str = "float16"

    def chunks(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of an array of ``shape``: one phase, all channels, a part of the space."""
        lengths = dict(phase=lambda n: 1, channel=lambda n: n)
        return tuple(
            lengths.get(axis, lambda n: -(-n // self.parts))(n) for axis, n in zip(self.axes, shape, strict=True)
        )


@dataclass(frozen=True)
class Recipe(ABC):
    """How a subject's files become arrays. Its fields are stored with the archive, and an archive has one recipe.

    A subject's files are <root>/<folder>/<subject>/<name>.nii.gz, with names of ``encodings`` or ``labels``.
    person: whether every subject needs sex, age, height and weight.
    """

    kind: ClassVar[str]
    person: ClassVar[bool]
    name: str  # of the archive: <root>/<name>.zarr
    encodings: dict[str, Encoding]
    labels: tuple[str, ...] = ()
    folder: str = "cropped"

    @property
    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """name → Array; the order is that of the checksum."""

    @abstractmethod
    def shapes(self, space: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """name → shape of the arrays of a subject that is stored on a grid of ``space`` voxels."""

    @abstractmethod
    def encode(self, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(name → array, attributes) of the subject whose files are in ``folder``.

        Attributes are JSON values: voxel_mm, affine (of the stored grid), moments (mean and mean square per channel),
        of labels the counts (voxels of every id 0…255), and cut, the share of the body outside the grid.
        Raises InputError when a file is missing, damaged, on another grid or not finite.
        """

    @abstractmethod
    def index(self, root: Path, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What an archive knows beyond subjects and statistics, from the attributes of its groups, none at first.

        Raises InputError when something is missing in ``root``, or the groups do not belong together.
        """

    def files(self, folder: str | Path) -> dict[str, Path]:
        """name → file of the subject in ``folder``."""
        return {name: Path(folder) / f"{name}.nii.gz" for name in (*self.encodings, *self.labels)}

    def settings(self) -> dict[str, Any]:
        """Plain values, for JSON; ``recipe_from`` is the inverse."""
        return dict(kind=self.kind) | asdict(self)

    def read(self, folder: Path) -> dict[str, Volume]:
        """name → Volume of a subject, on one grid."""
        volumes: dict[str, Volume] = {}
        for name, path in self.files(folder).items():
            volume = read_labels(path) if name in self.labels else read_nifti(path)
            first = next(iter(volumes.values()), volume)
            if not volume.same_grid(first):
                raise InputError(
                    f"{folder}: {next(iter(volumes))} {first.shape} and {name} {volume.shape} differ in their grids. "
                    "Run the steps that made them again."
                )
            if not np.isfinite(volume.voxels).all():
                raise InputError(f"{path}: a voxel is not a finite number. Make it again, or remove the subject.")
            volumes[name] = volume
        return volumes


@dataclass(frozen=True)
class PetCt(Recipe):
    """The cascade's: CT and SUV of a torso on one grid of ``shape`` voxels, divisible by 4, and its subsamplings.

    axial: "stretch", every torso fills axis z (the released code), or "pad", it keeps its length between air above and
    below (the paper's text).
    """

    kind: ClassVar[str] = "petct"
    person: ClassVar[bool] = True
    name: str = "training"
    encodings: dict[str, Encoding] = field(default_factory=lambda: dict(PET_CT))
    shape: tuple[int, ...] = (224, 224, 384)
    axial: str = "stretch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if any(n % FACTOR for n in self.shape):
            raise InputError(f"shape {self.shape} is not divisible by {FACTOR} on every axis. Choose another.")

    @property
    def arrays(self) -> dict[str, Array]:
        space = ("channel", "x", "y", "z")
        return dict(high=Array(space, parts=4), low=Array(("phase", *space), parts=1))

    def shapes(self, space: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        channels = len(self.encodings)
        return dict(high=(channels, *self.shape), low=(PHASES, channels, *(n // FACTOR for n in self.shape)))

    def encode(self, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        volumes, shape = self.read(folder), self.shape
        first = next(iter(volumes.values()))
        if self.axial == "pad" and first.shape[2] > shape[2]:
            cure = "Give --axial stretch, or a longer --shape."
            raise InputError(f"{folder}: has {first.shape[2]} slices, more than {shape[2]}, and would be cut. {cure}")
        if np.ptp(first.voxel_mm) > CUBE * first.voxel_mm.max():
            edges = "×".join(f"{mm:g}" for mm in first.voxel_mm)
            raise InputError(f"{folder}: its voxels are {edges} mm, no cubes. Resample it, as step 2 does.")

        def filled(name):
            return self.on_grid(volumes[name].voxels, AIR_HU if name == "CT" else 0.0)

        cut = cut_share(volumes["CT"].voxels, shape[:2]) if "CT" in volumes else 0.0
        study = np.stack([code.encode(filled(name)) for name, code in self.encodings.items()]).astype(np.float32)
        high = study.astype(np.float16)
        low = np.stack([subsample(high, phase) for phase in range(PHASES)])
        about = dict(
            voxel_mm=float(first.voxel_mm.mean()), affine=self._affine(first).tolist(), moments=cascade_moments(study),
            cut=round(cut, 4),
        )  # fmt: skip
        return dict(high=high, low=low), about

    def on_grid(self, voxels: np.ndarray, fill: float) -> np.ndarray:
        """[x, y, z] of a torso → the stored grid: cropped or padded with ``fill`` about the middle, z perhaps
        stretched."""
        if self.axial == "pad":
            return fit_grid(voxels, self.shape, fill)
        return stretch(fit_grid(voxels, self.shape[:2], fill), self.shape[2])

    def _affine(self, volume):
        """Of the stored grid: moved by crop or padding about the middle; a stretched axis z has other voxels."""
        stretched = self.axial == "stretch"
        start = [start_of(n, m) for n, m in zip(volume.shape, self.shape, strict=True)]
        affine = moved(volume.affine, (*start[:2], 0) if stretched else start)
        if stretched:
            scale = volume.shape[2] / self.shape[2]
            affine = moved(affine, (0, 0, scale / 2 - 0.5))
            affine[:3, 2] *= scale
        return affine

    def index(self, root: Path, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
        about: dict[str, Any] = dict(axial_extent=read_axial_extent(root / "axial_extent.json").to_dict())
        if groups:
            voxel_mm = [group["voxel_mm"] for group in groups]
            if np.ptp(voxel_mm) > 0.01:
                where = root / self.folder
                raise InputError(f"{where}: voxels from {min(voxel_mm):g} to {max(voxel_mm):g} mm. Use one.")
            about |= dict(voxel_mm=round(float(np.mean(voxel_mm)), 4))
        return about


@dataclass(frozen=True)
class Volumes(Recipe):
    """Named volumes on a grid of the subject's own, of any shape; labels: masks (uint8) on the same grid."""

    kind: ClassVar[str] = "volumes"
    person: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))

    @property
    def arrays(self) -> dict[str, Array]:
        space = ("channel", "x", "y", "z")
        found = dict(volumes=Array(space, parts=4))
        return found | dict(labels=Array(space, parts=4, dtype="uint8")) if self.labels else found

    def shapes(self, space: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        found = dict(volumes=(len(self.encodings), *space))
        return found | dict(labels=(len(self.labels), *space)) if self.labels else found

    def encode(self, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        read = self.read(folder)
        first = next(iter(read.values()))
        for name in KIND.keys() & read.keys():
            try:
                KIND[name](read[name])
            except InputError as error:
                raise InputError(f"{self.files(folder)[name]}: {error}") from None
        study = np.stack([code.encode(read[name].voxels) for name, code in self.encodings.items()]).astype(np.float32)
        largest = float(np.abs(study).max())
        if largest > float(np.finfo(np.float16).max):
            raise InputError(f"{folder}: a value is {largest:.3g} times what is stored as 1. Correct its unit.")
        arrays = dict(volumes=study.astype(np.float16))
        if self.labels:
            arrays["labels"] = np.stack([read[name].voxels for name in self.labels])
        found = (power_sums(torch.from_numpy(study)) / study[0].size).tolist()
        about = dict(
            voxel_mm=[round(float(edge), 4) for edge in first.voxel_mm],
            affine=first.affine.tolist(),
            moments=dict(volumes=found),
            counts={name: np.bincount(read[name].voxels.ravel(), minlength=256).tolist() for name in self.labels},
        )
        return arrays, about

    def index(self, root: Path, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
        made_with = read_record(root / self.folder / RECORD)
        return {name: made_with[name] for name in (VQVAE,) if name in made_with}


KINDS: dict[str, type[Recipe]] = {recipe.kind: recipe for recipe in (PetCt, Volumes)}
ORGANS = Volumes("organs", dict(CT=CT), labels=("organs",))  # what the segmenter learns from


def doses(suv_scale: float, truth: bool, folder: str) -> Volumes:
    """What a PET denoiser learns from: the normal-dose SUV, and for phantoms its noise-free truth; nothing is cut.

    suv_scale: SUV that is stored as 1;  folder: below the cohort's root, with <subject>/SUV.nii.gz.
    """
    names = ("SUV", "truth") if truth else ("SUV",)
    return Volumes("doses", {name: Encoding("linear", 0.0, suv_scale) for name in names}, folder=folder)


def pairs(hu_window: Sequence[float], mr_scale: float) -> Volumes:
    """What a CT-to-MR translator learns from: <root>/pairs/<subject>/{CT,MR}.nii.gz on one grid.

    hu_window: CT values that become 0 and 1;  mr_scale: MR signal that is stored as 1; higher ones stay higher.
    """
    encodings = dict(CT=Encoding("window", *hu_window), MR=Encoding("linear", 0.0, mr_scale))
    return Volumes("pairs", encodings, folder="pairs")


def latents(channels: int) -> Volumes:
    """What the refinement learns from: <root>/latents/<subject>/{slices_0,…,MR_0,…}.nii.gz, made by the VQ-VAE."""
    names = [f"{name}_{n}" for name in ("slices", "MR") for n in range(channels)]
    return Volumes("latents", {name: Encoding("linear", 0.0, 1.0) for name in names}, folder="latents")


def recipe_from(settings: dict[str, Any]) -> Recipe:
    """The recipe that ``Recipe.settings`` describes. Raises KeyError or TypeError for something else."""
    values = dict(settings)
    kind = KINDS[values.pop("kind")]
    values["encodings"] = {name: Encoding(**code) for name, code in values["encodings"].items()}
    return kind(**values)


def start_of(size: int, wanted: int) -> int:
    """The voxel of an axis of ``size`` that becomes voxel 0 of ``wanted`` ones about the same middle (see fit_grid)."""
    extra = size - wanted
    return extra // 2 if extra > 0 else -(-extra // 2)


def fit_grid(voxels: np.ndarray, shape: Sequence[int], fill: float) -> np.ndarray:
    """[x, y, z] → the first len(shape) axes of ``shape`` voxels: centred crop, or padding with ``fill``."""
    for axis, wanted in enumerate(shape):
        size = voxels.shape[axis]
        start = start_of(size, wanted)
        if size > wanted:
            voxels = voxels.take(np.arange(start, start + wanted), axis=axis)
        elif size < wanted:
            pad = [(0, 0)] * 3
            pad[axis] = (-start, wanted - size + start)
            voxels = np.pad(voxels, pad, constant_values=fill)
    return voxels


def cut_share(hu: np.ndarray, shape: Sequence[int]) -> float:
    """The share of the body's voxels, of a CT [x, y, z] in HU, that fit_grid would cut off."""
    body = hu > BODY_HU
    return 1 - float(fit_grid(body, shape, False).sum()) / int(body.sum()) if body.any() else 0.0


def cascade_moments(study: np.ndarray) -> dict[str, list[list[float]]]:
    """Mean and mean square per channel of a study [channel, x, y, z]: of its low volumes and of its residuals.

    dict of "low" and "residual", each [[mean of CT, of PET], [mean square of CT, of PET]].
    """
    values = torch.from_numpy(study)
    space = values.shape[1:]
    totals = {name: torch.zeros(2, len(values), dtype=torch.float64) for name in ("low", "residual")}
    for phase in STATISTICS_PHASES:
        low = subsample(values, phase)
        totals["low"] += power_sums(low) / low[0].numel()
        for x in range(0, space[0], SLAB):  # a slab stays in the cache, a volume would not
            slab = values[:, x : x + SLAB]
            residual = slab - upsample(low, phase_offsets(phase), (x, 0, 0), slab.shape[1:])
            totals["residual"] += power_sums(residual) / values[0].numel()
    return {name: (total / len(STATISTICS_PHASES)).tolist() for name, total in totals.items()}


def power_sums(values: torch.Tensor) -> torch.Tensor:
    """Sum and sum of squares per channel of [channel, …], float64 [2, channel]."""
    values = values.flatten(1)
    return torch.stack([v.sum(1, dtype=torch.float64) for v in (values, values.square())])


def statistics(all_moments: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """<name>_mean and <name>_std, one number per channel, over the moments of all subjects."""
    result = {}
    for name in all_moments[0]:
        mean, square = np.mean([moments[name] for moments in all_moments], axis=0)
        result[f"{name}_mean"] = mean.tolist()
        result[f"{name}_std"] = np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()
    return result
