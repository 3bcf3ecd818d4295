# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PY ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.ready ## .venv with everything, pinned by version and hash; instant when nothing changed

.venv/.ready: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PY) -m venv .venv
	awk '/^uv==/{p=1} p{print; if ($$0 !~ /\\$$/) exit}' constraints.txt > .venv/uv.txt
	$(BIN)/pip install --quiet --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --require-hashes --no-deps -r constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	touch $@

constraints: ## resolve constraints.txt anew (versions and hashes, no addresses)
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o constraints.txt

lint: setup ## ruff, mypy strict, import rules
	ruff check .
	ruff format --check .
	mypy
	lint-imports

demo: setup ## a whole search on this machine; MODEL_URL=... MODEL=... asks a real endpoint instead of the replay
ifdef MODEL_URL
	kernelsearch run -f examples/quickstart.yaml --fresh --out runs/demo --model-url $(MODEL_URL) $(if $(MODEL),--model $(MODEL))
else
	kernelsearch run -f examples/quickstart.yaml --fresh --out runs/demo --replay examples/replay/quickstart.yaml --replay-speed 20
endif

test: setup ## every tier that this machine can run
	tests/all

test-unit: setup ## no torch, no network but loopback, seconds
	pytest tests/unit

test-verifier: setup ## the judge on the CPU: sandbox, corpus of kernels, service (minutes)
	tests/judge

test-apiserver: setup ## our definitions and the operator against a real API server (root, Go; a quarter of an hour the first time)
	pytest tests/apiserver

test-e2e: setup ## the whole system in pods of a real Kubernetes (root, Go)
	pytest tests/e2e

chaos: setup ## fifty kills in one search, on a node of its own
	KERNELSEARCH_KILLS=50 pytest tests/e2e/test_endurance.py -k kills -s

cluster-build: setup ## build the test cluster's programs into ~/.cache/kernelsearch
	cd tests && python -m cluster build

cluster-up: setup ## a real single-node Kubernetes with this checkout's operator on it, for you to try things on (root, Go)
	cd tests && python -m cluster up --system --gpus 8 --state ../.cluster

cluster-down: setup ## end it; nothing is left
	cd tests && python -m cluster down --state ../.cluster

bench: setup ## every benchmark at full length; each prints one last line of JSON
	for b in benchmarks/[a-z]*.py; do echo "== $$b"; python $$b --json || exit 1; done

clean: ## forget the virtual environment and the tools' caches; results under runs/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help setup constraints lint demo test test-unit test-verifier test-apiserver test-e2e chaos cluster-build cluster-up cluster-down bench clean
