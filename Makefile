# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
#
# `make run` and `make check` work on a fresh Debian 12 (root, or a user with sudo): they install
# what is missing, the Rust toolchain apart. `make help` lists the rest.

EXAMPLE  ?= neighbor_sharing
# Arguments of the tool that `make run` starts.
ARGS     ?=
PREFIX   ?= /usr/local
DESTDIR  ?=

# rustup's own place, for shells that have not read its environment yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO    := cargo
TARGET   := $(or $(CARGO_TARGET_DIR),target)
BINARIES := $(sort $(basename $(notdir $(wildcard src/bin/*.rs))) \
                   $(notdir $(patsubst %/main.rs,%,$(wildcard src/bin/*/main.rs))) netsetup)
BPF_C    := $(wildcard src/bpf/*.c src/bpf/*.h)
AS_ROOT  := packaging/as-root

.DEFAULT_GOAL := help
.PHONY: help needs build run check check-long lint test test-long bench install clean check-fresh check-kernels

help:
	@echo 'make run          build, then run neighbor_sharing (EXAMPLE=other_tool, ARGS="--wan eth0 ...");'
	@echo '                  measures and ends by itself where there is no terminal'
	@echo 'make check        formats, lints and every test that this kernel can run, long ones in short form'
	@echo 'make check-long   the same with the long tests in full'
	@echo 'make check-fresh  make run and make check on a fresh Debian 12 (needs root, debootstrap and git)'
	@echo 'make check-kernels'
	@echo '                  tests in stock kernels of Debian, emulated, minutes for each (KERNELS="6.1 ...")'
	@echo 'make build        release binaries: $(BINARIES)'
	@echo 'make bench        cost of every program beside an empty one; start-up and memory of every tool'
	@echo 'make install      the release binaries into DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)'
	@echo 'make clean        removes $(TARGET)'

needs:
	@packaging/install-needs

build: needs
	$(CARGO) build --release --locked --workspace --bins

run: needs
	@if ! test -e "src/bin/$(EXAMPLE).rs" -o -e "src/bin/$(EXAMPLE)/main.rs" -o "$(EXAMPLE)" = netsetup; then \
		echo "make run: there is no tool '$(EXAMPLE)'; EXAMPLE is one of: $(BINARIES)" >&2; exit 2; fi
	$(CARGO) build --release --locked --bin $(EXAMPLE)
	@packaging/run-example $(TARGET)/release/$(EXAMPLE) $(ARGS)

check: lint test

check-long: lint test-long

lint: needs
	@packaging/install-needs lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
ifneq ($(BPF_C),)
	clang-format --dry-run --Werror $(BPF_C)
endif

test: needs
	@packaging/install-needs test
	@packaging/run-tests

test-long: needs
	@packaging/install-needs test
	@NETBPF_LONG=1 packaging/run-tests

bench: needs
	$(CARGO) bench --locked --workspace --bench '*' --config "target.'cfg(unix)'.runner = '$(AS_ROOT)'"

# Copies only: a root that installs must not build.
install:
	@for binary in $(BINARIES); do \
		test -x "$(TARGET)/release/$$binary" || { echo "make install: run 'make build' first" >&2; exit 1; }; \
		install -D -m 755 "$(TARGET)/release/$$binary" "$(DESTDIR)$(PREFIX)/bin/$$binary" || exit 1; \
		echo "$(DESTDIR)$(PREFIX)/bin/$$binary"; \
	done

clean:
	$(CARGO) clean

check-fresh:
	@packaging/check-fresh

# No part of `make check`: an emulated machine takes minutes, and fetches 100 MB of each kernel once.
check-kernels: needs
	@packaging/check-kernels $(KERNELS)
