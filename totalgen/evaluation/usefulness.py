"""What a generated cohort is good for: segmenters that were trained on it and on the reference, tested alike."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from totalgen.data.files import atomic
from totalgen.data.progress import progress
from totalgen.data.studies import read_studies
from totalgen.data.volume import Volume
from totalgen.errors import InputError
from totalgen.evaluation.overlap import mask_agreement, read_labelled
from totalgen.evaluation.sections import Score, Section, rows_of
from totalgen.evaluation.statistics import paired_mean_interval

LIMIT = "one training of each arm: another seed moves the Dice, too"


def read_parts(generated: Path, reference: Path, held_out: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Studies that are generated, those of the reference's split train, and those of ``held_out``.

    Raises InputError where held-out studies could be trained on: those of a table without splits, or of ``generated``.
    """
    made, both = read_studies(generated), read_studies(reference)
    if "split" not in both:
        raise InputError(f"{reference}: its table has no column split. Say there who is train and who {held_out}.")
    train, held = (read_studies(reference, split) for split in ("train", held_out))
    ours = {folder.resolve() for folder in held["folder"]}
    if (shared := made["folder"].map(Path.resolve).isin(ours)).any():
        raise InputError(
            f"{generated}: {made['subject'][shared].iloc[0]} of it is a held-out study of {reference}. Give studies "
            "that were generated."
        )
    return made, train, held


def check_files(parts: Iterable[tuple[pd.DataFrame, str]]) -> None:
    """Raises InputError for a study without a CT or without its masks. parts: (studies, name of their masks)."""
    for studies, masks in parts:
        cures = {"CT": "Restore it.", masks: f"Run 3_Evaluations/1_segment_generated.py --masks {masks}."}
        for folder in studies["folder"]:
            for name, cure in cures.items():
                if not (path := folder / f"{name}.nii.gz").is_file():
                    raise InputError(f"{path}: no such file. {cure}")


def check_held_out(studies: pd.DataFrame, masks: str) -> None:
    """Raises InputError for a study that no arm can be tested on. Those to train on are checked as they are packed."""
    for folder in studies["folder"]:
        read_labelled(folder, masks)


def make_arm(folder: Path, studies: pd.DataFrame, masks: str) -> None:
    """A cohort root of copies of CT and masks, all of split train."""
    for study in studies.to_dict("records"):
        given = {"CT": study["folder"] / "CT.nii.gz", "organs": study["folder"] / f"{masks}.nii.gz"}
        for name, path in given.items():
            target = folder / "cropped" / study["subject"] / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)  # with its time of change: what is packed stays packed
    with atomic(folder / "cohort.csv") as part:
        studies.drop(columns="folder").assign(split="train").to_csv(part, index=False)


def test_arm(
    name: str, segment: Callable[[Volume], Volume], held_out: pd.DataFrame, true_masks: str
) -> list[dict[str, Any]]:
    """One row per held-out subject: subject, arm, and overlap.mask_agreement with its true masks."""
    rows: list[dict[str, Any]] = []
    for study in progress(held_out.to_dict("records"), f"test {name}", "subject"):
        ct, truth = read_labelled(study["folder"], true_masks)
        rows.append(dict(subject=study["subject"], arm=name) | mask_agreement(segment(ct), truth))
    return rows


def usefulness_section(cases: pd.DataFrame, arms: Sequence[str]) -> Section:
    """Mean of every column by arm, and the paired difference of Dice from the reference arm."""
    means = cases.groupby("arm", sort=False).mean(numeric_only=True).reset_index()
    section = Section("Usefulness: a segmenter trained on it", tables={"Means": rows_of(means, {c: c for c in means})})
    dice = [name for name in cases if name.endswith("_dice") and "surface" not in name]
    wide = cases.assign(dice=cases[dice].mean(axis=1)).pivot(index="subject", columns="arm", values="dice")
    base = wide["reference"].to_numpy(float)
    for name in arms:
        values = wide[name].to_numpy(float)
        known = np.isfinite(values - base)
        interval = paired_mean_interval(base[known], values[known])
        words = f"mean Dice {np.nanmean(values):.3f}"
        if name != "reference" and interval is not None:
            words += f", {np.mean((values - base)[known]):+.3f} from the reference arm"
            words += f" (95 % {interval[0]:+.3f} to {interval[1]:+.3f})"
        section.scores.append(Score(f"usefulness: trained on {name}", f"{len(values)} held out", words, LIMIT))
    return section
