# The two commands: `make demo` and `make test`.  Both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
.PHONY: install demo test lint bench bench-e2e e2e contract story parts faults faults-e2e lock clean

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "apinizer-upgrade needs Python 3.11 or newer; say `make PYTHON=python3.11 ...`" or 0)'
	@echo "Making the environment in .venv; this takes a minute or two."
	@$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -m deployments.embedded prepare >/dev/null
	@touch $@

.venv/.testing: .venv/.installed requirements-test.lock
	$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

demo: .venv/.installed
	@$(BIN)/apinizer-upgrade demo

lint: .venv/.testing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -m "not e2e" -n 4 --dist loadfile --no-loadscope-reorder --durations=15

# The backup against a server that only replays, beside what compression alone does: make bench GIGABYTES=50
bench: .venv/.testing
	$(BIN)/python -m tests.bench $(GIGABYTES)

# An offline upgrade on a real cluster that may be wrecked, beside the published procedure typed in by hand.
bench-e2e: .venv/.testing
	$(BIN)/python -m tests.bench.images

# Needs $$KUBECONFIG and the REALCLUSTER_* variables of a real cluster that may be wrecked.
e2e: contract story parts

contract: .venv/.testing
	CONTRACT_TARGET=real $(BIN)/pytest -n 3 tests/contract

# Sources and targets of images by themselves, what breaks on the way, and further stories (marked `part`).
PARTS := $(foreach part,bundle docker faults nodes prune registry,tests/e2e/test_images_$(part).py)

story: .venv/.testing
	$(BIN)/pytest tests/e2e -m "not part" --durations=15 $(addprefix --ignore=,$(PARTS) tests/e2e/test_faults.py)

parts: .venv/.testing
	$(BIN)/pytest $(PARTS)
	$(BIN)/pytest tests/e2e -m part

# Runs killed, cut off, frozen and interfered with at every step, on the sandbox: more than an hour on two cores, a table at the end.
# Some of it: make faults FAULTS="upgrade --match manager" (python -m tests.faults --help).
faults: .venv/.testing
	KILLS=50 $(BIN)/pytest -s tests/tasks/database/restore/test_faults.py -k killed_at
	$(BIN)/python -m tests.faults $(FAULTS)

# Where it hurts most, on the real cluster: five minutes.
faults-e2e: .venv/.testing
	$(BIN)/pytest -s tests/e2e/test_faults.py

# Exact versions with hashes, no addresses.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q \
	    --extra sandbox --extra build pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q \
	    --extra sandbox --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-test.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
