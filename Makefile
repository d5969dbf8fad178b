PYTHON = .venv/bin/python

.PHONY: help setup demo test unit lab lint bench replay clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the other targets need (Debian packages, .venv)
	@tests/bootstrap

demo: setup ## three hosts, three VMs, Elastic IPs, a live migration: the main job
	@$(PYTHON) -m tests.lab.demo

test: lint unit lab ## all tests

unit: setup ## tests that need neither root nor Open vSwitch
	@$(PYTHON) -m pytest -q tests/unit

lab: setup ## tests with real packets on the lab's hosts
	@$(PYTHON) -m pytest -q tests/lab

lint: setup ## ruff, mypy --strict, shell syntax
	@$(PYTHON) -m ruff check vnm_aws tests bench setup.py
	@$(PYTHON) -m mypy
	@for script in install.sh tests/bootstrap .ci/run; do bash -n $$script; done
	@for script in remotes/vnm/aws_ovs/*; do sh -n $$script; done

bench: setup ## wall time of the driver's actions beside their floor; writes bench/results.json
	@$(PYTHON) -m bench

replay: setup ## run a recording and check the VM: make replay RECORDING=DIR
	@$(PYTHON) -m tests.lab.replay "$(RECORDING)"

clean: ## remove what the targets made here
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache bench/results.json demo-topology.svg
