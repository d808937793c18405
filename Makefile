# Tohum's vocabulary of tasks; people and CI use the same. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
# The torch build that fits the machine: e.g. TORCH="torch==2.13.0 --index-url <your mirror>"
TORCH ?= torch==2.13.0
# Installs the hashed lock in seconds where pip takes minutes.
UV ?= uv==0.13.8
NAME ?= embedded
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup repro test torture check fsck doctor format lock plan profile search ui prefect worker flow register report chat try which fastest ablation scaling budget times bench clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: .venv/.ready ## the virtual environment from the lock

.venv/.ready: requirements.lock
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(UV) $(TORCH)
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes -r requirements.lock
	touch $@

repro: setup ## the whole pipeline on params.yaml, then register what passed
	python -m pipeline.orchestration.checkout
	python -m pipeline.config.profiles --check
	python -m pipeline.orchestration.dvc_lock
	dvc repro
	python -m pipeline.cli.register
	python -m pipeline.tracking.sender --drain
	python -m pipeline.cli.times

test: setup ## all tests, a file at a time on each core
	python -m pytest --numprocesses auto --dist loadfile

torture: setup ## every promise under hundreds of random faults: tests/torture; not part of CI
	python -m tests.torture

check: setup ## format, lint, types, import contracts
	ruff format --check .
	ruff check .
	mypy
	lint-imports

format: setup ## formats and mends what can be mended
	ruff format .
	ruff check --fix .

lock: setup ## resolves requirements.lock anew from pyproject.toml
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --no-emit-package torch --quiet -o requirements.lock

plan: setup ## what would run, and why
	@python -m pipeline.orchestration.plan

profile: setup ## applies infra/profiles/$(NAME).yaml to params.yaml
	python -m pipeline.config.profiles $(NAME) $(if $(FORCE),--force)

search: setup ## tries a recipe's settings: make search RECIPE=spam-lora; with APPLY=1 the winner goes into params.yaml
	@python -m pipeline.orchestration.guard pipeline.cli.search $(RECIPE) $(if $(APPLY),--apply)

ui: setup ## MLflow on 127.0.0.1:5000, password in .tohum/secrets/mlflow
	@python -m pipeline.orchestration.servers mlflow

prefect: setup ## Prefect's server on 127.0.0.1:4200, password in .tohum/secrets/prefect
	@python -m pipeline.orchestration.servers prefect

worker: setup ## a worker that runs this checkout's deployment, tohum/local
	@python -m pipeline.orchestration.servers worker

flow: setup ## the same graph as a Prefect flow
	python -m pipeline.orchestration.flow

register: setup ## registers the models whose gate passed
	python -m pipeline.cli.register

report: setup ## renders the page that also shows costs
	python -m stages.report --costs

chat: setup ## talks to a model: make chat MODEL=chat-lora
	@python -m pipeline.cli.chat $(or $(MODEL),chat-lora)

which: setup ## which method? make which DATA=file probes all of them in minutes; without a file, what has run
	@python -m pipeline.cli.which $(DATA)

try: setup ## the whole graph on your own file in minutes: make try DATA=file
	python -m pipeline.cli.try_data $(DATA)

fastest: setup ## threads, precision and compile timed on this machine; with APPLY=1 the best go into params.yaml
	@python -m pipeline.cli.fastest $(if $(APPLY),--apply)

ablation: setup ## every default of pretrain beside its alternatives, five seeds: infra/ablation.yaml
	@python -m pipeline.cli.ablation

scaling: setup ## how the loss falls with size and tokens on your documents: infra/scaling.yaml
	@python -m pipeline.cli.scaling

budget: setup ## what to train: make budget MINUTES=10, or FLOPS=1e15; with APPLY=1 it goes into params.yaml
	@python -m pipeline.cli.budget $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FLOPS),--flops $(FLOPS)) $(if $(APPLY),--apply)

.PHONY: fsck doctor
fsck: setup ## reads every file of DVC and the registry again; with MEND=1 good copies replace damaged ones
	@python -m pipeline.cli.fsck $(if $(MEND),--mend)

doctor: setup ## what a crash left, and whether the environment is whole; with MEND=1 it is cleaned up
	@python -m pipeline.cli.doctor $(if $(MEND),--mend)

times: setup ## where the pipeline's time went
	@python -m pipeline.cli.times --times

bench: setup ## benchmarks, JSON
	@for f in tests/bench/*.py; do python -m tests.bench.$$(basename $$f .py); done

clean: ## removes what the pipeline and the studies made, not DVC's cache
	rm -rf data models reports .tohum
