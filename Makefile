# make demo: set up, train, export, evaluate. make test: the library's tests. make lint: style, types, imports, spelling.
# make test-all: the slow tests and the research's too. make bench: speed and memory.
# make docs: the site, in build/site. make dist: the wheel and the sdist, in build/dist.
# All set up what they need in .venv, in the versions that constraints.txt names.

# The first Python from 3.11 to 3.13 that really runs; say PYTHON=... for another.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# A process a core, four at the most.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo demo-micro test test-quick test-all test-latest test-arm fuzz bench bench-quick lint format docs dist clean

demo: .venv/.tools
	$(BIN)/python tools/train.py --model=digits_cnn --dataset=digits --budget=12x --epochs=30 --with_float --verbose=0 \
		--out_dir=runs/demo --overwrite

# A file for a microcontroller, in flash and RAM as its data sheet has them, run in TFLM.
demo-micro: .venv/.tools,micro
	$(BIN)/python tools/train.py --model=digits_cnn --channel_multiplier=0.75 --dataset=digits --epochs=30 \
		--budget="10 kB flash, 14 kB ram" --candidate_bits=2,3,4,5,6,8 --activation_bits=8 --with_float --optimize_for=micro --verbose=0 \
		--out_dir=runs/demo-micro --overwrite

test: .venv/.test
	$(PYTEST) -m "not slow" tests --ignore=tests/research

# Tests that trace nothing and start no other process: seconds.
test-quick: .venv/.test
	$(BIN)/python -m pytest -m "quick and not slow" tests --ignore=tests/research

# Tests that compare speeds come last, with nothing beside them.
test-all: .venv/.test .venv/.peers .venv/.docs
	$(PYTEST) -m "not timed" --durations=25 --cov=bmpq_tf --cov-report=term:skip-covered tests
	$(BIN)/python -m pytest -m timed

# The newest releases of everything, in an environment of their own; docs/runtime_matrix.md says what was found.
test-latest: .venv/bin/python
	$(PYTHON) -m venv .venv/latest
	.venv/latest/bin/python -m pip install --quiet --upgrade --editable ".[test]"
	.venv/latest/bin/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal -m "not slow" \
		tests/compat tests/export tests/research/test_runtime_probe.py

# What was asked here is asked on an emulated ARM processor: the probe, files of the zoo, the demo's.
# Half a minute to set it up, then at most 20 minutes and a model's files; Debian 12 only. BMPQ_ARM64 names its folder.
test-arm: .venv/.test
	$(BIN)/bmpq-arm64
	$(BIN)/python tools/arm.py

# Random models through training and every kind of file, at most four hours; goes on where it was.
fuzz: .venv/.test
	$(BIN)/python tools/fuzz.py --models=300 --minutes=240 --out=runs/fuzz.jsonl

# At most 90 minutes; the first time it also makes the peers' virtual environments in runs/peers.
bench: .venv/.bench
	$(BIN)/python tools/benchmark.py

bench-quick: .venv/.test
	$(BIN)/python tools/benchmark.py --quick

lint: .venv/.lint
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/codespell

format: .venv/.lint
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# Fails at a link that leads nowhere, and at a page that would load something from elsewhere.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# In a copy: setuptools also packs what an earlier build left in build/.
dist: .venv/.dist
	rm -rf build/dist build/source && mkdir -p build/source
	git archive HEAD | tar -x -C build/source
	$(BIN)/python -m build --outdir build/dist build/source
	$(BIN)/twine check --strict build/dist/*
	rm -rf build/source

# Not runs/, which may be hours of training.
clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "bmpq_tf needs Python 3.11, 3.12 or 3.13, and none was found. Install one, or say make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# A stamp for each set of extras: nothing is installed again until the requirements change.
.venv/.%: .venv/bin/python setup.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@
