"""The training archive: every subject of a cohort, encoded, at both resolutions, in one Zarr folder.

    <subject>/high   float16 [channel, x, y, z]              CT and PET in [0, 1] (see intensity)
    <subject>/low    float16 [phase, channel, x/4, y/4, z/4]   the 64 stratified subsamplings
    <subject>        attributes: voxel_mm, moments (see ``moments``), sha256, provenance
    attributes       subjects (rows of the cohort table), voxel_mm, shape, channels, statistics, axial_extent

A subject's group is written atomically: it is complete or absent. The attributes at the top are the index, written
last: what they do not list is not in the archive. Axis z is stretched to a fixed number of voxels; ``axial_extent``
gives the line that undoes this.
"""

import hashlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr
from tqdm import tqdm

from totalgen.data import intensity
from totalgen.data.axial_extent import AxialExtent, read_axial_extent
from totalgen.data.demographics import COLUMNS, COVERAGE, Demographics, read_cohort
from totalgen.data.files import atomic
from totalgen.data.resolution import FACTOR, PHASES, phase_offsets, stretch, subsample, upsample
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError

CHANNELS = ("CT", "SUV")
FORMAT_VERSION = 2
AXIAL = ("stretch", "pad")
SLAB = 8  # planes of a volume that are worked on at a time
STATISTICS_PHASES = (21, 42)  # the channel statistics use the two middle phases on the diagonal, not all 64


def fit_grid(voxels: np.ndarray, shape: Sequence[int], fill: float) -> np.ndarray:
    """[x, y, z] → the first len(shape) axes of ``shape`` voxels: centred crop, or padding with ``fill``."""
    for axis in range(len(shape)):
        extra = voxels.shape[axis] - shape[axis]
        if extra > 0:
            voxels = voxels.take(np.arange(extra // 2, extra // 2 + shape[axis]), axis=axis)
        elif extra < 0:
            pad = [(0, 0)] * 3
            pad[axis] = (-extra // 2, -extra - -extra // 2)
            voxels = np.pad(voxels, pad, constant_values=fill)
    return voxels


def encode_study(folder: str | Path, shape: Sequence[int], axial: str = "stretch") -> tuple[np.ndarray, float]:
    """The CT and SUV of a cropped study as the archive stores them. axial: one of AXIAL, how axis z is filled.

    Returns (float32 [2, *shape] in [0, 1], voxel_mm). Raises InputError when a file is missing, the two grids differ or
    a study to be padded is too long.
    """
    ct, suv = read_nifti(Path(folder) / "CT.nii.gz"), read_nifti(Path(folder) / "SUV.nii.gz")
    if ct.shape != suv.shape or not np.allclose(ct.affine, suv.affine, atol=1e-3):
        raise InputError(f"{folder}: CT {ct.shape} and SUV {suv.shape} differ in their grids. Run steps 2 to 4 again.")
    if not (np.isfinite(ct.voxels).all() and np.isfinite(suv.voxels).all()):
        raise InputError(f"{folder}: a voxel is not a finite number. Run 2_dicom_to_nifti again, or remove the study.")
    if axial == "pad" and ct.shape[2] > shape[2]:
        cure = "Give --axial stretch, or a longer --shape."
        raise InputError(f"{folder}: has {ct.shape[2]} slices, more than {shape[2]}, and would be cut. {cure}")

    def filled(voxels, fill):
        if axial == "pad":
            return fit_grid(voxels, shape, fill)
        return stretch(fit_grid(voxels, shape[:2], fill), shape[2])

    channels = [
        intensity.encode_ct(filled(ct.voxels, intensity.AIR_HU)), intensity.encode_pet(filled(suv.voxels, 0.0))
    ]  # fmt: skip
    return np.stack(channels).astype(np.float32), float(ct.voxel_mm.mean())


def pack(
    root: str | Path, shape: Sequence[int], overwrite: bool = False, workers: int = 1, scheduler: str | None = None,
    axial: str = "stretch",
) -> tuple[Path, int, int]:  # fmt: skip
    """Write <root>/training.zarr from <root>/cropped. shape: (x, y, z) of the high resolution, divisible by 4.

    axial: "stretch", every torso fills axis z (the released code), or "pad", it keeps its length between air above and
    below (the paper's text).

    Subjects whose files did not change since they were packed are kept; new ones are added after them, changed ones
    are encoded again. A study that cannot be read is listed in failures.csv and left out.
    overwrite: start again; needed for another shape, or when a subject was removed from the cohort.
    workers, scheduler: where the work is done (subjects.for_each_subject).
    Returns (path, number of subjects, number of failures).
    """
    root = Path(root)
    path = root / "training.zarr"
    if any(n % FACTOR for n in shape):
        raise InputError(f"shape {tuple(shape)} is not divisible by {FACTOR} on every axis. Choose another.")
    line = read_axial_extent(root / "axial_extent.json")
    table = read_cohort(root / "cohort.csv")
    ready = table[[(root / "cropped" / subject).is_dir() for subject in table["subject"]]].set_index("subject")
    if ready.empty:
        raise InputError(f"{root / 'cropped'}: no subject of the cohort is there. Run 4_crop_torso.py first.")
    if overwrite and path.exists():
        (path / "zarr.json").unlink(missing_ok=True)  # the index first: a kill must not leave half an archive
        shutil.rmtree(path)
    packed = [row["subject"] for row in Archive(path).subjects] if (path / "zarr.json").exists() else []
    if gone := [subject for subject in packed if subject not in ready.index]:
        raise InputError(f"{path}: holds {gone[0]}, who is not in the cohort. Give --overwrite to pack it again.")
    if packed and ((begun := Archive(path)).shape, begun.axial) != (tuple(shape), axial):
        what = "another shape" if begun.shape != tuple(shape) else f"an axis z of --axial {begun.axial}"
        raise InputError(f"{path}: holds {what}. Give --overwrite to pack it again.")
    notes = {name: read_table(root / f"{name}.csv").set_index("subject") for name in ("suv", "crop")}

    def work(subject):
        Demographics.from_row(ready.loc[subject])
        made_from = {name: n.loc[subject].dropna().to_dict() for name, n in notes.items() if subject in n.index}
        write_subject(path / subject, root / "cropped" / subject, shape, made_from, axial)

    def done(subject):
        return is_current(path / subject, root / "cropped" / subject, shape, axial)

    subjects = [*packed, *(subject for subject in ready.index if subject not in packed)]
    failed = for_each_subject(root, "pack", subjects, work, done, None, workers, scheduler)
    write_index(path, ready.loc[[s for s in subjects if s not in failed]], shape, line, axial)
    return path, len(subjects) - len(failed), len(failed)


def write_subject(
    path: Path, folder: str | Path, shape: Sequence[int], made_from: dict[str, Any], axial: str = "stretch"
) -> None:
    """Encode the cropped study in ``folder`` as the group ``path``. made_from: dict that goes into its provenance."""
    study, voxel_mm = encode_study(folder, shape, axial)
    high = study.astype(np.float16)
    low = np.stack([subsample(high, phase) for phase in range(PHASES)])
    with atomic(path) as part:
        group = zarr.open_group(part, mode="w")
        chunks = (len(CHANNELS), *(n // 4 for n in shape))
        group.create_array("high", shape=high.shape, chunks=chunks, dtype="float16")[:] = high
        group.create_array("low", shape=low.shape, chunks=(1, *low.shape[1:]), dtype="float16")[:] = low
        group.attrs.update(
            voxel_mm=voxel_mm,
            axial=axial,
            moments=moments(study),
            sha256=checksum(high, low),
            provenance=dict(files=stamps(folder), version=importlib.metadata.version("totalgen"), **made_from),
        )


def is_current(path: Path, folder: str | Path, shape: Sequence[int], axial: str = "stretch") -> bool:
    """Whether the group ``path`` was encoded so, in this shape, from the files that are in ``folder`` now."""
    try:
        group = zarr.open_group(path, mode="r")
        same_files = group.attrs["provenance"]["files"] == stamps(folder)
        same_axis = group.attrs.get("axial", "stretch") == axial
        return same_files and same_axis and group["high"].shape[1:] == tuple(shape)
    except (KeyError, ValueError, OSError):  # damaged: it is packed again
        return False


def stamps(folder: str | Path) -> dict[str, list[int] | None]:
    """name → [bytes, time of the last change in ns] of the files that are packed; None for one that is missing."""
    files = {name: Path(folder) / f"{name}.nii.gz" for name in CHANNELS}
    return {n: [f.stat().st_size, f.stat().st_mtime_ns] if f.exists() else None for n, f in files.items()}


def checksum(high: np.ndarray, low: np.ndarray) -> str:
    """SHA-256 of the bytes of both arrays, C order."""
    digest = hashlib.sha256(np.ascontiguousarray(high).data)
    digest.update(np.ascontiguousarray(low).data)
    return digest.hexdigest()


def write_index(
    path: Path, table: pd.DataFrame, shape: Sequence[int], line: AxialExtent, axial: str = "stretch"
) -> None:
    """Write the attributes at the top, from the groups of the subjects of ``table`` (indexed by subject).

    The statistics are of the training subjects that show the whole torso, or of all of them when none does.
    Raises InputError for voxels of several sizes and for a cohort without training subjects.
    """
    groups = {subject: dict(zarr.open_group(path / subject, mode="r").attrs) for subject in table.index}
    voxel_mm = [group["voxel_mm"] for group in groups.values()]
    if np.ptp(voxel_mm) > 0.01:
        raise InputError(f"{path.parent / 'cropped'}: voxels from {min(voxel_mm):g} to {max(voxel_mm):g} mm. Use one.")
    rows = []
    for subject, row in table.iterrows():
        row = dict(row.dropna(), subject=subject)
        if COVERAGE in row:
            row[COVERAGE] = str(row[COVERAGE]) == "True"
        rows.append({name: row[name] for name in (*COLUMNS, COVERAGE) if name in row})
    train = chosen(rows, "train") or chosen(rows, "train", partial=True)
    if not train:
        raise InputError(f"{path.parent / 'cohort.csv'}: no subject of split train could be packed. Assign some.")
    attributes = dict(
        format_version=FORMAT_VERSION,
        channels=list(CHANNELS),
        shape=list(shape),
        axial=axial,
        voxel_mm=round(float(np.mean(voxel_mm)), 4),
        subjects=rows,
        statistics=statistics([groups[rows[i]["subject"]]["moments"] for i in train]),
        axial_extent=line.to_dict(),
    )
    if not (path / "zarr.json").exists():
        zarr.create_group(path, attributes=attributes)
    elif dict((group := zarr.open_group(path, mode="r+")).attrs) != attributes:
        group.attrs.put(attributes)


def verify_archive(root: str | Path) -> int:
    """Number of subjects of <root>/training.zarr. Raises InputError naming those whose checksum differs."""
    archive = Archive(Path(root) / "training.zarr")
    numbers = tqdm(range(len(archive.subjects)), desc="verify", unit="subject", disable=None)
    damaged = [archive.subjects[i]["subject"] for i in numbers if not archive.is_intact(i)]
    if damaged:
        cure = "Remove their folders there and pack again."
        raise InputError(f"{archive.path}: {', '.join(damaged)} differ from their checksums. {cure}")
    return len(archive.subjects)


def chosen(rows: Sequence[dict[str, Any]], split: str, partial: bool = False) -> list[int]:
    """Numbers of the rows of a split; those known to show only part of the torso only when ``partial``."""
    return [
        i for i, row in enumerate(rows)
        if row.get("split", "train") == split and (partial or row.get(COVERAGE, True))
    ]  # fmt: skip


def moments(study: np.ndarray) -> dict[str, list[list[float]]]:
    """Mean and mean square per channel of a study [channel, x, y, z]: of its low volumes and of its residuals.

    dict of "low" and "residual", each [[mean of CT, of PET], [mean square of CT, of PET]].
    """
    values = torch.from_numpy(study)
    space = values.shape[1:]
    totals = {name: torch.zeros(2, len(CHANNELS), dtype=torch.float64) for name in ("low", "residual")}
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
    """dict of low_mean, low_std, residual_mean, residual_std, one number per channel, over all subjects."""
    result = {}
    for name in ("low", "residual"):
        mean, square = np.mean([moments[name] for moments in all_moments], axis=0)
        result[f"{name}_mean"] = mean.tolist()
        result[f"{name}_std"] = np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()
    return result


class Archive:
    """Read access to a training archive. Raises InputError when it is missing, incomplete or something else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such archive. Run 0_Preprocess/6_pack_training_set.py on its folder.")
        try:
            group = zarr.open_group(self.path, mode="r")
            attributes = dict(group.attrs)
            version = attributes.get("format_version", attributes.get("schema"))  # "schema" until 2026
            if version != FORMAT_VERSION:
                raise ValueError(f"its format is {version}, this version reads {FORMAT_VERSION}")
            self.subjects: list[dict[str, Any]] = attributes["subjects"]
            self.statistics: dict[str, list[float]] = attributes["statistics"]
            self.axial_extent: dict[str, Any] = attributes["axial_extent"]
            self.voxel_mm: float = attributes["voxel_mm"]
            self.shape: tuple[int, ...] = tuple(attributes["shape"])
            self.axial: str = attributes.get("axial", "stretch")  # the only one until 2026
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"{self.path}: is not a training archive ({error}). Pack it with --overwrite.") from None
        self._groups: dict[int, zarr.Group] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_groups={})  # a process that gets a copy opens the groups itself

    def _group(self, index: int) -> zarr.Group:
        """The group of a row, opened once."""
        if index not in self._groups:
            subject = self.subjects[index]["subject"]
            try:
                self._groups[index] = zarr.open_group(self.path / subject, mode="r")
            except (KeyError, ValueError, OSError) as error:
                raise InputError(f"{self.path}: {subject} is missing ({error}). Run 6_pack_training_set.py.") from None
        return self._groups[index]

    def high(self, index: int) -> zarr.Array:
        """Zarr array [channel, x, y, z] of a row."""
        return self._group(index)["high"]

    def low(self, index: int) -> zarr.Array:
        """Zarr array [phase, channel, x, y, z] of a row."""
        return self._group(index)["low"]

    def tensor(self, row: int, name: str, *index: Any) -> torch.Tensor:
        """Part of the array "low" or "high" of a row, float32. index: as of a zarr array."""
        return torch.from_numpy(self._group(row)[name][index].astype(np.float32))

    def attributes(self, index: int) -> dict[str, Any]:
        """dict of voxel_mm, moments, sha256 and provenance of a row."""
        return dict(self._group(index).attrs)

    def is_intact(self, index: int) -> bool:
        """Whether the arrays of a row can be read and have the checksum that was stored with them."""
        try:
            return checksum(self.high(index)[:], self.low(index)[:]) == self.attributes(index)["sha256"]
        except Exception:  # decoders raise many kinds for a damaged chunk
            return False

    def indices(self, split: str, partial: bool = False) -> list[int]:
        """Row numbers of the subjects of a split (train or test), without those known to be partial torsos."""
        return chosen(self.subjects, split, partial)

    def demographics(self, index: int) -> Demographics:
        """Demographics of a row."""
        return Demographics.from_row(self.subjects[index])
