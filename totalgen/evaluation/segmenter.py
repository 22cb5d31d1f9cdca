"""Organs from CT: a small U-Net, trained on the masks of a cohort, to measure generated studies.

TotalSegmentator is the better choice where it can be installed; this network needs no download.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as functional
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from tqdm import tqdm

from totalgen.checkpoints import (
    adam_moments,
    flatten,
    load_adam_moments,
    newest_checkpoint,
    part,
    save_checkpoint,
    trim_log,
)
from totalgen.data.files import forget_failures, record_failure
from totalgen.data.intensity import AIR_HU, encode_ct
from totalgen.data.names import check_masks
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.data.subjects import for_each_subject
from totalgen.data.volume import Volume, isotropic_grid, read_nifti, resample, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation.studies import read_studies
from totalgen.schema import fixed
from totalgen.settings import SegmenterSettings
from totalgen.weights import load_weights, save_weights

KIND = "segmenter"
OVERLAP = 0.25  # of neighbouring windows when a complete volume is segmented
BALANCED_UNTIL = 0.6  # share of the training over which rare classes weigh more in the cross-entropy
VOXEL_TOLERANCE = 0.01  # relative; a grid further from the training voxel is resampled
TRAIN_STEP = "train_segmenter"  # name of the step in failures.csv


# ------------------------------------------------------------------------------------------------- network

def build_network(channels: int, ids: Sequence[int]) -> UNet:
    """Residual U-Net [B, 1, x, y, z] → logits [B, 1 + len(ids), x, y, z]; channel 0 is background.

    channels: width at full resolution, doubled at each of three halvings. The first level keeps the full resolution: a
    kidney is only eight voxels of 6 mm wide, and errors at its surface lower the Dice.
    """
    widths = tuple(channels * factor for factor in (1, 2, 4, 8, 16))
    network = UNet(3, in_channels=1, out_channels=1 + len(ids), channels=widths, strides=(1, 2, 2, 2), num_res_units=1)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch has no such stub


def load_segmenter(weights: str | Path, device: str | None = None) -> Callable[[Volume], Volume]:
    """A function Volume (CT in HU, any grid) → Volume (uint8 organ ids, the same grid).

    The CT is resampled to the training voxels (RAS axes) when its own differ by more than 1 %, and the labels are
    resampled back by nearest neighbour. Only the largest connected piece of each organ is kept: one wrong voxel in the
    bladder would otherwise determine the organ's SUVmax.
    weights: file written by ``train_segmenter``;  device: default CUDA when present.
    Raises InputError when the file is missing, damaged or contains another network.
    """
    state, configuration = load_weights(weights)
    if configuration.get("kind") != KIND:
        raise InputError(f"{weights}: holds no segmenter. Give a file written by 1_Trainings/train_segmenter.py.")
    torch_device = _device(device)
    network = build_network(configuration["channels"], configuration["ids"])
    _fill(network, {name: value.float() for name, value in state.items()}, weights)
    network = network.to(torch_device).eval()
    return functools.partial(_segment, network, configuration, torch_device)


def segment_cohort(
    root: str | Path, weights: str | Path, masks: str = "organs", device: str | None = None, workers: int = 1,
    scheduler: str | None = None, split: str | None = None,
) -> list[str]:  # fmt: skip
    """Segment every study of ``root`` into ``<study>/<masks>.nii.gz``; existing masks are not changed.

    split: only the subjects of this split. A study that fails is listed in failures.csv (subjects.for_each_subject).
    Returns the subjects that failed.
    """
    check_masks(masks)
    load_segmenter(weights, device)  # an error here concerns no single study
    folders = read_studies(root, split).set_index("subject")["folder"]

    def work(subject: str) -> None:
        segment = segmenter_of_process(weights, device)
        write_nifti(folders[subject] / f"{masks}.nii.gz", segment(read_nifti(folders[subject] / "CT.nii.gz")))

    def done(subject: str) -> bool:
        return (folders[subject] / f"{masks}.nii.gz").exists()

    return for_each_subject(root, "segment", list(folders.index), work, done, None, workers, scheduler)


# Loaded once in every process that segments, not sent to it with every subject.
segmenter_of_process = functools.cache(load_segmenter)


@torch.no_grad()
def _segment(network, configuration, device, ct):
    voxel_mm = configuration["voxel_mm"]
    off_grid = np.abs(ct.affine[:3, :3] - voxel_mm * np.eye(3)).max() > VOXEL_TOLERANCE * voxel_mm
    grid = resample(ct, *isotropic_grid(ct, voxel_mm), AIR_HU) if off_grid else ct
    image = torch.from_numpy(encode_ct(grid.voxels.astype(np.float32)))[None, None]
    patch = (configuration["patch"],) * 3
    logits = sliding_window_inference(
        image, patch, sw_batch_size=1, predictor=network, overlap=OVERLAP, mode="gaussian",
        sw_device=device, device="cpu",
    )
    lookup = np.array([0, *configuration["ids"]], dtype=np.uint8)
    labels = _largest_pieces(lookup[logits[0].argmax(0).numpy()])
    labels = Volume(labels, grid.affine)
    return resample(labels, ct.shape, ct.affine, fill=0, nearest=True) if off_grid else labels


def _largest_pieces(labels):
    """``labels`` with everything but the largest connected piece of each id set to background."""
    kept = np.zeros_like(labels)
    for organ, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = scipy.ndimage.label(labels[box] == organ)
        largest = 1 + np.argmax(np.bincount(pieces.ravel(), minlength=count + 1)[1:])
        kept[box][pieces == largest] = organ
    return kept


# ------------------------------------------------------------------------------------------------ training

def train_segmenter(
    root: str | Path, outdir: str | Path, settings: SegmenterSettings, device: str | None = None
) -> tuple[Path, dict[str, float]]:
    """Train on ``<root>/cropped/<subject>/{CT,organs}.nii.gz`` of the train split; Dice loss + cross-entropy.

    Every random choice depends on (seed, step) alone, so a run that is continued after a kill gives the same result as
    one without interruption. Writes ``<outdir>/checkpoints``, ``log.jsonl`` (step, loss, seconds) and, at the end,
    ``segmenter.safetensors`` (float16) whose configuration contains the Dice of the test split.
    Returns (path of the weights, {organ: mean Dice over the test split}); the second is empty without a test split.
    Raises InputError for a cohort without masks, or an ``outdir`` that contains a run with other settings.
    """
    outdir, asked = Path(outdir), dict(kind=KIND) | fixed(settings)
    weights = outdir / "segmenter.safetensors"
    if weights.exists():
        finished = load_weights(weights)[1]
        _check_same(outdir, asked, finished)
        return weights, finished["dice"]
    folders, sources = _splits(root)
    checkpoint = newest_checkpoint(outdir / "checkpoints", KIND)
    if checkpoint is not None:
        configuration = checkpoint[0]["configuration"]
        _check_same(outdir, asked, configuration)
        train = [Path(root) / folder for folder in checkpoint[0]["train"]]
    else:
        train, voxel_mm, ids, shares = _inspect(root, folders["train"])
        about = dict(voxel_mm=voxel_mm, ids=ids, shares=shares, subjects=len(train), source=sources)
        configuration = asked | about
    torch_device = _device(device)
    torch.manual_seed(settings.seed)
    network = build_network(settings.channels, configuration["ids"]).to(torch_device)
    _optimise(network, Path(root), train, outdir, settings, configuration, checkpoint, torch_device)
    configuration["dice"], configuration["test_subjects"] = _test(
        root, network, configuration, torch_device, folders["test"]
    )
    save_weights(weights, network.state_dict(), configuration, dtype=torch.float16)
    return weights, configuration["dice"]


def _check_same(outdir, asked, begun):
    if changed := [key for key, value in asked.items() if begun.get(key) != value]:
        raise InputError(f"{outdir}: holds a run with other {', '.join(changed)}. Choose another --outdir.")


def _splits(root):
    """({"train" and "test": folders of their studies}, sources of the cohort)."""
    studies = read_studies(root)
    split = studies["split"] if "split" in studies else ["train"] * len(studies)
    pairs = list(zip(studies["folder"], split, strict=True))
    folders = {wanted: [folder for folder, name in pairs if name == wanted] for wanted in ("train", "test")}
    return folders, sorted(studies["source"].dropna().unique()) if "source" in studies else []


def _optimise(network, root, train, outdir, settings, configuration, checkpoint, device):
    """The optimiser steps, from the checkpoint on; each leaves a line in log.jsonl."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=1e-4)
    parameters, first = dict(network.named_parameters()), 0
    if checkpoint is not None:
        saved, tensors = checkpoint
        first = saved["step"]
        _fill(network, part(tensors, "network"), outdir / "checkpoints")
        load_adam_moments(optimiser, parameters, part(tensors, "adam"), first)
    shares = torch.tensor(configuration["shares"], device=device)
    read = functools.lru_cache(maxsize=64)(functools.partial(_read_pair, ids=tuple(configuration["ids"])))
    outdir.mkdir(parents=True, exist_ok=True)
    trim_log(outdir / "log.jsonl", first)
    start, steps = time.perf_counter(), settings.steps
    with (
        open(outdir / "log.jsonl", "a") as lines,
        tqdm(range(first, steps), initial=first, total=steps, desc="train") as bar,
    ):
        for step in bar:
            random = np.random.default_rng([settings.seed, step])
            patch = settings.patch
            pairs = [
                _random_patch(*read(train[random.integers(len(train))]), patch, random) for _ in range(settings.batch)
            ]
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = _loss(network, pairs, _class_weights(shares, step / steps), device)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            row = dict(step=step + 1, loss=round(loss.item(), 5), seconds=round(time.perf_counter() - start, 2))
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == steps:
                state = flatten(network=network.state_dict(), adam=adam_moments(optimiser, parameters))
                names = [str(folder.relative_to(root)) for folder in train]
                more = dict(configuration=configuration, train=names)
                save_checkpoint(outdir / "checkpoints", step + 1, state, KIND, **more)


def _loss(network, pairs, class_weights, device):
    """Dice loss + cross-entropy of patches (image, label)."""
    image, label = (torch.from_numpy(np.stack(part)[:, None]).to(device) for part in zip(*pairs, strict=True))
    logits = network(image.to(memory_format=torch.channels_last_3d))
    dice_loss = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return dice_loss(logits, label) + functional.cross_entropy(logits, label[:, 0], weight=class_weights)


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two boolean arrays; NaN when both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else float("nan")


def _class_weights(shares, progress):
    """Weights of the classes in the cross-entropy: share^−½ at first, falling to 1 for all.

    At first, since a kidney fills half a percent of the voxels and would be learnt late; not at the end, since such
    weights make organs too large, and the volume will be measured.  shares: [classes];  progress: 0…1.
    """
    exponent = 0.5 * max(0.0, 1 - progress / BALANCED_UNTIL)
    weights = shares**-exponent
    return weights / (weights * shares).sum()  # mean weight of a voxel is 1


def _test(
    root: str | Path, network: torch.nn.Module, configuration: dict[str, Any], device: torch.device,
    folders: Iterable[Path],
) -> tuple[dict[str, float], int]:  # fmt: skip
    """({organ: mean Dice}, subjects tested): the measured organs, kidneys together, then every id by its name."""
    names = {number: name for name, number in ORGANS.items()}
    present = configuration["ids"]
    groups = {organ: ids for organ, ids in MEASURED.items() if set(ids) <= set(present)}
    groups |= {names.get(number, f"id {number}"): (number,) for number in present}
    found: dict[str, list[float]] = {organ: [] for organ in groups}
    tested = 0
    network.eval()
    for folder in tqdm(folders, desc="test"):
        try:
            truth = read_nifti(folder / "organs.nii.gz", np.uint8).voxels
            predicted = _segment(network, configuration, device, read_nifti(folder / "CT.nii.gz")).voxels
        except InputError as error:
            record_failure(root, folder.name, TRAIN_STEP, error)
            continue
        tested += 1
        for organ, ids in groups.items():
            found[organ].append(dice(np.isin(predicted, ids), np.isin(truth, ids)))
    present_in_test = {organ: values for organ, values in found.items() if not np.all(np.isnan(values))}
    return {organ: round(float(np.nanmean(values)), 4) for organ, values in present_in_test.items()}, tested


def _read_pair(folder: Path, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(CT encoded to [0, 1] as float32, class numbers as uint8: position of the id in ``ids`` plus one)."""
    ct = read_nifti(folder / "CT.nii.gz")
    organs = read_nifti(folder / "organs.nii.gz", np.uint8)
    if ct.shape != organs.shape:
        raise InputError(f"{folder}: CT has shape {ct.shape}, organs {organs.shape}. Run 0_Preprocess/4_crop_torso.py.")
    classes = np.zeros(256, dtype=np.uint8)
    classes[list(ids)] = np.arange(1, len(ids) + 1)
    return encode_ct(ct.voxels).astype(np.float32), classes[organs.voxels]


def _random_patch(
    image: np.ndarray, label: np.ndarray, patch: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A patch³ cut around a voxel of a random class (background among them), degraded as generated CT may be.

    Never mirrored: left and right kidney differ only by their side, and a flip along any one axis swaps the sides.
    """
    lack = [(0, max(0, patch - n)) for n in image.shape]
    image, label = np.pad(image, lack), np.pad(label, lack)  # value 0 is air, class 0 is background
    wanted = random.choice(np.unique(label))
    voxels = np.flatnonzero(label == wanted)
    centre = np.array(np.unravel_index(voxels[random.integers(len(voxels))], label.shape))
    centre += random.integers(-(patch // 4), patch // 4 + 1, size=3)  # the voxel need not be the middle of the patch
    corner = np.clip(centre - patch // 2, 0, np.array(image.shape) - patch)
    box = tuple(slice(a, a + patch) for a in corner)
    image, label = image[box], label[box].astype(np.int64)
    if random.random() < 0.3:
        image = scipy.ndimage.gaussian_filter(image, random.uniform(0.3, 1.0))
    image = image * random.uniform(0.95, 1.05) + random.uniform(-0.03, 0.03)  # ±30 HU
    image = image + random.uniform(0, 0.04) * random.standard_normal(image.shape, dtype=np.float32)  # up to 40 HU
    return image.clip(0, 1).astype(np.float32), label


def _inspect(root, folders):
    """(usable folders, voxel edge in mm, sorted organ ids, share of the voxels of each class) of the training subjects.

    The classes are background and the ids, in their order.

    A subject that cannot be read is listed in failures.csv and left out. Raises InputError when none is left, when
    the masks are empty or when the volumes do not share one isotropic voxel.
    """
    forget_failures(root, TRAIN_STEP)
    usable, edges, voxels = [], [], np.zeros(256)
    for folder in tqdm(folders, desc="inspect"):
        try:
            edge = read_nifti(folder / "CT.nii.gz").voxel_mm
            counts = np.bincount(read_nifti(folder / "organs.nii.gz", np.uint8).voxels.ravel(), minlength=256)
        except InputError as error:
            record_failure(root, folder.name, TRAIN_STEP, error)
            continue
        usable.append(folder)
        edges.append(edge)
        voxels += counts
    if not usable:
        raise InputError(f"{root}: no train subject has a readable CT and organs in cropped/. Run 0_Preprocess first.")
    ids = [number for number in range(1, 256) if voxels[number]]
    if not ids:
        raise InputError(f"{root}: the masks in cropped/ are empty. Run 0_Preprocess/3_segment_organs.py.")
    voxel_mm = float(np.median(edges))
    for folder, edge in zip(usable, edges, strict=True):
        if np.abs(edge - voxel_mm).max() > VOXEL_TOLERANCE * voxel_mm:
            found = "×".join(f"{e:.3g}" for e in edge)
            raise InputError(f"{folder}: voxels of {found} mm among {voxel_mm:.3g} mm ones. Resample the cohort again.")
    shares = voxels[[0, *ids]] / voxels.sum()
    return usable, round(voxel_mm, 4), ids, [float(f"{share:.4g}") for share in shares]


def _fill(network, state, path):
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise InputError(f"{path}: was made by another version, whose network differs. Train it again.") from None


def _device(device: str | None) -> torch.device:
    """A torch.device of this machine: ``device``, or CUDA when present. Raises InputError when it is not there."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device}: cannot be used here ({str(error).splitlines()[0]}). Try cpu.") from None
    return found
