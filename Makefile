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
UNITS    := $(wildcard packaging/systemd/*.service)
# Where each shell looks for what others have installed; Debian's zsh looks elsewhere for its packages'.
BASH_COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS  ?= $(PREFIX)/share/zsh/site-functions
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
# Man pages say of which day they are: that of the last change of all, so that one source gives one page.
DAY      := $(or $(shell git log -1 --format=%cs 2>/dev/null),$(shell date -u +%F))
# What the page is made of, and what it becomes: build.rs embeds that.
PAGE_OF  := $(wildcard web/*.json web/*.mjs web/src/* web/src/*/*)
PAGE     := $(addprefix web/dist/,tunnel.html tunnel.js tunnel.css)
# npm writes it last, so it says which lock the installed packages are of.
PACKAGES := web/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help needs web build run check check-long lint test test-long test-web bench bench-compare performance \
        install clean screenshots verifier deb check-deb check-units check-fresh check-kernels fuzz soak

help:
	@echo 'make run          build, then run neighbor_sharing (EXAMPLE=other_tool, ARGS="--wan eth0 ...");'
	@echo '                  measures and ends by itself where there is no terminal'
	@echo 'make check        formats, lints and every test that this kernel can run, long ones in short form'
	@echo 'make check-long   the same with the long tests in full'
	@echo 'make check-fresh  make run and make check on a fresh Debian 12 (needs root, debootstrap and git)'
	@echo 'make check-kernels'
	@echo '                  tests in stock kernels of Debian, emulated, minutes for each (KERNELS="6.1 ...")'
	@echo 'make fuzz         parsers with made-up inputs, an hour in all (FUZZ_SECONDS=600, TARGETS="http netlink ...")'
	@echo 'make soak         all five tools under traffic for HOURS=1: what they take stays what it was'
	@echo 'make build        release binaries: $(BINARIES);'
	@echo '                  their man pages and completions, their BPF objects'
	@echo 'make web          the page of tunnel_monitor, which its binary has in it (web/dist)'
	@echo 'make bench        cost of every program beside an empty one; start-up and memory of every tool'
	@echo 'make bench-compare'
	@echo '                  the same beside the figures of docs/performance.md; make performance writes them anew'
	@echo 'make install      binaries, BPF objects, man pages, completions, units and docs into DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)'
	@echo 'make deb          the same as a Debian package, into $(TARGET)/debian'
	@echo 'make check-deb    that package on a fresh Debian 12: installed, run, purged (needs root and debootstrap)'
	@echo 'make check-units  its units, started by systemd in an emulated machine, some minutes'
	@echo 'make screenshots  pictures of the page in all its states, into $(TARGET)/screenshots'
	@echo 'make verifier     writes docs/verifier.md anew, for this kernel and those of check-kernels'
	@echo 'make clean        removes $(TARGET), and what make web has fetched and built'

needs:
	@packaging/install-needs

# Says nothing where nothing has changed. A make of its own, since npm may have to be installed first.
web: needs
	@$(MAKE) --silent --no-print-directory $(PAGE)

# Exactly what the lock names; no package runs anything of its own when it is installed.
$(PACKAGES): web/package.json web/package-lock.json web/.npmrc
	echo 'make web: fetching the packages of web/package-lock.json' >&2
	cd web && npm ci --ignore-scripts
	touch $@

$(PAGE) &: $(PACKAGES) $(PAGE_OF)
	echo 'make web: building the page' >&2
	cd web && npm run --silent build
	touch $(PAGE)

# The man pages and the completions are written by a program of their own, from the same command lines.
build: web
	$(CARGO) build --release --locked --workspace --bins --message-format=json-render-diagnostics | \
		packaging/bpf-objects "$(TARGET)/bpf"
	@rm -rf "$(TARGET)/manual"
	@"$(TARGET)/release/manual" "$(TARGET)/manual" "$(DAY)"

run: web
	@if ! test -e "src/bin/$(EXAMPLE).rs" -o -e "src/bin/$(EXAMPLE)/main.rs" -o "$(EXAMPLE)" = netsetup; then \
		echo "make run: there is no tool '$(EXAMPLE)'; EXAMPLE is one of: $(BINARIES)" >&2; exit 2; fi
	$(CARGO) build --release --locked --bin $(EXAMPLE)
	@packaging/run-example $(TARGET)/release/$(EXAMPLE) $(ARGS)

check: lint test

check-long: lint test-long

lint: web
	@packaging/install-needs lint
	cd web && npm run --silent check
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
ifneq ($(BPF_C),)
	clang-format --dry-run --Werror $(BPF_C)
endif

test: test-web
	@packaging/install-needs test
	@packaging/run-tests

test-long: test-web
	@packaging/install-needs test
	@NETBPF_LONG=1 packaging/run-tests

# Those of the page's parts; what a browser makes of it is in tests/tunnel_monitor_page.rs.
test-web: web
	cd web && npm run --silent test

bench: web
	@packaging/bench

bench-compare: web
	@packaging/bench compare

performance: web
	@packaging/bench write

# A recorded hour is in docs/reliability.md.
soak: web
	@packaging/install-needs test
	@NETBPF_SOAK_HOURS=$(or $(HOURS),1) packaging/run-tests --release --test soak -- --nocapture

screenshots: web
	@packaging/install-needs test
	@SCREENSHOTS="$(TARGET)/screenshots" packaging/run-tests --test tunnel_monitor_page \
		-- --ignored --exact screenshots
	@ls "$(TARGET)"/screenshots/*.png

verifier: web
	@packaging/install-needs test
	@WRITE_VERIFIER=1 packaging/run-tests --test verifier
	@WRITE_VERIFIER=1 TESTS=verifier packaging/check-kernels $(KERNELS)

# Copies only: a root that installs must not build. Units are told where the binaries are.
install:
	@test -d "$(TARGET)/manual" && test -d "$(TARGET)/bpf" || { echo "make install: run 'make build' first" >&2; exit 1; }
	@for binary in $(BINARIES); do \
		test -x "$(TARGET)/release/$$binary" || { echo "make install: run 'make build' first" >&2; exit 1; }; \
		install -D -m 755 "$(TARGET)/release/$$binary" "$(DESTDIR)$(PREFIX)/bin/$$binary" || exit 1; \
		echo "$(DESTDIR)$(PREFIX)/bin/$$binary"; \
	done
	@set -e; into() { \
		folder="$(DESTDIR)$$1"; shift; \
		install -d "$$folder"; \
		install -m 644 "$$@" "$$folder"; \
		echo "$$folder: $$# files"; \
	}; \
	into "$(PREFIX)/lib/netbpf/bpf" "$(TARGET)"/bpf/*.bpf.o; \
	into "$(PREFIX)/share/man/man8" "$(TARGET)"/manual/man8/*; \
	into "$(BASH_COMPLETIONS)" "$(TARGET)"/manual/bash/*; \
	into "$(ZSH_COMPLETIONS)" "$(TARGET)"/manual/zsh/*; \
	into "$(FISH_COMPLETIONS)" "$(TARGET)"/manual/fish/*; \
	into "$(PREFIX)/lib/systemd/system" $(UNITS); \
	sed -i 's|^ExecStart=|&$(PREFIX)/bin/|' $(addprefix "$(DESTDIR)$(PREFIX)/lib/systemd/system"/,$(notdir $(UNITS))); \
	into "$(PREFIX)/share/doc/netbpf" README.md; \
	into "$(PREFIX)/share/doc/netbpf/docs" docs/*; \
	into "$(PREFIX)/share/doc/netbpf/examples" examples/* packaging/prometheus/* packaging/grafana/*

# The package has what `make install` installs, where Debian's zsh looks for it.
deb: build
	@packaging/install-needs deb
	@rm -rf "$(TARGET)/deb"
	@$(MAKE) --silent --no-print-directory install DESTDIR="$(abspath $(TARGET)/deb)" PREFIX=/usr \
		ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions
	@packaging/make-deb "$(TARGET)/deb"

clean:
	$(CARGO) clean
	rm -rf web/dist web/node_modules

check-deb: deb
	@packaging/check-deb

check-units: deb
	@packaging/check-units

check-fresh:
	@packaging/check-fresh

# No part of `make check`: an emulated machine takes minutes, and fetches 100 MB of each kernel once.
check-kernels: web
	@packaging/check-kernels $(KERNELS)

# The page is in the library that they try.
fuzz: web
	@packaging/fuzz $(TARGETS)
