"""The conditional template: the low-resolution body to be expected of a person, linear in the demographics."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from totalgen.data.demographics import Demographics
from totalgen.errors import InputError

RIDGE = 10.0  # subjects: a cohort of fewer says little of how bodies follow demographics, and gets their mean


@dataclass(frozen=True)
class Template:
    """mean [C, *space] + Σ slope [n, C, *space] · (demographics [n] − centre) / spread, in the units of the volumes.

    For voxel v, slopes are the ridge regression over subjects i with standardised demographics x_i,
    argmin Σ (v_i − mean − x_i·slope)² + RIDGE·|slope|². Kept in float16.
    """

    centre: np.ndarray
    spread: np.ndarray
    maps: torch.Tensor  # [1 + n, C, *space]: the mean, then the slopes

    @classmethod
    def fit(cls, people: Iterable[tuple[Demographics, torch.Tensor]]) -> "Template":
        """From (demographics, volume [C, *space]) of every training subject; one volume at a time is held."""
        points: list[np.ndarray] = []
        moments: torch.Tensor | None = None
        for demographics, volume in people:
            x = np.concatenate([[1.0], demographics.channels()])
            grown = torch.from_numpy(x).reshape(-1, *[1] * volume.ndim) * volume.double()
            moments = grown if moments is None else moments + grown
            points.append(x)
        if moments is None:
            raise InputError("a template needs training subjects, there are none. Pack some.")
        raw = np.stack(points)
        centre, spread = raw[:, 1:].mean(0), raw[:, 1:].std(0)
        spread = np.where(spread > 0, spread, 1.0)
        change = np.eye(raw.shape[1])  # of (1, demographics) into (1, standardised)
        change[1:, 0], change[1:, 1:] = -centre / spread, np.diag(1 / spread)
        standard = raw @ change.T
        gram = standard.T @ standard + np.diag([0.0] + [RIDGE] * len(centre))
        solve = torch.from_numpy(np.linalg.solve(gram, change))
        maps = torch.tensordot(solve, moments, dims=1).half().float() + 0.0  # −0, a matter of the machine, becomes 0
        return cls(centre, spread, maps)

    def of(self, demographics: Demographics) -> torch.Tensor:
        """[C, *space]: the body to be expected of a person."""
        x = (demographics.channels() - self.centre) / self.spread
        weights = torch.from_numpy(np.concatenate([[1.0], x])).float()
        return torch.tensordot(weights, self.maps, dims=1)

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, of which ``from_settings`` makes the same template again."""
        coded = base64.b64encode(self.maps.numpy().astype("<f2").tobytes()).decode("ascii")
        return dict(
            centre=self.centre.tolist(), spread=self.spread.tolist(), shape=list(self.maps.shape), float16=coded
        )  # fmt: skip

    @classmethod
    def from_settings(cls, settings: dict[str, Any], shape: Sequence[int]) -> "Template":
        """shape: of its volumes, [C, *space]. Raises ValueError for values that are not those of such a template."""
        maps = np.frombuffer(base64.b64decode(settings["float16"], validate=True), "<f2").reshape(settings["shape"])
        centre, spread = (np.asarray(settings[name], float) for name in ("centre", "spread"))
        if centre.shape != spread.shape or maps.shape != (1 + len(centre), *shape) or not np.isfinite(maps).all():
            raise ValueError("its template is damaged")
        return cls(centre, spread, torch.from_numpy(maps.astype(np.float32)))
