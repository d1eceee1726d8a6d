# What there is to do: make build, demo, test, bench, soak-upload, clean; cross.

CARGO ?= cargo
# The tests wait for processes and clocks more than they compute.
export RUST_TEST_THREADS ?= 8

.PHONY: build demo test bench soak-upload clean tools

build:
	$(CARGO) build --release --locked

demo: build
	@sh tests/demo/demo.sh "$(CURDIR)/target/release/testflinger-agent"

test: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --quiet -- -D warnings
	$(CARGO) test --locked --quiet

bench:
	$(CARGO) bench --locked --quiet --bench bench

# Two gigabytes at a megabyte a second, over TLS: half an hour.
soak-upload:
	TESTFLINGER_SLOW_UPLOAD=2000 $(CARGO) test --locked --quiet --test deadlines -- \
		--exact tls::a_slow_upload_of_artifacts_is_not_cut_off --nocapture

clean:
	$(CARGO) clean

# A minimal toolchain comes without these two.
tools:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy

# One static binary: make cross TARGET=aarch64.
.PHONY: cross cross-all
cross:
	@sh cross/build.sh "$(TARGET)"

cross-all:
	@for target in $$(ls cross/targets); do sh cross/build.sh $$target || exit 1; done

# Puts the agent where a board has it; cross/install/install.sh says what it takes:
# make install INIT=busybox DESTDIR=/mnt/card BINARY=target/cross/aarch64/testflinger-agent
.PHONY: install board-test
PREFIX ?= /usr/local
BINARY ?= target/release/testflinger-agent
install:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" INIT="$(INIT)" BINARY="$(BINARY)" \
		sh cross/install/install.sh

# A real kernel in an emulator with nothing but busybox and the agent.
ARCH ?= arm64
board-test:
	@sh tests/board/board.sh "$(ARCH)"
