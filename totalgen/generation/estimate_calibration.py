"""The calibration of the global stage: what its estimates lack of how bodies differ, measured and amended; and, of both
stages, uptakes averaged over like neighbours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.archive import Archive
from totalgen.data.demographics import SEXES
from totalgen.data.progress import progress
from totalgen.data.resolution import PHASES, bilateral_filter, smoothed
from totalgen.errors import InputError
from totalgen.generation.trained import Trained
from totalgen.generation.window_sampler import Amend
from totalgen.models.precision import autocast
from totalgen.models.samplers import seeded_generator
from totalgen.tasks.organ_calibration import OrganCalibration, believed_slopes, directions
from totalgen.tasks.petct import CascadeTask, GlobalTask, Person, SuperResolutionTask
from totalgen.tasks.task import Box, Task

WIDTH = 1.5  # low-resolution voxels
SIGMAS = (0.2, 0.5, 1.0, 2.0, 4.0)  # below, slopes are 1; above, an estimate says hardly anything of an organ
REPEATS, FEWEST, SEED, BATCH = 4, 64, 7, 16
SIZE, UPTAKE = "volume", "SUVmean"  # last word of a reading's name


@dataclass(frozen=True)
class Averaging:
    """How a stage's uptakes are averaged.

    lowest, highest: noise levels; above, an estimate is smooth, and below, what varies is to stay;  like: standard
    deviation of ln(SUV + 1) within the neighbours that are averaged;  kept: what the sum of SUV, weighted by a region,
    loses is given back. Of a window that shows a part of an organ it is not.
    """

    lowest: float
    highest: float
    like: float
    kept: bool


AVERAGING: dict[type[CascadeTask], Averaging] = {
    GlobalTask: Averaging(0.15, 0.8, like=0.5, kept=True),
    SuperResolutionTask: Averaging(0.25, 5.0, like=0.33, kept=False),
}


def calibrated(
    task: Task, slope: float = 1.0, organs: Mapping[str, float] | None = None,
    along: Mapping[tuple[str, str], float] | None = None, averaged: Mapping[str, float] | None = None,
) -> Amend | None:  # fmt: skip
    """The amendment by which a global stage's estimates depart from the body to be expected as far as the truth does;
    None where they are right as they are.

    A network that has not converged says too little of a body: the truth, regressed on what it says, has a slope above
    1. slope: of all SUVs; smoothed, because this is of organs, and their noise is none of it;  organs: a reading of
    organs, such as "liver volume" → how many times what was measured to lack of it (OrganCalibration);  along: of
    two readings, what moves the second with the first (OrganCalibration.change);  averaged: a reading of an uptake →
    the share that SUV, where it is read, loses of what it differs by from like neighbours (``averaged_uptake``).
    Raises InputError where the weights lack what this needs.
    """
    organs = {name: strength for name, strength in (organs or {}).items() if strength}
    if slope == 1 and not organs and not averaged:
        return None
    assert isinstance(task, GlobalTask)
    if slope != 1 and not task.settings.template:
        raise InputError(
            f"calibration_slope is {slope:g}, but the global stage has no template. "
            "Leave it out, or train one with --set template=True."
        )
    known = task.organs
    asked = {*organs, *(name for pair in along or () for name in pair), *(averaged or ())}
    if lacking := sorted(asked.difference(known.names if known else ())):
        raise InputError(
            f"{lacking[0]} is to be calibrated, but what these weights of the global stage say of it was not measured. "
            "Run 1_Trainings/calibrate_organs.py, or set size_calibration, uptake_calibration and uptake_averaging "
            "to ()."
        )

    suv = task.target.index("SUV")
    regions = [(known.region(name, suv), share) for name, share in averaged.items()] if known and averaged else []

    def amend(clean, sigma, source, box):
        factor = torch.tensor([(slope - 1) * (name == "SUV") for name in task.target], device=clean.device)
        with autocast(clean.device, "float32"):
            expected = task.encoded_template(source, box, clean.device)
            if slope != 1:
                clean = clean + factor.reshape(-1, 1, 1, 1) * smoothed(clean - expected, WIDTH)
            if known is not None and organs:
                clean = clean + known.change(clean - expected, sigma, source.demographics.sex, organs, along)
        return averaged_uptake(clean, sigma, task, source, box, regions) if regions else clean

    return amend


def averaged_uptake(
    estimate: torch.Tensor, sigma: float, task: CascadeTask, source: Any, box: Box,
    regions: Iterable[tuple[torch.Tensor, float]],
) -> torch.Tensor:  # fmt: skip
    """An estimate [2, *box] of a stage with its SUV averaged over like neighbours, at the noise levels of AVERAGING.

    regions: (weight [*box] from 0 to 1, share of the average), one after the other.
    """
    how, suv, code = AVERAGING[type(task)], task.target.index("SUV"), task.encodings["SUV"]
    if not how.lowest <= sigma <= how.highest:
        return estimate
    with autocast(estimate.device, "float32"):
        decoded = task.codec.decode(estimate[None].float())[0]
        composed = task.compose(decoded, source, box)[suv]
        before = np.clip(code.decode(composed.cpu().numpy()), code.low, code.high)
        after = before.copy()
        for region, share in regions:
            _average(after, region.cpu().numpy(), share, how)
        decoded[suv] += torch.from_numpy(code.encode(after) - code.encode(before)).to(composed)
        return task.codec.encode(decoded[None])[0]


def _average(suv, region, share, how):
    """SUV [x, y, z], in place, where ``region`` is above 0."""
    places = np.nonzero(region)
    if not places[0].size:
        return
    inside = tuple(slice(max(at.min() - 1, 0), at.max() + 2) for at in places)
    where, given = region[inside], suv[inside]
    even = given + share * where * (bilateral_filter(given, WIDTH, how.like) - given)
    if how.kept and (weight := (where**2 * even).sum()):
        even *= 1 + where * (where * (given - even)).sum() / weight
    suv[inside] = even


@torch.no_grad()
def measured_calibration(
    stage: Trained, archive: Archive, rows: Sequence[int], targets: np.ndarray, names: Sequence[str], slope: float
) -> tuple[OrganCalibration, np.ndarray]:
    """(what the estimates of a global stage lack, correlation [k] of each reading with its target).

    rows: subjects of the archive;  targets [n, k]: what to read of each, such as ln volumes, called ``names``;
    slope: the calibration_slope with which it will be sampled. Raises InputError for few subjects of a sex,
    and where what was measured is not finite.
    """
    task, box = stage.task, Box.whole(stage.task.shape)
    assert isinstance(task, GlobalTask)
    if not task.settings.template:
        raise InputError("the global stage has no template to depart from. Train one with --set template=True.")
    people = [archive.demographics(row) for row in rows]
    sexes = np.array([person.sex for person in people])
    for sex in SEXES:
        if (count := int((sexes == sex).sum())) < FEWEST:
            raise InputError(f"{archive.path}: {count} subjects of sex {sex}, {FEWEST} are needed. Pack more.")
    design = np.array([[1.0, *person.channels()] for person in people])
    left = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    expected = torch.stack([task.encoded_template(Person(person), box, stage.device).cpu() for person in people])
    random = np.random.default_rng(SEED)

    def volumes():
        low = (archive.tensor(row, "low", int(random.integers(PHASES))) for row in rows)
        return torch.stack([task.codec.encode(one[None].to(stage.device))[0].cpu() for one in low])

    departures, again = (torch.stack([volumes() - expected for _ in range(REPEATS)]) for _ in range(2))
    readers, patterns, correlations = directions(departures, again, left)
    blank = {sex: np.ones((len(SIGMAS), len(names))) for sex in SEXES}
    found = OrganCalibration(tuple(names), readers, patterns, np.array(SIGMAS), blank)
    true, amend = again[0] + expected, calibrated(task, slope)
    readings = found.readings(true - expected).numpy()
    noise = torch.stack([torch.randn(true.shape[1:], generator=seeded_generator(SEED, n)) for n in range(len(rows))])
    batches = [range(first, min(first + BATCH, len(rows))) for first in range(0, len(rows), BATCH)]
    for level, sigma in enumerate(SIGMAS):
        said = []
        for batch in progress(batches, f"σ {sigma:g}"):
            sources = [Person(people[n]) for n in batch]
            z = (true[batch] + sigma * noise[batch]).to(stage.device)
            condition = torch.stack([task.condition(source, box, stage.device) for source in sources])
            with autocast(stage.device, stage.precision):
                made = stage.denoiser(z, z.new_full((len(z),), sigma), condition).float()
            if amend is not None:
                made = torch.stack([amend(one, sigma, s, box) for one, s in zip(made, sources, strict=True)])
            said.append(found.readings(made.cpu() - expected[batch]).numpy())
        for sex in SEXES:
            chosen = sexes == sex
            blank[sex][level] = believed_slopes(readings[chosen], np.concatenate(said)[chosen], design[chosen])
    try:
        OrganCalibration.from_settings(found.settings, found.readers.shape[1:])
    except ValueError:
        raise InputError(
            f"{archive.path}: the calibration that was measured in it is not finite, and not kept. Look for values far "
            "from all others in the table of organs, or take other weights."
        ) from None
    return found, correlations
