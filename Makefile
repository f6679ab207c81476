# make demo          install into .venv and run the main job on its embedded default
# make test          install the test requirements, then run the tests, which takes about ten minutes on two quiet cores
# make test-long     the tests that take longer
# make test-lowest   the tests with the lowest releases that setup.cfg allows, in an environment of its own
# make lint          style, formatting, the order of imports and types
# make results      write the tables and plots of studies and benchmarks into the pages
# make docs          build the site, every link checked
# make wheel         build the wheel and try it in an empty environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A build of PyTorch without CUDA, where pip finds one: the peer of the parity tests, which are skipped without it
TORCH ?= torch==2.13.0+cpu
# More arguments for pip, for example --constraint FILE
PIP_ARGUMENTS ?=
# More arguments for pytest, for example PYTEST_ARGUMENTS='-n 4 tests/test_qa.py'
PYTEST_ARGUMENTS ?=
# Without setuptools' general advice on editable installs
INSTALL = PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet $(PIP_ARGUMENTS)

.PHONY: demo test test-long test-lowest lint results docs wheel clean

demo: $(VENV)/.installed
	$(BIN)/python -m xlkd.main --config=configs/gxlt.py

test: $(VENV)/.tested
	$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

test-long: $(VENV)/.tested
	$(BIN)/python -m pytest -m long -o faulthandler_timeout=3600 $(PYTEST_ARGUMENTS)

test-lowest:
	mkdir -p build
	$(PYTHON) tests/lowest_versions.py setup.cfg >build/lowest.txt
	$(MAKE) test VENV=.venv-lowest PIP_ARGUMENTS='--constraint build/lowest.txt'

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is not Python 3.11 or later; get one with: $(PYTHON) -m pip install uv && $(PYTHON) -m uv venv --seed --python 3.12 $(VENV), then the same make again (or name one: make PYTHON=python3.12)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(INSTALL) --editable '.[dev,docs]'
	@$(INSTALL) '$(TORCH)' 2>/dev/null || echo "no PyTorch: parity with it is not tested"
	@touch $@

results: $(VENV)/.installed
	$(BIN)/python docs/_results.py
	$(BIN)/python docs/_benchmarks.py

docs: | $(VENV)/bin/python
	$(INSTALL) --editable '.[docs]'
	$(BIN)/python -m mkdocs build --site-dir build/site
	@echo "open build/site/index.html"

wheel: | $(VENV)/bin/python
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet $(PIP_ARGUMENTS) build/wheel/*.whl
	cd build/wheel && venv/bin/xlkd check --task=qa --data='atlas?split=test&size=20&languages=en,de'
	cd build/wheel && venv/bin/xlkd trim --model=package:english --layers=2 --out=small

clean:
	rm -rf $(VENV) .venv-lowest build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
