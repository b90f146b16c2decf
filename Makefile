# Two commands set everything up: `make demo` and `make test`. Each makes .venv and installs into it.
PYTHON ?= python3
VENV   ?= .venv
PIP     = $(VENV)/bin/python -m pip --disable-pip-version-check
OUTPUT ?= demo-output

.PHONY: demo test test-slow lint format docs clean

demo: $(VENV)/.installed        ## install, then run the whole path on a small synthetic world
	$(VENV)/bin/vipocc demo --output $(OUTPUT)

# A worker for each of two cores; a file's tests stay together, for they share what it set up.
test: $(VENV)/.installed-dev lint   ## install, then lint, type-check and run the tests (under ten minutes)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev   ## the long tests: kill loops, the user's four lines, the demo
	$(VENV)/bin/python -m pytest -q -m "slow and not gpu"

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-dev   ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "vipocc needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (about 6 GB with CUDA libraries; minutes on a slow line) …"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (about 6 GB with CUDA libraries; minutes on a slow line) …"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
