"""Organs from CT: patches around voxels of every organ, degraded as generated CT may be."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
import torch

from totalgen.data.archive import Archive
from totalgen.data.pictures import coronal
from totalgen.data.recipes import ORGANS
from totalgen.errors import InputError
from totalgen.models.codec import Identity
from totalgen.tasks.task import VOXEL_TOLERANCE, Box, Task


@dataclass
class Scan:
    """An encoded CT [1, x, y, z], and while training the class of each voxel, [1, x, y, z] (0: background)."""

    ct: torch.Tensor
    classes: torch.Tensor | None = None


class SegmentationTask(Task[Scan]):
    """Classes of the voxels of a patch; condition: its CT. Class n is the n-th of the ``ids``.

    patch: voxels along each axis;  ids: organ ids in the labels of the archive, sorted.
    """

    target, given = ("organs",), ("CT",)

    def __init__(self, patch: int, ids: list[int]):
        self.shape = self.space = (patch,) * 3
        self.ids, self.codec = ids, Identity()
        self._class_of = np.zeros(256, dtype=np.uint8)
        self._class_of[ids] = np.arange(1, len(ids) + 1)

    def check(self, archive: Archive) -> None:
        if archive.recipe.encodings.keys() != ORGANS.encodings.keys() or archive.recipe.labels != ORGANS.labels:
            raise InputError(f"{archive.path}: holds no CT with organs. Pack it with --recipe organs.")

    def choose(self, archive: Archive, row: int, random: np.random.Generator) -> tuple[Scan, Box]:
        image, labels = archive.array(row, "volumes")[0], archive.array(row, "labels")[0]
        image, classes = random_patch(image, self._class_of[labels], self.space[0], random)
        return Scan(torch.from_numpy(image)[None], torch.from_numpy(classes)[None]), Box.whole(self.space)

    def clean(self, source: Scan, box: Box) -> torch.Tensor:
        assert source.classes is not None, "known while training"
        return source.classes[(slice(None), *box.slices)]

    def condition(self, source: Scan, box: Box, device: torch.device | None = None) -> torch.Tensor:
        return source.ct[(slice(None), *box.slices)].to(device)

    def compose(self, decoded: torch.Tensor, source: Scan, box: Box) -> torch.Tensor:
        return decoded

    def picture(self, volume: torch.Tensor) -> np.ndarray:
        return (coronal(volume[0].numpy()) * (255 / len(self.ids))).astype(np.uint8)


def random_patch(
    image: np.ndarray, classes: np.ndarray, patch: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A patch³ cut around a voxel of a random class (background among them), degraded as generated CT may be.

    image: encoded CT;  classes: integers on its grid. Returns both as float32. A volume that is smaller is padded.
    Never mirrored: left and right kidney differ only by their side, and a flip along any one axis swaps the sides.
    """
    lack = [(0, max(0, patch - n)) for n in image.shape]
    image, classes = np.pad(image, lack), np.pad(classes, lack)  # value 0 is air, class 0 is background
    wanted = random.choice(np.unique(classes))
    voxels = np.flatnonzero(classes == wanted)
    centre = np.array(np.unravel_index(voxels[random.integers(len(voxels))], classes.shape))
    centre += random.integers(-(patch // 4), patch // 4 + 1, size=3)  # the voxel need not be the middle of the patch
    corner = np.clip(centre - patch // 2, 0, np.array(image.shape) - patch)
    box = Box(tuple(corner), (patch,) * 3).slices
    image, classes = image[box].astype(np.float32), classes[box].astype(np.float32)
    if random.random() < 0.3:
        image = scipy.ndimage.gaussian_filter(image, random.uniform(0.3, 1.0))
    image = image * random.uniform(0.95, 1.05) + random.uniform(-0.03, 0.03)  # ±30 HU
    image = image + random.uniform(0, 0.04) * random.standard_normal(image.shape, dtype=np.float32)  # up to 40 HU
    return image.clip(0, 1).astype(np.float32), classes


def anatomy(archive: Archive, rows: list[int]) -> dict[str, Any]:
    """What the labels of some rows hold: dict of ids (sorted), shares (of the voxels, background first), voxel_mm.

    Raises InputError when there are no labels, or the volumes do not share one isotropic voxel.
    """
    about = {archive.subjects[row]["subject"]: archive.attributes(row) for row in rows}
    counts = np.sum([each["counts"]["organs"] for each in about.values()], axis=0)
    ids = [number for number in range(1, 256) if counts[number]]
    if not ids:
        raise InputError(f"{archive.path}: the masks in it are empty. Run 0_Preprocess/3_segment_organs.py.")
    voxel_mm = float(np.median([each["voxel_mm"] for each in about.values()]))
    for subject, each in about.items():
        if np.abs(np.array(each["voxel_mm"]) - voxel_mm).max() > VOXEL_TOLERANCE * voxel_mm:
            found = "×".join(f"{edge:.3g}" for edge in each["voxel_mm"])
            raise InputError(f"{subject}: voxels of {found} mm among {voxel_mm:.3g} mm ones. Resample the cohort.")
    shares = counts[[0, *ids]] / counts.sum()
    return dict(ids=ids, shares=[float(f"{share:.4g}") for share in shares], voxel_mm=round(voxel_mm, 4))
