# Every target does its own set-up. A fresh Debian 12 with git, make and python3 is enough; see CONTRIBUTING.md.

PYTHON := .venv/bin/python
# a program that is compiled anew at each of its starts is not the one that is installed, and tests start it thousands of times
unexport PYTHONDONTWRITEBYTECODE
SIZE ?= small
KEEP ?=
EXAMPLES ?= 20000
ARGS ?=
OF ?= mariadb
# tests wait for servers most of the time: two cores keep four processes
JOBS ?= 4
SECONDS ?=
ROUNDS ?=
INPUTS ?=
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-check setup-test setup-bench demo bench fidelity soak check docs test test-kills screenshots fuzz fuzz-inputs audit sbom lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

setup: ## kpbackup in .venv/bin/kpbackup
	@scripts/setup.sh base

setup-demo setup-check setup-test setup-audit setup-bench:
	@scripts/setup.sh $(@:setup-%=%)

demo: setup-demo ## the whole job on a real MariaDB and a real S3 server (KEEP=1 leaves it running, SIZE=medium takes 1.6 GB and leaves its figures in docs)
	@KEEP="$(KEEP)" SIZE="$(SIZE)" $(PYTHON) -m demo $(ARGS)

bench: setup-bench ## speed beside mariadb-dump and mydumper, in one run
	@$(PYTHON) -m bench --write $(ARGS)

fidelity: setup-test ## thousands of tables of MariaDB's (OF=mysql: MySQL's) own tests through kpbackup and its dump program (an hour or two)
	KPBACKUP_TEST_FIDELITY=whole $(PYTHON) -m pytest tests/fidelity
	@$(PYTHON) -m tests.fidelity.report --of $(OF) --keep $(ARGS)

check: setup-check docs ## lint, types, layers, insecure habits, links of the documents
	$(PYTHON) -m ruff check
	$(PYTHON) -m mypy -p kpbackup
	$(PYTHON) -m mypy tests $(wildcard demo bench soak)
	.venv/bin/lint-imports --no-logo
	$(PYTHON) -m bandit --quiet --recursive --severity-level medium --configfile pyproject.toml kpbackup

docs: setup-check ## the documents as pages in build/site; a broken link or a page that no menu leads to is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

soak: setup-test ## long runs under random faults (SECONDS=, ROUNDS=, SEED=; ARGS=faults only that part); docs/reliability.md
	@SECONDS="$(SECONDS)" ROUNDS="$(ROUNDS)" SEED="$(SEED)" $(PYTHON) -m soak $(ARGS)

test: setup-test ## all tests, on real servers, JOBS processes side by side (ARGS="-k wire -x" goes to pytest)
	$(PYTHON) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz-inputs: setup-test ## a million changed inputs for each parser of outside bytes (INPUTS=, SEED=); docs/reliability.md
	@INPUTS="$(INPUTS)" SEED="$(SEED)" $(PYTHON) -m tests.fuzzing $(ARGS)

screenshots: setup-test ## renews the pictures of page, terminal and dashboard in docs/images
	@$(PYTHON) scripts/screenshots.py

fuzz: setup-test ## hypothesis on every parser of outside bytes, EXAMPLES=20000 inputs each
	KPBACKUP_FUZZ_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest tests/properties/test_fuzz.py tests/properties/test_corruption.py $(ARGS)

audit: setup-audit ## known vulnerabilities in what is locked (asks the public service)
	$(PYTHON) -m pip_audit --strict --disable-pip --require-hashes --requirement requirements.lock
	$(PYTHON) -m pip_audit --strict --disable-pip --require-hashes --requirement requirements-kubernetes.lock

sbom: setup-audit ## dist/kpbackup.cdx.json: the bill of materials, CycloneDX
	mkdir -p dist
	$(PYTHON) -m cyclonedx_py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-format JSON --output-file dist/kpbackup.cdx.json requirements-kubernetes.lock

test-kills: setup-test ## kills a recovery of all five steps at 50 moments (ten minutes)
	KPBACKUP_TEST_KILLS=50 KPBACKUP_TEST_EVIDENCE=docs/evidence/kills.json $(PYTHON) -m pytest tests/crash/test_kill_five_steps.py -o faulthandler_timeout=1800 $(ARGS)
	@$(PYTHON) -m soak.pages

lock: ## new lock files from pyproject.toml (UPGRADE=1 takes the newest versions); needs uv
	@scripts/lock.sh

clean: ## remove .venv and all caches of this folder
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
