# Everything is set up in .venv on a machine that has only python3 (>= 3.11) and make.
PYTHON ?= python3
BIN := .venv/bin
BASE := .venv/.base
READY := .venv/.ready
ARGS ?=
COUNT ?= 1000000
SEED ?= 1
SEEDS ?= 3
MINUTES ?= 10

.PHONY: demo test long check format bench fuzz faults soak ci-cluster clean

demo: $(BASE)
	$(BIN)/python examples/docsearch.py --workers 2 $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# With what takes minutes: larger models, more calls, longer cuts.
long: $(READY)
	MOSAIC_TEST_LONG=1 $(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BASE)
	$(BIN)/python -m benchmarks $(ARGS)

# Nonsense from members and strangers; what it finds, it prints as small as it can.
fuzz: $(READY)
	$(BIN)/python tests/fuzz/fuzzing.py --count $(COUNT) --seed $(SEED)

# Every fault at every moment; with SEEDS=50 it takes the night. ARGS="--only F1" for some.
faults: $(READY)
	$(BIN)/python tests/faults/matrix.py --seeds $(SEEDS) $(ARGS)

# Everything at once for a while: does anything grow? ARGS="--kills" kills workers, too.
soak: $(READY)
	$(BIN)/python tests/soak/soaking.py --minutes $(MINUTES) $(ARGS)

# All of tests/clusters, with hosts that are lost: minutes. As root, with the scripts
# that tests/clusters/testbed.py names. Says how long what took.
ci-cluster: $(READY)
	MOSAIC_TEST_CLUSTERS_ALL=1 $(BIN)/python -m pytest -rP tests/clusters $(ARGS)

# Some systems have python3 without ensurepip; then its own pip, if any, serves .venv.
$(BASE): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "python 3.11 or later is needed, found " + sys.version.split()[0] + \
	    "; say: make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv \
	    || { $(PYTHON) -m venv --clear --without-pip .venv \
	         && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	    || { rm -rf .venv; echo "no pip: install the package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(READY): $(BASE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,examples]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
