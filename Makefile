# The few commands people type. Meson does the work; see meson.build.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
MESON_FLAGS ?=
FUZZ_SECONDS ?= 60
BENCH_FLAGS ?=
TABLES ?=
SCALE ?= 10

SANITIZE = -Db_sanitize=address,undefined -Db_lundef=false
THREADS = -Db_sanitize=thread -Db_lundef=false

.PHONY: all run test bench install clean deps format sanitize tsan fuzz kill-matrix faults

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)
	@mkdir -p $(BUILD)/bin
	@for p in src/daemon/wherryd src/cli/wherry src/worker/wherry-worker src/shim/containerd-shim-wherry-v2; do \
		ln -f $(BUILD)/$$p $(BUILD)/bin/ || exit 1; done
	@ln -f $(BUILD)/bin/containerd-shim-wherry-v2 $(BUILD)/bin/containerd-shim

$(BUILD)/build.ninja:
	@tools/install-dependencies --check build
	meson setup $(BUILD) --prefix $(PREFIX) $(MESON_FLAGS)

deps:
	tools/install-dependencies build

run:
	tools/install-dependencies run
	$(MAKE) all
	tools/demo $(BUILD)/bin

test:
	tools/install-dependencies test
	$(MAKE) all
	tools/run-tests $(BUILD)

bench:
	tools/install-dependencies test
	$(MAKE) all
	test/bench/bench $(BENCH_FLAGS) $(BUILD)/bin $(TABLES)

# Daemon, shims and workers killed at every call that changes something; `make test` has a part of it.
kill-matrix:
	tools/install-dependencies test
	$(MAKE) all
	WHERRY_BIN=$(abspath $(BUILD))/bin /usr/bin/python3 test/fault/kill_matrix.py

# The tests of faults with so much more of everything: more deaths, more containers, more processes.
faults:
	tools/install-dependencies test
	$(MAKE) all
	WHERRY_BIN=$(abspath $(BUILD))/bin WHERRY_FAULT_SCALE=$(SCALE) /usr/bin/python3 -m pytest -p no:cacheprovider test/fault

# The prefix is in the unit file alone, so that changing it builds nothing anew.
install: all
	meson configure $(BUILD) -Dprefix=$(PREFIX)
	DESTDIR="$(if $(DESTDIR),$(abspath $(DESTDIR)))" meson install -C $(BUILD) --quiet

format:
	tools/check-format --fix

# The whole of `make test` on programs that watch their own memory.
sanitize:
	tools/install-dependencies test
	$(MAKE) all BUILD=build-sanitize MESON_FLAGS="$(SANITIZE)"
	tools/run-tests build-sanitize

# The unit tests of all that runs threads. setarch: the sanitizer wants memory where it expects it.
tsan:
	tools/install-dependencies test
	test -e build-tsan/build.ninja || meson setup build-tsan $(THREADS)
	setarch --addr-no-randomize meson test -C build-tsan --suite unit --print-errorlogs --timeout-multiplier 5

# Every fuzz target for FUZZ_SECONDS, from its corpus on.
fuzz:
	tools/install-dependencies fuzz
	test -e build-fuzz/build.ninja || CC=clang meson setup build-fuzz -Dfuzzing=true -Dtests=disabled $(SANITIZE)
	tools/fuzz build-fuzz $(FUZZ_SECONDS)

clean:
	rm -rf $(BUILD) build-*
