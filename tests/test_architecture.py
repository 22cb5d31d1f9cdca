"""The package keeps its import rules (docs/architecture.md), and the pins are what the code imports."""

import ast
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "totalgen"
STAGES = ("0_Preprocess", "1_Trainings", "2_Tests", "3_Evaluations")

# Which folders and top-level modules a folder of the package may import from, besides itself.
MAY_IMPORT = {
    "models": set(),
    "data": {"errors"},
    "phantom": {"data", "errors"},
    "tasks": {"data", "models", "errors", "settings", "weights"},
    "training": {"tasks", "data", "models", "errors", "weights", "checkpoints", "distributed", "schema", "settings"},
    "generation": {"tasks", "data", "models", "errors", "weights", "distributed", "schema", "settings"},
    "evaluation": {"data", "errors"},
    "app": {"generation", "data", "models", "errors", "weights", "schema", "settings"},
}
DISTRIBUTION = {  # import name → name on the package index
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
}
SELF_NAMED = {"totalgen"}
OPTIONAL = {"totalsegmentator"}
RUN_ONLY = {"ruff", "mypy", "pytest-xdist"}  # commands and a plug-in, no modules
NEEDED_BY_OTHERS = {
    "pillow": "imageio and matplotlib write PNG and GIF with it",
    "pywavelets": "scikit-image's wavelets",
}


def imported(path):
    """Full names of the modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import says less of where it is from"
            yield node.module
            if node.module == "totalgen":  # its modules and folders
                yield from (f"totalgen.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(folder):
    for path in (PACKAGE / folder).glob("**/*.py"):
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("totalgen.")}
        assert ours <= MAY_IMPORT[folder] | {folder}, f"{path.name} imports {ours - MAY_IMPORT[folder] - {folder}}"


def test_every_folder_has_its_rules():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders == set(MAY_IMPORT)


def test_data_knows_no_network():
    for path in (PACKAGE / "data").glob("*.py"):
        assert not any(name.startswith(("torch.nn", "monai")) for name in imported(path)), path.name


def test_nothing_imports_a_script_and_the_package_parses_no_options():
    scripts = {path.stem for stage in STAGES for path in (REPOSITORY / stage).glob("*.py")}
    for path in [*PACKAGE.glob("**/*.py"), *(p for stage in STAGES for p in (REPOSITORY / stage).glob("*.py"))]:
        assert not {name.split(".")[-1] for name in imported(path)} & scripts, path
    for path in set(PACKAGE.glob("**/*.py")) - {PACKAGE / "commands.py"}:
        assert not re.search(r"click\.(command|option|argument)|argparse", path.read_text()), path


def test_scripts_have_an_example_and_a_docstring():
    for stage in STAGES:
        for path in (REPOSITORY / stage).glob("*.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text()))
            assert f"python {stage}/{path.name}" in docstring, path
            assert len(path.read_text().splitlines()) <= 110, f"{path}: a script is one call into the package"


def test_pins_and_imports_agree():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins.pop(0) == "-c requirements.lock"
    assert pins.pop() == "-e ."
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower() for pin in pins} - RUN_ONLY - set(NEEDED_BY_OTHERS)
    folders = ("totalgen", "tests", "benchmarks", *STAGES)
    files = [path for folder in folders for path in (REPOSITORY / folder).glob("**/*.py")]
    names = {name.split(".")[0] for path in files for name in imported(path)}
    foreign = names - set(sys.stdlib_module_names) - SELF_NAMED - OPTIONAL
    assert {DISTRIBUTION.get(name, name).lower() for name in foreign} == pinned


def test_no_two_modules_share_a_name():
    names = [path.stem for path in PACKAGE.glob("**/*.py") if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


def test_functions_fit_a_screen():
    for path in PACKAGE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def public_functions(tree):
    """Public functions of a module and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_"))


def untyped(path):
    """Names of the public functions of a file that lack a type of a parameter or of their result."""
    for function in public_functions(ast.parse(path.read_text())):
        a = function.args
        parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        named = [p for p in parameters if p.arg not in ("self", "cls")]
        if function.returns is None or any(p.annotation is None for p in named):
            yield f"{path.name}: {function.name}"


@pytest.mark.parametrize("folder", [".", *MAY_IMPORT])
def test_public_functions_carry_type_hints(folder):
    assert [name for path in sorted((PACKAGE / folder).glob("*.py")) for name in untyped(path)] == []
