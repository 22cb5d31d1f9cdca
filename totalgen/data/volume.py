"""Voxels together with their affine.

World coordinates are millimetres, RAS+ (x to the right, y to the front, z to the head of the patient), as in NIfTI.
"""

import hashlib
import itertools
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, DTypeLike

from totalgen.data.files import atomic
from totalgen.data.pictures import DISPLAYS
from totalgen.errors import InputError

LABEL_TOLERANCE = 0.01
VOXEL_MM = (0.3, 50.0)  # edges of cubes that volumes of people are resampled to
FLAT = 1e-6  # volume of a voxel over the product of its edges; 1 of a box, cos 30° of a tilted gantry
SHEARED = 0.01  # cosine between axes that no rotation has
APART_MM = 0.5  # of a corner: as much as rounding a quaternion may move it
UNITS = {"CT": "HU", "SUV": "SUV g/mL", "MR": "MR signal"}  # of the volumes whose names begin so
SAME_PLACE = 0.1  # edges of a voxel by which two grids may differ
LPS = np.diag([-1.0, -1.0, 1.0])  # RAS <-> LPS, the convention of DICOM and ITK


@dataclass(frozen=True)
class Volume:
    """voxels: [x, y, z] array;  affine: 4×4, voxel index → world mm (RAS+)."""

    voxels: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.voxels.shape

    @property
    def voxel_mm(self) -> np.ndarray:
        """Edge lengths of a voxel in mm, [3]."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres: |det affine| / 1000."""
        return abs(np.linalg.det(self.affine[:3, :3])) / 1000

    def world(self, index: ArrayLike) -> np.ndarray:
        """World point (mm) of a voxel index, both [..., 3]; the centre of voxel 0 is index 0."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def corners(self) -> np.ndarray:
        """World points (mm) of the eight outer corners, at voxel faces: [8, 3]."""
        ends = np.meshgrid(*[(-0.5, n - 0.5) for n in self.shape], indexing="ij")
        return self.world(np.stack(ends, -1).reshape(-1, 3))

    @property
    def sha256(self) -> str:
        """Of voxels, their type and shape, and affine: the same of the same volume, however its file is called."""
        voxels = np.ascontiguousarray(self.voxels)
        digest = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape}".encode())
        digest.update(voxels.data)
        digest.update(np.ascontiguousarray(self.affine, dtype=np.float64).data)
        return digest.hexdigest()

    def same_grid(self, other: "Volume") -> bool:
        """Whether the voxels of both lie at the same places, to a tenth of an edge at the farthest corner: files
        round their affines, and a step that is 0.01 mm longer is millimetres there."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners - other.corners).max() < SAME_PLACE * self.voxel_mm.min())

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> "Volume":
        """The box start ≤ index < stop as a Volume at the same place in the world."""
        box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return Volume(self.voxels[box], moved(self.affine, start))


def moved(affine: np.ndarray, start: ArrayLike) -> np.ndarray:
    """The affine of a grid whose voxel 0 is voxel ``start`` of the given one (start may be negative or fractional)."""
    affine = np.array(affine, dtype=float)
    affine[:3, 3] = affine[:3, :3] @ np.asarray(start, dtype=float) + affine[:3, 3]
    return affine


def canonical(volume: Volume) -> Volume:
    """The same voxels with axes reordered and reversed so that the affine is as close to RAS+ as possible."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.voxels, volume.affine))
    return Volume(np.asarray(image.dataobj), image.affine)


def check_voxel_mm(voxel_mm: float) -> None:
    """Raises InputError for what is no edge of a voxel that volumes of people can have (VOXEL_MM)."""
    low, high = VOXEL_MM
    if not isinstance(voxel_mm, numbers.Real) or not low <= voxel_mm <= high:
        raise InputError(f"voxel_mm is {voxel_mm!r}; an edge from {low:g} to {high:g} mm is possible. Give such as 2.")


def isotropic_grid(volume: Volume, voxel_mm: float) -> tuple[tuple[int, ...], np.ndarray]:
    """(shape, affine) of the axis-aligned RAS+ grid of ``voxel_mm`` voxels that covers ``volume``.

    The grid's outer faces coincide with the bounding box of the volume's outer voxel faces (rounded up to whole voxels,
    centred). Raises InputError for an impossible ``voxel_mm``.
    """
    check_voxel_mm(voxel_mm)
    low, high = volume.corners.min(0), volume.corners.max(0)
    shape = np.ceil((high - low) / voxel_mm - 1e-6).astype(int)
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * voxel_mm
    return tuple(int(n) for n in shape), affine


def resample(
    volume: Volume, shape: Sequence[int], affine: np.ndarray, fill: float, nearest: bool = False
) -> Volume:
    """``volume`` on the grid (shape, affine): linear, or nearest neighbour for labels; ``fill`` outside its voxels.

    Both affines may be oblique, left-handed or sheared (a tilted gantry): ITK inverts the whole matrix.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape])
    spacing, direction, origin = _itk_geometry(np.asarray(affine))
    resampler.SetOutputSpacing(spacing)
    resampler.SetOutputDirection(direction)
    resampler.SetOutputOrigin(origin)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float(fill))
    resampler.SetNumberOfThreads(1)  # work is spread over subjects, not over the voxels of one
    image = resampler.Execute(_to_itk(volume))
    return Volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.array(affine, dtype=float))


def read_nifti(path: str | Path, dtype: DTypeLike = np.float32, reorder: bool = True) -> Volume:
    """A NIfTI file as a Volume, in RAS+ order, or, without ``reorder``, with its axes as they are in the file.

    Further axes of length 1 are dropped. Raises InputError when it is missing, damaged, not 3-D, of other than real
    numbers, or states no orientation or an impossible one.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. Run the step that writes it, or check the folder.")
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: is no file, but a folder, pipe or device. Give the file.")
    try:
        image: Any = nibabel.load(path)
        oriented = int(image.header["qform_code"]) or int(image.header["sform_code"])
        unit = image.header.get_xyzt_units()[0]
        problem = _problem(image)
        image = nibabel.as_closest_canonical(image) if reorder and not problem else image
        voxels = None if problem else np.asarray(image.dataobj, dtype=dtype)
    except Exception as error:  # nibabel, gzip and zlib each raise their own kinds for a damaged file
        cure = "Copy or export it again; where a step wrote it, remove it and run that step."
        raise InputError(f"{path}: cannot be read as NIfTI ({error}). {cure}") from None
    if problem or voxels is None:
        raise InputError(f"{path}: {problem}")
    if not oriented:
        raise InputError(
            f"{path}: states no orientation (qform and sform codes are 0). Export it again with one, or set it "
            "(nibabel: image.set_sform(affine, code=1)) once you know it."
        )
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: is in units of {unit}; mm are read. Scale its affine and set its unit.")
    if voxels.ndim > 3 and set(voxels.shape[3:]) == {1}:
        voxels = voxels.reshape(voxels.shape[:3])
    if voxels.ndim != 3:
        raise InputError(f"{path}: has {voxels.ndim} dimensions; one 3-D volume per file is needed. Split it.")
    return Volume(voxels, image.affine)


def _problem(image):
    """What of a NIfTI image cannot be used, with the cure; None of most."""
    if (kind := image.get_data_dtype()).kind not in "biuf":
        what = "complex numbers" if kind.kind == "c" else f"voxels of several values ({kind})"
        return f"holds {what}; one real number per voxel is read. Save one part of it, such as the magnitude."
    affine = image.affine
    if not np.isfinite(affine).all():
        return "its affine has values that are not finite numbers. Export it again, or set its affine once you know it."
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not edges.all() or abs(np.linalg.det(affine[:3, :3] / edges)) < FLAT:
        return "its affine is singular: its voxels have no volume. Export it again, or set its affine once you know it."
    apart, codes = _between_forms(image)
    if apart and codes[0] == codes[1]:
        return (
            f"its sform and its qform, both of code {codes[0]}, place its voxels up to {apart:.3g} mm apart. One is "
            "wrong: set the code of that one to 0 (nibabel: image.set_qform(None, code=0))."
        )
    return None


def placement_doubts(path: str | Path) -> list[str]:
    """In words, that a NIfTI file has two affines of different spaces: other programs may place it by the other one."""
    apart, codes = _between_forms(nibabel.load(path))
    if not apart:
        return []
    sform, qform = (f"{name} of code {code}" for name, code in zip(("sform", "qform"), codes, strict=True))
    return [f"its {sform} and its {qform} place its voxels up to {apart:.3g} mm apart; the sform is used"]


def _between_forms(image):
    """(mm, (sform code, qform code)): how far the affines that a file states put its corners apart; 0 up to half a
    voxel, as by the rounding of a quaternion, and for a sheared sform, which no qform can say."""
    codes = tuple(int(image.header[name]) for name in ("sform_code", "qform_code"))
    if not all(codes):
        return 0.0, codes
    forms = [form for form in (image.get_sform(), image.get_qform()) if np.isfinite(form).all()]
    axes = forms[0][:3, :3] / np.linalg.norm(forms[0][:3, :3], axis=0)
    if len(forms) < 2 or np.abs(axes.T @ axes - np.eye(3)).max() > SHEARED:
        return 0.0, codes
    ends = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in (*image.shape, 1, 1)[:3]))])
    apart = float(np.linalg.norm((ends @ (forms[0] - forms[1]).T)[:, :3], axis=1).max())
    return (apart if apart > max(np.linalg.norm(forms[0][:3, :3], axis=0).min() / 2, APART_MM) else 0.0), codes


def is_whole(path: str | Path) -> bool:
    """Whether a compressed NIfTI file is there and as long as its header says; its voxels are not read."""
    try:
        image: Any = nibabel.load(path)
        with Path(path).open("rb") as file:
            file.seek(-4, os.SEEK_END)
            length = int.from_bytes(file.read(), "little")  # of what was compressed, modulo 2³² (RFC 1952)
        voxels = int(np.prod(image.shape, dtype=np.int64)) * image.get_data_dtype().itemsize
        return length == (int(image.dataobj.offset) + voxels) % 2**32
    except Exception:  # nibabel, gzip and zlib each raise their own kinds for a damaged file
        return False


def check_finite(path: str | Path, volume: Volume) -> None:
    """Raises InputError that names the file ``path`` of a volume with voxels that are no finite numbers."""
    if bad := int(np.count_nonzero(~np.isfinite(volume.voxels))):
        raise InputError(f"{path}: {bad} voxels are not finite numbers. Repair it.")


def read_labels(path: str | Path) -> Volume:
    """A NIfTI file of labels as a Volume of uint8, in RAS+ order.

    Values within LABEL_TOLERANCE of a whole number are rounded: some programs store labels with a scale factor. Raises
    InputError for others, negative ones and those above 255, and as ``read_nifti``.
    """
    volume = read_nifti(path)
    rounded = np.rint(volume.voxels)
    off = ~(np.abs(volume.voxels - rounded) <= LABEL_TOLERANCE)
    if off.any():
        raise InputError(f"{path}: holds {volume.voxels[off][0]:g}; labels are whole numbers. Is it a label file?")
    if rounded.min() < 0 or rounded.max() > 255:
        ends = f"{rounded.min():g} to {rounded.max():g}"
        raise InputError(f"{path}: holds labels {ends}; 0 to 255 are read. Renumber them.")
    return Volume(rounded.astype(np.uint8), volume.affine)


def write_nifti(path: str | Path, volume: Volume, note: str = "", unit: str | None = None) -> None:
    """Write a Volume (float32 or an integer type) as compressed NIfTI, atomically.

    The header says where the voxels are (mm, scanner coordinates: sform and, unless the axes are sheared, qform), how
    to show them (cal_min, cal_max) and in its description unit, range and note, as far as its 79 bytes go.
    note: where the volume is from;  unit: of the values; default: by the file's name, and of uint8 "label".
    """
    image = nibabel.Nifti1Image(volume.voxels, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    if not np.allclose(image.get_qform(), volume.affine, atol=1e-3):
        image.set_qform(volume.affine, code=0)
    image.header.set_xyzt_units("mm")
    low, high = (float(end(volume.voxels)) for end in (np.min, np.max)) if volume.voxels.size else (0.0, 0.0)
    window: tuple[float, float] = (low, high)
    name = Path(path).name.partition(".")[0]
    if unit is None and volume.voxels.dtype == np.uint8:
        unit = "label"
        image.header.set_intent("label")
    elif unit is None:
        unit = UNITS.get(name.partition("_")[0], "")
        window = DISPLAYS[name].window if name in DISPLAYS else window
    image.header["cal_min"], image.header["cal_max"] = window
    ends = [f"{end:.0f}" if abs(end) >= 100 else f"{end:.3g}" for end in (low, high)]
    words = f"{unit} {' to '.join(ends)}; {note}".strip(" ;")
    image.header["descrip"] = words.encode()[:79].decode(errors="ignore").encode()
    with atomic(path) as part:
        nibabel.save(image, part)


def _itk_geometry(affine):
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = LPS @ (affine[:3, :3] / spacing)
    origin = LPS @ affine[:3, 3]
    return spacing.tolist(), direction.ravel().tolist(), origin.tolist()


def _to_itk(volume):
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)))
    spacing, direction, origin = _itk_geometry(volume.affine)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    return image
