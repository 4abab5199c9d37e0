# What CI runs is what a person runs. GNU make 3.81, which macOS has, is enough.

.DEFAULT_GOAL := help
.PHONY: help demo test course lab setup develop check bench clean

PYTHON =
TORCH =
ARGS =

venv := .venv/bin

# Runs tools/bootstrap.py with PYTHON, or with the first Python that fits; it says so if none does.
bootstrap = python='$(PYTHON)'; \
	for candidate in $(venv)/python python3 python3.14 python3.13 python3.12 python3.11; do \
		if test -n "$$python"; then break; fi; \
		if $$candidate tools/bootstrap.py --fits 2>/dev/null; then python=$$candidate; fi; \
	done; \
	if ! command -v "$${python:=python3}" >/dev/null; then \
		echo "setup: there is no $$python here; GlassGPT needs Python 3.11 or newer, from python.org or your system." >&2; \
		exit 1; \
	fi; \
	"$$python" tools/bootstrap.py $(if $(TORCH),--torch '$(TORCH)')

help: ## list these commands
	@echo 'GlassGPT: build a GPT you can see through.'
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{ printf "  make %-8s %s\n", $$1, $$2 }' 
	@echo
	@echo 'All but help and clean set up .venv first, with pinned packages; once it is up to date that takes no time.'
	@echo
	@echo '  PYTHON=python3.12         the Python for .venv (default: the first of 3.11 to 3.14 that is found)'
	@echo '  TORCH=auto|cpu|cuda       the build of PyTorch (auto: CUDA only where there is an NVIDIA GPU)'
	@echo '  ARGS="-k attention"       more arguments for demo, test (pytest), bench, lab and course (ARGS=03: that chapter)'

demo: setup ## from raw text to a GPT that writes, in three minutes
	@$(venv)/glassgpt demo $(ARGS)

test: develop ## run the tests
	@echo 'test: pytest, one process a core …'
	@OMP_NUM_THREADS=1 $(venv)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

course: develop ## run every notebook of the course without a network, and check it
	@echo 'course: each notebook in a new kernel, from its first cell to its last …'
	@$(venv)/python tools/course $(ARGS)

lab: ## open the course in JupyterLab
	@$(bootstrap) course
	@$(venv)/jupyter lab $(ARGS) course

setup: ## set up .venv with what glassgpt needs
	@$(bootstrap) runtime

develop: ## set up .venv with what the tests and checks need, too
	@$(bootstrap) develop

check: develop ## lint, formatting and types
	@echo 'check: ruff check …'
	@$(venv)/python -m ruff check
	@echo 'check: ruff format …'
	@$(venv)/python -m ruff format --check
	@echo 'check: mypy …'
	@$(venv)/python -m mypy

bench: ## measure ours, its peers and this machine's limits, and write benchmarks/RESULTS.md
	@$(bootstrap) bench
	@$(venv)/python -m benchmarks $(ARGS)

clean: ## remove .venv and what tools left behind; your runs/ stay
	@echo 'clean: removing .venv, build/, dist/ and caches …'
	@rm -rf .venv build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
