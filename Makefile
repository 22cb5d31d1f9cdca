# Two commands: `make demo` shows a synthetic PET/CT, `make test` proves the project. Both set themselves up.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo test test-slow lint clean

# Installed once, and again only when the pins change.
.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

setup: .venv/installed

demo: setup
	$(BIN)/python 2_Tests/generate_petct.py --preset demo --sex F --age 60 --height-cm 165 --weight-kg 66 --seed 1 --outdir out/demo

test: setup lint
	$(BIN)/python -m pytest

# The tests that take minutes.
test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .

clean:
	rm -rf .venv out build *.egg-info
