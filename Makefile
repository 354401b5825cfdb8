PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin

.PHONY: demo lint test install clean

install: .venv/.installed

.venv/.package: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) torch
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e .
	touch $@

.venv/.installed: .venv/.package
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[test]"
	touch $@

demo: .venv/.package
	$(BIN)/classscaleseg demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=ClassScaleSeg:training $(BIN)/lint-imports
	$(BIN)/mypy

# A test process that crashes ends the tests: with another one in its place, pytest-xdist waits for ever at the end.
test: lint
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder \
		--max-worker-restart=0

clean:
	rm -rf .venv classscaleseg-demo
