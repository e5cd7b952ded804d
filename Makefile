VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.PHONY: quickstart demo-qemu demo-batch test test-more test-slow lint mutants simulate cancels kills benchmark clean

quickstart: $(VENV)/installed
	$(BIN)/pageferry run configs/quickstart.yaml

demo-qemu: $(VENV)/installed
	$(BIN)/python -m tests.qemu.demo

demo-batch: $(VENV)/installed
	$(BIN)/python -m tests.cluster.demo

test: $(VENV)/installed
	$(PYTEST)

test-more: $(VENV)/installed
	$(PYTEST) -m more

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

mutants: $(VENV)/installed
	$(BIN)/python -m tests.mutations.run

simulate: $(VENV)/installed
	$(BIN)/python -m tests.simulation --seeds 20000

cancels: $(VENV)/installed
	PAGEFERRY_CANCELS=500 $(BIN)/python -m pytest -q tests/faults/test_cancels.py

kills: $(VENV)/installed
	PAGEFERRY_KILLS=100 $(BIN)/python -m pytest -q -m more tests/qemu/test_kills.py

benchmark: $(VENV)/installed
	$(BIN)/python -m benchmarks.against_qemu

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
