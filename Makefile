# Every target makes the control machine ready first; with nothing to do that costs 0.1 s.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
HOSTS ?= 1
LAB ?= lab
IMAGE ?= bookworm
PYTEST_ARGS ?=
SBOM_ARGS ?=
WORKERS ?= 3

# Tests of the app mostly wait, and have servers of their own: they run side by side, a file to a
# worker. Engines and labs fill the machine.
quick := not long and not bench
side_by_side := tests/unit tests/agent_app tests/faults
one_at_a_time := tests/contract tests/lab

bin := .venv/bin
ansible_paths := playbooks roles collections molecule inventories/example inventories/fleet

.PHONY: help environment test-environment demo test test-long test-gpu lint bench lock audit sbom lab-up lab-down

help: ## List the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

environment: ## Install missing system packages and .venv from the lock
	@$(PYTHON) scripts/bootstrap.py

test-environment:
	@$(PYTHON) scripts/bootstrap.py tests

demo: environment ## From nothing to a streamed reply on a lab host
	@$(bin)/ops demo

test: test-environment ## Every test but the long ones: unit, app, faults, contract, lab
	@status=0; \
	$(bin)/pytest -m "$(quick)" -n $(WORKERS) --dist loadfile $(side_by_side) || status=$$?; \
	$(bin)/pytest -m "$(quick)" --durations 25 $(one_at_a_time) || status=$$?; \
	exit $$status

test-long: test-environment ## The long matrices; writes docs/results/
	@$(bin)/pytest -m long $(PYTEST_ARGS)

lint: test-environment ## ruff, mypy, yamllint, ansible-lint, shellcheck, licences, advisories
	@$(bin)/ruff check
	@$(bin)/ruff format --check
	@$(bin)/mypy
	@$(bin)/yamllint --strict .
	@ANSIBLE_INVENTORY=inventories/example PATH="$(CURDIR)/$(bin):$$PATH" ansible-lint --offline --strict $(wildcard $(ansible_paths))
	@git grep -lE '^#!.*\b(ba)?sh\b' | grep -v '\.j2$$' | xargs --no-run-if-empty shellcheck -S warning
	@$(bin)/python scripts/licences.py check
	@$(bin)/python scripts/audit.py

audit: test-environment ## Hold all locks against the recorded advisories, without network
	@$(bin)/python scripts/audit.py

sbom: test-environment ## Bills of materials (CycloneDX) into build/sbom/ (SBOM_ARGS="--bundle DIR")
	@$(bin)/python scripts/sbom.py $(SBOM_ARGS)

bench: test-environment ## Benchmarks as ratios; writes docs/results/
	@$(bin)/pytest -m bench tests/bench $(PYTEST_ARGS)

test-gpu: test-environment ## What only a host with a GPU (and PyTorch) shows; writes docs/results/
	@$(bin)/pytest -m gpu tests/gpu $(PYTEST_ARGS)

lock: test-environment ## Write the lock files anew after a change of pyproject.toml
	@$(PYTHON) scripts/lock.py

lab-up: environment ## Boot lab hosts (HOSTS=1 IMAGE=bookworm LAB=lab)
	@$(bin)/ops lab up --name $(LAB) --hosts $(HOSTS) --image $(IMAGE)

lab-down: environment ## End the lab and leave nothing of it (LAB=lab)
	@$(bin)/ops lab down --name $(LAB)
