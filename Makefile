# Two commands do everything: `make lab` to learn, `make test` to check. See README.md.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8888
LAB_ARGS ?=
BENCH_ARGS ?=
# Jupyter refuses to run as root unless told so; in a container there often is nobody else.
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
# The address is the last thing in a newcomer's terminal, below no warnings about what the course doesn't use.
QUIET_LAB := --log-level=WARN --LanguageServerManager.autodetect=False --KernelManager.transport_encryption=auto
JOBS   ?= 2
# Several processes share the cores here; threads of their own would only wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1
# The stored outputs come from a CPU, so they are made and compared on one, GPU or not.
ON_CPU := $(ONE_THREAD) CUDA_VISIBLE_DEVICES=

SUBMISSIONS ?=
OUT    ?= grades
GRADE_ARGS ?=

.PHONY: help lab test lint unit nbval notebooks repoint stability bench grade book data clean

help:            ## what can be made
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## ?/\t/' | expand -t 14

lab: $(VENV)/.lab              ## open the course in JupyterLab (LAB_ARGS="--no-browser" for a server)
	@echo "JupyterLab opens in your browser: double-click 01_dot_product_attention.ipynb. Stop it with Ctrl+C here."
	@PYTHONSTARTUP="$(CURDIR)/utils/hints.py" $(BIN)/python -m jupyterlab $(ROOT_FLAG) --port=$(PORT) \
	  --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks \
	  --LabApp.app_settings_dir="$(CURDIR)/utils/jupyterlab" $(QUIET_LAB) $(LAB_ARGS)

test: lint unit nbval          ## everything that CI runs

lint: $(VENV)/.test            ## style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(VENV)/.test data       ## tests of references, exercises, release and notebooks
	$(ONE_THREAD) $(BIN)/python -m pytest -p no:nbval -n $(JOBS) tests

nbval: $(VENV)/.test data      ## re-execute every notebook and compare every output
	$(ON_CPU) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --nbval --nbval-current-env notebooks solutions

notebooks: $(VENV)/.test data  ## release: solutions/ -> notebooks/, executed
	$(ON_CPU) $(BIN)/python -m utils.release

repoint: $(VENV)/.test         ## let setup cells and Colab links lead to a fork: make repoint URL=https://github.com/you/fork
	$(BIN)/python -m utils.release --repository "$(URL)"

stability: $(VENV)/.test data  ## nbval under other instruction sets and thread counts
	@for capability in default avx2 ""; do for threads in 1 2; do \
	  echo "== ATEN_CPU_CAPABILITY='$$capability' OMP_NUM_THREADS=$$threads"; \
	  env CUDA_VISIBLE_DEVICES= $${capability:+ATEN_CPU_CAPABILITY=$$capability} OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -q --nbval --nbval-current-env notebooks solutions || exit 1; \
	done; done

bench: $(VENV)/.test data      ## measure speed and quality again (about half an hour; BENCH_ARGS="--only speed")
	$(BIN)/python -m utils.bench $(BENCH_ARGS)

grade: $(VENV)/.lab            ## mark a class: make grade SUBMISSIONS=downloads OUT=grades
	@[ -n "$(SUBMISSIONS)" ] || { \
	  echo "Say where the notebooks are: make grade SUBMISSIONS=downloads OUT=grades"; exit 1; }
	$(BIN)/python -m utils.grading "$(SUBMISSIONS)" --out "$(OUT)" $(GRADE_ARGS)

book: $(VENV)/.test data       ## the course as a website that works offline, in build/book/html
	$(ONE_THREAD) $(BIN)/python assets/book/build.py

data: $(VENV)/.lab             ## fetch the corpus and the GPT-2 vocabulary into data/
	$(BIN)/python -m utils.data

clean:           ## remove the environment, the book, and what was fetched
	rm -rf $(VENV) build data/tinyshakespeare.txt data/gpt2

# pip shows what it does where somebody watches, and is quiet in a log.
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(shell [ -t 2 ] || echo --quiet)
TELL_WHY = { echo; echo "Installing failed; pip's last lines above say why. Nothing is broken: run make again once it is mended."; \
  echo "  no connection?           The packages come from pypi.org, or from the index that pip is set to."; \
  echo "  no version of torch?     Take another Python, such as: make lab PYTHON=python3.12"; \
  echo "  no space left on device? Make room: 3 GB, or some 8 GB with PyTorch's GPU build for Linux."; exit 1; }

$(VENV)/.lab: requirements.txt
	@$(PYTHON) utils/preflight.py
	@echo "Installing PyTorch, JupyterLab and the rest into $(VENV): some minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt || $(TELL_WHY)
	@touch $@

$(VENV)/.test: $(VENV)/.lab tests/requirements.txt
	@echo "Installing what the tests need into $(VENV)."
	@$(PIP) -r tests/requirements.txt || $(TELL_WHY)
	@touch $@
