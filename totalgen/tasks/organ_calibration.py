"""Calibration along organs: how much further from the usual their sizes and uptakes are than a global stage says."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.demographics import SEXES
from totalgen.errors import InputError

PENALTIES = (0.02, 0.06, 0.2, 0.6, 2.0)  # of the ridge regression, in mean squared lengths of a departure
HELD_OUT = 4  # every fourth subject decides which of them
LIMIT = 3.0  # standard deviations of a reading: what is further from the usual already is not moved further
DOUBT = 0.15  # standard deviation of slopes around 1 before anything is measured


@dataclass(frozen=True)
class OrganCalibration:
    """What a departure from the template says of organs, and how far it is to be believed.

    readers [k, C, *space]: reading k of a departure d is the sum of its products with d, in the units of the process;
    patterns [k, C, *space]: what becomes of a body when reading k grows by 1 and the others stay;
    names: of the readings, such as "liver volume";  sigmas [m]: noise levels, growing;
    slopes: sex → [m, k], of the truth's readings on those of the network's estimates: 1 where these are right on
    average, more where they are too near to the usual. Readers and patterns are kept in float16.
    """

    names: tuple[str, ...]
    readers: torch.Tensor
    patterns: torch.Tensor
    sigmas: np.ndarray
    slopes: dict[str, np.ndarray]

    def readings(self, departures: torch.Tensor) -> torch.Tensor:
        """[n, k] of departures [n, C, *space]."""
        return departures.flatten(1) @ self.readers.to(departures.device).flatten(1).T

    def region(self, name: str, channel: int) -> torch.Tensor:
        """[*space]: where a reading says most of a channel, from 0 up to an eighth of its highest pattern to 1 from
        three eighths on."""
        pattern = self.patterns[self.names.index(name), channel]
        return (4 * pattern / pattern.max().clamp(min=1e-6) - 0.5).clamp(0, 1)

    def slope(self, sex: str, sigma: float) -> np.ndarray:
        """[k]: between two levels that were measured in proportion to ln σ, outside them 1."""
        found = self.slopes[sex].T
        return np.array([np.interp(np.log(sigma), np.log(self.sigmas), each, left=1, right=1) for each in found])

    def change(
        self, departure: torch.Tensor, sigma: float, sex: str, strengths: Mapping[str, float],
        along: Mapping[tuple[str, str], float] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """What an estimate at σ lacks, [C, *space]: Σ_k move_k·pattern_k, where
        move_k = strength_k·(slope_k − 1)·reading_k(departure), but no further from 0 than LIMIT.

        strengths: by the name of a reading; others are 0;  along: (reading j, reading k) → times the move of j by
        which k is moved, too.
        """
        strength = np.array([strengths.get(name, 0.0) for name in self.names])
        lacking = torch.from_numpy(strength * (self.slope(sex, sigma) - 1)).to(departure)
        readings = self.readings(departure[None])[0]
        moves = lacking * readings
        room = (LIMIT - readings.abs()).clamp(min=0)
        moves = torch.where(moves * readings > 0, torch.clamp(moves, -room, room), moves)
        carried = torch.eye(len(self.names))
        for (moved, taken), factor in (along or {}).items():
            carried[self.names.index(taken), self.names.index(moved)] += factor
        return torch.tensordot(carried.to(moves) @ moves, self.patterns.to(departure.device), dims=1)

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, of which ``from_settings`` makes the same calibration again."""
        maps = torch.stack([self.readers, self.patterns]).numpy().astype("<f2")
        return dict(
            names=list(self.names), sigmas=self.sigmas.tolist(), shape=list(maps.shape[1:]),
            slopes={sex: each.tolist() for sex, each in self.slopes.items()},
            float16=base64.b64encode(maps.tobytes()).decode("ascii"),
        )  # fmt: skip

    @classmethod
    def from_settings(cls, settings: dict[str, Any], shape: Sequence[int]) -> "OrganCalibration":
        """shape: of its volumes, [C, *space]. Raises ValueError for values that are not those of such a calibration."""
        names, sigmas = tuple(settings["names"]), np.asarray(settings["sigmas"], float)
        maps = np.frombuffer(base64.b64decode(settings["float16"], validate=True), "<f2").astype(np.float32)
        maps = maps.reshape(2, *settings["shape"])
        slopes = {sex: np.asarray(settings["slopes"][sex], float) for sex in SEXES}
        shapes = maps.shape[1:] == (len(names), *shape) and len(sigmas) > 0
        shapes = shapes and all(each.shape == (len(sigmas), len(names)) for each in slopes.values())
        finite = all(np.isfinite(each).all() for each in (maps, sigmas, *slopes.values()))
        if not (shapes and finite and sigmas[0] > 0 and (np.diff(sigmas) > 0).all()):
            raise ValueError("its calibration along organs is damaged")
        readers, patterns = torch.from_numpy(maps)
        return cls(names, readers, patterns, sigmas, slopes)


def directions(
    departures: torch.Tensor, again: torch.Tensor, targets: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """(readers, patterns, correlations [k] of readings with targets in subjects that were left out).

    departures, again [repeats, n, C, *space]: two sets of volumes of n subjects, from their template;
    targets [n, k]: what to read, such as ln volumes, the demographics regressed out.
    Readers are ridge regressions of a target on ``departures``, scaled to readings of unit variance; patterns are the
    regression of ``again`` on all readings of it. Raises InputError for fewer subjects than can be told apart.
    """
    repeats, n = departures.shape[:2]
    if n < 4 * HELD_OUT:
        raise InputError(f"{n} subjects are too few to learn what organs look like; {4 * HELD_OUT} are needed.")
    left_out = np.arange(n) % HELD_OUT == 0
    rows = departures.flatten(2).flatten(0, 1)
    gram = (rows @ rows.T).double()
    unit, wanted = gram.diagonal().mean(), torch.from_numpy(np.tile(targets, (repeats, 1)))

    def ridge(kept, penalty):
        """The best reader of each target from the subjects ``kept``, in the dual: [k, features]."""
        chosen = torch.from_numpy(np.flatnonzero(np.tile(kept, repeats)))
        inner = gram[chosen][:, chosen]
        inner.diagonal().add_(penalty * unit)
        return (rows[chosen].T @ torch.linalg.solve(inner, wanted[chosen]).float()).T

    def agreement(readers):
        said = (again[0, left_out].flatten(1) @ readers.T).numpy()
        pairs = zip(said.T, targets[left_out].T, strict=True)
        return np.array([np.corrcoef(*pair)[0, 1] for pair in pairs])

    tried = np.nan_to_num([agreement(ridge(~left_out, penalty)) for penalty in PENALTIES], nan=-1.0)
    best = tried.argmax(0)
    whole = {at: ridge(np.ones(n, bool), PENALTIES[at]) for at in set(best.tolist())}
    readers = torch.stack([whole[at][k] for k, at in enumerate(best.tolist())])
    seen = again.flatten(2).flatten(0, 1)
    readers = readers / (seen @ readers.T).std(0)[:, None]  # so that both fit into float16
    read = seen @ readers.T
    patterns = torch.linalg.solve((read.T @ read).double(), (read.T @ seen).double()).float()
    shape = (targets.shape[1], *departures.shape[2:])
    return readers.reshape(shape), patterns.reshape(shape), tried.max(0)


def believed_slopes(true: np.ndarray, said: np.ndarray, design: np.ndarray) -> np.ndarray:
    """[k]: slopes of true readings [n, k] on estimated ones, as far as n subjects can tell them from 1.

    design [n, d]: demographics with a leading 1, regressed out of both. Each slope s of standard error e becomes the
    mean of its posterior, 1 + (s − 1)·DOUBT² / (DOUBT² + e²).
    """
    true, said = (each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in (true, said))
    power = (said**2).sum(0)
    slopes = (true * said).sum(0) / power
    free = max(len(true) - design.shape[1] - 1, 1)
    errors = ((true - slopes * said) ** 2).sum(0) / free / power
    return 1 + (slopes - 1) * DOUBT**2 / (DOUBT**2 + errors)
