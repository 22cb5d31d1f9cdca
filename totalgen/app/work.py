"""One job of the page, in a process of its own: python -m totalgen.app.work RESULTS WEIGHTS JOB.

It prints a line of JSON for every evaluation of a network, every doubt, and what was made or went wrong. It ends when
its standard input does: nothing goes on after the server that started it.
"""

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import click

from totalgen.app.uploads import is_upload
from totalgen.data.files import error_text, report_full_disk
from totalgen.data.names import fault
from totalgen.data.quality import Reference, study_figures
from totalgen.data.text_files import read_json
from totalgen.data.volume import isotropic_grid, write_nifti
from totalgen.errors import InputError, closest
from totalgen.generation import ct_translator, pet_denoiser
from totalgen.generation.cascade import SHIPPED, Cascade
from totalgen.generation.checks import Checks, reference_beside
from totalgen.generation.cohort import Export, Request, generate_cohort
from totalgen.generation.ct_translator import CtTranslator
from totalgen.generation.inputs import requests_of
from totalgen.generation.organ_export import organ_export
from totalgen.generation.people import FIELDS, requests_for
from totalgen.generation.pet_denoiser import PetDenoiser
from totalgen.generation.synthetic_export import write_dicom
from totalgen.generation.trained import Trained
from totalgen.models.networks import cost
from totalgen.schema import build
from totalgen.settings import PetDenoisingInferenceSettings, SamplingSettings, TranslationInferenceSettings

Say = Callable[..., None]
WHOLE = 100_000  # voxels: wider than any slice
DENOISER: dict[str, Any] = dict(sampler="dpm_solver", steps=16, sigma_max=20.0, window=(128, 128, 104))
TRANSLATOR: dict[str, Any] = {
    "slices_sampling": dict(sampler="dpm_solver", steps=5, sigma_max=20.0),
    "refiner_sampling": dict(sampler="dpm_solver", steps=8, sigma_max=20.0),
    "slices_windows": dict(window=(WHOLE, WHOLE), window_batch=16),
    "refiner_windows": dict(window=(WHOLE, WHOLE, WHOLE)),
}
TRANSLATOR_WEIGHTS = {f"{part}_weights": f"demo-mr-{part}.safetensors" for part in ("slices", "vqvae", "refiner")}
FAMILIES = {family: name for name, family in SHIPPED.items()}  # what the page calls the weights of the cascade
NATURAL = click.IntRange(min=0)
PERSON: dict[str, click.ParamType] = dict.fromkeys(FIELDS, click.FLOAT) | {"sex": click.STRING}
IMAGE: dict[str, click.ParamType] = {"upload": click.STRING, "samples": click.INT, "seed": NATURAL}
FORMS = {  # kind of job → what its form may hold, read as the options of the same names are
    "generate": PERSON | {"seed": NATURAL, "family": click.STRING, "steps": click.INT},
    "denoise": IMAGE | {"dose": click.FLOAT},
    "translate": IMAGE,
}


class Plan(NamedTuple):
    """What a job will do. values: of its form, typed;  preset: for the manifest;  load: makes the pipeline, what
    else is written of a study (file name → export), and its checks."""

    values: dict[str, Any]
    request: Request
    outdir: Path
    preset: str
    load: Callable[[], tuple[Any, dict[str, Export], Checks | None]]


def plan(job: Mapping[str, Any], results: Path, weights: Path) -> Plan:
    """What a job will do; no network is loaded.

    job: id, kind (of KINDS) and values, what its form holds;  results: folder of the page;  weights: folder of the
    shipped weights. Raises InputError as the commands of 2_Tests do.
    """
    kind = str(job["kind"])
    values = _typed(job["values"], closest(kind, FORMS))
    if kind == "translate" and (missing := missing_translator(weights)):
        raise InputError(missing)
    if "upload" in values:
        values["path"] = _uploaded(values["upload"], results)
    outdir = outdir_of(dict(job, values=values), results / "studies")
    made = KINDS[kind](values, outdir, weights)
    if (why := fault(made.request.name)) is not None:
        raise InputError(f'study "{made.request.name[:40]}…" {why}. Give shorter numbers.')
    return made


def outdir_of(job: Mapping[str, Any], studies: Path) -> Path:
    """The folder of a cohort that a job writes into: its own where it was given an image, so that nothing of a patient
    is in another; generated bodies of one family and number of steps share one."""
    values = job["values"]
    if job["kind"] != "generate":
        return studies / str(job["id"])
    family = values.get("family", "edm")
    return studies / (f"{family}-{values['steps']}-steps" if "steps" in values else family)


def _generate(values, outdir, weights):
    name = closest(values.get("family", "edm"), FAMILIES)
    person: dict[str, Sequence[Any]] = {field: [values[field]] for field in FIELDS if field in values}
    (request,) = requests_for(person, None, None, values.get("seed", 1), 1)
    steps = dict(steps=values["steps"]) if "steps" in values else {}
    SamplingSettings(**steps)  # refuses a number that is not allowed

    def load():
        cascade = Cascade.shipped(name, folder=weights)
        samplings = {key: replace(getattr(cascade, key), **steps) for key in ("global_sampling", "sr_sampling")}
        organs = organ_export(None, weights / "demo-segmenter.safetensors", cascade.global_stage.data["sources"])
        known = reference_beside(weights / "demo-segmenter.safetensors")
        checks = Checks(organs.label, organs.by, known) if organs else Checks(reference=known)
        exports: dict[str, Export] = {"dicom": write_dicom}
        if organs:
            exports = {"organs.csv": organs} | exports
            if known is not None and values["sex"] in known.sexes:
                exports["training.json"] = _figures(known)
        return replace(cascade, **samplings), exports, checks

    return Plan(values, request, outdir, name, load)


def _denoise(values, outdir, weights):
    own = DENOISER | dict(weights=weights / "demo-pet-edm.safetensors", samples=values.get("samples", 1))
    settings = build(PetDenoisingInferenceSettings, own)
    if "dose" not in values:
        raise InputError("--dose is missing. Give the fraction of the normal dose, such as 0.1.")
    path = values.pop("path", None)
    (request,) = requests_of(path, None, "", values.get("seed", 1), outdir, 0, dose=values["dose"])
    exports = {"input.nii.gz": _write_input}
    exports |= {"dicom": pet_denoiser.dicom_export(outdir, False)} if path.is_dir() else {}
    return Plan(values, request, outdir, "demo", lambda: (PetDenoiser.load(settings), exports, None))


def _translate(values, outdir, weights):
    own = TRANSLATOR | {name: weights / file for name, file in TRANSLATOR_WEIGHTS.items()}
    settings = build(TranslationInferenceSettings, own | dict(samples=values.get("samples", 1)))
    path = values.pop("path", None)
    (request,) = requests_of(path, None, "", values.get("seed", 1), outdir, 0)
    exports = {"input.nii.gz": _write_input}
    exports |= {"dicom": ct_translator.dicom_export(outdir, False)} if path.is_dir() else {}
    return Plan(values, request, outdir, "demo", lambda: (CtTranslator.load(settings), exports, None))


KINDS = {"generate": _generate, "denoise": _denoise, "translate": _translate}


def missing_translator(weights: Path) -> str:
    """Why no CT can be translated, in one line; "" where its weights are there."""
    missing = [file for file in TRANSLATOR_WEIGHTS.values() if not (weights / file).is_file()]
    return f"{missing[0]} is not among the shipped weights. Train it: docs/ct-to-mr.md." if missing else ""


def _typed(values, types):
    """Values of a form by the types of its fields; what is empty was not given."""
    if not isinstance(values, dict):
        raise InputError('values is no object. Send one, such as {"sex": "F"}.')
    found = {}
    for name, value in values.items():
        kind = closest(name, types)
        if value is None or value == "":
            continue
        try:
            found[name] = kind.convert(str(value), None, None)
        except click.BadParameter as error:
            raise InputError(f"--{name.replace('_', '-')}: {error.message}") from None
        if isinstance(found[name], float) and not math.isfinite(found[name]):
            raise InputError(f"--{name.replace('_', '-')} is {value}, no finite number. Correct it.")
    return found


def _uploaded(upload, results):
    """The one file or folder of an upload. Raises InputError unless it is there."""
    found = list((results / "uploads" / upload).glob("[!.]*")) if is_upload(upload) else []
    if len(found) != 1:
        raise InputError("there is no such upload. Choose the file again.")
    return found[0]


def _image(source):
    """The volume that a source of the denoiser or the translator brings."""
    return source.pet.suv if hasattr(source, "pet") else source.ct.ct


def _write_input(folder, source, volumes, row):
    """An Export: input.nii.gz, what was given, so that it can be looked at beside the result."""
    write_nifti(folder / "input.nii.gz", _image(source), "TotalGen: as given")


def _figures(known: Reference) -> Export:
    """An Export: training.json, figures of the study's organs, and their ranges in the training cohort, by sex."""

    def export(folder, person, volumes, row):
        found = study_figures(volumes["CT"], volumes["SUV"], volumes["organs"], known.window_hu)
        figures = {name: value if math.isfinite(value) else None for name, value in found.items()}
        ranges = known.sexes[person.sex]
        text = json.dumps(dict(subjects=ranges.subjects, figures=figures, organs=ranges.organs))
        (folder / "training.json").write_text(text)

    return export


def follow(pipeline: Any, total: int, say: Say) -> None:
    """Has every network of a pipeline say, at each of its evaluations: network, which evaluation of it, and the share
    of the ``total`` floating-point operations that is done."""
    done = 0

    def follow_one(name, network):
        count = 0
        operations = lru_cache(lambda space: cost(network.settings, space)[1])

        def hook(_, inputs, __):
            nonlocal count, done
            count += 1
            batch, _, *space = inputs[0].shape
            done += batch * operations(tuple(space))
            say(network=name, evaluation=count, share=min(1.0, done / total))

        network.register_forward_hook(hook)

    for name, trained in vars(pipeline).items():
        if isinstance(trained, Trained):
            follow_one(name, trained.denoiser.network)


def run(job: Mapping[str, Any], results: Path, weights: Path, say: Say) -> None:
    """Do a job. say: called with what is known of it: a doubt, an evaluation, and what was made."""
    made = plan(job, results, weights)
    pipeline, exports, checks = made.load()
    source = pipeline.source(made.request.row)
    for doubt in pipeline.doubts(source):
        say(doubt=doubt)
    shape = () if isinstance(pipeline, Cascade) else isotropic_grid(_image(source), pipeline.task.settings.voxel_mm)[0]
    follow(pipeline, pipeline.operations(shape), say)
    with report_full_disk(made.outdir):
        generate_cohort(pipeline, [made.request], made.outdir, made.preset, exports=exports, checks=checks)
    say(made=f"{made.outdir.name}/{made.request.name}")


def main(results: Path, weights: Path, identity: str) -> int:
    """The exit status of job ``identity``: 0, 2 for what a user can correct, 1 for a fault of this program."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed goes to the log

    def say(**line):
        print(json.dumps(line), file=lines, flush=True)

    def end_with_input():
        while os.read(0, 1024):  # sys.stdin would be locked at the end of the process, which would abort
            pass
        os._exit(1)

    threading.Thread(target=end_with_input, daemon=True).start()
    try:
        run(read_json(results / "jobs" / f"{identity}.json"), results, weights, say)
    except InputError as error:
        say(error=str(error))
        return 2
    except Exception as error:
        say(error=f"{error_text(error)}. This is a fault of the program: report it.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
