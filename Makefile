# Nothing but Python 3.11 (or later) and make is needed; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-slow lint bench results clean

# Segment the photos that scikit-image ships; images and a contact sheet go to demo/.
demo: .venv
	$(BIN)/python examples/demo.py demo

# The tests and the examples in docstrings; under ten minutes on two cores.
test: .venv
	$(BIN)/python -m pytest

# The full-size network: conversion of a 1 GB file, export, long trainings.
test-slow: .venv
	$(BIN)/python -m pytest -m slow

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed on one thread, about ten minutes; benchmarks/README.md tells how to read it.
bench: .venv
	$(BIN)/python -W ignore benchmarks/bench_ops.py
	for subject in segment crf proposals train import; do $(BIN)/unpool bench $$subject --threads 1 || exit; done

# Measure every row with the default weights, or, given TRUNK=vgg16-weights, with weights trained anew;
# STAGES=--with-stages also trains and compares stage 1 alone and both stages (half an hour more).
results: .venv
	$(BIN)/python -m experiments.results --data "$(DATA)" $(STAGES) $(if $(TRUNK),--trunk-weights "$(TRUNK)",--shipped)

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The marker is written last, so that an interrupted installation is done again.
.venv: .venv/installed
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'unpool needs Python 3.11 or later; set PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pydensecrf2 \
		|| echo "pydensecrf2 cannot be built here (it needs a C++ compiler): its comparisons are skipped"
	touch $@
