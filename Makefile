# The two commands of the README are `make demo` and `make test`; both set up what is missing first.
.DEFAULT_GOAL := help
.PHONY: help setup machines demo quick test test-all test-kernel test-oned unit frontend lab smoke lint bench replay verdicts clean

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
# So many labs at the same time, of 500 MB each: tests wait most of their time, but not those on emulated machines. With more
# labs they would have to wait for a processor, and those that measure times would fail.
LABS = $(shell labs=$$(($(if $(filter kernel,$(DATAPATH)),($$(nproc) * 3 + 3) / 4,$$(nproc) * 2))); \
	echo $$((labs > 12 ? 12 : labs)))
# Each test goes to the worker that is free next; those of one group stay together.
IN_LABS = $(PYTHON) -m pytest -n $(LABS) --dist loadgroup
# A fault or a kill at each effect takes long: `test` does it at a sample of them, `test-all` at all.
EFFECTS :=

demo: $(HOSTS) ## run the main job in the lab and draw what was measured
	$(PYTHON) -m tests.demo

quick: lint unit ## lint, unit tests, and the main job in the lab: for each change
	$(PYTHON) -m pytest -q tests/lab/test_smoke.py

test: lint unit frontend lab smoke ## all tests, on hosts that are namespaces; few on hosts with a kernel of their own

test-all: ## the same, with a fault and a kill at every effect instead of a sample (takes long)
	$(MAKE) test EFFECTS=--every-effect

test-kernel: export DATAPATH := kernel
test-kernel: machines ## all tests of the lab on hosts with a kernel of their own (takes long)
	$(IN_LABS) -v --instafail --durations=20 --every-effect tests/lab

unit: setup ## tests that need neither root nor Open vSwitch
	$(PYTHON) -m pytest -q tests/unit

frontend: setup ## tests of the front-end half, with an EC2 and an oned over HTTP
	$(PYTHON) -m pytest -q -n auto --dist loadgroup tests/frontend $(EFFECTS)

test-oned: setup ## tests of the front-end, and the life of a VM in the lab, with the real oned that is installed here
	@ONED=real $(PYTHON) -m pytest -q -rs -n auto --dist loadgroup tests/frontend tests/lab/test_real_oned.py

lab: machines ## tests with real packets on the lab's hosts
	$(IN_LABS) -q tests/lab $(EFFECTS)

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

verdicts: ## try cases of security groups in the lab: make verdicts CASES=tests/verdicts/sample.json
	@tests/bootstrap $(filter machines,$(HOSTS))
	@$(PYTHON) -m tests.verdicts $(if $(CASES),"$(CASES)")

clean: ## remove .venv and what the tools left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info bench/results.json demo-topology.svg
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
