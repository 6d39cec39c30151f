# `make demo` and `make test` are all a newcomer needs: both make the environment first, once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A thin second environment over the first: AnnData needs pandas below 3 on Python 3.11, and users have both.
BIN2 := .venv-pandas2/bin
READY2 := .venv-pandas2/.ready

.PHONY: demo test lint types clean

demo: $(READY)
	$(BIN)/phenohit simulate runs/simulated-screen
	$(BIN)/phenohit run runs/simulated-screen/simulated.yaml --out runs/demo

# Two workers of one thread each: libraries that start more would wait for each other most of the time.
# Types are checked meanwhile: the first tests mostly wait for processes of their own.
test: $(READY) $(READY2) lint
	$(MAKE) types & types=$$!; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup && wait $$types
	OMP_NUM_THREADS=1 $(BIN2)/python -m pytest -n 2 --dist loadgroup -m 'not slow' tests/data tests/labels tests/profiles

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

$(READY2): $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-pandas2
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(BIN2)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	$(BIN)/python -c 'from pathlib import Path; import phenohit; print(Path(phenohit.__file__).parents[1])' \
	  > "$$($(BIN2)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/package.pth"
	$(BIN)/uv pip install --quiet --python $(BIN2)/python 'anndata>=0.11' 'pandas>=2.2,<3'
	@touch $(READY2)

clean:
	rm -rf .venv .venv-pandas2 runs .pytest_cache .ruff_cache .hypothesis
