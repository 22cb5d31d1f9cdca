"""Were training subjects memorised: nearest neighbours of generated studies, and membership inference by the loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from totalgen.data.pictures import PET_WINDOW, coronal, grey
from totalgen.errors import InputError
from totalgen.evaluation.figures import write
from totalgen.evaluation.sections import Score, Section

RESAMPLES = 2000
FEWEST = 4  # members and non-members: with fewer an area under the curve has hardly a value between 0 and 1
POOL = 4  # voxels of the grid that one value of a fingerprint is the mean of, per axis
PICTURED = 3  # closest pairs


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Probability that a member has a lower loss than another; ties count half. 0.5: nothing is given away."""
    u = stats.mannwhitneyu(others, members).statistic
    return float(u / (len(members) * len(others)))


@dataclass(frozen=True)
class Attack:
    """auc with its 95 % interval (bootstrap by subject);  control: 95 % range of the same between random halves of the
    members, of which none is more of a member than another."""

    auc: float
    low: float
    high: float
    control_low: float
    control_high: float
    n: int

    @property
    def caught(self) -> bool:
        """Whether members are told from others: above one half, and above what halves of the members give."""
        return self.low > 0.5 and self.auc > self.control_high

    @property
    def verdict(self) -> str:
        """In words. Above one half is no acquittal where halves of few members differ as much: their control cannot
        be exceeded."""
        if self.caught:
            return "members are told from others"
        if self.low > 0.5:
            return "undecided, and no clearance: above one half, but halves of so few members may differ as much"
        return "not told from others"


def membership(members: np.ndarray, others: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Attack:
    """Attack of [n] mean losses of subjects that were trained on and of as many that were not.

    Raises InputError for fewer than FEWEST, and for unequal numbers: the control would be of another size.
    """
    if len(members) != len(others) or len(members) < FEWEST:
        counts = f"{len(members)} members and {len(others)} others"
        raise InputError(f"{counts}: as many of both are needed, at least {FEWEST}. Choose other splits.")
    random, n = np.random.default_rng(seed), len(members)
    found = [
        auc(members[random.integers(n, size=n)], others[random.integers(n, size=n)]) for _ in range(resamples)
    ]  # fmt: skip
    halves = []
    for _ in range(resamples):
        order = random.permutation(n)
        halves.append(auc(members[order[: n // 2]], members[order[n // 2 :]]))
    low, high = np.percentile(found, (2.5, 97.5))
    control = np.percentile(halves, (2.5, 97.5))
    return Attack(auc(members, others), float(low), float(high), float(control[0]), float(control[1]), n)


def equal_numbers(
    members: Sequence[int], others: Sequence[int], most: int | None = None, seed: int = 0
) -> tuple[list[int], list[int]]:
    """As many of both, chosen at random; at most ``most``."""
    n = min(len(members), len(others), most or len(members))
    random = np.random.default_rng(seed)
    first, second = (sorted(random.choice(each, n, replace=False).tolist()) for each in (members, others))
    return first, second


def fingerprint(encoded: np.ndarray) -> np.ndarray:
    """[channel, x, y, z] in [0, 1] → vector of means over POOL³ voxels: place, shape and uptake, not noise."""
    channels, *space = encoded.shape
    cut = encoded[(slice(None), *(slice(n - n % POOL) for n in space))].astype(np.float32)
    shape = [part for n in cut.shape[1:] for part in (n // POOL, POOL)]
    return cut.reshape(channels, *shape).mean(axis=(2, 4, 6)).ravel()


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)] root mean square differences of fingerprints [n, values]."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


@dataclass(frozen=True)
class Neighbours:
    """table: one row per candidate: subject, nearest_train, train_distance, nearest_held_out, held_out_distance;
    votes: of candidates (one per person), how many are nearer to a training subject;  low, high: 95 % interval of that
    share (Clopper and Pearson);  p: of one half;  ratio: median of training over held-out distance."""

    table: pd.DataFrame
    votes: int
    people: int
    low: float
    high: float
    p: float
    ratio: float

    @property
    def caught(self) -> bool:
        """Whether candidates are nearer to training subjects than to others more often than not."""
        return self.low > 0.5


def nearest(
    candidates: Mapping[str, np.ndarray], train: Mapping[str, np.ndarray], held_out: Mapping[str, np.ndarray],
    person: Callable[[str], str] = str,
) -> Neighbours:  # fmt: skip
    """Neighbours of candidates (name → fingerprint) among as many training as held-out subjects.

    person: name of a candidate → whom it is of; several samples of one have one vote, by their mean distances.
    Raises InputError for unequal numbers, which alone would make the larger side nearer, and for none.
    """
    if len(train) != len(held_out) or not train or not candidates:
        counts = f"{len(candidates)} candidates, {len(train)} training and {len(held_out)} held-out subjects"
        raise InputError(f"{counts}: as many training as held-out ones are needed, and a candidate.")
    rows = dict(subject=list(candidates), person=[person(name) for name in candidates])
    values = np.stack(list(candidates.values()))
    for name, group in (("train", train), ("held_out", held_out)):
        away = distances(values, np.stack(list(group.values())))
        rows[f"nearest_{name}"] = [list(group)[i] for i in away.argmin(1)]
        rows[f"{name}_distance"] = list(away.min(1))
    table = pd.DataFrame(rows)
    means = table.groupby("person")[["train_distance", "held_out_distance"]].mean()
    votes, people = int((means["train_distance"] < means["held_out_distance"]).sum()), len(means)
    test = stats.binomtest(votes, people)
    interval = test.proportion_ci()
    ratio = float((means["train_distance"] / means["held_out_distance"]).median())
    return Neighbours(table, votes, people, float(interval.low), float(interval.high), float(test.pvalue), ratio)


def picture_pairs(path: Path, rows: pd.DataFrame, volumes: Callable[[str, str], np.ndarray]) -> None:
    """The candidates nearest to a training subject, each beside its nearest training and held-out subject; a PNG.

    rows: of Neighbours.table;  volumes: ("candidate" | "train" | "held_out", subject) → encoded [2, x, y, z].
    """
    chosen = rows.nsmallest(PICTURED, "train_distance")
    figure = Figure(figsize=(9, 3.3 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    for line, (_, row) in zip(axes, chosen.iterrows(), strict=True):
        places = [
            ("candidate", row["subject"], ""),
            ("train", row["nearest_train"], f", {row['train_distance']:.4f}"),
            ("held_out", row["nearest_held_out"], f", {row['held_out_distance']:.4f}"),
        ]
        for axis, (kind, subject, distance) in zip(line, places, strict=True):
            ct, suv = volumes(kind, subject)
            pet = grey(coronal(np.expm1(suv * np.log(26.0))), PET_WINDOW, inverted=True)
            axis.imshow(np.concatenate([grey(coronal(ct), (0.0, 1.0)), pet], axis=1), cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{kind.replace('_', '-')}: {subject}{distance}", fontsize=8)
            axis.axis("off")
    write(figure, path)


def privacy_section(
    attacks: Mapping[str, Attack], neighbours: Neighbours | None, left_out: Sequence[str], what: str,
    figures: Mapping[str, Path],
) -> Section:  # fmt: skip
    """The place of both in the report. attacks: title → Attack;  left_out: candidates who share a person."""
    section = Section("Memorisation and privacy", figures=dict(figures))
    section.notes = [
        "Neither test proves privacy: they show what these two ways of looking find. A member that is told from others "
        "by its loss can be leaked; a candidate far from every training subject can still contain a part of one."
    ]
    table = [["losses", "members and others", "area under the curve", "95 %", "halves of the members, 95 %"]]
    for title, attack in attacks.items():
        interval = f"{attack.low:.2f} to {attack.high:.2f}"
        control = f"{attack.control_low:.2f} to {attack.control_high:.2f}"
        table.append([title, f"{attack.n} and {attack.n}", f"{attack.auc:.3f}", interval, control])
    if attacks:
        title, attack = max(attacks.items(), key=lambda each: each[1].auc)
        result = f"{attack.verdict}: {attack.auc:.2f} "
        result += f"({attack.low:.2f} to {attack.high:.2f}) at {title}, the highest of {len(attacks)}"
        limit = f"0.5 is nothing; halves of the members give {attack.control_low:.2f} to {attack.control_high:.2f}"
        score = Score(f"membership inference: {what}", f"{attack.n} and {attack.n}", result, limit)
        section.scores.append(score)
        section.tables["Membership inference"] = table
    if neighbours is not None:
        result = f"{neighbours.votes} of {neighbours.people} nearer to training (p = {neighbours.p:.2g}), "
        result += f"median ratio of distances {neighbours.ratio:.3f}"
        limit = f"share within {neighbours.low:.2f} to {neighbours.high:.2f}"
        if left_out:
            limit += f"; {len(left_out)} candidates left out: made for a training or held-out subject"
        section.scores.append(Score(f"nearest neighbours: {what}", f"{neighbours.people} people", result, limit))
    return section


def summary_text(section: Section) -> str:
    """The scores, a line each."""
    return "\n".join(f"{score.what}, {score.n}: {score.result}. {score.limit}." for score in section.scores)


def is_same_person(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a candidate was made for one of ``others``: the same sex, age, height and weight."""
    return any(
        row["sex"] == other["sex"]
        and all(abs(float(row[n]) - float(other[n])) < 1e-6 for n in ("age_years", "height_m", "weight_kg"))
        for other in others
    )
