# Everything a fresh machine needs: Python >= 3.10, a C compiler, the package registries.
# Each target makes its own virtual environment when there is none.

VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test test-all lint bench setup clean

setup: $(READY)

# torch and torchvision come from one index, in one command: a torchvision of another index fails on import.
# sam2 is built without isolation, so that torch is not downloaded a second time, and without its CUDA
# extension, which we do not need. What is never imported need not be compiled.
$(READY): pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --no-compile "setuptools>=77" wheel torch torchvision numpy
	SAM2_BUILD_CUDA=0 $(RUN) -m pip install --quiet --no-compile --no-build-isolation "sam2>=1.1.0"
	$(RUN) -m pip install --quiet --no-compile --no-build-isolation --editable ".[dev,eval]"
	touch $(READY)

demo: $(READY)
	$(VENV)/bin/sam2long demo

# A process for each core: threads of their own would only wait for each other.
test test-all: export OMP_NUM_THREADS = 1

# What needs its length (marked slow) runs in test-all only.
test: $(READY) lint
	$(RUN) -m pytest --numprocesses auto --dist worksteal -m "not slow"

test-all: $(READY) lint
	$(RUN) -m pytest --numprocesses auto --dist worksteal --durations 30

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY)
	$(RUN) scripts/bench.py --quick

clean:
	rm -rf $(VENV) build dist *.egg-info
