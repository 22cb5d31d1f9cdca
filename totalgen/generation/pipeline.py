"""The shape of what generates: a source in, named volumes out. Cohorts, manifests and exports know nothing else."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from totalgen.data.volume import Volume

Source = TypeVar("Source")
Progress = Callable[[list[Any]], Iterable[Any]]  # wraps a list of windows or evaluations, such as tqdm


class Pipeline(Protocol[Source]):
    """outputs: names of the volumes, which are also those of their files."""

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def source(self, row: Mapping[str, Any]) -> Source:
        """From a row of a table. Raises InputError for what cannot be one."""

    def run(self, source: Source, seed: int = 0, progress: Progress = iter) -> dict[str, Volume]:
        """name → Volume, in its physical unit, with its true affine. The same seed gives the same volumes."""

    def describe(self, source: Source) -> dict[str, Any]:
        """Columns of the manifest: what the source is, and all that decides what is made of it."""

    def doubts(self, source: Source) -> list[str]:
        """In words, why a result may not be believed."""

    def operations(self, shape: Sequence[int]) -> int:
        """Floating-point operations of the networks for one volume of ``shape`` voxels."""
