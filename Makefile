# Two commands do all the set-up: `make demo` and `make test`. Everything they install goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test processes of one thread each: at most two cores, and TensorFlow's import is paid in parallel.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
# A file stays in one process, so that what its tests share is made once. No test bounds a time, so slow ones run so too.
PARALLEL := -n $(WORKERS) --dist loadfile
# Every test compiles on JAX, which takes minutes: the contract tests, and the own ones of layers, metrics and balancing methods.
JAX_TESTS := $(wildcard tests/balancing tests/contract tests/layers tests/models tests/optimizers tests/test_metrics.py)
PEER_VENV := .venv-peers
DEEPCTR_VENV := .venv-deepctr
PEER_OUT ?= results/peers

.PHONY: help demo test test-extended test-slow test-jax test-slow-jax lint types format docs bench-peers bench-peers-speed clean

help:
	@echo "make demo         train, evaluate and compare the models on synthetic data; results/demo/"
	@echo "make test         the tests of the package, extended and slow ones aside"
	@echo "make test-extended  what else CI runs: documentation, tutorials, studies, several devices and processes, all families of models"
	@echo "make test-slow    the slow tests: what takes long, and the rest of each matrix of which make test runs a sample"
	@echo "make test-jax     the contract tests, and those of layers, metrics, optimizers and balancing methods, on the JAX backend"
	@echo "make test-slow-jax  the slow ones of these"
	@echo "make lint types   ruff and mypy;  make format applies ruff's changes"
	@echo "make docs         the documentation, as HTML in docs/_build/html"
	@echo "make bench-peers  the comparisons with torch-rechub and DeepCTR (MTL_ZOO_DATA must be set)"
	@echo "make bench-peers-speed  of these, the one of speed; it needs no data and takes half an hour"
	@echo "make clean        removes the environments and everything that was built"
	@echo "PYTHON=python3.12 chooses the Python, 3.11 to 3.13 (now: $(PYTHON))"

demo: $(VENV)/.package
	$(BIN)/mtl-zoo demo --out results/demo

test: $(VENV)/.dev
	$(PYTEST) -m "not slow and not extended" $(PARALLEL)

test-extended: $(VENV)/.dev
	$(PYTEST) -m "extended and not slow" $(PARALLEL)

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow $(PARALLEL)

test-slow-jax: $(VENV)/.jax
	KERAS_BACKEND=jax $(PYTEST) -m slow $(PARALLEL) $(JAX_TESTS)

test-jax: $(VENV)/.jax
	KERAS_BACKEND=jax $(PYTEST) -m "not slow" $(PARALLEL) $(JAX_TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html

# The peer needs PyTorch, which the zoo does not: an environment of its own. benchmarks/peers/README.md has the commands one by one.
PEER_RULE := --seeds 3 --epochs 10 --patience 1
ZOO_RUN := $(BIN)/python -m benchmarks.run --dataset census_income --dataset-set variant=nominal group=1 embedding_dim=16

bench-peers: $(VENV)/.package $(PEER_VENV)/.installed
	$(BIN)/python -m benchmarks.peers.export_census --out $(PEER_OUT)/census.npz
	$(ZOO_RUN) --model mmoe --set num_experts=8 expert_units=128,64 tower_units=32 $(PEER_RULE) \
		--out $(PEER_OUT)/zoo.csv --save-scores $(PEER_OUT)/scores
	$(ZOO_RUN) --model shared_bottom --set bottom_units=256,128 tower_units=32 $(PEER_RULE) \
		--out $(PEER_OUT)/zoo.csv --save-scores $(PEER_OUT)/scores
	for model in mmoe shared_bottom; do \
		$(PEER_VENV)/bin/python benchmarks/peers/rechub_census.py --data $(PEER_OUT)/census.npz --model $$model $(PEER_RULE) \
			--out $(PEER_OUT)/rechub.csv --scores $(PEER_OUT)/scores && \
		$(BIN)/python -m benchmarks.peers.compare --data $(PEER_OUT)/census.npz --out $(PEER_OUT)/compare-$$model.csv \
			--ours "$(PEER_OUT)/scores/census_income-$$model-*.npz" \
			--theirs "$(PEER_OUT)/scores/rechub-$$model-*.npz" || exit 1; \
	done
	$(MAKE) bench-peers-speed

# DeepCTR is compared at the first size alone.
bench-peers-speed: $(VENV)/.package $(PEER_VENV)/.installed $(DEEPCTR_VENV)/.installed
	$(BIN)/python -m benchmarks.peers.speed --torch-rechub $(PEER_VENV)/bin/python --deepctr $(DEEPCTR_VENV)/bin/python \
		--out $(PEER_OUT)/speed.csv
	$(BIN)/python -m benchmarks.peers.speed --torch-rechub $(PEER_VENV)/bin/python --vocabulary 100000 \
		--out $(PEER_OUT)/speed-100000.csv

# Each stamp is remade only when the dependencies may have changed; the install is editable, so code changes need none.
$(VENV)/bin/python:
	@$(PYTHON) 2>/dev/null -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "mtl_zoo needs Python 3.11, 3.12 or 3.13, and PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo 'not found')." >&2; \
		echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev,text]"
	@touch $@ $(VENV)/.package

$(VENV)/.jax: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[dev,text,jax]"
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@ $(VENV)/.package

$(PEER_VENV)/.installed: benchmarks/peers/requirements-rechub.txt
	$(PYTHON) -m venv $(PEER_VENV)
	$(PEER_VENV)/bin/python -m pip install --quiet --requirement $<
	@touch $@

$(DEEPCTR_VENV)/.installed: benchmarks/peers/requirements-deepctr.txt
	$(PYTHON) -m venv $(DEEPCTR_VENV)
	$(DEEPCTR_VENV)/bin/python -m pip install --quiet --requirement $<
	@touch $@

clean:
	rm -rf $(VENV) $(PEER_VENV) $(DEEPCTR_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache docs/_build docs/generated results/demo
	find mtl_zoo tests benchmarks tutorials -name __pycache__ -type d -prune -exec rm -rf {} +
