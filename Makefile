# The words of the house.  Each makes .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test check bench docs site clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cortado needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(VENV)/bin/cortado compress examples/digits.yaml --out demo

# Bytecode is kept, wherever that is turned off: each worker and each process of a test would compile all files again.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -n auto --dist worksteal

check: $(VENV)/installed
	$(VENV)/bin/ruff check cortado tests bench examples
	$(VENV)/bin/ruff format --check cortado tests bench examples
	$(VENV)/bin/mypy
	$(RUN) -m pytest tests/house

bench: $(VENV)/installed
	$(RUN) -m bench check

docs: $(VENV)/installed
	$(RUN) -m bench docs

site: $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	$(VENV)/bin/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) demo runs site
