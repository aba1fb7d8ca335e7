# Every target is one line that calls the command line or a tool; `make help` lists them.
# Variables: SUITE, NAME and TRIALS of a search, SOURCE (archive or folder of UTKFace),
# WEIGHTS (a weight file), SEEDS, DATASET.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal
SUITE ?= quick
SEEDS ?= 0
TRIALS ?= 30
PORT ?= 5000
DATASET_OPTION = $(if $(DATASET),--dataset $(DATASET),)

.DEFAULT_GOAL := help
.PHONY: help setup demo data weights benchmark leaderboard results report subsets ui test test-all check format explore tune tune-all coverage speed cluster-test

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

# pip install -e needs no second look unless what it installs from has changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c "import torch, torchvision; torchvision.ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)"
	@touch $@

setup: $(VENV)/.installed ## Make .venv and install everything; quick when nothing changed

demo: setup ## Train, rank and report small networks on synthetic faces; no download
	$(BIN)/facebench run --suite demo --dataset drawn --offline
	$(BIN)/facebench leaderboard --suite demo --dataset drawn
	$(BIN)/facebench report --suite demo --dataset drawn
	@echo "Next:"
	@echo "  $(BIN)/facebench compare demo --dataset drawn  # which differences are significant"
	@echo "  make ui  # the runs in MLflow"
	@echo "  $(BIN)/facebench leaderboard --suite study  # the study's rows, its numbers beside yours"
	@echo "  make benchmark SOURCE=UTKFace.tar.gz  # the quick suite on real faces (README)"

data: setup ## Prepare and audit a data set: make data SOURCE=UTKFace.tar.gz
	$(BIN)/facebench data prepare $(or $(SOURCE),data/UTKFace.tar.gz)
	$(BIN)/facebench data audit $(DATASET_OPTION)

explore: setup ## The composition of the data: one page and its figures
	$(BIN)/facebench data explore $(DATASET_OPTION)

weights: setup ## Add a weight file: make weights WEIGHTS=FILE
	$(if $(WEIGHTS),$(BIN)/facebench weights add $(WEIGHTS),$(BIN)/facebench weights list)

benchmark: setup ## Prepare SOURCE, add WEIGHTS, run SUITE, rank it
	$(if $(WEIGHTS),$(BIN)/facebench weights add $(WEIGHTS))
	$(if $(SOURCE),$(BIN)/facebench data prepare $(SOURCE))
	$(BIN)/facebench run --suite $(SUITE) --seeds $(SEEDS) $(DATASET_OPTION)
	$(BIN)/facebench leaderboard --suite $(SUITE) $(DATASET_OPTION)

tune: setup ## Search for the best recipe: make tune NAME=EXPERIMENT TRIALS=30
	$(BIN)/facebench tune $(NAME) --trials $(TRIALS) $(DATASET_OPTION)

tune-all: setup ## Search for every experiment of SUITE, TRIALS each
	$(BIN)/facebench tune --suite $(SUITE) --trials $(TRIALS) $(DATASET_OPTION)

leaderboard: setup ## Print and write the leaderboard of SUITE, regressions beside it
	$(BIN)/facebench leaderboard --suite $(SUITE) $(DATASET_OPTION) --fit-references

RESULTS := results
FROM := --runs-dir $(RESULTS) --data-dir $(RESULTS)/data
results: setup ## Compute the published numbers again from the predictions in docs/results
	mkdir -p $(RESULTS)/data
	$(BIN)/python docs/measurements/pack_results.py --unpack $(RESULTS) docs/results/*.tar.xz
	$(BIN)/facebench verify $(FROM)
	$(BIN)/facebench leak --suite headline --dataset utkface-100 $(FROM)
	$(BIN)/facebench leak --suite leak --dataset utkface-100-4000 $(FROM)
	$(BIN)/facebench subsets --suite subsets_vgg16_imagenet --dataset utkface-100 $(FROM)
	$(BIN)/facebench leaderboard --dataset utkface-100 --from-predictions $(FROM)
	$(BIN)/facebench leaderboard --suite study --dataset utkface-100 --from-predictions $(FROM)

report: setup ## Write one HTML page that answers the questions; SUITE=study for a suite
	$(BIN)/facebench report $(if $(filter-out file default,$(origin SUITE)),--suite $(SUITE)) $(DATASET_OPTION)

subsets: setup ## Specialists against networks trained on all faces: run the suite SEEDS times, compare
	$(BIN)/facebench run --suite subsets --seeds $(SEEDS) $(DATASET_OPTION)
	$(BIN)/facebench subsets $(DATASET_OPTION)

speed: setup ## Measure training here against a plain PyTorch loop: make speed
	$(BIN)/facebench speed $(DATASET_OPTION)

ui: setup ## Open the MLflow UI on 127.0.0.1
	$(BIN)/facebench ui --port $(PORT)

test: setup ## Run the fast tests, every command once; no network, GPU or real data needed
	$(PYTEST) -m "not slow and not cluster"

test-all: test ## Run make test, then the slow tests: browser, MLflow UI, kills, full-size networks
	$(PYTEST) -m slow

# One process: its nodes share the machine. Ray and psycopg are an extra, which setup leaves out.
cluster-test: setup ## Run suites and searches on two Ray nodes, PostgreSQL and MLflow; kill some
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster

coverage: setup ## Run all tests and say which lines of the package none of them reaches
	$(PYTEST) -m "not cluster" --cov benchmark --cov experiments --cov-report term:skip-covered

check: setup ## Check formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format, and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
