"""One phantom subject: from demographics and a seed to CT, SUV, organ labels and their truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from totalgen.data.demographics import Demographics
from totalgen.data.intensity import AIR_HU
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.data.volume import Volume, check_voxel_mm
from totalgen.phantom.anatomy import paint_torso
from totalgen.phantom.canvas import Box, Canvas
from totalgen.phantom.frame import Frame
from totalgen.phantom.magnetic_resonance import rician, scan_mr
from totalgen.phantom.population import sample_organs
from totalgen.phantom.scanner import PET, scan_ct, scan_pet
from totalgen.phantom.spheres import place_spheres, sphere_labels, sphere_truth
from totalgen.phantom.uptake import attenuation, organ_means, tissue_uptake

SPHERE_STREAM, MR_STREAM = 7, 13  # random numbers of their own: without spheres or MR a subject is what it was


@dataclass(frozen=True)
class PhantomSubject:
    """ct: HU;  suv: SUVbw in g/mL;  organs: TotalSegmentator ids (uint8), all on one grid;  truth: name → number.

    noise_free: the SUV without noise;  unclipped: the SUV with its noise, which may be negative (suv is cut at 0);
    spheres: number of the hot sphere that each voxel belongs to, from 1 (uint8), when there are some;
    mr, mr_truth: T1-weighted signal with bias field and noise, and without both, when asked for.
    """

    ct: Volume
    suv: Volume
    organs: Volume
    truth: dict[str, Any]
    noise_free: Volume
    unclipped: Volume
    spheres: Volume
    mr: Volume | None = None
    mr_truth: Volume | None = None


@threadpool_limits.wrap(limits=1)  # small products: threads make it slower, and could change the last bit
def make_subject(
    demographics: Demographics, seed: int | Sequence[int], voxel_mm: float = 4.0, variability: float = 1.0,
    tracer: str = "fdg", fwhm_mm: float = PET.fwhm_mm, spheres: int = 0, mr: bool = False,
) -> PhantomSubject:  # fmt: skip
    """A parametric torso of these demographics.

    seed: as for numpy's SeedSequence; the same demographics and seed give the same subject, bit for bit, and the same
    patient (with other noise) at another voxel size.
    voxel_mm: edge of the isotropic voxels.
    variability: 1 samples organ sizes, uptake, places and deformation as in a population; 0 gives the deterministic
    phantom, whose organs are typical of the demographics for every seed (image texture and noise depend on the seed).
    tracer: a key of uptake.TRACERS;  fwhm_mm: blur of the PET scanner;  spheres: hot ones in liver, muscle and lung;
    mr: make an MR, too. Raises InputError for an impossible ``voxel_mm``.
    """
    check_voxel_mm(voxel_mm)
    _, _, ct_rng, pet_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    patient = np.random.SeedSequence(seed if variability else 0)
    anatomy_rng, uptake_rng = (np.random.default_rng(s) for s in patient.spawn(2))
    organs = sample_organs(demographics, anatomy_rng, variability)
    frame = Frame(demographics, anatomy_rng, variability)
    low, high = frame.field()
    shape = np.ceil((high - low) / voxel_mm).astype(int)
    first = (low + high) / 2 - (shape - 1) / 2 * voxel_mm
    axes = [first[i] + voxel_mm * np.arange(shape[i]) for i in range(3)]
    inner = _where_the_body_is(frame, axes)
    xs, ys, zs = (a[i] for a, i in zip(axes, inner, strict=True))
    canvas = Canvas(xs, ys, zs, voxel_mm, anatomy_rng, variability)
    paint_torso(canvas, frame, organs.volume_ml, demographics.age_years, anatomy_rng, variability)

    hu = attenuation(demographics, uptake_rng, variability)
    suv_mean = organ_means(organs.suv_mean, tracer)
    uptake = tissue_uptake(demographics, suv_mean, uptake_rng, variability, tracer)
    ct = scan_ct(canvas, hu, ct_rng)
    hot = place_spheres(canvas, uptake, spheres, np.random.default_rng((*_key(seed), SPHERE_STREAM)))
    unclipped, clean = scan_pet(canvas, uptake, suv_mean, pet_rng, fwhm_mm, hot)
    suv = np.maximum(unclipped, 0)

    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = first
    truth = _truth(canvas, clean, suv, demographics, seed, frame) | sphere_truth(hot)

    def whole(image, fill=0.0):
        field = np.full(shape, fill, dtype=image.dtype)
        field[inner] = image
        return Volume(field, affine.copy())

    made = PhantomSubject(
        whole(ct, AIR_HU), whole(suv), whole(canvas.organs), truth, whole(clean), whole(unclipped),
        whole(sphere_labels(canvas, hot)),
    )  # fmt: skip
    if not mr:
        return made
    mr_rng = np.random.default_rng((*_key(seed), MR_STREAM))
    image, mr_truth = (whole(each) for each in scan_mr(canvas, mr_rng, variability))
    noisy = Volume(rician(image.voxels, mr_rng), image.affine)
    return replace(made, mr=noisy, mr_truth=mr_truth)


def _key(seed):
    return [int(number) for number in np.atleast_1d(seed)]


def _where_the_body_is(frame: Frame, axes: Sequence[np.ndarray]) -> Box:
    """The box of the field that contains the body: the rest is air and need not be computed."""
    heights = np.linspace(axes[2][0], axes[2][-1], 80)
    width, depth, middle = frame.skin(heights)
    shoulders = 250 * frame.scale + 0.45 * frame.fat_mm
    reach = max(width.max(), shoulders) + 18
    front, back = (middle + depth).max() + (75 * frame.scale if frame.sex == "F" else 18), (middle - depth).min() - 18
    inside = [np.abs(axes[0]) < reach, (axes[1] > back) & (axes[1] < front), axes[2] > -np.inf]
    return tuple(slice(int(np.argmax(i)), int(len(i) - np.argmax(i[::-1]))) for i in inside)


def _truth(canvas, clean, noisy, demographics, seed, frame):
    """Exact values per organ: the volume of its mask, the noiseless mean and the noisy maximum of the uptake in it."""
    truth = dict(
        sex=demographics.sex, age_years=demographics.age_years, height_m=demographics.height_m,
        weight_kg=demographics.weight_kg, seed=seed, length_mm=round(frame.length_mm, 2), fat_mm=round(frame.fat_mm, 2),
    )  # fmt: skip
    for name, ids in {**{n: (i,) for n, i in ORGANS.items()}, **MEASURED}.items():
        mask = np.isin(canvas.organs, ids)
        count = int(np.count_nonzero(mask))
        truth[f"{name}_volume_ml"] = count * canvas.voxel_mm**3 / 1000
        truth[f"{name}_suv_mean"] = float(clean[mask].mean(dtype=np.float64)) if count else float("nan")
        truth[f"{name}_suv_max"] = float(noisy[mask].max()) if count else float("nan")
    return truth
