# Two commands: `make demo` shows a synthetic PET/CT, `make test` proves the project. Both set themselves up.
BIN := .venv/bin

# The first Python of 3.11 or later; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: setup demo app test test-slow lint clean

# Installed once, and again only when the pins change.
.venv/installed: requirements.txt requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Error: no Python 3.11 or later here. Install one, or give make PYTHON=FILE." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	  echo "Error: $(PYTHON) has no venv module. Install it (Debian, Ubuntu: apt install python3-venv)." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv; this takes some minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

setup: .venv/installed

demo: setup
	$(BIN)/python 2_Tests/generate_petct.py --preset demo --sex F --age 60 --height-cm 165 --weight-kg 66 --seed 1 --outdir out/demo

app: setup
	$(BIN)/python 2_Tests/app.py --outdir out/app

# Two processes of one thread each.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

# The tests that take minutes.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --durations=15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .pytest_cache .ruff_cache
