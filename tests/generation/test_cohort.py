"""A generated cohort is complete, resumable and reads like a real one."""

import html
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import imageio.v3 as imageio
import nibabel
import numpy as np
import pandas as pd
import pyspng
import pytest

from totalgen.data.demographics import Demographics, ranges, read_cohort
from totalgen.data.organs import MEASURED
from totalgen.data.subjects import read_table
from totalgen.data.volume import Volume, read_nifti
from totalgen.errors import InputError
from totalgen.generation.checks import Checks
from totalgen.generation.cohort import Request, generate_cohort, matched_requests, study_seed
from totalgen.generation.organ_export import organ_export

WOMAN = dict(sex="F", age_years=60.0, height_m=1.65, weight_kg=66.0)
MAN = dict(sex="M", age_years=50.0, height_m=1.8, weight_kg=90.0)
REQUESTS = [Request("a", WOMAN, 1), Request("b", MAN, 2)]
SCRIPT = Path(__file__).resolve().parents[2] / "2_Tests" / "generate_petct.py"
RESOURCE = SCRIPT.parents[1] / "Resource"


@pytest.fixture
def doubler():
    """A pipeline that doubles an image; runs: how often it has."""

    class Doubler:
        outputs, runs = ("SUV",), 0

        def source(self, row):
            voxels = np.full((8, 8, 8), row["input"], np.float32)
            return Volume(voxels, np.diag([6.0, 6.0, 6.0, 1.0]))

        def doubts(self, source):
            return []

        def describe(self, source):
            return dict(source="doubled", input="image", input_sha256=source.sha256)

        def run(self, source, seed=0, progress=iter):
            self.runs += 1
            return dict(SUV=Volume(2 * source.voxels, source.affine))

    return Doubler()


def test_every_subject_gets_its_folder_and_its_row(cascade, tmp_path):
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    table = read_cohort(tmp_path / "manifest.csv")
    assert list(table["subject"]) == ["a", "b"]
    assert set(table["source"]) == {"generated, trained on phantom data"}
    for name in ("a", "b"):
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"CT.nii.gz", "SUV.nii.gz", "preview.png", "mip.gif", "study.json"}
    assert read_nifti(tmp_path / "a" / "CT.nii.gz").shape == read_nifti(tmp_path / "a" / "SUV.nii.gz").shape
    assert len(imageio.imread(tmp_path / "a" / "mip.gif")) == 24  # frames of one turn
    again = matched_requests(table, seed=1)  # the manifest is a cohort table
    assert [(name, Demographics.from_row(row)) for name, row, _ in again] == [
        ("a", Demographics("F", 60, 1.65, 66)),
        ("b", Demographics("M", 50, 1.8, 90)),
    ]


def test_a_header_says_what_its_network_can_say(cascade, tmp_path):
    """−1000 HU outside the body is no learnt value, and 500 HU may be bone of any density."""
    generate_cohort(cascade(), [Request("w", WOMAN, 1)], tmp_path, "smoke")
    text = nibabel.load(tmp_path / "w" / "CT.nii.gz").header["descrip"].item().decode()
    assert "; learnt -500 to 500; generated, trained on" in text


def test_no_two_seeds_subjects_or_samples_share_their_noise():
    """Counting from the seed gave seed 2 the volumes of seed 1, moved by one subject."""
    keys = [(seed, subject, sample) for seed in range(20) for subject in ("a", "b", "c1", "1") for sample in range(5)]
    seeds = {study_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    table = pd.DataFrame([dict(subject=name, **WOMAN) for name in ("a", "b")])
    forward, backward = matched_requests(table, 3), matched_requests(table[::-1], 3)
    assert forward == backward[::-1]  # the order of rows does not matter


def test_a_study_has_the_split_of_the_subject_it_is_matched_to(cascade, tmp_path):
    table = pd.DataFrame([dict(subject="a", split="train", **WOMAN), dict(subject="b", split=math.nan, **MAN)])
    generate_cohort(cascade(), matched_requests(table, 1), tmp_path, "tiny")
    assert list(read_cohort(tmp_path / "manifest.csv")["split"]) == ["train", "test"]


def test_demographics_outside_the_training_cohort_are_reported_with_its_range(cascade, tmp_path, capsys):
    chosen, rows = cascade(), [dict(WOMAN, weight_kg=weight) for weight in (66.0, 140.0)]
    people = [Demographics.from_row(row) for row in (WOMAN, MAN)]
    chosen.global_stage.data["ranges"] = ranges(people)
    generate_cohort(chosen, [Request(f"p{n}", row, n) for n, row in enumerate(rows)], tmp_path, "tiny")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning")]
    assert warnings == [
        "Warning: p1: weight 140 kg is outside 66 to 90 kg of the training cohort; expect an implausible body."
    ]
    del chosen.global_stage.data["ranges"]
    assert chosen.doubts(people[0]) == []


def test_running_again_makes_only_what_is_missing(cascade, tmp_path):
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    kept = (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns
    before = read_nifti(tmp_path / "b" / "CT.nii.gz").voxels
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    (tmp_path / "b").rmdir()
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    assert (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns == kept
    assert (read_nifti(tmp_path / "b" / "CT.nii.gz").voxels == before).all()


def test_the_page_of_a_cohort_shows_every_study_and_links_only_to_what_is_there(cascade, tmp_path):
    odd = Request('a<b>&"c', WOMAN, 1)
    generate_cohort(cascade(), [*REQUESTS, odd], tmp_path, "tiny")
    page = (tmp_path / "index.html").read_text()
    assert page.count("<article>") == 3
    assert "weight 66 kg" in page
    assert "a&lt;b&gt;&amp;" in page
    assert "a<b>" not in page
    links = [url2pathname(html.unescape(link)) for link in re.findall(r'(?:href|src)="([^"]*)"', page)]
    assert all((tmp_path / link).exists() for link in links)
    assert "http" not in "".join(links)  # opens without a network


@pytest.mark.parametrize("name", ["P#1", "a?b", "PET:1", "50%25", "javascript:alert(1)", "cost $b_$ low"])
def test_any_name_is_shown_as_it_is_and_linked_to(doubler, tmp_path, name):
    generate_cohort(doubler, [Request(name, dict(input=1.0), 1)], tmp_path, "x")
    links = re.findall(r'(?:href|src)="([^"]*)"', (tmp_path / "index.html").read_text())
    assert (tmp_path / name / "preview.png").exists()
    base = (tmp_path / "index.html").as_uri()
    for link in links:
        assert Path(url2pathname(urlsplit(urljoin(base, link)).path)).exists(), link


def test_the_page_says_whose_images_they_are(cascade, doubler, tmp_path):
    generate_cohort(cascade(), REQUESTS[:1], tmp_path / "invented", "tiny")
    generate_cohort(doubler, [Request("p", dict(input=1.0), 1)], tmp_path / "brought", "x")
    pages = [(tmp_path / name / "index.html").read_text() for name in ("invented", "brought")]
    assert ["These images are of nobody." in page for page in pages] == [True, False]
    assert "They show the people whose images they were made of" in pages[1]


@pytest.mark.parametrize(("file", "text"), [("manifest.csv", "subject,sex\nfoo,F\n"), ("index.html", "my own page")])
def test_tables_and_pages_of_others_are_never_replaced(doubler, tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=rf"{file}: .*, and would be replaced. Choose another --outdir"):
        generate_cohort(doubler, [Request("p", dict(input=1.0), 1)], tmp_path, "x")
    assert {path.name: path.read_text() for path in tmp_path.glob("[!.]*")} == {file: text}


def test_a_study_json_of_another_program_is_left_out(doubler, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "study.json").write_text('{"StudyInstanceUID": "1.2"}')
    generate_cohort(doubler, [Request("p", dict(input=1.0), 1)], tmp_path, "x")
    assert list(read_table(tmp_path / "manifest.csv")["subject"]) == ["p"]


@pytest.mark.parametrize("beside", ["segmented.nii.gz", "dicom"])
def test_what_a_new_attempt_would_lose_is_said_before_it_is_made(doubler, tmp_path, beside):
    class Failing(Checks):
        def judged(self, person, volumes):
            return ["too light"], 1.0

    requests = [Request(name, dict(input=1.0), 1) for name in "ab"]
    generate_cohort(doubler, requests, tmp_path, "x", checks=Failing())
    (tmp_path / "a" / beside).mkdir() if beside == "dicom" else (tmp_path / "a" / beside).write_text("masks")
    (tmp_path / "a" / "comparison.png").write_text("picture")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    doubler.runs = 0
    generate_cohort(doubler, requests, tmp_path, "x", checks=Failing(retry=2))
    (failure,) = read_table(tmp_path / "failures.csv").to_dict("records")
    assert (failure["subject"], doubler.runs) == ("a", 2)  # all that are left for b
    assert f"a: holds {beside}, which would be lost" in failure["error"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before


def test_further_samples_are_compared_with_their_person(doubler, tmp_path):
    names = ["a", "a_sample2"]
    generate_cohort(doubler, [Request("a", dict(input=1.0), 1)], tmp_path / "first", "x")
    shutil.copytree(tmp_path / "first" / "a", tmp_path / "real" / "cropped" / "a")
    requests = [Request(name, dict(input=1.0), 1) for name in names]
    generate_cohort(doubler, requests, tmp_path / "out", "x", compare_with=tmp_path / "real")
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert all((tmp_path / "out" / name / "comparison.png").exists() for name in names)


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_missing_or_cut_volume_is_made_again_to_the_byte(cascade, tmp_path, capsys, harm):
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    harm(tmp_path / "b" / "SUV.nii.gz")
    (tmp_path / "b" / "comparison.png").write_bytes(b"of the damaged study")
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    assert f"{tmp_path / 'b' / 'SUV.nii.gz'}: is missing or damaged" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_a_study_made_with_other_settings_is_neither_kept_nor_replaced(cascade, tmp_path):
    generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    kept = (tmp_path / "a" / "CT.nii.gz").read_bytes()
    with pytest.raises(InputError, match="a: was made with another preset. Ask for the same again"):
        generate_cohort(cascade(), REQUESTS, tmp_path, "small")
    with pytest.raises(InputError, match="another sr_sampling"):
        generate_cohort(cascade(sr_sampling=dict(sampler="euler", steps=2)), REQUESTS, tmp_path, "tiny")
    with pytest.raises(InputError, match="b: was made with another seed"):
        generate_cohort(cascade(), [REQUESTS[0], Request("b", MAN, 3)], tmp_path, "tiny")
    assert (tmp_path / "a" / "CT.nii.gz").read_bytes() == kept


def test_a_study_that_is_measured_is_never_replaced_by_a_generated_one(cascade, tmp_path):
    """--outdir may be the folder of the cohort that studies are matched to."""
    (tmp_path / "b").mkdir()
    for name in ("CT", "SUV"):
        (tmp_path / "b" / f"{name}.nii.gz").write_bytes(b"measured")
    with pytest.raises(InputError, match=r"b: holds CT.nii.gz, but no study.json"):
        generate_cohort(cascade(), REQUESTS, tmp_path, "tiny")
    assert {path.read_bytes() for path in (tmp_path / "b").iterdir()} == {b"measured"}
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("held", ["dicom/1.dcm", "input.nii.gz", "organs.csv", "notes.txt"])
def test_a_folder_that_is_no_study_is_never_replaced(cascade, tmp_path, held):
    """Not even where all that it holds has names that a study has: a patient's DICOM is in dicom/, too."""
    (tmp_path / "b" / held).parent.mkdir(parents=True)
    (tmp_path / "b" / held).write_text("theirs")
    exports = {name: lambda *_: None for name in ("input.nii.gz", "organs.csv", "dicom")}
    with pytest.raises(InputError, match=r"b: holds .*, but no study.json: it is no study of this program"):
        generate_cohort(cascade(), REQUESTS, tmp_path, "tiny", exports=exports, asked=())
    assert (tmp_path / "b" / held).read_text() == "theirs"


def test_a_setting_that_is_back_at_its_default_is_another_setting(cascade, tmp_path):
    both = dict(consistency=0.7, self_start=1.0)
    generate_cohort(cascade(**both), REQUESTS[:1], tmp_path, "tiny")
    for name, other in (("consistency", "self_start"), ("self_start", "consistency")):
        with pytest.raises(InputError, match=f"was made with another {name}"):
            generate_cohort(cascade(**{other: both[other]}), REQUESTS[:1], tmp_path, "tiny")
    generate_cohort(cascade(**both), REQUESTS[:1], tmp_path, "tiny")


def test_two_studies_of_one_name_are_refused(doubler, tmp_path):
    with pytest.raises(InputError, match="a is the name of two studies that are asked for"):
        generate_cohort(doubler, [Request("a", dict(input=value), 1) for value in (1.0, 2.0)], tmp_path, "x")
    assert not list(tmp_path.iterdir())


def test_a_finished_study_whose_input_is_damaged_since_stops_nobody(doubler, tmp_path, capsys):
    generate_cohort(doubler, [Request("a", dict(input=1.0), 1)], tmp_path, "x")
    described = doubler.describe

    def describe(source):
        if source.voxels.max() == 1:
            raise InputError("a.nii.gz: cannot be read as NIfTI. Copy it again.")
        return described(source)

    doubler.describe = describe
    requests = [Request(name, dict(input=value), 1) for name, value in (("a", 1.0), ("c", 2.0))]
    generate_cohort(doubler, requests, tmp_path, "x")
    assert (tmp_path / "c" / "study.json").exists()
    assert "a: is not compared with what is asked for: a.nii.gz: cannot be read" in capsys.readouterr().err


def test_a_study_that_kept_16_digits_of_its_weights_is_still_done(cascade, tmp_path):
    generate_cohort(cascade(), REQUESTS[:1], tmp_path, "tiny")
    path = tmp_path / "a" / "study.json"
    row = json.loads(path.read_text())
    assert len(row["global_weights"]) == len(row["sr_weights"]) == 64
    path.write_text(json.dumps(row | dict(global_weights=row["global_weights"][:16])))
    generate_cohort(cascade(), REQUESTS[:1], tmp_path, "tiny")
    path.write_text(json.dumps(row | dict(global_weights="0" * 16)))
    with pytest.raises(InputError, match="another global_weights"):
        generate_cohort(cascade(), REQUESTS[:1], tmp_path, "tiny")


def test_a_row_without_weight_is_listed_and_the_others_are_made(cascade, tmp_path):
    requests = [("nameless", WOMAN | dict(weight_kg=math.nan), 1), ("old", MAN | dict(age_years="unknown"), 2)]
    generate_cohort(cascade(), [Request(*each) for each in [*requests, ("b", MAN, 3)]], tmp_path, "tiny")
    failures = read_table(tmp_path / "failures.csv").set_index("subject")["error"]
    assert "weight_kg is empty" in failures["nameless"]
    assert failures["old"] == 'age_years is "unknown", not a number. Correct the table.'
    assert list(read_cohort(tmp_path / "manifest.csv")["subject"]) == ["b"]


def test_the_comparison_with_the_real_study_can_be_asked_for_later(cascade, tmp_path):
    generate_cohort(cascade(), REQUESTS, tmp_path / "out", "tiny")
    kept = (tmp_path / "out" / "b" / "CT.nii.gz").stat().st_mtime_ns
    shutil.copytree(tmp_path / "out" / "b", tmp_path / "real" / "cropped" / "b")
    for n in range(2):  # a has no real study: it fails each time anew
        generate_cohort(cascade(), REQUESTS, tmp_path / "out", "tiny", compare_with=tmp_path / "real")
        assert list(read_table(tmp_path / "out" / "failures.csv")["subject"]) == ["a"], n
    files = [tmp_path / "out" / "b" / f"{name}.png" for name in ("preview", "comparison")]
    pictures = [pyspng.load(file.read_bytes()) for file in files]  # read by another library than the one that wrote
    assert 1.9 < pictures[1].shape[0] / pictures[0].shape[0] < 2.1  # two rows
    assert (tmp_path / "out" / "b" / "CT.nii.gz").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_processes_share_a_cohort_and_change_nothing(stage_files, tmp_path):
    rows = {"a": WOMAN, "b": MAN | dict(weight_kg=900.0), "c": WOMAN}  # all that the second of two processes has fails
    pd.DataFrame([dict(subject=name, **row) for name, row in rows.items()]).to_csv(tmp_path / "cohort.csv", index=False)
    low, high = stage_files
    arguments = [SCRIPT, "--preset", "smoke", "--global-weights", low, "--sr-weights", high, "--set", "slab=64"]
    arguments += ["--cohort", tmp_path / "cohort.csv", "--set", "precision=float32"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    for name, launcher in (("alone", []), ("shared", torchrun)):
        command = [sys.executable, *launcher, *arguments, "--outdir", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        assert list(read_table(tmp_path / name / "failures.csv")["subject"]) == ["b"]
        assert list(read_cohort(tmp_path / name / "manifest.csv")["subject"]) == ["a", "c"]
    for name in ("a", "c"):
        for file in ("CT.nii.gz", "SUV.nii.gz"):
            alone, shared = (read_nifti(tmp_path / way / name / file).voxels for way in ("alone", "shared"))
            assert (alone == shared).all()


class Doubler:
    """A pipeline that knows no person and makes one volume of another."""

    outputs = ("SUV",)

    def source(self, row):
        return read_nifti(row["input"])

    def doubts(self, source):
        return ["it is only a test"]

    def describe(self, source):
        return dict(source="doubled", highest=float(source.voxels.max()))

    def run(self, source, seed=0, progress=iter):
        (_,) = progress(["whole"])
        return dict(SUV=Volume(2 * source.voxels, source.affine))


def test_any_pipeline_makes_a_resumable_cohort(tmp_path, cropped_cohort, capsys):
    root = cropped_cohort(tmp_path / "root")
    files = {name: root / "cropped" / name / "SUV.nii.gz" for name in ("s0", "s1")}
    requests = [Request(name, dict(input=path), 1) for name, path in files.items()]
    generate_cohort(Doubler(), requests, tmp_path / "out", "test", compare_with=root)
    assert capsys.readouterr().err.count("it is only a test") == 2
    table = read_table(tmp_path / "out" / "manifest.csv")
    assert list(table.columns) == ["subject", "split", "source", "seed", "preset", "highest", "totalgen", "torch"]
    found = {path.name for path in (tmp_path / "out" / "s0").iterdir()}
    assert found == {"SUV.nii.gz", "preview.png", "mip.gif", "study.json", "comparison.png"}
    assert read_nifti(tmp_path / "out" / "s0" / "SUV.nii.gz").voxels.max() == 2 * read_nifti(files["s0"]).voxels.max()
    generate_cohort(Doubler(), requests, tmp_path / "out", "test")
    assert "0 subjects done, 2 were done before" in capsys.readouterr().out


def test_masks_and_their_measures_stand_beside_a_study(cascade, tmp_path):
    """The shipped segmenter on an untrained network's noise finds something or nothing; the table says which."""
    export = organ_export("network", RESOURCE / "demo-segmenter.safetensors")
    generate_cohort(cascade(), REQUESTS[:1], tmp_path, "tiny", exports={"organs.csv": export})
    folder = tmp_path / REQUESTS[0].name
    organs, ct = (read_nifti(folder / f"{name}.nii.gz", np.float32) for name in ("organs", "CT"))
    assert organs.shape == ct.shape
    assert np.allclose(organs.affine, ct.affine)
    table = pd.read_csv(folder / "organs.csv")
    assert list(table["organ"]) == ["liver", "heart", "kidneys", "spleen"]
    expected = [np.isin(organs.voxels, ids).sum() * organs.voxel_ml / 1000 for ids in MEASURED.values()]
    assert table["volume_l"].to_numpy() == pytest.approx(expected)
    assert organ_export("none", None) is None
