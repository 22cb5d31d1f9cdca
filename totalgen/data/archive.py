"""The training archive: every subject of a cohort as named arrays, in one Zarr folder.

    <subject>/<array>   what the recipe says (see recipes)
    <subject>           attributes: recipe, voxel_mm, affine, moments, sha256, provenance
    attributes          format_version, recipe, subjects (rows of the cohort table), statistics, the recipe's own

A subject's group is written atomically: it is complete or absent. The attributes at the top are the index, written
last: what they do not list is not in the archive. What was damaged later is noticed by its length or its shape where
the archive is used, and packed again; by its checksum where that is asked for.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import psutil
import torch
import zarr

from totalgen.data.axial_extent import warn_of_other_rows
from totalgen.data.demographics import COLUMNS, COVERAGE, SPLITS, Demographics, read_cohort
from totalgen.data.files import atomic
from totalgen.data.progress import progress
from totalgen.data.recipes import PetCt, Recipe, recipe_from, statistics
from totalgen.data.subjects import for_each_subject, read_table
from totalgen.errors import InputError

FORMAT_VERSION = 3
BYTES_PER_VOXEL = 40  # of a study while it is encoded: its volumes, both encoded, their subsamplings
INFLATION = 100_000  # bytes that a byte of a compressed file may become: no array is larger
AGAIN = "Run 6_pack_training_set.py again: it is packed anew."


def pack(
    root: str | Path, recipe: Recipe, overwrite: bool = False, workers: int = 1, scheduler: str | None = None
) -> tuple[Path, int, int]:
    """Write <root>/<recipe.name>.zarr from <root>/<recipe.folder>.

    Subjects whose files did not change since they were packed are kept; new ones are added after them, changed ones
    are encoded again. A study that cannot be read is listed in failures.csv and left out.
    overwrite: start again; needed for another recipe, or when a subject was removed from the cohort.
    workers, scheduler: where the work is done (subjects.for_each_subject).
    Returns (path, number of subjects, number of failures).
    """
    root = Path(root)
    path, folder = root / f"{recipe.name}.zarr", root / recipe.folder
    recipe.index(root, [])  # what is missing is said before the work, not after
    if isinstance(recipe, PetCt) and scheduler is None:
        check_memory(recipe.shape)
    table = read_cohort(root / "cohort.csv", recipe.person)
    ready = table[[(folder / subject).is_dir() for subject in table["subject"]]].set_index("subject")
    if ready.empty:
        raise InputError(f"{folder}: no subject of the cohort is there. Run 4_crop_torso.py first.")
    if len(ready) < len(table):
        lack = len(table) - len(ready)
        click.echo(f"{lack} of {len(table)} subjects are not in {folder} and are left out.", err=True)
    if overwrite and path.exists():
        (path / "zarr.json").unlink(missing_ok=True)  # the index first: a kill must not leave half an archive
        shutil.rmtree(path)
    packed = packed_subjects(path, recipe)
    if gone := [subject for subject in packed if subject not in ready.index]:
        raise InputError(f"{path}: holds {gone[0]}, who is not in the cohort. {_anew(path)}")
    tables = {name: read_table(root / f"{name}.csv") for name in ("suv", "crop")}
    if isinstance(recipe, PetCt):
        warn_of_other_rows(root, table, tables["crop"])
    notes = {name: found.set_index("subject") for name, found in tables.items()}

    def check(subject):
        if recipe.person:
            Demographics.from_row(ready.loc[subject])

    def work(subject):
        check(subject)
        made_from = {name: n.loc[subject].dropna().to_dict() for name, n in notes.items() if subject in n.index}
        write_subject(path / subject, folder / subject, recipe, made_from)

    def done(subject):
        with contextlib.suppress(InputError):  # a person that the table lacks since is listed by work
            check(subject)
            return is_current(path / subject, folder / subject, recipe)
        return False

    subjects = [*packed, *(subject for subject in ready.index if subject not in packed)]
    failed = for_each_subject(root, f"pack_{recipe.name}", subjects, work, done, None, workers, scheduler)
    there = [subject for subject in subjects if subject not in failed]
    write_index(path, ready.loc[there], recipe)
    report_cuts(path, there)
    return path, len(subjects) - len(failed), len(failed)


def check_memory(shape: Sequence[int]) -> None:
    """Raises InputError for a grid that this machine cannot hold."""
    needed, there = math.prod(shape) * BYTES_PER_VOXEL, psutil.virtual_memory().total
    if needed > there:
        sides = "×".join(map(str, shape))
        raise InputError(
            f"--shape {sides} needs about {needed / 1e9:.3g} GB of memory; this machine has {there / 1e9:.3g} GB. "
            "Give a smaller one."
        )


def report_cuts(path: Path, subjects: Sequence[str]) -> None:
    """A line on standard error when bodies are larger than the grid of an archive: how much of them is lost."""
    cut = {s: opened(path / s).attrs.get("cut", 0.0) for s in subjects}
    lost = {s: share for s, share in cut.items() if share > 0}
    if lost:
        worst = max(lost, key=lambda s: lost[s])
        click.echo(
            f"Warning: {path}: its shape cuts the bodies of {len(lost)} of {len(cut)} subjects, of {worst} most "
            f"({100 * lost[worst]:.1f} % of the voxels). Give a larger --shape, with --overwrite.", err=True,
        )  # fmt: skip


def report_splits(path: Path) -> None:
    """A line with the number of subjects of every split of an archive, and one on standard error for a split that is
    none of SPLITS, such as Train: nothing learns from it."""
    rows = Archive(path).subjects
    counts = Counter(row.get("split", SPLITS[0]) for row in rows)
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    partial = len(chosen(rows, SPLITS[0], partial=True)) - len(chosen(rows, SPLITS[0]))
    but = f", but for {partial} that show part of a torso ({COVERAGE} False)" if partial else ""
    click.echo(f"Splits: {shown}; trainings learn from {SPLITS[0]}{but}.")
    if odd := sorted(set(counts).difference(SPLITS)):
        click.echo(
            f"Warning: {path}: split {', '.join(odd)} is none of {', '.join(SPLITS)}, and no training uses it. Correct "
            "cohort.csv and run this step again.", err=True,
        )  # fmt: skip


def packed_subjects(path: Path, recipe: Recipe) -> list[str]:
    """Those of the archive ``path``, none where there is no archive. Raises InputError for one of another recipe."""
    if not (path / "zarr.json").exists():
        return []
    begun = Archive(path)
    theirs, ours = (plain(each.settings()) for each in (begun.recipe, recipe))
    if changed := [f"{name} {theirs.get(name)}" for name in ours if theirs.get(name) != ours[name]]:
        raise InputError(f"{path}: was packed with {', '.join(changed)}. {_anew(path)}")
    return [row["subject"] for row in begun.subjects]


def _anew(path):
    """The cure for an archive of a recipe's name; trainings, which pack or read it too, have no --overwrite."""
    recipe = "petct" if path.stem == PetCt.name else path.stem
    script = f"0_Preprocess/6_pack_training_set.py --root {shlex.quote(str(path.parent))} --recipe {recipe}"
    return f"Give --overwrite to {script}, which packs it again."


def plain(value: Any) -> Any:
    """As JSON keeps it."""
    return json.loads(json.dumps(value))


def write_subject(path: Path, folder: Path, recipe: Recipe, made_from: dict[str, Any]) -> None:
    """Encode the study in ``folder`` as the group ``path``. made_from: dict that goes into its provenance."""
    arrays, about = recipe.encode(folder)
    with atomic(path) as part:
        group = zarr.open_group(part, mode="w")
        for name, kind in recipe.arrays.items():
            shape = arrays[name].shape
            group.create_array(name, shape=shape, chunks=kind.chunks(shape), dtype=kind.dtype)[:] = arrays[name]
        version = importlib.metadata.version("totalgen")
        group.attrs.update(
            recipe=recipe.settings(),
            **about,
            sha256=checksum([arrays[name] for name in recipe.arrays]),
            provenance=dict(files=stamps(folder, recipe), version=version, **made_from),
            stored=stored(part),
        )


def is_current(path: Path, folder: Path, recipe: Recipe) -> bool:
    """Whether the group ``path`` was encoded by this recipe from the files that are in ``folder`` now."""
    try:
        group = opened(path)
        attributes = dict(group.attrs)
        same_files = attributes["provenance"]["files"] == stamps(folder, recipe)
        if "recipe" not in attributes:  # format 2
            axial = attributes.get("axial", "stretch")
            attributes["recipe"] = PetCt(shape=group["high"].shape[1:], axial=axial).settings()
        same_recipe = plain(recipe.settings()) == plain(attributes["recipe"])
        return same_files and same_recipe and damage(path, group, recipe, thorough=True) is None
    except Exception:  # damaged: decoders raise many kinds; it is packed again
        return False


def opened(path: Path) -> zarr.Group:
    """A group, to read. Raises ValueError for a pipe in the place of its attributes, which would be waited for."""
    about = path / "zarr.json"
    if about.exists() and not about.is_file():
        raise ValueError(f"{about} is no file")
    return zarr.open_group(path, mode="r")


def stored(path: Path) -> dict[str, int]:
    """files and bytes of the chunks in a subject's group."""
    sizes = [file.stat().st_size for file in path.rglob("*") if file.name != "zarr.json" and file.is_file()]
    return dict(files=len(sizes), bytes=sum(sizes))


def damage(path: Path, group: zarr.Group, recipe: Recipe, thorough: bool = False) -> str | None:
    """What is wrong with the arrays of a subject's group, in words; None where nothing is.

    No array is read, unless ``thorough`` and the group is of a version that did not note the length of its chunks.
    """
    arrays = {name: group.get(name) for name in recipe.arrays}
    for name, array in arrays.items():
        if not isinstance(array, zarr.Array):
            return f"lacks {name}"
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    expected = recipe.shapes(next(iter(shapes.values()))[-3:])
    for name, kind in recipe.arrays.items():
        if shapes[name] != expected[name] or arrays[name].dtype != kind.dtype:
            return f"has {name} of {shapes[name]}, {arrays[name].dtype}, not {expected[name]}, {kind.dtype}"
    found, noted = stored(path), group.attrs.get("stored")
    if sum(array.nbytes for array in arrays.values()) > INFLATION * (found["bytes"] + 1):
        return f"states {shapes}, more than its files can hold"
    if noted is None:
        whole = not thorough or checksum([array[:] for array in arrays.values()]) == group.attrs["sha256"]
        return None if whole else "differs from its checksum"
    return None if found == noted else f"has chunks of {found['bytes']} bytes, not {noted['bytes']}: they were cut"


def stamps(folder: str | Path, recipe: Recipe) -> dict[str, list[int] | None]:
    """name → [bytes, time of the last change in ns] of the files that are packed; None for one that is missing."""
    files = recipe.files(folder)
    return {n: [f.stat().st_size, f.stat().st_mtime_ns] if f.exists() else None for n, f in files.items()}


def checksum(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 of the bytes of arrays one after the other, C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_index(path: Path, table: pd.DataFrame, recipe: Recipe) -> None:
    """Write the attributes at the top, from the groups of the subjects of ``table`` (indexed by subject).

    The statistics are of the training subjects that show the whole torso, or of all of them when none does.
    Raises InputError for groups that do not belong together and for a cohort without training subjects.
    """
    groups = {subject: dict(opened(path / subject).attrs) for subject in table.index}
    about = recipe.index(path.parent, list(groups.values()))
    rows = []
    for subject, row in table.iterrows():
        row = dict(row.dropna(), subject=subject)
        if COVERAGE in row:
            row[COVERAGE] = str(row[COVERAGE]) == "True"
        rows.append({name: row[name] for name in (*COLUMNS, COVERAGE) if name in row})
    train = chosen(rows, "train") or chosen(rows, "train", partial=True)
    if not train:
        raise InputError(f"{path.parent / 'cohort.csv'}: no subject of split train could be packed. Assign some.")
    attributes = dict(
        format_version=FORMAT_VERSION,
        recipe=plain(recipe.settings()),
        subjects=rows,
        statistics=statistics([groups[rows[i]["subject"]]["moments"] for i in train]),
        **about,
    )
    if not (path / "zarr.json").exists():
        zarr.create_group(path, attributes=attributes)
    elif dict((group := zarr.open_group(path, mode="r+")).attrs) != attributes:
        group.attrs.put(attributes)


def verify_archive(path: str | Path) -> int:
    """Number of subjects of an archive. Raises InputError naming those whose checksum differs."""
    archive = Archive(path)
    numbers = progress(range(len(archive.subjects)), "verify", "subject")
    damaged = [archive.subjects[i]["subject"] for i in numbers if not archive.is_intact(i)]
    if damaged:
        cure = "Remove their folders there and run 6_pack_training_set.py again."
        raise InputError(f"{archive.path}: {', '.join(damaged)} differ from their checksums. {cure}")
    return len(archive.subjects)


def chosen(rows: Sequence[dict[str, Any]], split: str, partial: bool = False) -> list[int]:
    """Numbers of the rows of a split; those known to show only part of the torso only when ``partial``."""
    return [
        i for i, row in enumerate(rows)
        if row.get("split", "train") == split and (partial or row.get(COVERAGE, True))
    ]  # fmt: skip


class StoredArray:
    """A Zarr array of a subject, to read: what cannot be decoded is an InputError that names the subject."""

    def __init__(self, array: zarr.Array, name: str):
        self._array, self._name = array, name
        self.shape: tuple[int, ...] = tuple(array.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        try:
            return np.asarray(self._array[index])
        except IndexError:
            raise
        except Exception as error:  # decoders raise many kinds for a damaged chunk
            raise InputError(f"{self._name} cannot be read ({error}). {AGAIN}") from None


class Archive:
    """Read access to a training archive. Raises InputError when it is missing, incomplete or something else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such archive. Run 0_Preprocess/6_pack_training_set.py on its folder.")
        try:
            group = opened(self.path)
            attributes = dict(group.attrs)
            version = attributes.pop("format_version", attributes.pop("schema", None))  # "schema" until 2026
            if version not in (2, FORMAT_VERSION):
                raise ValueError(f"its format is {version}, this version reads 2 and {FORMAT_VERSION}")
            if version == 2:
                attributes = _from_version_2(attributes)
            self.recipe: Recipe = recipe_from(attributes.pop("recipe"))
            self.subjects: list[dict[str, Any]] = attributes.pop("subjects")
            self.statistics: dict[str, list[float]] = attributes.pop("statistics")
            self.about: dict[str, Any] = attributes  # what the recipe's index keeps
            if not np.isfinite([value for values in self.statistics.values() for value in values]).all():
                raise ValueError("its statistics are not finite numbers")
        except Exception as error:  # zarr raises many kinds for what is no group
            cure = _anew(self.path)
            raise InputError(f"{self.path}: is not a training archive ({error}). {cure}") from None
        self._groups: dict[int, zarr.Group] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_groups={})  # a process that gets a copy opens the groups itself

    def _group(self, index: int) -> zarr.Group:
        """The group of a row, opened once."""
        if index not in self._groups:
            subject = self.subjects[index]["subject"]
            try:
                group = opened(self.path / subject)
            except Exception as error:  # zarr raises many kinds for what is no group
                raise InputError(f"{self.path}: {subject} is missing ({error}). Run 6_pack_training_set.py.") from None
            if (wrong := damage(self.path / subject, group, self.recipe)) is not None:
                raise InputError(f"{self.path}: {subject} {wrong}. {AGAIN}")
            self._groups[index] = group
        return self._groups[index]

    def check(self, rows: Sequence[int]) -> None:
        """Raises InputError naming the first of these rows that is missing, cut or of another shape."""
        for row in rows:
            self._group(row)

    @property
    def data(self) -> dict[str, Any]:
        """What a task must know of the archive, and what is kept with weights: JSON values."""
        return dict(self.about, statistics=self.statistics, encodings=plain(self.recipe.settings())["encodings"])

    def array(self, row: int, name: str) -> StoredArray:
        """An array of a row, such as "high" [channel, x, y, z] of recipe PetCt."""
        return StoredArray(self._group(row)[name], f"{self.path}: {name} of {self.subjects[row]['subject']}")

    def tensor(self, row: int, name: str, *index: Any) -> torch.Tensor:
        """Part of an array of a row, float32. index: as of a zarr array."""
        return torch.from_numpy(self.array(row, name)[index].astype(np.float32))

    def attributes(self, index: int) -> dict[str, Any]:
        """dict of voxel_mm, affine, moments, sha256 and provenance of a row."""
        return dict(self._group(index).attrs)

    def fingerprint(self, rows: Sequence[int]) -> str:
        """What tells these rows, their people and their arrays, in this order, from others."""
        told = [[self.subjects[row] | dict(split=None), self.attributes(row)["sha256"]] for row in rows]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def is_intact(self, index: int) -> bool:
        """Whether the arrays of a row can be read and have the checksum that was stored with them."""
        try:
            arrays = [self.array(index, name)[:] for name in self.recipe.arrays]
            return checksum(arrays) == self.attributes(index)["sha256"]
        except Exception:  # decoders raise many kinds for a damaged chunk
            return False

    def indices(self, split: str, partial: bool = False) -> list[int]:
        """Row numbers of the subjects of a split (train or test), without those known to be partial torsos."""
        return chosen(self.subjects, split, partial)

    def demographics(self, index: int) -> Demographics:
        """Demographics of a row. Raises InputError that names the subject."""
        try:
            return Demographics.from_row(self.subjects[index])
        except InputError as error:
            raise InputError(f"{self.path}: {self.subjects[index]['subject']}: {error} {AGAIN}") from None


def _from_version_2(attributes):
    """Until 2026 an archive knew one recipe only, and not its name."""
    shape, axial = attributes.pop("shape"), attributes.pop("axial", "stretch")
    attributes.pop("channels", None)
    return attributes | dict(recipe=PetCt(shape=shape, axial=axial).settings())
