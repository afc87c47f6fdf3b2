# make demo        train softmax and ASEntmax on copy, see how far each carries
# make test        the suite, at most 10 minutes on 2 cores
# make test-all    and the slow part of it; the report's pages need Chromium (apt install chromium), shared
#                  studies PostgreSQL (apt install postgresql), the Slurm page root and Slurm (apt install slurm-wlm)
# make test-kernels  the Triton kernels on a CPU, in its interpreter; on a GPU: pytest -m gpu
# make lint        ruff
# make benchmarks  speed and memory against peers

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One process per core; torch is then given one thread each.
JOBS   ?= 2

.PHONY: install demo demo-grid test test-all test-kernels lint benchmarks clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lcg needs Python 3.11 or newer: make PYTHON=python3.11 …" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) has no venv: on Debian and Ubuntu, apt install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV) (torch is large; this takes a while the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@rm -rf $(VENV)/lib/python*/site-packages/lcg # data of older editable installs, which would shadow lcg
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/lcg demo

demo-grid: install
	$(BIN)/python -m benchmarks.demo_grid

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS)

test-all: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser,postgres,grpc,notebook,triton]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -n $(JOBS)
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels -n $(JOBS)

test-kernels: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[triton]'
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels -m "not slow" -n $(JOBS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmarks: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[benchmarks]'
	$(BIN)/python -m benchmarks.entmax
	$(BIN)/python -m benchmarks.attention
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.probe
	$(BIN)/python -m benchmarks.exact_match
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.aggregate
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.loop

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
