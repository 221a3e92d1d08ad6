# Everything over plain pip: the targets need Python 3.11+ (PYTHON=python3.12 picks another) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Installed without compiling, what is imported compiles itself once: where nothing may be kept, every process would do it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help reproduce test test-slow lint types security docs check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d, but kagscope needs 3.11 or newer; call make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

reproduce: $(VENV)/installed  ## train on the embedded mnist10k, measure, test the paper's claims, write out/mnist10k/report.html
	$(BIN)/kagscope reproduce --out out/mnist10k

test: $(VENV)/installed  ## the tests (without the slow ones)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/installed  ## the tests that take minutes, and properties at twelve times the examples
	$(BIN)/python -m pytest -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --hypothesis-profile=thorough $$(grep -l hypothesis tests/test_*.py)

lint: $(VENV)/installed  ## style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/installed  ## strict type check
	$(BIN)/mypy

security: $(VENV)/installed  ## what is dangerous in the code; exceptions, with reasons, in pyproject.toml
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

docs: $(VENV)/installed  ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types security docs test  ## all of the above

clean:  ## remove the environment and caches, compiled kernels too; outputs under out/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src -name '*.nbi' -delete -o -name '*.nbc' -delete
