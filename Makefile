# The two commands: `make book` executes, judges and builds; `make test` runs all that CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m companion

SEED    ?= 0
PROFILE ?= quick
DEVICE  ?= auto
CI_SEED := 1

export PYTHONPATH := $(CURDIR)/lib:$(CURDIR)
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup book read test unit chapters chapter status new record benchmark lint clean browser

help: ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## make the virtual environment with the pinned dependencies

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one with: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "error: $(PYTHON) lacks the venv module; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

book: setup ## execute what changed, judge it, build the HTML book (PROFILE= DEVICE= SEED=)
	@$(RUN) book --profile $(PROFILE) --device $(DEVICE) --seed $(SEED)

read: setup ## build the book from the committed reference runs, executing nothing
	@$(RUN) read

chapter: setup ## run one chapter: make chapter C=<slug> [SEED= PROFILE= DEVICE=]
	@test -n "$(C)" || { echo "error: name the chapter: make chapter C=<slug>"; exit 1; }
	@$(RUN) run $(C) --profile $(PROFILE) --device $(DEVICE) --seed $(SEED)

status: setup ## print the scoreboard
	@$(RUN) status

new: setup ## scaffold a chapter of the catalogue: make new C=<slug>
	@test -n "$(C)" || { echo "error: name the paper: make new C=<slug>"; exit 1; }
	@$(RUN) new $(C)

record: setup ## make finished runs the committed record: make record C=<slug>
	@test -n "$(C)" || { echo "error: name the chapter: make record C=<slug>"; exit 1; }
	@$(RUN) record $(C)

lint: setup ## style, types and order of the committed record
	@$(BIN)/ruff check lib tests benchmarks
	@$(BIN)/ruff format --check lib tests benchmarks
	@$(BIN)/mypy
	@$(RUN) check

browser: ## Debian's chromium for the tests of the built book, where it is missing
	@sh tests/book/ensure_chromium.sh

test: setup browser lint ## all that CI runs
	@echo "== chapters at seed $(CI_SEED), compared with the record"
	@$(RUN) run --seed $(CI_SEED)
	@$(RUN) check --seed $(CI_SEED)
	@echo "== committed reference notebooks, re-executed and compared (nbval)"
	@$(BIN)/pytest -n 2 --dist loadscope --nbval-lax --nbval-cell-timeout 600 -q notebooks
	@echo "== the built book in a browser"
	@$(BIN)/pytest -q -m browser tests
	@echo "== unit and workflow tests"
	@$(BIN)/pytest -n 2 -q -m "not browser" tests

unit: setup ## the fast tests only
	@$(BIN)/pytest -n 2 -q -m "not browser and not workflow" tests

benchmark: setup ## timings against the named peers, interleaved, as ratios
	@for file in benchmarks/bench_*.py; do \
	  name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove all that was built; the environment stays
	rm -rf _build .snakemake
