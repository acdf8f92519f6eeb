# Two commands: `make book` builds the site, `make test` checks everything. `make help` lists the rest.
# Both set up what they need in .venv the first time. Every step is a plain command, also in README.md.

.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

# Tests and notebooks meet the installed package, as a reader does, and nothing asks for a screen or
# for a home folder that can be written to.
unexport PYTHONPATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := agg
export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export IPYTHONDIR := $(CURDIR)/_build/home/ipython
export JUPYTER_RUNTIME_DIR := $(CURDIR)/_build/home/jupyter
export MPLCONFIGDIR := $(CURDIR)/_build/home/matplotlib
# pyright's own program is fetched once, into .venv, and then never asked about newer versions.
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/$(VENV)/pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# uv installs where it is on the PATH; UV= has pip do it.
UV := $(shell command -v uv 2>/dev/null)
# The first Python that runs (a name on the PATH may be an empty shim), is of a version that the
# pinned packages support, and can make a virtual environment.
SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$python && break; done)
NO_PYTHON = attnbook needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found; name one with PYTHON=/path/to/python

# The site is built by the full environment if it is there, else by a light one, without torch.
LIGHT := $(VENV)-site
SITE := $(if $(wildcard $(VENV)/attnbook.done),$(VENV),$(LIGHT))
SITE_READY := $(SITE)/$(if $(filter $(VENV),$(SITE)),attnbook,packages).done

# The package is installed again only when one of its files has changed.
SOURCES := pyproject.toml LICENSE README.md \
	$(shell find attnbook -name __pycache__ -prune -o -name '.*' -prune -o -print)

.PHONY: help book test test-all lint types site unit shapes notebooks-check browser slow device same \
	check edit mutants notebooks repository requirements clean

help:
	@echo 'make book         build the site into _build/html'
	@echo 'make test         check style, types, site, package, notebooks and pages'
	@echo 'make edit         CHAPTER=eca: open a chapter in JupyterLab'
	@echo 'make check        CHAPTER=eca: check it against the rules of a chapter, in seconds'
	@echo 'make notebooks    run every chapter and store its outputs, and draw the page of verdicts; CHAPTERS="attention eca" runs some'
	@echo 'make lint         check style and spelling alone'
	@echo 'make test-all     all of make test, the slow tests, and tests and chapters on a simulated GPU'
	@echo 'make device       the last of these alone'
	@echo 'make same         compare the site that is built without torch with the one built with it'
	@echo 'make mutants      change the mechanisms in some 3000 small ways, and say which changes no test notices'
	@echo 'make repository   say where the book lives: where git has it from, or URL=https://github.com/someone/attnbook'
	@echo 'make requirements write uv.lock and the requirements files from what pyproject.toml chooses'
	@echo 'make clean        remove the environments, _build and caches'
	@echo 'make book sets up .venv-site, which takes half a minute once, and all others .venv, which takes some minutes once.'
	@echo 'PYTHON=/path/to/python chooses a Python; UV= has pip install where uv would.'

book: $(SITE_READY)
	@$(SITE)/bin/python tools/build_site.py
	@echo 'The site is in _build/html. To read it: python3 -m http.server -d _build/html'
	@echo 'then open http://localhost:8000 (opened as files, its search cannot show what it finds).'

# The first four take one process each: the site is built beside the others.
test: $(VENV)/attnbook.done
	@$(MAKE) --no-print-directory site & \
		$(MAKE) --no-print-directory lint types shapes; checked=$$?; wait $$! && exit $$checked
	@$(MAKE) --no-print-directory unit notebooks-check browser
	@echo 'make test: all checks passed.'

test-all: test slow device
	@echo 'make test-all: all checks passed.'

# --- Setting up -------------------------------------------------------------------------------

$(VENV)/packages.done: requirements.txt
$(LIGHT)/packages.done: requirements-site.txt
%/packages.done:
	$(if $(PYTHON),,$(error $(NO_PYTHON)))
	@$(PYTHON) tools/environment.py $* $< --uv '$(UV)' $(if $(filter $(VENV),$*),--full)
	@touch $@

$(VENV)/attnbook.done: $(VENV)/packages.done $(SOURCES)
	@echo 'Installing attnbook into $(VENV)'
	@$(if $(UV),'$(UV)' pip install -q --python $(BIN)/python --reinstall-package attnbook,$(BIN)/python -m pip install -q) \
		--no-deps --no-build-isolation .
	@touch $@

# --- Checking ---------------------------------------------------------------------------------

lint: $(VENV)/attnbook.done
	@echo '== style'
	@ruff check --quiet .
	@ruff format --quiet --check . || { echo 'ruff format . would change these files:'; ruff format --check . ; }
	@codespell
	@oxlint --format=unix --deny-warnings book

types: $(VENV)/attnbook.done
	@echo '== types'
	@pyright --pythonpath $(BIN)/python

site: $(VENV)/attnbook.done
	@echo '== site'
	@python tools/build_site.py

# Tests and doctests; every statement and branch of the package but 2 % is run.
unit: $(VENV)/attnbook.done
	@echo '== package and notebooks, by tests'
	@OMP_NUM_THREADS=1 ATTNBOOK_INSTALLED=1 pytest -q --show-capture=stdout -n $(JOBS) --dist worksteal -m 'not slow' --ignore=tests/browser \
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
	@OMP_NUM_THREADS=1 ATTNBOOK_INSTALLED=1 pytest -q -n $(JOBS) --dist worksteal -m slow tests
	@echo '== notebooks, with two threads: what they print must not depend on that'
	@python tools/notebooks.py check --jobs 1 --threads 2

# Where there is no compiler it says so, and nothing has failed. tests/device/README.md says the rest.
device: $(VENV)/attnbook.done
	@echo '== tests and notebooks on a simulated GPU'
	@python tests/device --jobs $(JOBS)

# .buildinfo holds a sum over Sphinx's settings, in which an environment leaves its mark.
same: $(VENV)/attnbook.done $(LIGHT)/packages.done
	@echo '== site, built anew with torch and without, and compared'
	@rm -rf _build/html _build/zh _build/light  # what an older build left would be compared, too
	@python tools/build_site.py & \
		$(LIGHT)/bin/python tools/build_site.py --output _build/light; built=$$?; wait $$! && exit $$built
	@diff -rq -x .buildinfo _build/html _build/light/_build/html
	@echo 'make same: every file of both is the same.'

# Not a check: its answer is a number and a list to be read. tests/MUTANTS.md has the last ones. What
# was tried before and has not changed since is not tried again; to start over, remove mutants/.
MUTMUT := mutmut==3.8.1

$(VENV)/mutmut.done: $(VENV)/packages.done
	@$(if $(UV),'$(UV)' pip install -q --python $(BIN)/python,$(BIN)/python -m pip install -q) $(MUTMUT)
	@touch $@

mutants: $(VENV)/attnbook.done $(VENV)/mutmut.done
	@echo '== mutants: some 40 minutes of one processor; mutmut show NAME prints one'
	@OMP_NUM_THREADS=1 nice mutmut run --max-children $(JOBS) >$(VENV)/mutants.log 2>&1 || { tail -n 30 $(VENV)/mutants.log; exit 1; }
	@mutmut results

# --- Writing ----------------------------------------------------------------------------------

edit: $(VENV)/attnbook.done
	@python tools/notebooks.py edit $(CHAPTER)

check: $(VENV)/packages.done
	$(if $(CHAPTER),,$(error say which: make check CHAPTER=eca))
	@python tools/notebooks.py rules $(CHAPTER)
	@python tools/ledger.py check $(CHAPTER)
	$(if $(wildcard translations/zh/$(CHAPTER).md),@python tools/translation.py check $(CHAPTER))

notebooks: $(VENV)/attnbook.done
	@python tools/notebooks.py run $(CHAPTERS)
	@python tools/article_checked.py

# Any Python 3 will do, and nothing needs to be installed.
repository:
	@$(or $(PYTHON),python3) tools/address.py $(if $(URL),'$(URL)') $(if $(BRANCH),--branch '$(BRANCH)')

# What a build of torch for CUDA needs, and one for the CPU does not: pip asks the torch that it finds.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton
EXPORT = '$(UV)' export -q --frozen --no-emit-project --no-annotate --no-header

# What is true wherever the book runs, the lock's `environments`, need not be said of every package.
EVERYWHERE = s/ ; python_full_version < '3.14' and (sys_platform == 'darwin' or sys_platform == 'linux' or sys_platform == 'win32')//; s/python_full_version < '3.14' and //
WRITTEN = \# Written by make requirements from pyproject.toml and uv.lock: what
# UPGRADE=--upgrade takes the newest of what is not chosen. The full list goes without hashes: with
# them pip takes torch from nowhere but PyPI, and there, on Linux, it is the one with CUDA.
requirements:
	$(if $(UV),,$(error make requirements needs uv: pip install uv))
	@'$(UV)' lock -q --default-index https://pypi.org/simple $(UPGRADE)
	@{ echo '$(WRITTEN) make test installs.'; $(EXPORT) --all-groups --no-hashes $(addprefix --prune ,$(CUDA)); } \
		| sed "$(EVERYWHERE)" >requirements.txt
	@{ echo '$(WRITTEN) make book installs.'; $(EXPORT) --only-group site; } | sed "$(EVERYWHERE)" >requirements-site.txt

clean:
	rm -rf $(VENV) $(LIGHT) _build dist mutants .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +
