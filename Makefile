# `make` lists the targets. All it needs is python3.11, Go and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/runtime.txt requirements/dev.txt
CHART := charts/kube-stepup
# The audience of every assertion, so it has to be another one in each cluster
CLUSTER_NAME ?= my-cluster
CHART_VALUES = --set clusterName=$(CLUSTER_NAME) --set namespace.create=true
HELM = "$$($(BIN)/python -m tests.controlplane helm)"
COMPILE = $(BIN)/uv pip compile pyproject.toml --no-config --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header $(if $(UPGRADE),--upgrade)

MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- the house

.PHONY: venv
venv: $(VENV)/.installed ## make .venv from the lock files (only when they have changed)

$(VENV)/.locked: $(LOCKS)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	touch $@

# The project itself, whose scripts pyproject.toml names
$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: lock
lock: $(VENV)/.locked ## write the lock files anew; UPGRADE=1 takes the newest versions
	$(COMPILE) --output-file requirements/runtime.txt
	$(COMPILE) --extra dev --constraint requirements/runtime.txt --output-file requirements/dev.txt

.PHONY: clean
clean: ## remove .venv and what the tools remember
	rm -rf $(VENV) build tests/browser/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* *.egg-info

# -- is it good?

.PHONY: lint
lint: venv ## check format, style, types, layers and the chart
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -d $(CHART) ]; then set -x; $(HELM) lint --strict $(CHART) $(CHART_VALUES); fi

.PHONY: fmt
fmt: venv ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: browser
browser: ## have Chromium and axe-core for the browser tests (Debian's package, as root; axe-core from npm)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || [ -n "$${CHROMIUM:-}" ] \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	  || { echo "the browser tests need Chromium: apt-get install chromium, or set CHROMIUM" >&2; exit 1; }
	@[ tests/browser/node_modules/axe-core/axe.min.js -nt tests/browser/package-lock.json ] \
	  || { { command -v npm >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -qq -y --no-install-recommends npm >/dev/null; }; } && cd tests/browser && npm ci --silent --ignore-scripts && touch node_modules/axe-core/axe.min.js; } \
	  || { echo "the browser tests need axe-core: install npm, and run make browser" >&2; exit 1; }

.PHONY: browser-test
browser-test: programs browser ## run the tests of the page in a real browser; screenshots are in build/screenshots
	$(BIN)/pytest -m browser

.PHONY: test
test: programs browser ## run all tests, with branch coverage
	$(BIN)/pytest -m browser
	$(BIN)/pytest -m "not browser" --cov --cov-report=term

.PHONY: unit
unit: venv ## run the tests that need no control plane
	$(BIN)/pytest tests/unit tests/contract

.PHONY: cluster-test
cluster-test: programs ## run the tests against a real kube-apiserver
	$(BIN)/pytest -m cluster

# -- a control plane of our own

.PHONY: programs
programs: venv ## have kube-apiserver, etcd, kubectl and the rest (15 minutes the first time, if they must be built)
	@$(BIN)/python -m tests.controlplane programs

.PHONY: cluster
cluster: venv ## start a control plane and leave it running: eval "$(make -s cluster)"
	@$(BIN)/python -m tests.controlplane up

.PHONY: cluster-down
cluster-down: venv ## stop it
	@$(BIN)/python -m tests.controlplane down

.PHONY: demo
demo: venv ## see it work, from refusal to step-up; KEEP=1 leaves it running
	$(BIN)/python -m tests.demo

# -- what is rendered

.PHONY: manifests
manifests: venv ## render the chart into manifests/kube-stepup.yaml, for CLUSTER_NAME=…
	mkdir -p manifests
	$(HELM) template kube-stepup $(CHART) --namespace kube-stepup $(CHART_VALUES) > manifests/kube-stepup.yaml
