# make demo   a whole installation with real servers, a request of each workflow, step by step
# make test   everything that has to hold before a change lands
# make bench  measures, and writes benchmarks/results.md
# make bench-large  the same for a bulk job of 10,000 endpoints; an hour or more
# make bench-workers  a bulk job by one, two and four workers, without Redis and with it: SIZE=1000
# make bench-acme  a bulk job beside certbot and lego on the same endpoints: SIZE=1000
# make bench-trouble  a job of 10,000 endpoints with a pause and a killed worker, compared afterwards: SIZE=10000
# make simulate  a year of a thousand endpoints at 47 days, an hour or less; `make test` has half a year of a few
# make chaos  breaks connections, servers and processes under requests; writes benchmarks/reliability.md: SECONDS=600, TIMES=5
# make soak   a thousand requests at once with every fault mixed in; the other half of that page: REQUESTS=1000
# make fuzz   feeds spoiled input to everything that reads what others send: SECONDS=600, ONLY=nginx
# make audit  asks the advisory database about every locked package; needs the internet
# make docs   writes the generated parts of docs/ anew
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export DO_NOT_TRACK := 1

SECONDS ?= 600
TIMES ?= 5
PROCESSES ?= 3

.PHONY: help demo docs chaos soak fuzz audit setup test check lint types layers format servers unit bench bench-acme bench-large bench-workers bench-trouble simulate lock clean

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "certrail needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt

# A stamp for each lock file; the development environment holds the demo's too.
$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/uv
	@echo "the demo's packages go into $(VENV), once"
	@[ -e $(VENV)/.dev ] || $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements/demo.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/uv
	@echo "the packages for development go into $(VENV), once"
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@ $(VENV)/.demo

setup: $(VENV)/.dev

demo: $(VENV)/.demo
	@$(BIN)/python -m deployments.demo

# The Debian packages that the tests drive: installed as root, else named.
servers:
	@tests/servers.sh

# More processes than cores, since many tests wait; each has servers of its own. One test alone,
# in this terminal and with --pdb if you like: .venv/bin/pytest tests/e2e/test_demo.py -k told
#
# What failed beside others, competing for the processors, is run once more by itself and has to
# pass there; both results are printed.
test: setup servers check
	$(BIN)/pytest -n 3 || $(BIN)/pytest --last-failed --last-failed-no-failures none

check: lint types layers

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest tests/unit tests/repo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	@$(BIN)/python -m deployments.docs

chaos: setup servers
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	CHAOS_TIMES=$(TIMES) $(BIN)/pytest -p tests.chaos.single_cases tests/chaos tests/e2e/test_killed_anywhere.py \
	  tests/e2e/test_killed_elsewhere.py tests/integration/store/test_state_machines.py \
	  tests/integration/targets/test_api_faults.py tests/integration/targets/test_calls_spoilt.py \
	  tests/integration/hosts/test_ssh_faults.py -n $(PROCESSES)

REQUESTS ?= 1000
AT_ONCE ?= 50
PERCENT ?= 10

soak: setup servers
	$(BIN)/python -m tests.chaos.soak_run --requests $(REQUESTS) --at-once $(AT_ONCE) --percent $(PERCENT) \
	  $(if $(SEED),--seed $(SEED))

fuzz: setup servers
	@[ -n "$(ONLY)" ] || CERTRAIL_FUZZ_EXAMPLES=200 $(BIN)/pytest -q tests/fuzz/test_replies.py
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed 0 $(if $(ONLY),--only "$(ONLY)")

# The check of the lock files that needs no network is tests/repo/test_requirements.py.
audit: | $(BIN)/uv
	@for file in base demo dev; do \
	  $(BIN)/uv tool run --quiet pip-audit@2.10.1 --strict --disable-pip --require-hashes -r requirements/$$file.txt || exit 1; \
	done

bench: setup servers
	$(BIN)/python -m benchmarks

bench-large: setup servers
	$(BIN)/python -m benchmarks --only bulk --sizes 100,1000,10000

bench-workers: setup servers
	$(BIN)/python -m benchmarks --only bulk-workers --sizes $(or $(SIZE),1000)

bench-acme: setup servers
	$(BIN)/python -m benchmarks --only bulk-acme --sizes $(or $(SIZE),1000)

bench-trouble: setup servers
	$(BIN)/python -m benchmarks --only bulk-trouble --sizes $(or $(SIZE),10000) --workers 1 --redis no

simulate: setup
	@CERTRAIL_SIMULATED_ENDPOINTS=1000 CERTRAIL_SIMULATED_DAYS=366 \
	  CERTRAIL_SIMULATION_REPORT=$(CURDIR)/simulation.txt \
	  $(BIN)/pytest -q --timeout 0 tests/integration/store/test_year.py && cat simulation.txt && rm simulation.txt

lock: | $(BIN)/uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 pyproject.toml --extra demo --extra aws --extra iis --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 pyproject.toml --extra demo -c requirements/dev.txt -o requirements/demo.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 pyproject.toml -c requirements/dev.txt -o requirements/base.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
