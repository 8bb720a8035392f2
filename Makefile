# Everything a contributor runs. `make demo` and `make test` need Python (3.11 by choice), a C++
# compiler and make; the rest comes into `.venv` and `build/`, and is kept there between runs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
# By full path, so that a tool that changes its directory finds them too.
BIN := $(CURDIR)/$(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
PATH_AS_IT_IS := $(PATH)
export PATH := $(BIN):$(PATH)

# Here the core is built or nothing is: without this a failed compile would end in a pure wheel.
NATIVE := DLFERRY_NATIVE=on

CPP_FILES := $(shell find csrc tests/cpp tests/sim -name '*.h' -o -name '*.cpp')
# Directories are among them, so that a file that goes away counts as a change.
WHEEL_INPUTS := CMakeLists.txt pyproject.toml README.md LICENSE \
	$(shell find csrc python/dlferry -not -name '__pycache__' -not -name '*.pyc')
LOGS := build/logs
PYTEST := $(PY) -m pytest -q -p no:cacheprovider

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---------------------------------------------------------------------------- set-up

$(VENV)/.made:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), sys.version'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	@touch $@

# One stamp for each dependency group of pyproject.toml that a target asks for.
$(VENV)/.group-%: $(VENV)/.made pyproject.toml
	$(PIP) install --group $*
	@touch $@

# The wheel that a user would get, built incrementally and installed: tests, demo and benchmarks all
# run what is shipped. Without build isolation, so a rebuild compiles only what changed.
build/wheel/.installed: $(VENV)/.group-build $(VENV)/.group-torch $(WHEEL_INPUTS)
	rm -rf build/wheel
	$(NATIVE) $(PIP) wheel . --no-deps --no-build-isolation -C build-dir=build/native -w build/wheel
	ls build/wheel/dlferry-*-cp*.whl
	$(PIP) install --no-deps --force-reinstall build/wheel/dlferry-*.whl
	@touch $@

.PHONY: build
build: build/wheel/.installed  ## Build the wheel and install it into .venv

# ---------------------------------------------------------------------------- the two commands

.PHONY: demo
demo: build $(VENV)/.group-demo  ## Convert real photographs, show what was shared, and the times
	$(NATIVE) $(PY) examples/photographs.py

.PHONY: test
test: lint native pytest  ## Everything that CI runs
	@echo
	@echo '== results =='
	@for log in ctest pytest-native pytest-fallback pytest-no-table; do \
	  printf '%-16s %s\n' $$log "$$(grep -E 'tests passed|[0-9]+ passed' $(LOGS)/$$log.log | tail -n 1)"; \
	done

# ---------------------------------------------------------------------------- parts of `make test`

.PHONY: lint
lint: $(VENV)/.group-dev  ## Formatters, linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
	$(PY) -m mypy

.PHONY: native
native: $(VENV)/.group-dev | $(LOGS)  ## Compile with warnings as errors, run the C++ tests
	$(BIN)/cmake --preset dev -DPython_EXECUTABLE=$(PY) > $(LOGS)/configure.log
	$(BIN)/cmake --build --preset dev
	$(BIN)/ctest --preset dev | tee $(LOGS)/ctest.log

.PHONY: pytest pytest-native pytest-fallback pytest-no-table
pytest: pytest-native pytest-fallback pytest-no-table  ## The suite three times: native, fallback, no exchange table

# Beside the wheel it needs the simulated CUDA driver, which `native` builds.
pytest-native: export DLFERRY_NATIVE := on
pytest-native: export DLFERRY_TEST_SIM := $(CURDIR)/build/dev/tests/sim/libdlferry_sim_cuda.so
pytest-native: native build $(VENV)/.group-dev $(VENV)/.group-interop | $(LOGS)
	DLFERRY_WHEEL=$$(ls build/wheel/*.whl) $(PYTEST) tests --ignore tests/gpu | tee $(LOGS)/$@.log

pytest-fallback: export DLFERRY_NATIVE := off
pytest-fallback: build $(VENV)/.group-dev $(VENV)/.group-interop | $(LOGS)
	$(PYTEST) tests/contract tests/interop | tee $(LOGS)/$@.log

pytest-no-table: export DLFERRY_NATIVE := on
pytest-no-table: export DLFERRY_TEST_HIDE_EXCHANGE := 1
pytest-no-table: build $(VENV)/.group-dev $(VENV)/.group-interop | $(LOGS)
	$(PYTEST) tests/contract tests/interop | tee $(LOGS)/$@.log

$(LOGS):
	@mkdir -p $@

# ---------------------------------------------------------------------------- on demand

.PHONY: test-ray
test-ray: export DLFERRY_NATIVE := on
test-ray: export DLFERRY_TEST_SIM := $(CURDIR)/build/dev/tests/sim/libdlferry_sim_cuda.so
test-ray: native build $(VENV)/.group-dev $(VENV)/.group-ray  ## Ray Data through `prefetch`: 240 MB to install, a cluster to start
	$(PYTEST) tests/interop/test_ray.py

.PHONY: bench
bench: build $(VENV)/.group-dev  ## Measure the cost of a conversion
	$(NATIVE) $(PY) -m benchmarks.bench_exchange_latency

# The package with an instrumented core, put together beside the build and found first.
# gcc's runtimes are loaded ahead of Python, and libstdc++ with them, or exceptions would end it.
define sanitized
	$(BIN)/cmake --preset $(1) -DPython_EXECUTABLE=$(PY) > /dev/null
	$(BIN)/cmake --build --preset $(1)
	rm -rf build/$(1)/site
	$(BIN)/cmake --install build/$(1) --prefix $(CURDIR)/build/$(1)/site > /dev/null
	cp python/dlferry/*.py build/$(1)/site/dlferry/
	export DLFERRY_NATIVE=on PYTHONPATH=$(CURDIR)/build/$(1)/site PYTHONMALLOC=malloc \
	  DLFERRY_TEST_SIM=$(CURDIR)/build/$(1)/tests/sim/libdlferry_sim_cuda.so \
	  LD_PRELOAD="$$($(CXX) -print-file-name=$(2)) $$($(CXX) -print-file-name=libstdc++.so)"; \
	  $(PY) -c 'import dlferry._core as c; assert "build/$(1)/site" in c.__file__, c.__file__'; \
	  $(PYTEST) -p no:faulthandler $(3)
endef

TRANSFER_TESTS := tests/test_link.py tests/test_transfers.py tests/test_transfer_sim.py \
	tests/test_pinned.py tests/test_device_conversions.py tests/test_batch.py \
	tests/test_stack_to_device.py

.PHONY: asan
asan: export ASAN_OPTIONS := detect_leaks=0:abort_on_error=1
asan: export UBSAN_OPTIONS := print_stacktrace=1
asan: build $(VENV)/.group-dev  ## Contract and transfer tests under the address and undefined-behaviour sanitizers
	$(call sanitized,asan,libasan.so,tests/contract $(TRANSFER_TESTS))
	$(BIN)/ctest --preset asan

.PHONY: tsan
# A forked child starts threads of its own in a test; the sanitizer would end it for that alone.
tsan: export TSAN_OPTIONS := halt_on_error=1:die_after_fork=0:suppressions=$(CURDIR)/tests/tsan.supp
# torch's own threads, which no sanitizer has seen being synchronised. Nor do JAX and polars run so.
tsan: export OMP_NUM_THREADS := 1
tsan: build $(VENV)/.group-dev  ## The tests that use threads, and transfers, under the thread sanitizer
	$(call sanitized,tsan,libtsan.so,tests --ignore tests/interop --ignore tests/gpu -k thread)
	$(call sanitized,tsan,libtsan.so,$(TRANSFER_TESTS))
	$(BIN)/ctest --preset tsan

# These take the machine as they find it; but a core that cannot be loaded is an error there, unless
# `DLFERRY_NATIVE=off` asks for the other.
test-gpu bench-gpu: export PATH := $(PATH_AS_IT_IS)
test-gpu bench-gpu: export DLFERRY_NATIVE ?= on

.PHONY: test-gpu
test-gpu:  ## What only a GPU can show, with $(PYTHON) as it is: dlferry, torch with CUDA and pytest installed
	$(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/gpu

# Where its results go: a directory of your choice where they have to be carried to another machine.
BENCH_OUT ?= benchmarks/results

.PHONY: bench-gpu
bench-gpu:  ## Measure transfers on a GPU, with $(PYTHON) as it is: dlferry and torch with CUDA installed
	$(PYTHON) -m benchmarks.gpu --json $(BENCH_OUT)

.PHONY: wheels
wheels:  ## Build and import a wheel for every Python from 3.10 that this machine has
	.ci/wheels

.PHONY: format
format: $(VENV)/.group-lint  ## Rewrite the sources as the formatters want them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

.PHONY: clean
clean:  ## Remove what was built, .venv included
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
