# Needs Python 3.11 or later, and make; everything else is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo studio test test-slow test-ray test-label-studio fuzz lint bench results compare clean

# Segment the photos that scikit-image ships, into demo/.
demo: .venv
	$(BIN)/python examples/demo.py demo

# The pages in a browser, with sample images; PORT=0 takes any port that is free.
PORT ?= 8000
studio: .venv
	$(BIN)/unpool studio --port $(PORT)

# Tests and docstring examples, under ten minutes on two cores.
test: .venv
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

# Tests at full size: conversion of a 1 GB file, export, longer training runs.
test-slow: .venv
	$(BIN)/python -m pytest -m slow

# The Ray engine, in an environment of its own, since Ray and what it needs take some 600 MB.
test-ray: .venv-ray/installed
	.venv-ray/bin/python -m pytest -m ray tests/batch/test_ray.py

.venv-ray/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-ray/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,ray]"
	touch $@

# Predictions for Label Studio, checked by its SDK, which takes some 500 MB and other versions of NumPy and OpenCV.
test-label-studio: .venv .venv-label-studio/installed
	$(BIN)/python -m pytest tests/serve/protocols/test_label_studio.py

.venv-label-studio/installed:
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/python -m pip install --quiet label-studio-sdk==2.1.2
	touch $@

# Damaged files for every parser, SECONDS each; docs/trust.md has the figures.
SECONDS ?= 120
fuzz: .venv
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed on one thread, about ten minutes; benchmarks/README.md explains the figures.
bench: .venv
	$(BIN)/python -W ignore benchmarks/bench_ops.py
	for subject in segment crf train; do $(BIN)/unpool bench $$subject --threads 1 || exit; done
	for script in proposals import; do $(BIN)/python benchmarks/bench_$$script.py --threads 1 || exit; done

# docs/results.md: every row with the default weights, on DATA="FOLDER ..."; with WHOLE=1 without object proposals,
# which takes 20 minutes for 300 images on two cores without AVX-512.
results: .venv
	$(BIN)/python -m experiments.results $(foreach part,$(DATA),--data "$(part)") $(if $(WHOLE),--whole)

# docs/compare.md: trains every network for about twenty minutes on DATA, from the VGG-16 in VGG; may be interrupted.
compare: .venv
	$(BIN)/python -m experiments.compare $(foreach part,$(DATA),--data "$(part)") --trunk-weights "$(VGG)"

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The marker is written last, so that an interrupted installation is repeated.
.venv: .venv/installed
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'unpool needs Python 3.11 or later; set PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pydensecrf2 \
		|| echo "pydensecrf2 cannot be built here (it needs a C++ compiler): its comparisons are skipped"
	touch $@
