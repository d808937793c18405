# Tasks of people and CI; `make help` lists them. Verbs for work with the project: `tohum --help`.
SHELL := /bin/bash
PYTHON ?= python3
# The torch build that fits the machine: e.g. TORCH="torch==2.13.0 --index-url <your mirror>"
TORCH ?= torch==2.13.0
# Installs the hashed lock in seconds where pip takes minutes.
UV ?= uv==0.13.8
NAME ?= embedded
INSTALL := .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes -r
RESOLVE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-header --no-annotate --no-emit-package torch --quiet $(if $(UPGRADE),--upgrade)
TOHUM := python -m pipeline.cli
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1
# With it `python -m` does not find the modules of the working folder.
unexport PYTHONSAFEPATH

.PHONY: help setup setup-open setup-stack repro test test-open torture check fsck doctor format lock plan profile search ui prefect worker flow register report chat try which fastest ablation scaling budget times bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo 'verbs: tohum --help; `make VERB` with its options as variables calls it too'

setup: .venv/.ready .venv/bin/tohum ## the virtual environment from requirements.lock: for training and review

.venv/.ready: requirements.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(UV) $(TORCH)
	$(INSTALL) requirements.lock
	touch $@

setup-open: setup .venv/.ready-open ## transformers too, which computes models of every other architecture

setup-stack: setup .venv/.ready-stack ## PostgreSQL's server and client too, for `tohum stack`

.venv/bin/tohum: pipeline/cli/tohum.sh .venv/.ready
	install -m 755 $< $@

.venv/.ready-test: infra/locks/test.lock .venv/.ready
	$(INSTALL) $<
	touch $@

.venv/.ready-open: infra/locks/open.lock .venv/.ready
	$(INSTALL) $<
	touch $@

.venv/.ready-stack: infra/locks/stack.lock .venv/.ready
	$(INSTALL) $<
	touch $@

.venv/.ready-check: infra/locks/check.lock .venv/.ready
	$(INSTALL) $<
	touch $@

repro: setup ## the whole pipeline on params.yaml, then register the models whose gate passed
	@$(TOHUM) prepare
	dvc repro
	@$(TOHUM) register
	@$(TOHUM) deliver
	@$(TOHUM) scores

test: setup .venv/.ready-test ## all tests, a file at a time on each core
	python -m pytest --numprocesses auto --dist loadfile

test-open: setup .venv/.ready-test ## tests with two released models, downloaded once (170 MB): tests/open_models.py
	python -m pytest -m open_models

torture: .venv/.ready-test ## hundreds of random faults against every guarantee: tests/torture; not part of CI
	python -m tests.torture

check: .venv/.ready-check ## format, lint, types, import contracts
	ruff format --check .
	ruff check .
	mypy
	lint-imports

format: .venv/.ready-check ## formats the code and applies automatic fixes
	ruff format .
	ruff check --fix .

lock: setup ## resolves the locks anew from pyproject.toml: requirements.lock, and what tests and checks add to it
	$(RESOLVE) -o requirements.lock
	for extra in open stack test check; do \
	  $(RESOLVE) --extra $$extra -c requirements.lock -o infra/locks/$$extra.lock \
	    $$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/--no-emit-package \1/p' requirements.lock) || exit 1; done

# The verbs of `tohum` with their options as variables, PROJECT=.tohum/try for a try's; `tohum --help` tells more.
plan profile search ui prefect worker flow register report chat which try fastest ablation scaling budget fsck doctor times: setup
	@$(TOHUM)$(if $(PROJECT), --project $(PROJECT)) $@ $(OPTIONS_$@)

OPTIONS_search = $(RECIPE) $(if $(APPLY),--apply)
OPTIONS_chat = $(MODEL)
OPTIONS_which = $(DATA) $(BASE_OF)
quoted = '$(subst ','\'',$(1))'
BASE_OF = $(if $(BASE),--base $(call quoted,$(patsubst ~/%,$(HOME)/%,$(BASE))))
PLACE = $(if $(DATA),$(call quoted,$(patsubst ~/%,$(HOME)/%,$(DATA))))
COLUMNS_OF = $(if $(TEXT),--text $(call quoted,$(TEXT))) $(if $(LABEL),--label $(call quoted,$(LABEL))) \
  $(if $(KIND),--kind $(KIND))
OPTIONS_try = $(PLACE) $(COLUMNS_OF) $(if $(GUESS),--guess) $(if $(WRITE),--write)
OPTIONS_profile = $(NAME) $(if $(PLACE),--data $(PLACE)) $(BASE_OF) $(COLUMNS_OF) $(if $(FORCE),--force)
OPTIONS_fastest = $(if $(APPLY),--apply)
OPTIONS_budget = $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FLOPS),--flops $(FLOPS)) $(if $(APPLY),--apply)
OPTIONS_fsck = $(if $(MEND),--mend)
OPTIONS_doctor = $(if $(MEND),--mend)

bench: .venv/.ready-test ## benchmarks, JSON
	@for f in $$(ls tests/bench/*.py | grep -v /test_); do python -m tests.bench.$$(basename $$f .py); done

clean: ## removes data, models, reports and .tohum, not DVC's cache
	rm -rf data models reports .tohum
