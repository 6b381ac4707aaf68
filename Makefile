# Everything a developer runs. Needs python3 (3.11 or newer), make and a package index; `uv` is used when it is on the PATH.
#
#   make test PYTHON=/path/to/python3.13     another Python, in its own .venv-3.13
#   make test ARGS="-k replay"               more options for pytest (also: fast, crash) or for the benchmark (bench)
#   make crash REPORT=docs/reliability.md    put the figures of a long run into the page, and as JSON beside it

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

ARGS ?=
KILLS ?= 200
STRESS ?= 180
CUTS ?= 20000
LOCKED ?= 31
FAULTS ?= 100
SIM ?= 5000
PROGRAMS ?= 2000
FUZZ ?= 2000
REPORT ?=
PEERS ?= dbos huey
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

ifneq ($(filter command environment,$(origin PYTHON)),)
VENV := .venv-$(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
else
VENV := .venv
endif

UV := $(shell command -v uv 2>/dev/null)
ifneq ($(UV),)
make_venv = rm -rf $(1) && "$(UV)" venv --quiet --python "$(PYTHON)" $(1)
install = "$(UV)" pip install --quiet --python $(1)/bin/python
else
make_venv = "$(PYTHON)" .ci/make_venv.py $(1)
install = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
endif

BIN := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.package ## install Holdfast and run an order book through a worker that is killed on the way
	@$(BIN)/holdfast demo $(ARGS)

.PHONY: test
test: $(VENV)/.test ## run every test, with the branch coverage of the engine
	@$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

.PHONY: fast
fast: $(VENV)/.test ## run the tests that neither take seconds nor kill processes
	@$(BIN)/python -m pytest -m "not slow and not crash" $(ARGS)

.PHONY: test-all
test-all: ## run the fast tests on each of Python 3.11, 3.12 and 3.13 found here
	@tested=0; for version in 3.11 3.12 3.13; do \
		for python in "python$$version" $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
			"$$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null || continue; \
			echo "--- Python $$version: $$python"; \
			$(MAKE) --no-print-directory fast PYTHON="$$python" || exit 1; \
			tested=$$((tested + 1)); break; \
		done; \
	done; test "$$tested" -gt 0 || { echo "error: no Python 3.11, 3.12 or 3.13 found" >&2; exit 1; }

.PHONY: crash
crash: $(VENV)/.test ## look for losses (KILLS STRESS CUTS LOCKED FAULTS SIM PROGRAMS FUZZ)
	@HOLDFAST_KILLS=$(KILLS) HOLDFAST_STRESS_SECONDS=$(STRESS) HOLDFAST_CUTS=$(CUTS) HOLDFAST_LOCKED_SECONDS=$(LOCKED) \
		HOLDFAST_FAULTS=$(FAULTS) HOLDFAST_SIM=$(SIM) HOLDFAST_PROGRAMS=$(PROGRAMS) HOLDFAST_FUZZ=$(FUZZ) \
		HOLDFAST_REPORT=$(REPORT) \
		$(BIN)/python -m pytest -m "crash or generated" $(ARGS)

.PHONY: check
check: $(VENV)/.dev ## ruff, mypy --strict, pyright and the floors of the layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.package $(PEERS:%=bench/.venvs/%/.installed) ## measure, beside the disk's own floor and other engines (PEERS="dbos huey")
	@$(BIN)/python -m bench --peers "$(PEERS)" $(ARGS)

.PHONY: clean
clean: ## remove environments, caches and measurements
	rm -rf .venv .venv-* bench/.venvs bench/.work dist build .coverage .coverage.* \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments: a stamp file per set of dependencies, renewed when pyproject.toml changes ---

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found (hint: make PYTHON=/path/to/python3.12)" >&2; exit 1; }
	@echo "creating $(VENV) with $(if $(UV),uv,venv and pip)" >&2
	@$(call make_venv,$(VENV))

$(VENV)/.package: pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call install,$(VENV)) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call install,$(VENV)) --editable '.[test]'
	@touch $@ $(VENV)/.package

$(VENV)/.dev: pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call install,$(VENV)) --editable '.[test,dev]'
	@touch $@ $(VENV)/.test $(VENV)/.package

bench/.venvs/%/.installed: bench/peers/%.txt
	@echo "creating bench/.venvs/$*" >&2
	@mkdir -p bench/.venvs
	@$(call make_venv,bench/.venvs/$*)
	@$(call install,bench/.venvs/$*) --requirement $<
	@touch $@
