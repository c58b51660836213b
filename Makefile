# Two commands do everything: `make lab` to learn, `make test` to check. See README.md.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8888
LAB_ARGS ?=
BENCH_ARGS ?=
# Jupyter refuses to run as root unless told so; in a container there often is nobody else.
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
JOBS   ?= 2
# Several processes share the cores here; threads of their own would only wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1

SUBMISSIONS ?=
OUT    ?= grades
GRADE_ARGS ?=

.PHONY: help lab test lint unit nbval notebooks stability bench grade data clean

help:            ## what can be made
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## ?/\t/' | expand -t 14

lab: $(VENV)/.lab              ## open the course in JupyterLab (LAB_ARGS="--no-browser" for a server)
	$(BIN)/jupyter lab $(ROOT_FLAG) --port=$(PORT) --ServerApp.root_dir="$(CURDIR)" \
	  --LabApp.default_url=/lab/tree/notebooks $(LAB_ARGS)

test: lint unit nbval          ## everything that CI runs

lint: $(VENV)/.test            ## style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(VENV)/.test data       ## tests of references, exercises, release and notebooks
	$(ONE_THREAD) $(BIN)/python -m pytest -p no:nbval -n $(JOBS) tests

nbval: $(VENV)/.test data      ## re-execute every notebook and compare every output
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --nbval --nbval-current-env notebooks solutions

notebooks: $(VENV)/.test data  ## release: solutions/ -> notebooks/, executed
	$(ONE_THREAD) $(BIN)/python -m utils.release

stability: $(VENV)/.test data  ## nbval under other instruction sets and thread counts
	@for capability in default avx2 ""; do for threads in 1 2; do \
	  echo "== ATEN_CPU_CAPABILITY='$$capability' OMP_NUM_THREADS=$$threads"; \
	  env $${capability:+ATEN_CPU_CAPABILITY=$$capability} OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -q --nbval --nbval-current-env notebooks solutions || exit 1; \
	done; done

bench: $(VENV)/.test data      ## measure speed and quality again (about half an hour; BENCH_ARGS="--only speed")
	$(BIN)/python -m utils.bench $(BENCH_ARGS)

grade: $(VENV)/.lab            ## mark a class: make grade SUBMISSIONS=downloads OUT=grades
	@[ -n "$(SUBMISSIONS)" ] || { \
	  echo "Say where the notebooks are: make grade SUBMISSIONS=downloads OUT=grades"; exit 1; }
	$(BIN)/python -m utils.grading "$(SUBMISSIONS)" --out "$(OUT)" $(GRADE_ARGS)

data: $(VENV)/.lab             ## fetch the corpus and the GPT-2 vocabulary into data/
	$(BIN)/python -m utils.data

clean:           ## remove the environment and what was fetched
	rm -rf $(VENV) data/tinyshakespeare.txt data/gpt2

$(VENV)/.lab: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "This course needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.lab tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
