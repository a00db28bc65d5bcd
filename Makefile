# Each target is one line that you can run by hand.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: up demo down test faults lint format bench lock clean

# The whole thing: environment, services, demo models, graph, then the UI until Ctrl-C.
up: .venv/ready
	@exec $(BIN)/ml-assets up

# The same without the UI.
demo: .venv/ready
	@$(BIN)/ml-assets demo

# Stop the embedded services.
down: .venv/ready
	@$(BIN)/ml-assets down

test: .venv/ready
	$(BIN)/pytest -q -n 2 --no-loadscope-reorder ml_assets_tests

# 100 kills per store instead of CI's 20.
faults: .venv/ready
	ML_ASSETS_TEST_KILLS=100 $(BIN)/pytest -q ml_assets_tests/faults

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright

format: .venv/ready
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/ready
	$(BIN)/python -m benchmarks

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "ml-assets needs Python 3.11, 3.12 or 3.13, and this is %d.%d: run make with PYTHON=python3.12, say." % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# After a change of dependencies: one lock for all three Pythons, with hashes, without addresses.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --generate-hashes --no-header -o requirements.txt pyproject.toml

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
