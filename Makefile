# Every target works on a fresh clone: it makes what it needs first. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
PACKAGES := gateway agent stub auth tunnel cli
KUBECONFIG :=
UNIT := tests --ignore=tests/e2e
# Most of it is waiting: two at a time, each with clusters of its own. A file's tests stay together, and in their order.
E2E := tests/e2e -q -n 2 --dist loadfile --no-loadscope-reorder
# In CI what failed is run once more, alone: timing tests share two cores there with everything else. It is said so, and a
# test that needs it is a defect.
again = || { test -n "$$CI" && echo "again, alone, what failed:" && \
	$(BIN)/python -m pytest $(1) -q --last-failed --last-failed-no-failures none; }

.DEFAULT_GOAL := help
.PHONY: help env up test check lint unit e2e soak testbed skew bench lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## make the environment in .venv (.venv/bin/kulvert is the program)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Kulvert needs Python >= 3.11; say make PYTHON=/path/to/python3.11")'
	@echo "making the environment in $(VENV) (about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

up: $(STAMP) ## server, agent and a cluster for a first look; KUBECONFIG=FILE uses a cluster of your own
	@$(BIN)/python -m tests.testbed.up -- $(if $(KUBECONFIG),--kubeconfig $(KUBECONFIG),)

test: check testbed ## everything, the real kube-apiserver included (builds the test bed once)
	$(BIN)/python -m pytest $(E2E) $(call again,tests/e2e)

check: lint unit ## everything but the test bed

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP) ## the tests that need no test bed, with branch coverage
	$(BIN)/python -m pytest $(UNIT) -q -n 2 --cov --cov-report=term:skip-covered --cov-fail-under=85 $(call again,$(UNIT))

testbed: $(STAMP) ## build the real test bed once (about 10 minutes cold), print its directory
	@$(BIN)/python -m tests.testbed

e2e: $(STAMP) ## the tests against the test bed, which must have been built
	$(BIN)/python -m pytest $(E2E)

soak: testbed ## what takes minutes and is not part of `make test`: many more stories, the other modes, an hour of kubectl
	$(BIN)/python -m pytest tests -q -m soak --durations=20

skew: $(STAMP) ## this one's agents and server with another release's: PREVIOUS=CHECKOUT (with an environment of its own)
	KULVERT_PREVIOUS=$(PREVIOUS) $(BIN)/python -m pytest tests/e2e/test_skew.py -q

bench: $(STAMP) ## GET through the gateway against direct: ratios, and CPU per request
	$(BIN)/python -m benchmarks

lock: $(STAMP) ## pin the dependencies anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra dev pyproject.toml -o requirements.lock

clean: ## remove what make env and the tools made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
