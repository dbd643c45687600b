# The commands of this repository. Each sets up .venv first; the second time that takes no time.
#
#   make demo                 the whole job on this machine, five to six minutes on two cores
#   make demo ARGS="--fast"   the same, small: one to three minutes
#   make test                 tests            make test ARGS="tests/audit -k proof"
#   make check                format, lint, types, import contracts, tests: what CI runs
#
# PYTHON       the interpreter, 3.11 to 3.13.
# TORCH        what pip installs as torch. On Linux, PyPI's own build brings CUDA (gigabytes); for the
#              CPU build:  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
# VENV_FLAGS   --system-site-packages takes a torch (2.11 to 2.13) that this machine already has.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
VENV_FLAGS ?=
VENV ?= .venv
CACHE ?= .cache/corpora
ARGS ?=
DEMO_ARGS ?= $(ARGS)

BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup corpora demo test check format stubs pins clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(MAKEFILE_LIST)

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Renmei needs Python 3.11 to 3.13; set PYTHON=python3.12, for example." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	@echo "Installing pinned dependencies into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -c 'import re, sys, torch; v = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])); sys.exit(not (2, 11) <= v <= (2, 13))' 2>/dev/null || \
	  $(PIP) install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	@# Whatever torch is there now is the one that is kept.
	@{ grep -v '^torch==' constraints.txt; $(BIN)/python -c 'import torch; print(f"torch=={torch.__version__}")'; } > $(VENV)/constraints.txt
	$(PIP) install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

# The packages that the corpora are read from: the only download besides the dependencies.
corpora: $(READY)
	$(BIN)/python -m base_model.fetch --cache $(CACHE)

demo: corpora
	$(BIN)/renmei demo --cache $(CACHE) $(DEMO_ARGS)

test: corpora
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

check: corpora
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stubs: $(READY)
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. fedproto/v1/*.proto

pins: $(READY)
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
