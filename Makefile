# Every target does its own set-up. A fresh Debian 12 with git, make and python3 is enough; see CONTRIBUTING.md.

PYTHON := .venv/bin/python
SIZE ?= small
KEEP ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-check setup-test setup-bench demo bench fidelity check test lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

setup: ## kpbackup in .venv/bin/kpbackup
	@scripts/setup.sh base

setup-demo setup-check setup-test setup-bench:
	@scripts/setup.sh $(@:setup-%=%)

demo: setup-demo ## the whole job on a real MariaDB and a real S3 server (KEEP=1 leaves it running, SIZE=medium takes 1.6 GB)
	@KEEP="$(KEEP)" SIZE="$(SIZE)" $(PYTHON) -m demo $(ARGS)

bench: setup-bench ## speed beside mariadb-dump and mydumper, in one run
	@$(PYTHON) -m bench --write $(ARGS)

fidelity: setup-test ## thousands of tables of MariaDB's own tests through kpbackup and mariadb-dump (an hour or two)
	KPBACKUP_TEST_FIDELITY=whole $(PYTHON) -m pytest tests/fidelity
	@$(PYTHON) -m tests.fidelity.report --keep $(ARGS)

check: setup-check ## lint, types, layers
	$(PYTHON) -m ruff check
	$(PYTHON) -m mypy -p kpbackup
	$(PYTHON) -m mypy tests $(wildcard demo bench)
	.venv/bin/lint-imports --no-logo

test: setup-test ## all tests, on real servers (ARGS="-k wire -x" goes to pytest)
	$(PYTHON) -m pytest $(ARGS)

lock: ## new lock files from pyproject.toml (UPGRADE=1 takes the newest versions); needs uv
	@scripts/lock.sh

clean: ## remove .venv and all caches of this folder
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
