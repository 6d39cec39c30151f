# `make demo` and `make test` are all a newcomer needs: both make the environment first, once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types clean

demo: $(READY)
	$(BIN)/phenohit simulate runs/simulated-screen
	$(BIN)/phenohit run runs/simulated-screen/simulated.yaml --out runs/demo

test: $(READY) lint types
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/basedpyright

# uv resolves and unpacks the large wheels several times faster than pip; it lives inside the environment.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'PhenoHit needs Python 3.11 or later. Name one: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .hypothesis
