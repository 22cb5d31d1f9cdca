"""What README and docs tell people to click, type or write exists: links, scripts, options, presets, Python names."""

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = (".", "docs", "Resource", ".github/ISSUE_TEMPLATE")
PAGES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).glob("*.md"))
SCRIPT = re.compile(r"(?:^|\s)((?:[0-3]_[A-Za-z]+|benchmarks)/\w+\.py)(\s.*)?$")
SKIPPED = re.compile(r"^[A-Z<{…]|\$")  # a placeholder, such as FILE or $name, in place of a value


def name_of(page):
    return str(page.relative_to(REPOSITORY))


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(text, language=None):
    """The bodies of fenced blocks; with ``language`` only those that name it."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [body for words, body in found if language is None or words == language]


def anchor(heading):
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def commands_of(text):
    """(script, words after it) of every command that a page shows, in blocks and in `…`."""
    lines = [line for body in blocks(text) for line in re.sub(r"\\\n\s*", " ", body).splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        found = SCRIPT.search(line.split("  #")[0])
        if found:
            words = found[2] or ""
            yield found[1], shlex.split(words.replace("…", " "), comments=True) if words.count('"') % 2 == 0 else []


@pytest.fixture(scope="module")
def script():
    """script("2_Tests/app.py") → its module."""
    loaded = {}

    def load(name):
        if name not in loaded:
            spec = importlib.util.spec_from_file_location("script", REPOSITORY / name)
            loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    return load


def faults_of(module, words):
    """What of a command line does not exist: options, choices and presets."""
    options = {word: option for option in module.main.params for word in (*option.opts, *option.secondary_opts)}
    wrong = []
    for number, word in enumerate(words):
        if not word.startswith("--") or word in ("--help", "--version"):
            continue
        value = words[number + 1] if number + 1 < len(words) else ""
        if word not in options:
            wrong.append(word)
        elif isinstance(options[word].type, click.Choice) and not SKIPPED.search(value):
            wrong += [] if value in options[word].type.choices else [f"{word} {value}"]
        elif word == "--preset" and not SKIPPED.search(value) and value and not value.endswith("-"):
            names = getattr(module, "NAMES", getattr(module, "PRESETS", {}))
            wrong += [] if value in names or not names else [f"{word} {value}"]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, part = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        headings = re.findall(r"^#+ (.*)$", text_of(file), flags=re.MULTILINE) if part and file.exists() else []
        if not file.exists() or (part and part not in map(anchor, headings)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page):
    named = re.findall(r"`((?:docs|Resource|benchmarks|tests|totalgen|[0-3]_[A-Z]\w+)/[\w./-]+\.\w+)`", text_of(page))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options_and_presets(page, script):
    wrong = []
    for name, words in commands_of(text_of(page)):
        if not (REPOSITORY / name).exists():
            wrong.append(name)
        elif hasattr(script(name), "main"):
            wrong += [f"{name}: {fault}" for fault in faults_of(script(name), words)]
    assert wrong == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(text_of(page), "python")], ids=name_of)
def test_python_blocks_import_what_there_is(page):
    """That of the README is run by tests/test_package.py."""
    for body in blocks(text_of(page), "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [each.name for each in node.names if not hasattr(module, each.name)] == []


def test_faults_are_found(script):
    """The checks above are not blind."""
    module = script("2_Tests/generate_petct.py")
    assert faults_of(module, ["--preset", "demo", "--sex", "F"]) == []
    assert faults_of(module, ["--presets", "demo"]) == ["--presets"]
    assert faults_of(module, ["--preset", "dmo"]) == ["--preset dmo"]
    assert faults_of(module, ["--organs", "all"]) == ["--organs all"]
    text = "```\npy 2_Tests/nothing.py --a b\n```\nand `3_Evaluations/2_measure_organs.py --root X`"
    assert [name for name, _ in commands_of(text)] == ["2_Tests/nothing.py", "3_Evaluations/2_measure_organs.py"]


def test_the_readme_is_short():
    assert text_of(REPOSITORY / "README.md").count("\n") <= 130


@pytest.mark.parametrize("recipe", ["petct", "organs", "pairs", "latents", "doses"])
@pytest.mark.parametrize("shape", [(224, 224, 384), (80, 80, 128), (32, 32, 48), (40, 40, 72)])
def test_what_packing_says_to_type_next_exists(script, recipe, shape):
    training, preset = script("0_Preprocess/6_pack_training_set.py").training_of(recipe, shape)
    known = getattr(script(f"1_Trainings/{training}"), "NAMES", script(f"1_Trainings/{training}").PRESETS)
    assert preset in known or preset == "PRESET"
