# Every target makes what it needs; `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

READY := $(VENV)/.archlab-ready
GPU ?= $(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON))

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the pinned versions (a venv that already holds torch keeps it: make VENV=path)

# A linked environment, or one that was named, may serve another checkout: `pip install -e` would point it here without a word.
$(READY): pyproject.toml requirements.txt constraints.txt
	@other=$$(sed -n 's|.*"url": *"file://\([^"]*\)".*|\1|p' $(VENV)/lib/python3*/site-packages/archlab-*.dist-info/direct_url.json 2>/dev/null); \
	if [ -d "$$other" ] && [ "$$(cd "$$other" && pwd -P)" != "$$(pwd -P)" ]; then \
		echo "$(VENV) was set up for $$other and is taken as it is; for one of this checkout's own: make VENV=other/path, or remove the link"; \
	else $(MAKE) --no-print-directory _install; fi

_install:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "Python 3.10 to 3.13 is needed, $$($(BIN)/python -V) is here: make PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV): torch, unless it is there, and what requirements.txt lists; about 1.8 GB with a torch for CPUs, 5 GB with CUDA's"
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install -c constraints.txt torch
	@$(BIN)/python -m pip freeze 2>/dev/null | grep '^torch==' > $(VENV)/torch.txt; grep -v '^torch==' constraints.txt | cat - $(VENV)/torch.txt > $(VENV)/pins.txt
	$(BIN)/python -m pip install -c $(VENV)/pins.txt -r requirements.txt -e .
	@touch $(READY)

demo: $(READY)  ## the five axes compared on real text, in minutes, with a report at the end
	@$(BIN)/python -m runs.train -m study=demo; code=$$?; $(BIN)/python -m analysis.report runs/out/demo && exit $$code

claims: $(READY)  ## what the literature says of these blocks, tested: every study of conf/study/claims, then runs/reference/claims (hours)
	@code=0; for claim in pretrained $(filter-out pretrained,$(basename $(notdir $(wildcard conf/study/claims/*.yaml)))); do \
		$(BIN)/python -m runs.train -m study=claims/$$claim || code=1; done; \
	$(BIN)/python -m analysis.collect $$(ls -d runs/out/claim-[0-9]* | grep -vE -- '-(tuning|pace)$$') --to runs/reference/claims --readme README.md && exit $$code

test: $(READY)  ## the tests that need no GPU
	$(BIN)/python -m pytest -n auto -m 'not gpu and not torture'

torture: $(READY)  ## the long versions: kills, full disks, thousands of runs and of examples, a real browser (an hour)
	$(BIN)/python -m pytest -m torture -s --hypothesis-profile torture

check: $(READY)  ## format, lint, types and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto -m 'not gpu and not torture'

format: $(READY)  ## rewrite the files in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu:  ## on a machine with CUDA, with its own torch: fast paths against their twins, then what each block costs at GPU size
	@$(GPU) -c 'import torch; torch.cuda.is_available() or exit("make gpu needs a CUDA device; torch " + torch.__version__ + " sees none")'
	@$(GPU) -m pytest -m gpu; tests=$$?; $(GPU) -m runs.train -m study=gpu_card; code=$$?; \
		$(GPU) -m analysis.report runs/out/gpu-card || code=1; \
		[ $$tests -eq 0 ] || { echo "the tests on the GPU failed: see above, before the sweep"; code=1; }; exit $$code

.PHONY: help setup _install demo claims test check torture format gpu
