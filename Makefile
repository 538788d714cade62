# make run     the demo, from nothing          make check   ruff, mypy
# make test    the tests, from nothing         make bench   the benchmarks; bench-metrics, -precision, -stream, -gpu for more
# make reference   the table of settings in docs/reference.md
# make docs        the documentation site, in build/site
# make soak    the tests that take long,       make fuzz    10,000 broken files
#              and runs killed 20 times        make test-oldest   with the oldest packages that pyproject.toml admits
VENV ?= .venv
OLDEST ?= .venv-oldest
DOCS ?= .venv-docs
PYTHON ?= python3
BIN := $(VENV)/bin
# A file of tests is one process's: its servers, and the Ray that it shares with other files, start once in each.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-oldest check bench bench-metrics bench-precision bench-stream bench-gpu soak fuzz reference docs clean

run: $(VENV)/installed
	$(BIN)/oodray run --dataset demo

test: $(VENV)/installed
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# What needs no cluster; of warnings there, of functions that went later, nobody is told.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest $(SIDE_BY_SIDE) -W default \
		--ignore=tests/cluster --ignore=tests/job --ignore=tests/jobs --ignore=tests/test_wheel.py
	$(OLDEST)/bin/oodray run --dataset demo --executor local --out $(OLDEST)/demo --overwrite

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# At full size, half an hour; needs torchmetrics for two of its rows.
bench-metrics: $(VENV)/installed
	$(BIN)/python -m benchmarks.metrics

# Half an hour, on a machine that has nothing else to do.
bench-stream: $(VENV)/installed
	$(BIN)/python -m benchmarks.stream

bench-precision: $(VENV)/installed
	$(BIN)/python -m benchmarks.precision

# Needs torch with CUDA and triton, not the rest: run it in their environment.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu

soak: $(VENV)/installed
	$(BIN)/python -m pytest --soak -m soak
	$(BIN)/python -m pytest tests/job/test_kills.py --kills 20 -s

fuzz: $(VENV)/installed
	cd tests/datasets && $(abspath $(BIN))/python mutated_files.py 10000 0

reference: $(VENV)/installed
	$(BIN)/python -m oodray.report.reference docs/reference.md

# A broken link ends it with an error. The API is read from the source: oodray itself need not be installed.
docs: $(DOCS)/installed
	$(DOCS)/bin/mkdocs build --strict --quiet
	@echo "build/site/index.html"

$(DOCS)/installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.6' 'mkdocstrings[python]>=0.29' 'ruff>=0.9'
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing, the first time takes minutes ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
# pip compiles on one core, and a third that nobody imports; some packages hold files for other Pythons, which do not compile.
	-$(BIN)/python -m compileall -qq -j 0 -x '/tests/|/transformers/models/' $(VENV)/lib oodray
	touch $@

# uv can take the oldest version of what pyproject.toml names, and the newest of all else. torch is then one for CUDA.
$(OLDEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	@echo "installing several gigabytes ..."
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(DOCS) build dist
