# Two commands: `make book` builds the site, `make test` checks everything. `make help` lists the rest.
# Both set up what they need in .venv the first time. Every step is a plain command, also in README.md.

SHELL := bash
.SHELLFLAGS := -eo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

# Tests and notebooks meet the installed package, as a reader does, and nothing asks for a screen.
unexport PYTHONPATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := agg
export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pyright's own program is fetched once, into .venv, and then never asked about newer versions.
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/$(VENV)/pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# The first Python that runs (a name on the PATH may be an empty shim), is of a version that the
# pinned packages support, and can make a virtual environment.
SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$python && break; done)
NO_PYTHON = attnbook needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found; name one with PYTHON=/path/to/python

# The package is installed again only when one of its files has changed.
SOURCES := pyproject.toml LICENSE README.md \
	$(shell find attnbook -name __pycache__ -prune -o -name '.*' -prune -o -print)

.PHONY: help book site test test-all lint types unit shapes notebooks-check browser slow device \
	mutants notebooks repository requirements clean

help:
	@echo 'make book         build the site into _build/html'
	@echo 'make test         check style, types, site, package, notebooks and pages'
	@echo 'make test-all     the same, the slow tests, and tests and chapters on a simulated GPU'
	@echo 'make device       the last of these alone'
	@echo 'make mutants      change the mechanisms in some 2000 small ways, and say which changes no test notices'
	@echo 'make notebooks    run every chapter and store its outputs, and gather their verdicts; CHAPTERS="attention eca" runs some'
	@echo 'make repository   say where the book lives: where git has it from, or URL=https://github.com/someone/attnbook'
	@echo 'make requirements pin the newest packages that the chosen ones in requirements.txt allow'
	@echo 'make clean        remove .venv, _build and caches'
	@echo 'Each first sets up .venv, which takes some minutes once. PYTHON=/path/to/python chooses a Python.'

book: site
	@echo 'The site is in _build/html. To read it: python3 -m http.server -d _build/html'
	@echo 'then open http://localhost:8000 (opened as files, its search cannot show what it finds).'

test: lint types site unit shapes notebooks-check browser
	@echo 'make test: all checks passed.'

test-all: test slow device
	@echo 'make test-all: all checks passed.'

# --- Setting up -------------------------------------------------------------------------------

# pip says much; what it says goes to pip.log, and here a count and the large downloads are shown.
define PROGRESS
n=0; while read -r word name rest; do case $$word in \
	Collecting | Processing) n=$$((n + 1)); ((n % 20)) || echo "  $$n packages found" ;; \
	Downloading) [[ $$rest =~ [0-9]{3}\.[0-9]\ MB|GB ]] && echo "  downloading $$name $$rest" ;; \
	Installing) echo "  $$n packages found; unpacking them" ;; esac; done || true
endef
NO_NETWORK = the first run needs a network connection, and pip could not reach its package index (its own words: $(VENV)/pip.log)
UNREACHED = from versions: none|NewConnectionError|Max retries|Connection.*refused|Read timed out|Name or service

$(VENV)/packages.done: requirements.txt
	$(if $(PYTHON),,$(error $(NO_PYTHON)))
	@rm -f $(VENV)/why
	@test -x $(BIN)/python || { echo 'Making .venv with $(PYTHON)'; $(PYTHON) -m venv $(VENV); }
	@echo 'Installing the pinned packages into .venv: some minutes, once'
	@if $(BIN)/pip install -r requirements.txt 2>&1 | tee $(VENV)/pip.log | { $(PROGRESS); }; then \
		if $(BIN)/pyright --version >$(VENV)/pyright.log 2>&1; then touch $@; \
		else echo 'pyright could not fetch its program from the npm registry (its own words: $(VENV)/pyright.log)' >$(VENV)/why; fi; \
	elif grep -qE '$(UNREACHED)' $(VENV)/pip.log; then echo '$(NO_NETWORK)' >$(VENV)/why; \
	else echo "pip could not install requirements.txt: $$(grep -m1 ^ERROR $(VENV)/pip.log) (all of it: $(VENV)/pip.log)" >$(VENV)/why; fi

# What went wrong above is said here, as make's own message and so in one line.
$(VENV)/attnbook.done: $(VENV)/packages.done $(SOURCES)
	$(if $(shell cat $(VENV)/why 2>/dev/null),$(error $(shell cat $(VENV)/why)))
	@echo 'Installing attnbook into .venv'
	@$(BIN)/pip install -q --no-deps --no-build-isolation .
	@touch $@

# --- Checking ---------------------------------------------------------------------------------

lint: $(VENV)/attnbook.done
	@echo '== style'
	@ruff check --quiet .
	@ruff format --quiet --check . || { echo 'ruff format . would change these files:'; ruff format --check . ; }

types: $(VENV)/attnbook.done
	@echo '== types'
	@pyright --pythonpath $(BIN)/python

# Sphinx looks at the pages alone: a change of the look, or of what all pages share, builds them all.
SHARED = $(shell find book/_static _config.yml _toc.yml $(VENV)/packages.done -newer _build/html/book/index.html 2>/dev/null | head -1)

# Its limit is in seconds of a processor, so that a busy machine does not count.
site: $(VENV)/attnbook.done
	@echo '== site'
	@TIMEFORMAT='%U %S %R'; \
	spent=$$({ time jupyter-book build . $(if $(SHARED),--all) -q -W -n --keep-going >$(VENV)/site.log 2>&1; } 2>&1) \
		|| { cat $(VENV)/site.log; exit 1; }; \
	echo "$$spent" | awk '{print "built in " $$3 " s"} \
		$$1 + $$2 > 60 {print "The site took more than 60 s of one processor."; exit 1}'

# Tests and doctests; every statement and branch of the package but 2 % is run.
unit: $(VENV)/attnbook.done
	@echo '== package and notebooks, by tests'
	@OMP_NUM_THREADS=1 ATTNBOOK_INSTALLED=1 pytest -q --show-capture=stdout -n $(JOBS) -m 'not slow' --ignore=tests/browser \
		--doctest-modules --cov --cov-report=term:skip-covered tests --pyargs attnbook

# In a process of its own: the import hook raises its own errors, and does not compile.
shapes: $(VENV)/attnbook.done
	@echo '== shapes'
	@OMP_NUM_THREADS=1 pytest -q -m shapes --jaxtyping-packages=attnbook,beartype.beartype tests/test_shapes.py

notebooks-check: $(VENV)/attnbook.done
	@echo '== notebooks, run again and compared with their stored outputs'
	@python tools/notebooks.py check --jobs $(JOBS)

browser: $(VENV)/attnbook.done
	@echo '== pages, in a browser'
	@pytest -q -m 'not slow' -n $(JOBS) --dist loadgroup tests/browser

slow: $(VENV)/attnbook.done
	@echo '== slow tests'
	@OMP_NUM_THREADS=1 ATTNBOOK_INSTALLED=1 pytest -q -n $(JOBS) -m slow tests
	@echo '== notebooks, with two threads: what they print must not depend on that'
	@python tools/notebooks.py check --jobs 1 --threads 2

# Where there is no compiler it says so, and nothing has failed. tests/device/README.md says the rest.
device: $(VENV)/attnbook.done
	@echo '== tests and notebooks on a simulated GPU'
	@python tests/device --jobs $(JOBS)

# Not a check: its answer is a number and a list to be read. tests/MUTANTS.md has the last ones. What
# was tried before and has not changed since is not tried again; to start over, remove mutants/.
MUTMUT := mutmut==3.8.1

$(VENV)/mutmut.done: $(VENV)/packages.done
	@$(BIN)/pip install -q $(MUTMUT)
	@touch $@

mutants: $(VENV)/attnbook.done $(VENV)/mutmut.done
	@echo '== mutants: some 20 minutes of one processor; mutmut show NAME prints one'
	@OMP_NUM_THREADS=1 nice mutmut run --max-children $(JOBS) >$(VENV)/mutants.log 2>&1 || { tail -n 30 $(VENV)/mutants.log; exit 1; }
	@mutmut results

# --- Writing ----------------------------------------------------------------------------------

notebooks: $(VENV)/attnbook.done
	@python tools/notebooks.py run $(CHAPTERS)
	@python tools/article_checked.py

# Any Python 3 will do, and nothing needs to be installed.
repository:
	@$(or $(PYTHON),python3) tools/address.py $(if $(URL),'$(URL)') $(if $(BRANCH),--branch '$(BRANCH)')

requirements:
	$(if $(PYTHON),,$(error $(NO_PYTHON)))
	@rm -rf $(VENV)-new && $(PYTHON) -m venv $(VENV)-new
	@sed '/^# All that these need/q' requirements.txt >$(VENV)-new/requirements.txt
	@$(VENV)-new/bin/pip install -r $(VENV)-new/requirements.txt
	@$(VENV)-new/bin/pip freeze --all --exclude pip | sed 's/+[a-z0-9.]*$$//' | grep -viFf <(sed -n 's/\(\[.*\]\)*==.*/==/p' $(VENV)-new/requirements.txt) \
		>>$(VENV)-new/requirements.txt
	@mv $(VENV)-new/requirements.txt requirements.txt && rm -rf $(VENV)-new

clean:
	rm -rf $(VENV) $(VENV)-new _build dist mutants .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +
