"""A form is checked as the command line checks the same options, and each kind of job is what its command does."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from totalgen.app.work import DENOISER, FORMS, KINDS, TRANSLATOR, missing_translator, plan
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.generation.people import requests_for
from totalgen.schema import resolve
from totalgen.settings import PetDenoisingInferenceSettings, TranslationInferenceSettings

REPOSITORY = Path(__file__).resolve().parents[2]
UPLOAD = "a1" * 8
WOMAN = dict(sex="F", age=60, height_cm=165, weight_kg=66)


def asked(tmp_path, weights, values, kind="generate"):
    return plan(dict(id="0", kind=kind, values=values), tmp_path, weights)


def test_a_form_asks_for_the_study_that_the_command_asks_for(tmp_path, weights):
    found = asked(tmp_path, weights, WOMAN | dict(seed="3"))
    typed = dict(sex=["F"], age=[60.0], height_cm=[165.0], weight_kg=[66.0])
    assert [found.request] == requests_for(typed, None, None, 3, 1)
    assert found.outdir == tmp_path / "studies" / "edm"


REFUSED = {
    "not a number": (dict(WOMAN, age="sixty"), "--age: 'sixty' is not a valid float"),
    "not finite": (dict(WOMAN, weight_kg="nan"), "--weight-kg is nan, no finite number"),
    "metres": (dict(WOMAN, height_cm=1.65), "It looks like metres: write 165."),
    "sex": (dict(WOMAN, sex="X"), 'sex is "X"; the model knows F and M.'),
    "age": (dict(WOMAN, age=400), "age is 400 years; 1 to 120 are accepted."),
    "missing": (dict(WOMAN, sex=""), "--sex is missing."),
    "negative seed": (dict(WOMAN, seed=-1), "--seed: -1 is not in the range x>=0."),
    "huge seed": (dict(WOMAN, seed=10**200), "is longer than 100 bytes"),
    "steps": (dict(WOMAN, steps=0), "steps is 0; allowed is from 1 up to 100000."),
    "family": (dict(WOMAN, family="edn"), 'Did you mean "edm"?'),
    "unknown field": (dict(WOMAN, hight_cm=165), 'Did you mean "height_cm"?'),
    "a field of another form": (dict(WOMAN, upload=".."), 'unknown name "upload"'),
    "a list": (dict(WOMAN, age=[60]), "--age: '[60]' is not a valid float"),
    "no object": ([1], "values is no object"),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_what_the_command_refuses_is_refused_in_one_line(tmp_path, weights, values, words):
    with pytest.raises(InputError) as caught:
        asked(tmp_path, weights, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("upload", ["", "..", "../..", "nothing", "/etc", "0/../..", "a" * 300, "²" * 16, "0" * 16])
def test_an_upload_is_one_that_was_made_and_no_path(tmp_path, weights, upload):
    (tmp_path / "uploads").mkdir()
    with pytest.raises(InputError, match="no such upload|give either"):
        asked(tmp_path, weights, dict(upload=upload, dose=0.1), "denoise")


def test_the_shipped_weights_translate_an_uploaded_ct(tmp_path):
    ct = np.full((12, 13, 9), -1000, np.float32)
    ct[2:10, 2:11] = 40
    path = tmp_path / "uploads" / UPLOAD / "ct.nii.gz"
    write_nifti(path, Volume(ct, np.diag([4.0, 4, 4, 1])))
    assert missing_translator(REPOSITORY / "Resource") == ""
    found = asked(tmp_path, REPOSITORY / "Resource", dict(upload=UPLOAD, seed=1), "translate")
    pipeline, _, _ = found.load()
    mr = pipeline.run(pipeline.source(found.request.row), found.request.seed)["MR"]
    assert mr.shape == ct.shape
    assert mr.voxels[4:8, 4:8, 3:6].mean() > mr.voxels[:1].mean() + 50  # a body in air


def test_a_ct_is_refused_in_one_line_while_no_translator_is_shipped(tmp_path, weights):
    with pytest.raises(InputError, match="is not among the shipped weights. Train it: docs/ct-to-mr.md"):
        asked(tmp_path, weights, dict(upload="1"), "translate")


def script(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "2_Tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PRESETS


def test_the_page_samples_as_the_demo_presets_of_the_commands_do():
    own = resolve(PetDenoisingInferenceSettings, dict(demo=DENOISER | dict(weights="w")), "demo")
    theirs = resolve(PetDenoisingInferenceSettings, script("denoise_pet"), "demo", given=dict(weights="w"))
    assert own == theirs
    paths = dict.fromkeys(("slices_weights", "vqvae_weights", "refiner_weights"), "w")
    mine = resolve(TranslationInferenceSettings, dict(demo=TRANSLATOR | paths), "demo")
    assert mine == resolve(TranslationInferenceSettings, script("translate_ct_to_mr"), "demo", given=paths)


def test_every_kind_of_job_has_a_form():
    assert set(FORMS) == set(KINDS)


def test_a_process_that_ends_before_its_input_does_has_its_own_exit_status(tmp_path):
    command = [sys.executable, "-m", "totalgen.app.work", tmp_path, tmp_path, "nothing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()  # the input stays open
        assert process.wait() == 2
    assert "nothing.json: no such file" in said
