# One-word commands.  Each sets up what it needs in .venv, and says what is missing.
#
#   make demo         a server, a page, a client and a figure, in one go (KEEP=1: stays up)
#   make test         the tests, with the compiled and with the pure backend
#   make help         the others

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PYTEST := $(PY) -P -m pytest
PIP := $(PY) -m pip --disable-pip-version-check
AUTOBAHN ?= ../shared/autobahn
ARGS ?=

SOURCES := $(wildcard websock/*.pyx websock/*.pxd csrc/*.c csrc/*.h) setup.py
# "ext" or "pure", known once the environment was made.
BACKEND = $(shell cat $(VENV)/backend 2>/dev/null)
PURE_ENV = WEBSOCK_PURE=1 WEBSOCK_REQUIRE_EXT=
EXT_ENV = WEBSOCK_PURE= WEBSOCK_REQUIRE_EXT=1
BACKEND_ENV = $(if $(filter ext,$(BACKEND)),$(EXT_ENV),$(PURE_ENV))

.DEFAULT_GOAL := help
.PHONY: help dev demo test test-pure hostile check csrc worlds asan sanitize annotate \
	conformance interop browser brokers hosts applications fuzz leaks bench soak load chaos wheel \
	platforms docs clean distclean

help:
	@echo 'make demo         a server, a page, a client and a figure (KEEP=1: stays up)'
	@echo 'make test         the tests, compiled and pure       (ARGS=... for pytest)'
	@echo 'make test-pure    the tests, pure only'
	@echo 'make dev          .venv with everything to work on the project'
	@echo 'make check        ruff, mypy, clang-format, the workflows and their wheels'
	@echo 'make csrc         the C tests, plain and with sanitizers'
	@echo 'make sanitize     all Python tests on extensions built with sanitizers'
	@echo 'make fuzz         the fuzz targets, C and Python      (MINUTES=10; default: 5)'
	@echo 'make leaks        memory stays flat, both backends    (SCALE=50; default: 10)'
	@echo 'make annotate     the Cython report, in build/annotate'
	@echo 'make conformance  the Autobahn test suite            (ARGS=--fast: minutes)'
	@echo 'make hostile      hostile peers against every API'
	@echo 'make chaos        two ends and a network that fails  (SEEDS=2000; default: 200)'
	@echo 'make interop      against websockets, aiohttp, picows, tornado and ws'
	@echo 'make worlds       as on Windows and macOS, simulated    (ARGS=... for pytest)'
	@echo 'make browser      against the WebSocket of Chromium, in a headless one'
	@echo 'make brokers      topics over real brokers that die, pause and refuse'
	@echo 'make hosts        the tests of other libraries, with the speed-ups in them'
	@echo 'make applications real programs on other libraries, with and without the speed-ups'
	@echo 'make bench        the benchmarks (ARGS="floor" or what python -m bench takes)'
	@echo 'make load         very many connections, none lost   (CONNECTIONS=10000)'
	@echo 'make soak         hours of mixed load with restarts   (MINUTES=60; default: 5)'
	@echo 'make wheel        sdist, wheel from it, tests of that wheel'
	@echo 'make platforms    the tests on each Python that is found; a table'
	@echo 'make docs         the documentation, in build/docs (warnings are errors)'
	@echo 'make clean        remove what was built; make distclean: .venv too'

# -- the environment ----------------------------------------------------------------

$(VENV)/.stamp-venv: .ci/bootstrap .ci/can_compile.py
	@.ci/bootstrap $(VENV)
	@touch $@

# The package itself, as an editable installation.  uvloop is wanted, not needed.
$(VENV)/.stamp-package: $(VENV)/.stamp-venv pyproject.toml
	@echo 'websock: installing the package into $(VENV)'
	@WEBSOCK_REQUIRE_EXT= WEBSOCK_PURE=1 $(PIP) install -qq \
		--no-build-isolation --editable '.[uvloop]' 2>$(VENV)/pip.log \
	|| WEBSOCK_REQUIRE_EXT= WEBSOCK_PURE=1 $(PIP) install -qq \
		--no-build-isolation --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-package
	@echo 'websock: installing what the tests need into $(VENV)'
	@WEBSOCK_REQUIRE_EXT= WEBSOCK_PURE=1 $(PIP) install -qq \
		--no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.stamp-browser: $(VENV)/.stamp-dev
	@echo 'websock: installing what drives a browser into $(VENV)'
	@WEBSOCK_REQUIRE_EXT= WEBSOCK_PURE=1 $(PIP) install -qq \
		--no-build-isolation --editable '.[browser]'
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-package pyproject.toml
	@echo 'websock: installing what makes the documentation into $(VENV)'
	@WEBSOCK_REQUIRE_EXT= WEBSOCK_PURE=1 $(PIP) install -qq \
		--no-build-isolation --editable '.[docs]'
	@touch $@

$(VENV)/.stamp-ext: $(VENV)/.stamp-package $(SOURCES)
	@if [ "$$(cat $(VENV)/backend)" = ext ]; then \
		echo 'websock: compiling the extensions'; \
		$(EXT_ENV) $(PY) setup.py --quiet build_ext --inplace --parallel 3 \
			>$(VENV)/build.log 2>&1 \
		|| { tail -n 40 $(VENV)/build.log; \
			echo 'websock: the extensions do not compile (WEBSOCK_PURE=1 runs without)'; \
			exit 1; }; \
	fi
	@touch $@

dev: $(VENV)/.stamp-dev $(VENV)/.stamp-ext

# -- running ------------------------------------------------------------------------

demo: $(VENV)/.stamp-package $(VENV)/.stamp-ext
	@$(PY) examples/demo.py $(ARGS)

# Both twins in one process; beside it, what is bound to a backend at import, once more.
test: dev
	@if [ "$(BACKEND)" = ext ]; then \
		mkdir -p build; \
		echo 'websock: pure backend, socket tests, meanwhile, into build/test-pure.log'; \
		$(PURE_ENV) $(PYTEST) --no-ext -m 'not twins and not source' -q $(ARGS) \
			>build/test-pure.log 2>&1 & pure=$$!; \
		trap "kill $$pure 2>/dev/null; exit 1" INT TERM; \
		echo 'websock: compiled backend, all tests'; \
		$(EXT_ENV) $(PYTEST) $(ARGS); compiled=$$?; \
		wait $$pure; status=$$?; \
		echo 'websock: pure backend, socket tests'; \
		cat build/test-pure.log; \
		[ "$$compiled" = 0 ] && exit $$status || exit $$compiled; \
	else \
		echo 'websock: pure backend only, because extensions cannot be compiled here'; \
		$(PURE_ENV) $(PYTEST) --no-ext $(ARGS); \
	fi

test-pure: dev
	@$(PURE_ENV) $(PYTEST) --no-ext $(ARGS)

hostile: dev
	@$(PURE_ENV) $(PYTEST) --no-ext --every-api tests/hostile -q $(ARGS)
	@if [ "$(BACKEND)" = ext ]; then \
		$(EXT_ENV) $(PYTEST) --every-api tests/hostile $(ARGS); \
	fi

# Tests of all APIs in simulated worlds.  Without rewritten assertions, because pytest
# would load the package by itself.  What the world has not is left out: loops that watch
# sockets, uvloop, unix sockets.
WORLDS = windows macos
WORLD_TESTS = tests/test_sync_server.py tests/test_sync_connection.py \
	tests/test_sync_client.py tests/test_events_connection.py tests/test_client_proxy.py \
	tests/test_listener.py tests/test_commands.py
WORLD_LACKS_windows = uvloop or unix or socket or routes or terminal or typing
WORLD_LACKS_macos = uvloop

SEEDS ?= 200

chaos: dev
	@$(PURE_ENV) WEBSOCK_CHAOS_SEEDS=$(SEEDS) $(PYTEST) --no-ext tests/test_chaos*.py -q $(ARGS)
	@if [ "$(BACKEND)" = ext ]; then \
		$(EXT_ENV) WEBSOCK_CHAOS_SEEDS=$(SEEDS) $(PYTEST) tests/test_chaos*.py $(ARGS); \
	fi

worlds: dev
	@$(foreach world,$(WORLDS),echo 'websock: as on $(world)' && \
		$(BACKEND_ENV) WEBSOCK_WORLD=$(world) PYTHONPATH=tests/worlds:. \
		$(PYTEST) --assert=plain -q -k 'not ($(WORLD_LACKS_$(world)))' \
		$(WORLD_TESTS) $(ARGS) && ):

interop: dev
	@$(BACKEND_ENV) $(PYTEST) -m interop $(ARGS)

browser: dev $(VENV)/.stamp-browser
	@$(BACKEND_ENV) $(PYTEST) tests/browser $(ARGS)

brokers: dev
	@$(BACKEND_ENV) $(PYTEST) tests/brokers $(ARGS)

conformance: dev
	@AUTOBAHN='$(AUTOBAHN)' $(PY) tests/autobahn/conformance.py $(ARGS)

hosts: dev
	@$(BACKEND_ENV) $(PY) tests/hosts/run.py $(ARGS)

applications: dev
	@$(BACKEND_ENV) $(PY) tests/applications/run.py $(ARGS)

bench: dev
	@$(PIP) install -qq -r bench/requirements.txt
	@cd bench && if command -v npm >/dev/null; then \
		npm install --silent --no-audit --no-fund --no-package-lock; fi
	@$(PY) -m bench $(if $(ARGS),$(ARGS),readme)

MINUTES ?= 5

soak: dev
	@$(PY) -m bench soak --minutes $(MINUTES) $(ARGS)

CONNECTIONS ?= 10000

load: dev
	@$(PY) -m bench load --connections $(CONNECTIONS) $(ARGS)

# -- quality ------------------------------------------------------------------------

PYTHON_FILES = websock tests examples .ci setup.py $(wildcard bench)
C_FILES = $(wildcard csrc/*.[ch] csrc/*/*.[ch])

check: dev
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy --strict websock
	$(BIN)/mypy --strict --explicit-package-bases examples tests/user_code.py
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(PY) .ci/workflows.py
	$(BACKEND_ENV) $(PYTEST) -q tests/test_layering.py tests/test_exports.py tests/test_source.py

csrc:
	@command -v $${CC:-cc} >/dev/null || { echo 'websock: no C compiler (cc) found'; exit 1; }
	$(MAKE) -C csrc check asan

ASAN_LIB = $(CURDIR)/build/asan/lib
ASAN_RUNTIME = $(shell $${CC:-cc} -print-file-name=libasan.so)

# Half an hour.  Programs that tests start inherit the runtime from the environment.
sanitize: dev
	@test "$(BACKEND)" = ext || { echo 'websock: sanitizers need a C compiler'; exit 1; }
	$(EXT_ENV) WEBSOCK_SANITIZE=address,undefined $(PY) setup.py --quiet \
		build --build-base build/asan --build-lib $(ASAN_LIB) --parallel 3
	$(EXT_ENV) PYTHONPATH=$(ASAN_LIB) PYTHONMALLOC=malloc LD_PRELOAD=$(ASAN_RUNTIME) \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(PYTEST) -p no:cacheprovider $(ARGS)

asan: sanitize

# Atheris, which steers by what was reached, has an environment of its own: it is not there
# for every Python, and without it inputs are only changed at random.
FUZZ_VENV = build/fuzz/venv

fuzz: dev
	@test -x $(FUZZ_VENV)/bin/python || $(PY) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -c 'import atheris' 2>/dev/null \
	|| $(FUZZ_VENV)/bin/python -m pip --disable-pip-version-check install -qq atheris || true
	@$(BACKEND_ENV) $(PY) -P tests/fuzz/run.py --minutes $(MINUTES) \
		--atheris $(FUZZ_VENV)/bin/python $(ARGS)

SCALE ?= 10

leaks: dev
	@$(PURE_ENV) $(PY) -P tests/leaks/run.py --scale $(SCALE)
	@if [ "$(BACKEND)" = ext ]; then \
		$(EXT_ENV) $(PY) -P tests/leaks/run.py --scale $(SCALE); fi

annotate: dev
	@mkdir -p build/annotate
	@for module in _kernels_c _codec_c _loop_c _channel_c _inbox_c _stream_c; do \
		$(BIN)/cython -3 --annotate -I . websock/$$module.pyx \
			-o build/annotate/$$module.c || exit 1; \
		echo build/annotate/$$module.html; \
	done

# From scratch each time: pages that are not written anew give no warnings.
docs: $(VENV)/.stamp-docs
	@rm -rf build/docs
	@$(PY) -m sphinx --fail-on-warning --keep-going --quiet --builder html \
		--conf-dir docs --doctree-dir build/doctrees --fresh-env . build/docs $(ARGS)
	@echo build/docs/index.html

# From the sdist, in environments of their own, away from the source tree.
# PYTHONS="path ...": these besides ours, not all that are found.  A quarter of an hour
# each; ARGS=--quick: a few tests of each, ARGS=--no-tests: none.
wheel: dev
	$(BACKEND_ENV) $(PY) .ci/wheel.py $(patsubst %,--python %,$(PYTHONS)) $(ARGS)
	@ls -l dist

# On each Python that is found, or PYTHONS="path ..."; up to half an hour for each.
platforms: dev
	@$(PY) .ci/platforms.py $(patsubst %,--python %,$(PYTHONS)) -- $(ARGS)

clean:
	rm -rf build dist *.egg-info websock/*.so websock/*_c.c websock/*.html
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage tests/autobahn/reports
	rm -f $(VENV)/.stamp-ext
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path '*/node_modules/*' \
		-type d -prune -exec rm -rf {} +
	@if [ -f csrc/Makefile ]; then $(MAKE) -C csrc clean; fi

distclean: clean
	rm -rf $(VENV) tests/interop/node_modules
