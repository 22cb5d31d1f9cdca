"""Organs of any CT, by the project's own segmenter. TotalSegmentator is the better choice where it can be installed."""

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from totalgen.data.intensity import AIR_HU
from totalgen.data.made_with import MadeWith, fingerprint, sources_of
from totalgen.data.names import check_masks
from totalgen.data.plausibility import check_edges
from totalgen.data.studies import read_studies
from totalgen.data.subjects import for_each_subject
from totalgen.data.volume import Volume, isotropic_grid, read_nifti, resample, write_nifti
from totalgen.distributed import usable_device
from totalgen.errors import InputError
from totalgen.generation.pipeline import Progress
from totalgen.generation.tiling import TiledDenoiser, tiles
from totalgen.models.organ_network import segmentation_network
from totalgen.models.precision import autocast
from totalgen.tasks.petct import encodings_of
from totalgen.tasks.task import VOXEL_TOLERANCE
from totalgen.weights import SEGMENTER_KIND, described, filled, load_weights

OVERLAP = 0.25  # of neighbouring windows


class Segmenter:
    """CT in HU on any grid → organ labels (uint8 ids) on the same grid.

    The CT is resampled to the training voxels (RAS axes) when its own differ by more than 1 %, and the labels are
    resampled back by nearest neighbour. Only the largest connected piece of each organ is kept: one wrong voxel in the
    bladder would otherwise determine the organ's SUVmax.
    """

    outputs = ("organs",)

    def __init__(
        self, network: nn.Module, patch: int, data: dict[str, Any], device: torch.device, sha256: str = ""
    ):
        self.data, self.patch, self.device, self.sha256 = data, (patch,) * 3, device, sha256
        self.encoding = encodings_of(data)["CT"]
        self.network = network.to(device).eval()

        def logits(z: torch.Tensor, sigma: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            with autocast(device, "auto"):
                return self.network(condition).float()

        self.tiled = TiledDenoiser(logits, self.patch, int(OVERLAP * patch))

    @classmethod
    def load(cls, weights: str | Path, device: str | torch.device | None = None) -> "Segmenter":
        """From a file of train_segmenter.py. device: default CUDA when present.

        Raises InputError when the file is missing, damaged or contains another network.
        """
        state, configuration = load_weights(weights)
        if configuration.get("kind") != SEGMENTER_KIND:
            raise InputError(f"{weights}: holds no segmenter. Give a file written by 1_Trainings/train_segmenter.py.")
        sha256 = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        with described(weights):
            settings, data = configuration["settings"], configuration["data"]
            network = filled(weights, lambda: segmentation_network(settings["channels"], 1 + len(data["ids"])), state)
            return cls(network, settings["patch"], data, usable_device(device), sha256)

    def source(self, row: Mapping[str, Any]) -> Volume:
        """The CT (HU) that ``input`` of a row names. Raises InputError for one that cannot be read or is not in mm."""
        volume = read_nifti(row["input"])
        check_edges(volume, row["input"])
        return volume

    def doubts(self, source: Volume) -> list[str]:
        """None are known."""
        return []

    def describe(self, source: Volume) -> dict[str, Any]:
        """The weights."""
        return dict(source=f"segmented, trained on {', '.join(self.data['sources'])} data", weights=self.sha256)

    def operations(self, shape: Sequence[int]) -> int:
        """Floating-point operations of the network for a volume of so many of its own voxels."""
        whole = [max(n, p) for n, p in zip(shape, self.patch, strict=True)]
        network = copy.deepcopy(self.network).to("meta")
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 1, *self.patch, device="meta"))
        return len(tiles(whole, self.patch, self.tiled.overlap)) * counter.get_total_flops()

    def run(self, source: Volume, seed: int = 0, progress: Progress = iter) -> dict[str, Volume]:
        """source: CT in HU. dict of organs. Nothing is random."""
        voxel_mm = self.data["voxel_mm"]
        off_grid = np.abs(source.affine[:3, :3] - voxel_mm * np.eye(3)).max() > VOXEL_TOLERANCE * voxel_mm
        ct = resample(source, *isotropic_grid(source, voxel_mm), AIR_HU) if off_grid else source
        lookup = np.array([0, *self.data["ids"]], dtype=np.uint8)
        labels = Volume(largest_pieces(lookup[self._classes(ct.voxels)]), ct.affine)
        if off_grid:
            labels = resample(labels, source.shape, source.affine, fill=0, nearest=True)
        return dict(organs=labels)

    @torch.no_grad()
    def _classes(self, hu):
        lack = [(0, max(0, p - n)) for n, p in zip(hu.shape, self.patch, strict=True)]
        encoded = torch.from_numpy(np.pad(self.encoding.encode(hu.astype(np.float32)), lack)).to(self.device)
        empty = torch.zeros(1, device=self.device).expand(1, 1 + len(self.data["ids"]), *encoded.shape)
        logits = self.tiled(empty, torch.zeros(1, device=self.device), encoded[None, None])
        return logits[0].argmax(0).cpu().numpy()[tuple(slice(n) for n in hu.shape)]


@functools.cache
def segmenter_of_process(weights: str | Path, device: str | torch.device | None = None) -> Segmenter:
    """Segmenter.load, once in every process that segments: it is not sent there with every subject."""
    return Segmenter.load(weights, device)


def segment_cohort(
    root: str | Path, weights: str | Path, masks: str = "organs", device: str | None = None, workers: int = 1,
    scheduler: str | None = None, split: str | None = None,
) -> list[str]:  # fmt: skip
    """Segment every study of ``root`` into ``<study>/<masks>.nii.gz``; existing masks are not changed.

    Raises InputError for masks of that name that other weights made.
    split: only the subjects of this split. A study that fails is listed in failures.csv (subjects.for_each_subject).
    Returns the subjects that failed.
    """
    check_masks(masks)
    Segmenter.load(weights, device)  # an error here concerns no single study
    folders, chosen = (read_studies(root, part).set_index("subject")["folder"] for part in (None, split))

    def work(subject: str) -> None:
        labels = segmenter_of_process(weights, device).run(read_nifti(folders[subject] / "CT.nii.gz"))["organs"]
        write_nifti(folders[subject] / f"{masks}.nii.gz", labels, "by the network (TotalGen)")

    def done(subject: str) -> bool:
        return (folders[subject] / f"{masks}.nii.gz").exists()

    made_with = MadeWith(
        Path(root) / f".{masks}.made-with.json", dict(weights=fingerprint(weights)),
        "choose another name by --masks, or remove these masks", list(folders.index),
        sources_of({subject: [folder / "CT.nii.gz"] for subject, folder in folders.items()}),
    )  # fmt: skip
    return for_each_subject(root, "segment", list(chosen.index), work, done, None, workers, scheduler, made_with)


def largest_pieces(labels: np.ndarray) -> np.ndarray:
    """``labels`` with everything but the largest connected piece of each id set to background."""
    kept = np.zeros_like(labels)
    for organ, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = scipy.ndimage.label(labels[box] == organ)
        largest = 1 + np.argmax(np.bincount(pieces.ravel(), minlength=count + 1)[1:])
        kept[box][pieces == largest] = organ
    return kept
