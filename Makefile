# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench clean

demo: .venv/run
	$(BIN)/python -m benchmarks demo

test: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: .venv/dev
	$(BIN)/python -m benchmarks run
	$(BIN)/python -m benchmarks report

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

# What `batchcls run` needs: no torch.
.venv/run: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/run

clean:
	rm -rf .venv demo build dist
