"""Were training subjects memorised: nearest neighbours of generated studies, and membership inference by the loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from totalgen.data.archive import Archive
from totalgen.data.intensity import Encoding
from totalgen.data.pictures import PET_WINDOW, coronal, grey
from totalgen.data.recipes import LEARNT_FROM
from totalgen.errors import InputError
from totalgen.evaluation.figures import write
from totalgen.evaluation.sections import Score, Section

RESAMPLES = 2000  # of bootstraps and permutations
CAUGHT = 0.025  # one-sided: outside the 95 % that chance alone gives, on the side of members
FEWEST = 4  # members and non-members: with fewer no order of losses is rare by chance
POOL = 4  # voxels of the grid that one value of a fingerprint is the mean of, per axis
PICTURED = 3  # closest pairs


@dataclass(frozen=True)
class Attack:
    """Losses of members against those of others. auc with its 95 % interval (bootstrap by subject);  p: of chance alone
    giving as much as the highest of all attacks that were tried;  chance_low, chance_high: 95 % range of that highest
    one by chance alone."""

    auc: float
    low: float
    high: float
    p: float
    chance_low: float
    chance_high: float
    members: int
    others: int

    @property
    def caught(self) -> bool:
        """Whether members are told from others."""
        return self.p < CAUGHT

    @property
    def verdict(self) -> str:
        """In words."""
        return "members are told from others" if self.caught else "not told from others"


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Probability that a member has a lower loss than another; ties count half. 0.5: nothing is given away."""
    return float(_lower(members, others).mean())


def _lower(members, others):
    """[members, others] 1 where a member's loss is lower, ½ for ties."""
    return (1 - np.sign(np.subtract.outer(members, others))) / 2


def check_members(data: Mapping[str, Any], archive: Archive, rows: Sequence[int]) -> None:
    """InputError when ``rows``, of split train, are not what weights with this ``data`` learnt from: members would be
    among the others. A line on standard error where an earlier version did not note it, and there are more or fewer."""
    noted, others = data.get(LEARNT_FROM), "so that members may be among those who were not learnt from"
    if noted not in (None, archive.fingerprint(rows)):
        raise InputError(
            f"{archive.path}: its subjects of split train are not those of the weights, {others}. Give the archive of "
            "the training."
        )
    if noted is None and data["subjects"] != len(rows):
        counts = f"{len(rows)} subjects of split train, and the weights learnt from {data['subjects']}"
        click.echo(f"Warning: {archive.path}: {counts}, {others}.", err=True)


def membership(
    losses: Mapping[str, np.ndarray], member: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Attack]:
    """Attack of every row of mean losses, title → [subjects]; member: bool [subjects], who was trained on.

    Chance alone is a random exchange of who is a member, the same for all titles. The highest area of them is what is
    reported, so p compares with the highest area of every exchange (Westfall and Young 1993, single step).
    Raises InputError for fewer than FEWEST members or others, and for a loss that is not finite: its rank means
    nothing.
    """
    count, total = int(member.sum()), len(member)
    for title, values in losses.items():
        if wrong := int(np.count_nonzero(~np.isfinite(values))):
            raise InputError(f"{title}: {wrong} of {total} losses are not finite. Choose other levels or weights.")
    if min(count, total - count) < FEWEST:
        counts = f"{count} members and {total - count} others"
        raise InputError(f"{counts}: at least {FEWEST} of both are needed. Choose other splits.")
    random = np.random.default_rng(seed)
    exchanged = random.permuted(np.tile(member, (resamples, 1)), axis=1)
    ranks = np.stack([stats.rankdata(values) for values in losses.values()], axis=1)
    # Mann and Whitney: members' ranks sum up to count · (count + 1) / 2 when all of them are lower than the others.
    chance = (1 - (exchanged @ ranks - count * (count + 1) / 2) / (count * (total - count))).max(axis=1)
    by_chance = np.percentile(chance, (2.5, 97.5))
    weights = [random.multinomial(n, np.full(n, 1 / n), resamples) / n for n in (count, total - count)]
    found = {}
    for title, values in losses.items():
        lower = _lower(values[member], values[~member])
        low, high = np.percentile(((weights[0] @ lower) * weights[1]).sum(1), (2.5, 97.5))
        found[title] = Attack(
            float(lower.mean()), float(low), float(high), _share_of_chance(chance, lower.mean()), float(by_chance[0]),
            float(by_chance[1]), count, total - count,
        )  # fmt: skip
    return found


def _share_of_chance(chance, value):
    """p: the share of values by chance, with the one that was found, that are as high. Rounding breaks no tie."""
    return float((1 + np.count_nonzero(chance >= value - 1e-9)) / (1 + len(chance)))


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
    votes: of candidates (one per person), how many are nearer to a training subject;  expected, low, high: mean and
    95 % range of their share by chance alone;  p: of as many by chance alone, one-sided;  ratio: median of training
    over held-out distance."""

    table: pd.DataFrame
    votes: int
    people: int
    expected: float
    low: float
    high: float
    p: float
    ratio: float

    @property
    def caught(self) -> bool:
        """Whether candidates are nearer to training subjects than to others more often than by chance."""
        return self.p < CAUGHT


def nearest(
    candidates: Mapping[str, np.ndarray], train: Mapping[str, np.ndarray], held_out: Mapping[str, np.ndarray],
    person: Callable[[str], str] = str, seed: int = 0, permutations: int = RESAMPLES,
) -> Neighbours:  # fmt: skip
    """Neighbours of candidates (name → fingerprint) among training and held-out subjects.

    person: name of a candidate → whom it is of; several samples of one have one vote, by their mean distances.
    Chance alone is a random exchange of who was trained on: all candidates have the same few subjects to be near to, so
    their votes are no independent draws, and no binomial test holds. Raises InputError when there is none of a side,
    and for a fingerprint that is not finite.
    """
    if not (candidates and train and held_out):
        counts = f"{len(candidates)} candidates, {len(train)} training and {len(held_out)} held-out subjects"
        raise InputError(f"{counts}: one of each is needed at least.")
    for name, values in chain(candidates.items(), train.items(), held_out.items()):
        if not np.isfinite(values).all():
            raise InputError(f"{name}: has voxels that are no finite numbers. Make it again, or leave it out.")
    names = [*train, *held_out]
    known = np.stack([*train.values(), *held_out.values()])
    away = distances(np.stack(list(candidates.values())), known)
    order = away.argsort(axis=1)
    away, rows = np.take_along_axis(away, order, axis=1), np.arange(len(order))
    people, whose = np.unique([person(name) for name in candidates], return_inverse=True)

    def nearest_of(labels):
        """For every candidate the place, in its own order, of the nearest one with a label, and of one without."""
        labels = labels[order]
        return labels.argmax(axis=1), (~labels).argmax(axis=1)

    def means(places):
        """Of the distances of every person's samples, [people]."""
        return np.bincount(whose, away[rows, places]) / np.bincount(whose)

    trained_on, random = np.arange(len(names)) < len(train), np.random.default_rng(seed)
    table = pd.DataFrame(dict(subject=list(candidates), person=people[whose]))
    for name, places in zip(("train", "held_out"), nearest_of(trained_on), strict=True):
        table[f"nearest_{name}"] = [names[n] for n in order[rows, places]]
        table[f"{name}_distance"] = away[rows, places]
    near, far = map(means, nearest_of(trained_on))
    votes = int((near < far).sum())
    chance = np.array([
        np.less(*map(means, nearest_of(random.permutation(trained_on)))).sum() for _ in range(permutations)
    ])  # fmt: skip
    low, high = np.percentile(chance, (2.5, 97.5)) / len(people)
    return Neighbours(
        table, votes, len(people), float(chance.mean() / len(people)), float(low), float(high),
        _share_of_chance(chance, votes), float(np.median(near / far)),
    )  # fmt: skip


def picture_pairs(
    path: Path, rows: pd.DataFrame, volumes: Callable[[str, str], np.ndarray], encodings: Mapping[str, Encoding]
) -> None:
    """The candidates nearest to a training subject, each beside its nearest training and held-out subject; a PNG.

    rows: of Neighbours.table;  volumes: ("candidate" | "train" | "held_out", subject) → encoded [2, x, y, z];
    encodings: of its CT and SUV, the archive's.
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
            pet = grey(coronal(encodings["SUV"].decode(suv)), PET_WINDOW, inverted=True)
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
    table = [["losses", "members and others", "area under the curve", "95 %", f"p of the highest of {len(attacks)}"]]
    for title, attack in attacks.items():
        interval = f"{attack.low:.2f} to {attack.high:.2f}"
        counts = f"{attack.members} and {attack.others}"
        table.append([title, counts, f"{attack.auc:.3f}", interval, f"{attack.p:.2g}"])
    if attacks:
        title, attack = max(attacks.items(), key=lambda each: each[1].auc)
        result = f"{attack.verdict}: {attack.auc:.2f} ({attack.low:.2f} to {attack.high:.2f}) at {title}, "
        result += f"the highest of {len(attacks)} (p = {attack.p:.2g})"
        limit = f"0.5 is nothing; by chance alone the highest is {attack.chance_low:.2f} to {attack.chance_high:.2f}"
        score = Score(f"membership inference: {what}", f"{attack.members} and {attack.others}", result, limit)
        section.scores.append(score)
        section.tables["Membership inference"] = table
    if neighbours is not None:
        result = f"{neighbours.votes} of {neighbours.people} nearer to training "
        result += f"({neighbours.votes / neighbours.people:.2f}, p = {neighbours.p:.2g}), "
        result += f"median ratio of distances {neighbours.ratio:.3f}"
        limit = f"by chance alone {neighbours.low:.2f} to {neighbours.high:.2f}"
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
