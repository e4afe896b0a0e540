# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
GPU_PYTHON ?= $(if $(wildcard .venv/dev),$(BIN)/python,$(PYTHON))

.PHONY: demo test test-extras test-gpu bench bench-gpu bench-check docs clean

demo: .venv/run
	$(BIN)/python -m benchmarks demo

# A test file a core; with more threads each they would only wait for one another. In the order of tests/conftest.py:
# by default files of few tests come last, of which some take minutes.
test: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --ignore tests/extras

# What reads files of timm, Keras and transformers, and runs on Ray, against those libraries themselves.
test-extras: .venv/extras
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --max-worker-restart 0 tests/extras

# Whatever needs an NVIDIA GPU, with what is installed: such a machine may have no package index. What is missing is
# skipped by its name, and the warnings of other versions are no failures.
test-gpu:
	$(GPU_PYTHON) -m pytest -o addopts=-ra -W default -m gpu tests/contract tests/gpu

# On an H200 a turn of crops took 45 s without read-only, and each workload has five. Without TensorRT, PyTorch is
# measured.
bench-gpu:
	-$(GPU_PYTHON) -m batchcls build engines/all4-googlenet --device cuda
	$(GPU_PYTHON) -m benchmarks run --device cuda:0 --workload crops-224x224 --workload fields-1024x768 \
	  --case end-to-end --case read-only --case "decode-only dali" --case engine-only --peer none

# An hour and a half, and 12 GB for the peers' environments.
bench: .venv/dev
	$(BIN)/python -m benchmarks install
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks growth
	$(BIN)/python -m benchmarks report

# The newest records against those before them.
bench-check: .venv/dev
	$(BIN)/python -m benchmarks check

# The site of docs/, in build/docs; open build/docs/index.html. The command reference is written first.
docs: .venv/docs
	$(BIN)/python docs/command_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

# What `batchcls run` needs: no torch.
.venv/run: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/docs: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@ .venv/run

.venv/dev: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/run .venv/docs

.venv/extras: .venv/dev
	$(BIN)/pip install --quiet --editable '.[extras]'
	touch $@

clean:
	rm -rf .venv demo build dist
