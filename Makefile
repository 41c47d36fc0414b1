# `make demo` and `make test` do all set-up; on a machine that has it they start at once.
PYTHON := .venv/bin/python
export XDG_RUNTIME_DIR ?= /tmp
# Tests start hundreds of Pythons: each module is compiled once.
unexport PYTHONDONTWRITEBYTECODE
# The workers fill the cores: further threads of numpy's would wait for each other.
unit quick: export OPENBLAS_NUM_THREADS := 1

# Processes that run tests at the same time, for two cores. Browsers are processes of their own; native tests wait
# for networks and other processes an eighth of their time.
WORKERS ?= 2
NATIVE_WORKERS ?= 3

.PHONY: setup demo pictures test quick lint lint-python lint-types unit e2e wasm array-api bench serve clean

setup:
	@python3 tools/setup.py

demo: setup
	@$(PYTHON) tools/demo.py

# The screenshots that the README shows.
pictures: setup
	@$(PYTHON) tools/demo.py docs

test: setup lint unit e2e
	@echo "All checks passed."

QUICK := tests/program tests/text tests/weights $(wildcard tests/test_*.py)

# For every commit: lint and types, the fast unit tests, and one visit an engine.
quick: setup lint
	$(PYTHON) -m pytest $(QUICK) -q -n $(NATIVE_WORKERS) --dist loadfile
	$(PYTHON) -m pytest e2e/test_matrix.py -q -k test_choosing_the_cpu
	@echo "The quick checks passed; make test runs them all."

lint:
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint-types lint-python

lint-types:
	node_modules/.bin/pyright --pythonpath $(PYTHON)

lint-python:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	node_modules/.bin/tsc --noEmit

unit:
	$(PYTHON) -m pytest tests -q -n $(NATIVE_WORKERS) --dist loadfile
	test ! -x .venv-webnn/bin/python || .venv-webnn/bin/python -m pytest tests/webnn_tier -q

# A test that fails in a browser runs once more (WebKitGTK's WebAssembly now and then ends Pyodide, its
# web process crashes, its driver does not answer; a loaded machine is late). The first failure is
# printed whole: each one is a fault to look for.
e2e:
	$(PYTHON) -m pytest e2e -q -n $(WORKERS) --dist loadscope -r fEsR --reruns 1

wasm: setup
	$(PYTHON) tools/build_wasm.py

# The Array API's own suite on each tier, 20 examples each; SUITE is a checkout of it (see tools/array_api.py).
array-api:
	$(PYTHON) tools/array_api.py $(SUITE)

bench: setup
	$(PYTHON) bench/embeddings.py

serve: setup
	.venv/bin/bascule serve

clean:
	rm -rf .venv .venv-webnn node_modules web/vendor out dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
