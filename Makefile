# The two commands of the README are `make demo` and `make test`; both set up what is missing first.
.DEFAULT_GOAL := help
.PHONY: help setup machines demo test test-kernel unit frontend lab smoke lint bench replay clean

PYTHON := .venv/bin/python
CODE := $(wildcard vnm_aws tests bench)
SHELL_SCRIPTS := install.sh tests/bootstrap tests/world/hosts/guest_files/usr/lib/lab/init tests/world/hosts/guest_files/usr/lib/lab/network .ci/run share/bash-completion/oneaws \
	$(wildcard remotes/im/*/*/*/*.sh) $(filter-out %/vnet_create %/vnet_delete,$(wildcard remotes/vnm/aws_ovs/*))

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: ## install what demo and test need: Debian packages and .venv
	@tests/bootstrap

machines: ## the same, and what virtual machines need
	@tests/bootstrap machines

# Where the lab's hosts forward packets: `userspace`, or `kernel`, on machines with a kernel of their own.
HOSTS := $(if $(filter kernel,$(DATAPATH)),machines,setup)
# Mostly one host of a lab is busy at a time.
LABS := $(shell echo $$((($$(nproc) * 3 + 3) / 4)))

demo: $(HOSTS) ## run the main job in the lab and draw what was measured
	$(PYTHON) -m tests.demo

test: lint unit frontend lab smoke ## all tests, on hosts that are namespaces; few on hosts with a kernel of their own

test-kernel: machines ## all tests of the lab on hosts with a kernel of their own (takes long)
	DATAPATH=kernel $(PYTHON) -m pytest -v --instafail --durations=20 -n $(LABS) --dist worksteal tests/lab

unit: setup ## tests that need neither root nor Open vSwitch
	$(PYTHON) -m pytest -q tests/unit

frontend: setup ## tests of the front-end half, with an EC2 and an oned over HTTP
	$(PYTHON) -m pytest -q -n auto --dist loadfile tests/frontend

lab: machines ## tests with real packets on the lab's hosts
	$(PYTHON) -m pytest -q tests/lab

smoke: machines ## the main job on hosts with a kernel of their own
	DATAPATH=kernel $(PYTHON) -m pytest -q tests/lab/test_smoke.py

lint: setup ## ruff, mypy --strict and shellcheck
	.venv/bin/ruff check $(CODE) setup.py
	.venv/bin/ruff format --check $(CODE) setup.py
	$(PYTHON) -m mypy $(CODE)
	.venv/bin/shellcheck $(SHELL_SCRIPTS)

bench: machines ## measure, print, and write bench/results.json
	$(PYTHON) -m bench

replay: ## play a recording in the lab and check it: make replay RECORDING=DIR
	@[ -n "$(RECORDING)" ] || { echo "replay: name a directory with a recording: make replay RECORDING=tests/recordings/deploy" >&2; exit 2; }
	@[ -f "$(RECORDING)/sequence.json" ] || { echo "replay: $(RECORDING) has no sequence.json; name a directory in the format of tests/recordings/deploy" >&2; exit 2; }
	@tests/bootstrap $(filter machines,$(HOSTS))
	$(PYTHON) -m tests.lab.support.replay "$(RECORDING)"

clean: ## remove .venv and what the tools left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info bench/results.json demo-topology.svg
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
