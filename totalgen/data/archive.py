"""The training archive: every subject of a cohort, encoded, at both resolutions, in one Zarr folder.

    high        float16 [subject, channel, x, y, z]            CT and PET in [0, 1] (see intensity)
    low         float16 [subject, phase, channel, x/4, y/4, z/4]   the 64 stratified subsamplings
    attributes  subjects (rows of the cohort table), voxel_mm, shape, channels, statistics, axial_extent

Axis z is stretched to a fixed number of voxels; ``axial_extent`` tells how to undo that at generation.
"""

from pathlib import Path

import numpy as np
import torch
import zarr
from tqdm import tqdm

from totalgen.data import intensity
from totalgen.data.axial_extent import read_axial_extent
from totalgen.data.demographics import COLUMNS, Demographics, read_cohort
from totalgen.data.files import forget_failures, record_failure, whole
from totalgen.data.resolution import FACTOR, PHASES, phase_offsets, stretch, subsample, upsample
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError

CHANNELS = ("CT", "SUV")
SCHEMA = 1
STATISTICS_PHASES = (0, 21, 42, 63)  # the diagonal phases: they stand for the 64 in the channel statistics


def fit_plane(voxels, shape, fill):
    """[x, y, z] → [shape[0], shape[1], z]: centred crop or padding with ``fill`` in the axial plane."""
    for axis in (0, 1):
        extra = voxels.shape[axis] - shape[axis]
        if extra > 0:
            voxels = voxels.take(np.arange(extra // 2, extra // 2 + shape[axis]), axis=axis)
        elif extra < 0:
            pad = [(0, 0)] * 3
            pad[axis] = (-extra // 2, -extra - -extra // 2)
            voxels = np.pad(voxels, pad, constant_values=fill)
    return voxels


def encode_study(folder, shape):
    """The CT and SUV of a cropped study as the archive stores them.

    Returns (float32 [2, *shape] in [0, 1], voxel_mm). Raises InputError when a file is missing or the two grids differ.
    """
    ct, suv = read_nifti(Path(folder) / "CT.nii.gz"), read_nifti(Path(folder) / "SUV.nii.gz")
    if ct.shape != suv.shape or not np.allclose(ct.affine, suv.affine, atol=1e-3):
        raise InputError(f"{folder}: CT {ct.shape} and SUV {suv.shape} differ in their grids. Run steps 2 to 4 again.")
    if not (np.isfinite(ct.voxels).all() and np.isfinite(suv.voxels).all()):
        raise InputError(f"{folder}: a voxel is not a finite number. Run 2_dicom_to_nifti again, or remove the study.")
    channels = [
        intensity.encode_ct(stretch(fit_plane(ct.voxels, shape, intensity.AIR_HU), shape[2])),
        intensity.encode_pet(stretch(fit_plane(suv.voxels, shape, 0.0), shape[2])),
    ]
    return np.stack(channels).astype(np.float32), float(ct.voxel_mm.mean())


def pack(root, shape, overwrite=False):
    """Write <root>/training.zarr from <root>/cropped. shape: (x, y, z) of the high resolution, divisible by 4.

    The archive appears whole or not at all. A study that cannot be read is listed in failures.csv and left out.
    Returns (path, number of subjects, number of failures).
    """
    root = Path(root)
    path = root / "training.zarr"
    if any(n % FACTOR for n in shape):
        raise InputError(f"shape {tuple(shape)} is not divisible by {FACTOR} on every axis. Choose another.")
    table = read_cohort(root / "cohort.csv")
    ready = table[[(root / "cropped" / subject).is_dir() for subject in table["subject"]]]
    if ready.empty:
        raise InputError(f"{root / 'cropped'}: no subject of the cohort is there. Run 4_crop_torso.py first.")
    if path.exists() and not overwrite:
        known = Archive(path)
        wanted = list(ready["subject"])
        if known.shape == tuple(shape) and [row["subject"] for row in known.subjects] == wanted:
            return path, len(wanted), 0
        raise InputError(f"{path}: exists with other subjects or another shape. Give --overwrite to pack it again.")
    forget_failures(root, "pack")
    rows, sums, failures, voxel = [], Sums(), 0, []
    with whole(path) as part:
        group = zarr.open_group(part, mode="w")
        low_shape = tuple(n // FACTOR for n in shape)
        high = group.create_array(
            "high", shape=(len(ready), 2, *shape), chunks=(1, 2, *(n // 4 for n in shape)), dtype="float16"
        )
        low = group.create_array(
            "low", shape=(len(ready), PHASES, 2, *low_shape), chunks=(1, 1, 2, *low_shape), dtype="float16"
        )
        for _, row in tqdm(list(ready.iterrows()), desc="pack", unit="study"):
            try:
                Demographics.from_row(row)
                study, voxel_mm = encode_study(root / "cropped" / row["subject"], shape)
            except (InputError, ValueError, OSError) as error:
                record_failure(root, row["subject"], "pack", error)
                failures += 1
                continue
            high[len(rows)] = study.astype(np.float16)
            low[len(rows)] = np.stack([subsample(study, phase) for phase in range(PHASES)]).astype(np.float16)
            if row.get("split", "train") == "train":
                sums.add(study)
            rows.append({name: row[name] for name in COLUMNS if name in row and row[name] == row[name]})
            voxel.append(voxel_mm)
        if not rows:
            raise InputError(f"{root / 'cropped'}: no study could be packed. See {root / 'failures.csv'}.")
        if np.ptp(voxel) > 0.01:
            raise InputError(f"{root / 'cropped'}: voxel sizes from {min(voxel):g} to {max(voxel):g} mm. Use one.")
        if not sums.count:
            raise InputError(f"{root / 'cohort.csv'}: no subject of split train could be packed. Assign some.")
        high.resize((len(rows), *high.shape[1:]))
        low.resize((len(rows), *low.shape[1:]))
        group.attrs.update(
            schema=SCHEMA,
            channels=list(CHANNELS),
            shape=list(shape),
            voxel_mm=round(float(np.mean(voxel)), 4),
            subjects=rows,
            statistics=sums.statistics(),
            axial_extent=read_axial_extent(root / "axial_extent.json").to_dict(),
        )
    return path, len(rows), failures


class Sums:
    """Running mean and standard deviation per channel of low volumes and of residuals."""

    def __init__(self):
        self.count = 0
        self.totals = {name: np.zeros((2, len(CHANNELS))) for name in ("low", "residual")}

    def add(self, study):
        """study: [channel, x, y, z]."""
        study = torch.from_numpy(study)
        for phase in STATISTICS_PHASES:
            low = subsample(study, phase)
            residual = study - upsample(low, phase_offsets(phase), (0, 0, 0), study.shape[1:])
            for name, values in (("low", low), ("residual", residual)):
                values = values.double().flatten(1)
                self.totals[name] += torch.stack([values.mean(1), values.square().mean(1)]).numpy()
            self.count += 1

    def statistics(self):
        """dict of low_mean, low_std, residual_mean, residual_std, one number per channel."""
        result = {}
        for name, total in self.totals.items():
            mean, square = total / self.count
            result[f"{name}_mean"] = mean.tolist()
            result[f"{name}_std"] = np.sqrt(np.maximum(square - mean**2, 1e-12)).tolist()
        return result


class Archive:
    """Read access to a training archive. Raises InputError when it is missing, foreign or half-copied."""

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such archive. Run 0_Preprocess/6_pack_training_set.py on its folder.")
        try:
            group = zarr.open_group(self.path, mode="r")
            self.high, self.low = group["high"], group["low"]
            attributes = dict(group.attrs)
            self.subjects = attributes["subjects"]
            self.statistics = attributes["statistics"]
            self.axial_extent = attributes["axial_extent"]
            self.voxel_mm = attributes["voxel_mm"]
            self.shape = tuple(attributes["shape"])
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"{self.path}: is not a training archive ({error}). Pack it again.") from None

    def indices(self, split):
        """Row numbers of the subjects of a split (train or test)."""
        return [i for i, row in enumerate(self.subjects) if row.get("split", "train") == split]

    def demographics(self, index):
        """Demographics of a row."""
        return Demographics.from_row(self.subjects[index])
