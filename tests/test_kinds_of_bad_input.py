"""Every kind of input that was once lost, ignored or a traceback ends in one line with exit 2, and changes nothing.

Each table below is a kind; scripts run in this process. The numbers of cases are counted by the last test.
"""

import gzip
import importlib.util
import io
import json
import os
from pathlib import Path

import click
import nibabel
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from click.testing import CliRunner

from totalgen.commands import PLACE
from totalgen.data.axial_extent import PUBLISHED

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("0_Preprocess", "1_Trainings", "2_Tests", "3_Evaluations")
SCRIPTS = sorted(f"{path.parent.name}/{path.name}" for stage in STAGES for path in (REPOSITORY / stage).glob("*.py"))
HEAD = "subject,sex,age_years,height_m,weight_kg,split\n"
COHORT = HEAD + "p1,F,60,1.65,66,test\np2,M,60,1.80,80,train\n"


def _loaded(name):
    spec = importlib.util.spec_from_file_location("script", REPOSITORY / name)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main


COMMANDS = {name: _loaded(name) for name in SCRIPTS}


def refusal(script, *arguments):
    """The one line with which a script refuses."""
    result = CliRunner().invoke(COMMANDS[script], [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def tree(folder):
    """name → bytes of all that is in a folder, but what failed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "failures.csv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Tables: what a spreadsheet, an editor or a slip makes of one × the tables that scripts read.
RAW_TABLES = {
    "empty": b"",
    "blank": b"\n\n",
    "utf16": COHORT.encode("utf-16"),
    "cp1252": (COHORT + "p3,F,60,1.65,66,M\u00fcnchen\n").encode("cp1252"),
    "xlsx": b"PK\x03\x04" + bytes(range(256)),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pdf": b"%PDF-1.7 " + bytes(50),
    "semicolons": COHORT.replace(",", ";").encode(),
    "tabs": COHORT.replace(",", "\t").encode(),
    "a long row": (COHORT + "p3,F,60,1.65,66,test,more\n").encode(),
    "a short row": (HEAD + "p1,F\n").encode(),
    "two columns": COHORT.replace("split", "sex").encode(),
    "other columns": b"a,b\n1,2\n",
    "a header only": HEAD.encode(),
    "a folder": None,
    "a pipe": "pipe",
}


def put(path, raw):
    path.parent.mkdir(parents=True, exist_ok=True)
    if raw is None:
        path.mkdir()
    elif raw == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(raw)


def cropped(root):
    for name in ("CT", "SUV", "organs"):
        put(root / "cropped" / "p1" / f"{name}.nii.gz", b"")
    (root / "resampled" / "p1").mkdir(parents=True)
    put(root / "axial_extent.json", json.dumps(PUBLISHED.to_dict()).encode())
    put(root / "organs.csv", b"subject,organ,volume_l,flag\np1,liver,1.5,\n")


TABLES = {  # script and table → arguments of a root
    ("0_Preprocess/2_dicom_to_nifti.py", "cohort.csv"): lambda root: ("--root", root),
    ("0_Preprocess/5_fit_axial_extent.py", "cohort.csv"): lambda root: ("--root", root),
    ("0_Preprocess/6_pack_training_set.py", "cohort.csv"): lambda root: ("--root", root),
    ("0_Preprocess/9_import_nifti.py", "people.csv"): lambda root: (
        "--root", root, "--table", root / "people.csv", "--ct", f"{root}/cropped/{{}}/CT.nii.gz",
        "--suv", f"{root}/cropped/{{}}/SUV.nii.gz"),
    ("1_Trainings/train_segmenter.py", "cohort.csv"): lambda root: ("--root", root, "--outdir", root / "run"),
    ("2_Tests/generate_petct.py", "cohort.csv"): lambda root: (
        "--cohort", root / "cohort.csv", "--outdir", root / "out"),
    ("2_Tests/denoise_pet.py", "cohort.csv"): lambda root: (
        "--cohort", root, "--dose", 0.1, "--outdir", root / "out"),
    ("2_Tests/translate_ct_to_mr.py", "cohort.csv"): lambda root: ("--cohort", root, "--outdir", root / "out"),
    ("3_Evaluations/2_measure_organs.py", "cohort.csv"): lambda root: ("--root", root),
    ("3_Evaluations/3_compare_cohorts.py", "cohort.csv"): lambda root: (
        "--reference", root, "--candidate", root, "--outdir", root / "out"),
    ("3_Evaluations/4_image_quality.py", "cohort.csv"): lambda root: (
        "--reference", f"{root}/cropped/{{}}/CT.nii.gz", "--candidate", f"a={root}/cropped/{{}}/CT.nii.gz",
        "--range", 0, 1, "--cohort", root / "cohort.csv", "--outdir", root / "out"),
}  # fmt: skip
BAD_TABLES = [(script, table, raw) for script, table in TABLES for raw in RAW_TABLES]


@pytest.mark.parametrize(("script", "table", "raw"), BAD_TABLES)
def test_tables(tmp_path, script, table, raw):
    cropped(tmp_path)
    put(tmp_path / table, RAW_TABLES[raw])
    before = tree(tmp_path)
    line = refusal(script, *TABLES[script, table](tmp_path))
    assert tree(tmp_path) == before
    assert table in line or raw in ("a header only", "other columns")


# Values: tables that can be read, with a column too few or a cell that nothing can be made of.
def _cohort(heights):
    rows = "".join(f"p{n},F,60,{height},66,train\n" for n, height in enumerate(heights, start=1))
    return (HEAD + rows).encode()


def _crops(extents):
    rows = "".join(f"p{n},True,{extent}\n" for n, extent in enumerate(extents, start=1))
    return ("subject,covers_torso,z_extent_mm\n" + rows).encode()


def _organs(head="subject,organ,volume_l,suv_mean,suv_max,suv_peak,flag,z_share", **changes):
    cells = dict(subject="p1", organ="liver", volume_l="1.5", suv_mean="2", suv_max="3", suv_peak="2.5", flag="",
                 z_share="0.5") | changes  # fmt: skip
    return f"{head}\n{','.join(cells[name] for name in head.split(','))}\n".encode()


HEIGHTS, EXTENTS = [1.5 + 0.02 * n for n in range(12)], [600 + 5 * n for n in range(12)]
FIVE, COMPARE = "0_Preprocess/5_fit_axial_extent.py", "3_Evaluations/3_compare_cohorts.py"
BODIES = b"subject,mass_kg,extent_mm,suv_field_mean\np1,40,600,0.3\n"
VALUES = {  # name → script, tables of the root, words of the line
    "heights in centimetres": (
        FIVE, {"cohort.csv": _cohort([100 * height for height in HEIGHTS]), "crop.csv": _crops(EXTENTS)},
        "cohort.csv, row 2, subject p1: height is 150 m; 1 to 2.3 m are accepted. It looks like centimetres: write",
    ),
    "a torso that is in the scan, in other words": (
        FIVE, {"cohort.csv": b"subject,sex,age_years,height_m,weight_kg,covers_torso\np1,F,60,1.65,66,True\n"
                             b"p2,F,60,1.65,66,yes\n", "crop.csv": _crops(EXTENTS)},
        'cohort.csv, row 3 (p2): covers_torso is "yes"; it is True, False or empty.',
    ),
    "no height": (
        FIVE, {"cohort.csv": _cohort([*HEIGHTS[:-1], ""]), "crop.csv": _crops(EXTENTS)},
        "cohort.csv, row 13, subject p12: height_m is empty",
    ),
    "an infant's height": (
        FIVE, {"cohort.csv": _cohort([0.5, *HEIGHTS[1:]]), "crop.csv": _crops(EXTENTS)},
        "cohort.csv, row 2, subject p1: height is 50 cm",
    ),
    "crops without extents": (
        FIVE, {"cohort.csv": _cohort(HEIGHTS), "crop.csv": b"subject,covers_torso\np1,True\n"},
        "crop.csv: column z_extent_mm is missing. Run 4_crop_torso.py again.",
    ),
    "crops of subjects alone": (
        FIVE, {"cohort.csv": _cohort(HEIGHTS), "crop.csv": b"subject\np1\n"}, "column covers_torso, z_extent_mm",
    ),
    "an empty extent": (
        FIVE, {"cohort.csv": _cohort(HEIGHTS), "crop.csv": _crops(["", *EXTENTS[1:]])}, "z_extent_mm of p1 is empty",
    ),
    "an extent of text": (
        FIVE, {"cohort.csv": _cohort(HEIGHTS), "crop.csv": _crops(["long", *EXTENTS[1:]])}, 'z_extent_mm is "long"',
    ),
    "organs without names": (
        COMPARE, {"organs.csv": _organs("subject,volume_l,suv_mean,suv_max,suv_peak,flag")},
        "organs.csv: column organ is missing. Run 3_Evaluations/2_measure_organs.py again.",
    ),
    "organs without flags": (
        COMPARE, {"organs.csv": _organs("subject,organ,volume_l,suv_mean,suv_max,suv_peak")}, "column flag is missing",
    ),
    "organs without uptake": (
        COMPARE, {"organs.csv": _organs("subject,organ,volume_l,flag")}, "column suv_mean, suv_max, suv_peak is",
    ),
    "a volume of text": (
        COMPARE, {"organs.csv": _organs(volume_l="big")}, 'organs.csv, row 2 (p1): volume_l is "big", which is no',
    ),
    "a place of text": (COMPARE, {"organs.csv": _organs(z_share="low")}, 'z_share is "low", which is no number'),
    "bodies without masses": (
        COMPARE, {"organs.csv": _organs(), "bodies.csv": BODIES.replace(b"mass_kg", b"mass")},
        "bodies.csv: column mass_kg is missing. Run 3_Evaluations/2_measure_organs.py again.",
    ),
    "a mass of text": (
        COMPARE, {"organs.csv": _organs(), "bodies.csv": BODIES.replace(b"40", b"40 kg")}, 'mass_kg is "40 kg"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_of_tables(tmp_path, name):
    script, tables, words = VALUES[name]
    cropped(tmp_path)
    for table, raw in {"cohort.csv": COHORT.encode(), **tables}.items():
        put(tmp_path / table, raw)
    before = tree(tmp_path)
    arguments = TABLES[script, "cohort.csv"](tmp_path)
    assert words in refusal(script, *arguments)
    assert tree(tmp_path) == before


# Splits: of a table that has other ones, or none.
SPLIT = {script: TABLES[script, "cohort.csv"] for script in (
    "2_Tests/generate_petct.py", "2_Tests/denoise_pet.py", "2_Tests/translate_ct_to_mr.py",
    "3_Evaluations/2_measure_organs.py", "3_Evaluations/3_compare_cohorts.py", "3_Evaluations/4_image_quality.py",
)} | {
    "3_Evaluations/7_fidelity.py": lambda root: (
        "--reference", f"a={root}", "--candidate", f"b={root}", "--outdir", root / "out"),
    "3_Evaluations/1_segment_generated.py": lambda root: (
        "--root", root, "--weights", REPOSITORY / "Resource/demo-segmenter.safetensors"),
    "3_Evaluations/0_pack_reference.py": lambda root: (
        "--root", root, "--preset", "demo", "--outdir", root / "out"),
}  # fmt: skip
BAD_SPLITS = [(script, split, known) for script in SPLIT for split in ("2", "tset") for known in (True, False)]


@pytest.mark.parametrize(("script", "split", "known"), BAD_SPLITS)
def test_splits(tmp_path, script, split, known):
    """Numbers are names, too."""
    cropped(tmp_path)
    table = HEAD + "p1,F,60,1.65,66,1\np2,M,60,1.80,80,3\n"
    if not known:
        table = "\n".join(line.rpartition(",")[0] for line in table.splitlines())
    (tmp_path / "cohort.csv").write_text(table)
    before = tree(tmp_path)
    line = refusal(script, *SPLIT[script](tmp_path), "--split", split)
    assert f"cohort.csv: no subject of split \"{split}\". Splits there: 1, 3." in line if known else "no column" in line
    assert tree(tmp_path) == before


# JSON: the same, of what programs read.
RAW_JSON = {
    "empty": b"", "cut": b'{"a": ', "a list": b"[1, 2]", "a number": b"3", "utf16": "{}".encode("utf-16"),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100), "two": b"{} {}", "a folder": None, "a pipe": "pipe",
    "nested too deep": b"[" * 100_000, "a number that is no float": b'{"slope": ' + b"9" * 400 + b"}",
}  # fmt: skip
JSONS = {
    ("0_Preprocess/6_pack_training_set.py", "axial_extent.json"): ("--shape", 16, 16, 24),
    ("0_Preprocess/4_crop_torso.py", "cropped/.made-with.json"): (),
    ("0_Preprocess/3_segment_organs.py", "organs/.made-with.json"): (),
    ("1_Trainings/train_totalgen.py", "training.zarr/zarr.json"): (
        "--preset", "smoke-global-edm", "--outdir", "unused", "--dry-run"),
}  # fmt: skip
BAD_JSONS = [(script, file, raw) for script, file in JSONS for raw in RAW_JSON]


@pytest.mark.parametrize(("script", "file", "raw"), BAD_JSONS)
def test_json(tmp_path, script, file, raw):
    cropped(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "cohort.csv").write_text(COHORT)
    (tmp_path / "axial_extent.json").unlink()
    put(tmp_path / file, RAW_JSON[raw])
    before = tree(tmp_path)
    line = refusal(script, "--root", tmp_path, *JSONS[script, file])
    assert Path(file).parts[0] in line
    assert tree(tmp_path) == before


# Settings: values that no training can have.
SETTINGS = (
    "batch=0", "batch=-4", "microbatch=0", "checkpoint_steps=0", "picture_steps=0", "snapshot_steps=-1",
    "lr_decay_steps=0", "items=0", "items=-5", "items=1e9", "ema=()", "ema=(0,)", "ema=(5.0,)", "ema=(0.1,0.1)",
    "seed=-1", "seed=10**30", "lr=-1", "lr=1e400", "lr=nan", "lr=inf", "lr=fast", "loader_processes=-1", "nonsense=1",
    "batch", "batch=", "=3", "batch=True", "batch=2.5", "batch=[4]", "batch={'a':1}", "precision=float8",
    "run={'batch':0}", "run=3", "batch=__import__('os').system('touch pwned')", "weights_dtype=int8", "compiled=3",
)  # fmt: skip
TRAININGS = {
    "1_Trainings/train_totalgen.py": (
        "smoke-global-edm",
        ("patch=(0,0,0)", "patch=(16,16)", "shape=(-1,1,1)", "channels=0", "channels=10**9", "multipliers=()",
         "multipliers=(0,)", "blocks=-1", "attention=(9,)", "noise_std=-1", "condition_noise=-1", "family=gan",
         "stage=third", "noise_std=nan", "axial=bend", "placement=nowhere", "target=all"),
    ),
    "1_Trainings/train_pet_denoising.py": (
        "smoke-edm", ("doses=()", "doses=(0,)", "doses=(2.0,)", "voxel_mm=0", "voxel_mm=nan", "noise=-1", "patch=(1,)"),
    ),
    "1_Trainings/train_ct_to_mr.py": ("smoke-vqvae", ("codes=0", "patch=(5,5,5)", "code_channels=0", "commitment=-1")),
    "1_Trainings/train_segmenter.py": ("smoke", ("patch=0", "patch=17", "channels=0", "patch=-16")),
}  # fmt: skip
BAD_SETTINGS = [(script, change) for script, (_, own) in TRAININGS.items() for change in (*SETTINGS, *own)]


@pytest.mark.parametrize(("script", "change"), BAD_SETTINGS)
def test_settings(tmp_path, monkeypatch, script, change):
    monkeypatch.chdir(tmp_path)
    arguments = ("--preset", TRAININGS[script][0], "--root", "absent", "--outdir", "run")
    line = refusal(script, *arguments, "--set", change)
    assert "absent" not in line  # the settings are seen first
    assert list(tmp_path.iterdir()) == []  # no folder that would refuse the corrected ones, nothing executed


# Options: numbers that are none, of every option of every script that takes one.
NO_NUMBERS = {click.FLOAT.name: ("nan", "inf", "-inf", "many", ""), click.INT.name: ("many", "1.5", "", "nan")}


def kind_of(option):
    return option.type.name.removesuffix(" range")


def options_of(script):
    return [option for option in COMMANDS[script].params if isinstance(option, click.Option)]


BAD_NUMBERS = [
    (script, option.name, text)
    for script in SCRIPTS for option in options_of(script) for text in NO_NUMBERS.get(kind_of(option), ())
]  # fmt: skip


def arguments_of(script, place, **given):
    """Arguments of a script that are complete, with the given values of options."""
    for option in options_of(script):
        if option.name in given or option.required:
            value = given.get(option.name)
            if value is None:
                value = {"path": place, "float": "0.5", "integer": "1"}.get(kind_of(option), "x")
            elif not isinstance(value, str):
                value = str(value)
            yield from (option.opts[0], *[str(value)] * option.nargs)


BAD_NUMBERS += [(script, option.name, "-1") for script in SCRIPTS for option in options_of(script)
                if option.name in ("seed", "repeats", "most")]  # fmt: skip


@pytest.mark.parametrize(("script", "name", "text"), BAD_NUMBERS)
def test_numbers(tmp_path, script, name, text):
    line = refusal(script, *arguments_of(script, tmp_path / "place", **{name: text}))
    option = next(option for option in options_of(script) if option.name == name)
    assert option.opts[0] in line
    assert list(tmp_path.iterdir()) == []


# Places: where a script is to write and cannot.
def _file(tmp_path):
    (tmp_path / "file").write_text("kept")
    return tmp_path / "file"


def _link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    return tmp_path / "link"


BAD_PLACES = {
    "a file": _file,
    "below a file": lambda tmp_path: _file(tmp_path) / "out",
    "a long name": lambda tmp_path: tmp_path / ("x" * 300),
    "a link to nothing": _link,
    "no place for files": lambda tmp_path: "/proc/x",
}
WRITTEN = [
    (script, option.name, place) for script in SCRIPTS for option in options_of(script) if option.type is PLACE
    for place in BAD_PLACES
]  # fmt: skip


@pytest.mark.parametrize(("script", "name", "place"), WRITTEN)
def test_places(tmp_path, script, name, place):
    bad = BAD_PLACES[place](tmp_path)
    refusal(script, *arguments_of(script, tmp_path / "other", **{name: bad}))
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == "kept"


# Weights: headers and tensors that are not what they say.
def _header(change):
    def make(configuration, state):
        return change(json.loads(json.dumps(configuration))), state

    return make


def _network(**values):
    def change(configuration):
        configuration["settings"]["network"] |= values
        return configuration

    return _header(change)


def _without(*path):
    def change(configuration):
        inside = configuration
        for name in path[:-1]:
            inside = inside[name]
        inside.pop(path[-1])
        return configuration

    return _header(change)


def _family(configuration):
    configuration["settings"]["process"]["family"] = "gan"
    return configuration


WEIGHTS = {
    "a list": _header(lambda configuration: [1]),
    "a text": _header(lambda configuration: "x"),
    "nothing": _header(lambda configuration: {}),
    "another stage": _header(lambda c: c | dict(settings=c["settings"] | dict(stage="sr"))),
    "another kind": _header(lambda c: c | dict(kind="segmenter")),
    "an unknown kind": _header(lambda c: c | dict(kind="x")),
    "an unknown setting": _header(lambda c: c | dict(settings=c["settings"] | dict(unknown=1))),
    "no settings": _without("settings"),
    "no channels": _without("channels"),
    "no data": _without("data"),
    "no codec": _without("codec"),
    "no statistics": _without("data", "statistics"),
    "an unknown family": _header(_family),
    "channels of 10**9": _network(channels=10**9),
    "channels of 1024": _network(channels=1024),
    "channels of a text": _network(channels="many"),
    "more blocks": _network(blocks=16),
    "no multipliers": _network(multipliers=[]),
    "a missing tensor": lambda c, s: (c, dict(list(s.items())[1:])),
    "a foreign tensor": lambda c, s: (c, s | dict(foreign=torch.zeros(3))),
    "no tensor": lambda c, s: (c, {}),
    "NaN": lambda c, s: (c, {k: v * float("nan") if v.is_floating_point() else v for k, v in s.items()}),
    "infinity": lambda c, s: (c, {k: v + float("inf") if v.is_floating_point() else v for k, v in s.items()}),
    "another shape": lambda c, s: (c, {k: v[:1] if v.ndim else v for k, v in s.items()}),
}
PERSON = ("--sex", "F", "--age", 60, "--height-cm", 165, "--weight-kg", 66)


@pytest.fixture(scope="module")
def shipped():
    """(configuration, tensors) of shipped weights."""
    with safetensors.safe_open(REPOSITORY / "Resource" / "demo-global-edm.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
        return json.loads(file.metadata()["configuration"]), file.metadata(), tensors


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(tmp_path, shipped, name):
    configuration, header, state = shipped
    made, tensors = WEIGHTS[name](configuration, state)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, path, metadata=header | dict(configuration=json.dumps(made)))
    line = refusal("2_Tests/generate_petct.py", *PERSON, "--outdir", tmp_path / "out", "--global-weights", path)
    assert "w.safetensors" in line
    assert not (tmp_path / "out").exists()


RAW_WEIGHTS = {
    "empty": b"", "text": b"weights", "zip": b"PK\x03\x04" + bytes(100), "a huge header": b"\xff" * 8 + b"{}",
    "zeros": bytes(1000), "a folder": None, "a pipe": "pipe",
}  # fmt: skip
USES = {  # script → option of its weights, and the other arguments
    "2_Tests/generate_petct.py": ("--global-weights", PERSON),
    "2_Tests/denoise_pet.py": ("--weights", ("--input", "a.nii.gz", "--dose", 0.1)),
    "2_Tests/translate_ct_to_mr.py": ("--set", ("--input", "a.nii.gz")),
    "3_Evaluations/1_segment_generated.py": ("--weights", ()),
    "0_Preprocess/3_segment_organs.py": ("--weights", ("--backend", "network")),
    "1_Trainings/encode_latents.py": ("--vqvae", ("--slices", "s")),
}
BAD_WEIGHTS = [(script, raw) for script in USES for raw in RAW_WEIGHTS]


@pytest.mark.parametrize(("script", "raw"), BAD_WEIGHTS)
def test_files_of_weights(tmp_path, script, raw):
    option, others = USES[script]
    path = tmp_path / "w.safetensors"
    put(path, RAW_WEIGHTS[raw])
    (tmp_path / "resampled" / "p1").mkdir(parents=True)
    where = "--outdir" if script.startswith("2_") else "--root"
    value = f"slices_weights={path}" if option == "--set" else path
    assert "w.safetensors" in refusal(script, where, tmp_path, *others, option, value)


# Images.
def _image(voxels, affine=None, **codes):
    image = nibabel.Nifti1Image(voxels, np.diag([4.0, 4, 4, 1]) if affine is None else affine)
    if "sform_code" in codes:
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
    for name, code in codes.items():
        image.header[name] = code
    return image


BODY = np.full((12, 12, 12), 40, np.float32)


def _placed(*rows):
    """A NIfTI file whose affine has these rows."""
    raw = _image(BODY).to_bytes()
    return raw[:280] + np.array(rows, "<f4").tobytes() + raw[328:]  # srow_x, srow_y, srow_z


X, Y, Z = np.diag([4.0, 4, 4, 1])[:3]
NO_VOLUMES = {  # files of which nothing can be made, whatever is asked for
    "complex": _image(np.full((8, 8, 8), 40 + 3j, np.complex64)).to_bytes(),
    "colours": _image(np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])).to_bytes(),
    "voxels without volume": _placed(X, Y, 0 * Z),
    "two axes along one": _placed(X + Y, Z, 0 * Z),
    "an affine of NaN": _placed(X, np.nan * Y, Z),
    "an affine of infinity": _placed(X, Y, (0, 0, np.inf, 0)),
}
IMAGES = {
    "four axes": _image(np.zeros((4, 4, 4, 2), np.float32)),
    "two axes": _image(np.zeros((4, 4), np.float32)),
    "no orientation": _image(BODY, sform_code=0, qform_code=0),
    "in metres": _image(BODY, xyzt_units=1),
    "air only": _image(np.full((8, 8, 8), -1000, np.float32)),
    "NaN": _image(np.full((8, 8, 8), np.nan, np.float32)),
    "another grid": _image(np.full((5, 6, 7), 40, np.float32)),
    "empty": b"", "text": b"image", "cut": "cut", "a folder": None, "a pipe": "pipe",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100), "gzip of nothing": b"\x1f\x8b\x08" + bytes(7),
} | {name: gzip.compress(raw) for name, raw in NO_VOLUMES.items()}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path, name):
    study = tmp_path / "resampled" / "p1"
    study.mkdir(parents=True)
    nibabel.save(_image(np.ones((12, 12, 12), np.float32)), study / "SUV.nii.gz")
    path, made = study / "CT.nii.gz", IMAGES[name]
    if isinstance(made, nibabel.Nifti1Image):
        nibabel.save(made, path)
    elif made == "cut":
        nibabel.save(_image(np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)), path)
        path.write_bytes(path.read_bytes()[:-500])
    else:
        put(path, made)
    line = refusal("0_Preprocess/4_crop_torso.py", "--root", tmp_path)
    assert "p1" in line
    assert "failures.csv" in line
    assert not (tmp_path / "cropped" / "p1").exists()


# Images that somebody brings to be denoised or translated.
def _npz(change):
    """A change of the bytes of a whole npz → those of a damaged one."""
    file = io.BytesIO()
    np.savez_compressed(file, a=np.random.default_rng(0).random((8, 8, 8)))
    return change(file.getvalue())


def _npy():
    file = io.BytesIO()
    np.save(file, BODY)
    return file.getvalue()


def _changed(raw, place, value):
    return raw[:place] + value + raw[place + len(value) :]


BROUGHT = {f"{name}.nii": made for name, made in NO_VOLUMES.items()} | {
    "empty.npz": b"",
    "text.npz": b"image",
    "npy.npz": _npy(),
    "cut.npz": _npz(lambda raw: raw[:-60]),
    "deflate.npz": _npz(lambda raw: _changed(raw, len(raw) // 2, bytes(40))),
    "crc.npz": _npz(lambda raw: raw.replace(raw[14:18], b"\1\2\3\4")),
    "a pipe.npz": "pipe",
    "no zip.nii.gz": b"\x1f\x8b\x08" + bytes(7),
    "cut.nii.gz": gzip.compress(_image(BODY).to_bytes()[:-500]),  # cited in two lines by nibabel
    "CT.nii": _image(np.where(np.arange(8)[:, None, None] < 4, -1000, BODY[:8, :8, :8]).astype(np.float32)),
    "CT with metal.nii": _image(np.where(np.arange(12)[:, None, None] < 6, -1000, 1500 + BODY).astype(np.float32)),
    "negative.nii": _image(np.where(np.arange(12)[:, None, None] < 10, -1, 0 * BODY + 2).astype(np.float32)),
}
BRINGING = {
    "2_Tests/denoise_pet.py": ("--preset", "demo-one", "--dose", 0.1),
    "2_Tests/translate_ct_to_mr.py": ("--preset", "demo", "--stage", "slices"),
}
BAD_BROUGHT = [
    (script, name) for script in BRINGING for name in BROUGHT
    if "denoise" in script or not (name.endswith("npz") or name.startswith("CT"))
]  # fmt: skip


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("script", "name"), BAD_BROUGHT)
def test_images_that_are_brought(tmp_path, script, name):
    path, made = tmp_path / name, BROUGHT[name]
    put(path, made.to_bytes() if isinstance(made, nibabel.Nifti1Image) else made)
    line = refusal(script, *BRINGING[script], "--input", path, "--outdir", tmp_path / "out")
    assert name in line
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"failures.csv"}


def test_an_error_of_a_library_in_several_lines_is_cited_in_one(tmp_path):
    cropped(tmp_path)
    (tmp_path / "cohort.csv").write_text(COHORT)
    (tmp_path / "cropped/p1/CT.nii.gz").write_bytes(BROUGHT["cut.nii.gz"])
    line = refusal("2_Tests/make_figures.py", "--pipeline", tmp_path, "--outdir", tmp_path / "out")
    assert "CT.nii.gz: cannot be read as NIfTI (Expected" in line
    assert "Copy or export it again; where a step wrote it" in line


# People, names and options that exclude each other.
PEOPLE = {
    "sex": ("--sex", "X"), "no sex": ("--sex", ""), "age": ("--age", -1), "old": ("--age", 400),
    "metres": ("--height-cm", 1.65), "giant": ("--height-cm", 400), "no weight": ("--weight-kg", 0),
    "negative": ("--weight-kg", -60), "heavy": ("--weight-kg", 5000), "light": ("--weight-kg", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", PEOPLE)
def test_people(tmp_path, name):
    refusal("2_Tests/generate_petct.py", *PERSON, *PEOPLE[name], "--outdir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


NAMES = (
    '""', ".", "..", "../x", "a/b", "/etc", "a\\b", "C:\\x", ".hidden", "a.", "con", "manifest.csv", "x.zarr", "p2",
    "x" * 101, "\u202eb", "a\tb",
)  # fmt: skip
READ = ["0_Preprocess/5_fit_axial_extent.py", "2_Tests/generate_petct.py", "3_Evaluations/2_measure_organs.py"]
BAD_NAMES = [(script, name) for script in READ for name in NAMES]


@pytest.mark.parametrize(("script", "name"), BAD_NAMES)
def test_names_in_tables(tmp_path, script, name):
    (tmp_path / "cohort.csv").write_text(COHORT + f"{name},F,60,1.65,66,test\n", encoding="utf-8")
    before = tree(tmp_path)
    line = refusal(script, *TABLES[script, "cohort.csv"](tmp_path))
    assert "cohort.csv, row 4: subject" in line
    assert tree(tmp_path) == before


MASKS = ("", ".", "..", "../x", "cohort", "manifest", "crop", "truth", "failures", "import", "CT", "SUV", "a/b")
MASKED = {
    "3_Evaluations/1_segment_generated.py": ("--weights", "w"), "3_Evaluations/2_measure_organs.py": (),
}  # fmt: skip
BAD_MASKS = [(script, name) for script in MASKED for name in MASKS]


@pytest.mark.parametrize(("script", "name"), BAD_MASKS)
def test_names_of_masks(tmp_path, script, name):
    cropped(tmp_path)
    for table in ("cohort", "crop", "truth"):
        (tmp_path / f"{table}.csv").write_text(COHORT)
    before = tree(tmp_path)
    assert "--masks" in refusal(script, "--root", tmp_path, "--masks", name, *MASKED[script])
    assert tree(tmp_path) == before


EXCLUSIVE = {
    "a person and a table": ("2_Tests/generate_petct.py", (*PERSON, "--cohort", "cohort.csv")),
    "nobody": ("2_Tests/generate_petct.py", ()),
    "an image and a cohort": ("2_Tests/denoise_pet.py", ("--dose", 0.1, "--input", "a", "--cohort", "b")),
    "no image": ("2_Tests/translate_ct_to_mr.py", ()),
    "DICOM of a file": ("2_Tests/denoise_pet.py", ("--dose", 0.1, "--input", "a.nii.gz", "--dicom")),
    "an unknown preset": ("2_Tests/generate_petct.py", (*PERSON, "--preset", "dmo")),
    "a field twice unknown": ("2_Tests/generate_petct.py", ("--demographics", "sex=F colour=red")),
    "a grid without values": ("2_Tests/generate_petct.py", ("--demographics", "sex= age=60 height_cm=165 weight_kg=6")),
    "a grid of words": ("2_Tests/generate_petct.py", ("--demographics", "sex=F age=old height_cm=165 weight_kg=60")),
    "an unknown device": ("2_Tests/generate_petct.py", (*PERSON, "--device", "gpu")),
    "a device that is not here": ("2_Tests/generate_petct.py", (*PERSON, "--device", "cuda:70")),
    "runs that are not there": ("2_Tests/generate_petct.py", (*PERSON, "--runs", "nowhere")),
    "a guide without guidance": ("2_Tests/generate_petct.py", (*PERSON, "--set", "global_guide=x.safetensors")),
    "a self-start below the grid": ("2_Tests/generate_petct.py", (*PERSON, "--set", "self_start=0.0001")),
    "slices that begin below the grid": ("2_Tests/translate_ct_to_mr.py", ("--set", "slices_start=0.0001")),
    "a denoising that begins below the grid": (
        "2_Tests/denoise_pet.py", ("--input", "x.nii.gz", "--dose", 0.1, "--preset", "demo", "--set", "start=0.0001")),
    "an image and a split": ("2_Tests/denoise_pet.py", ("--dose", 0.1, "--input", "x.nii.gz", "--split", "test")),
    "two masks": ("3_Evaluations/4_image_quality.py", (
        "--reference", "{}", "--range", 0, 1, "--candidate", "a=x/{}", "--mask", "m/{}", "--mask-above", 1)),
    "an average over no voxels": ("2_Tests/generate_petct.py", (*PERSON, "--set", "consistency=1e-200")),
    "two figures of one name": ("2_Tests/make_figures.py", ("--figure3", "A=a", "--figure3", "A=b")),
    "two folders of one name": (
        "3_Evaluations/3_compare_cohorts.py", ("--reference", "r", "--candidate", "a/x", "--candidate", "b/x")),
    "a candidate without a name": (
        "3_Evaluations/3_compare_cohorts.py", ("--reference", "r", "--candidate", "=x")),
    "two patterns of one name": (
        "3_Evaluations/4_image_quality.py",
        ("--reference", "{}", "--range", 0, 1, "--candidate", "a=x/{}", "--candidate", "a=y/{}")),
    "two labels of one name": (
        "3_Evaluations/4_image_quality.py",
        ("--reference", "{}", "--range", 0, 1, "--candidate", "a=x/{}", "--labels", "a=y/{}", "--labels", "a=z/{}")),
    "two tables of features of one name": (
        "3_Evaluations/7_fidelity.py",
        ("--reference", "a=x", "--candidate", "b=y", "--features", "a=1", "--features", "b=2", "--features", "b=3")),
    "a cohort and a candidate of one name": (
        "3_Evaluations/7_fidelity.py", ("--reference", "a=x", "--candidate", "y/a")),
    "a field twice": ("2_Tests/generate_petct.py", ("--demographics", "sex=F sex=M age=60 height_cm=165 weight_kg=60")),
    "members as others": ("3_Evaluations/5_privacy.py", (
        "--weights", "w", "--archive", "a", "--held-out", "train")),
    "an arm's subjects held out": ("3_Evaluations/8_usefulness.py", (
        "--reference", "r", "--generated", "g", "--held-out", "train")),
    "a level without noise": ("3_Evaluations/5_privacy.py", ("--weights", "w", "--archive", "a", "--level", 0)),
    "a slab of context": ("2_Tests/generate_petct.py", (*PERSON, "--set", "slab=8", "--set", "context=8")),
}


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_options_that_exclude_each_other(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    script, arguments = EXCLUSIVE[name]
    line = refusal(script, *arguments, "--outdir", "out")
    assert ("Give each a name of its own" in line) == ("of one name" in name)
    assert list(tmp_path.iterdir()) == []


def test_there_are_300_cases():
    tables = (
        BAD_TABLES, BAD_SPLITS, BAD_JSONS, BAD_SETTINGS, BAD_NUMBERS, WRITTEN, WEIGHTS, BAD_WEIGHTS, IMAGES,
        BAD_BROUGHT, PEOPLE, BAD_NAMES, BAD_MASKS, EXCLUSIVE, VALUES,
    )  # fmt: skip
    assert sum(len(table) for table in tables) > 300
