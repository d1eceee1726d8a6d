# What there is to do: make build, demo, test, bench, soak-…, torture, fuzz, clean; cross.

CARGO ?= cargo
# Where all that is here looks for what has been built, whatever a person has in the
# environment or in cargo's configuration.
export CARGO_TARGET_DIR := $(CURDIR)/target
# The tests wait for processes and clocks more than they compute.
export RUST_TEST_THREADS ?= 8

.PHONY: build demo test bench soak-upload soak-replies soak torture fuzz metrics-test fixtures clean tools

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
soak-upload: fixtures
	TESTFLINGER_SLOW_UPLOAD=2000 $(CARGO) test --locked --quiet --test deadlines -- \
		--exact tls::a_slow_upload_of_artifacts_is_not_cut_off --nocapture

# A thousand lost replies, in thirty lanes: five minutes.
soak-replies: fixtures
	TESTFLINGER_LOST_REPLIES=1000 $(CARGO) test --locked --quiet --test read_back -- \
		--exact row_21_no_text_is_lost_or_doubled_when_replies_are_lost --nocapture

# A thousand jobs with outages between them, and what is left of that in the agent: seven
# minutes.
soak: fixtures
	TESTFLINGER_SOAK_JOBS=1000 $(CARGO) test --locked --quiet --test resources -- \
		--exact row_45_two_hundred_jobs_with_outages_between_them_leave_nothing_in_the_agent \
		--nocapture

# Agents are killed before each operation, before each system call, and a thousand at
# random times: four minutes.
torture: fixtures
	TESTFLINGER_KILLS=1000 $(CARGO) test --locked --quiet --test crash -- \
		row_33 --nocapture --test-threads=1

# What fuzzers make up, for so many seconds each: an hour in all.
FUZZ_SECONDS ?= 1200
fuzz:
	@sh tests/fuzz/fuzz.sh "$(FUZZ_SECONDS)"

# The scrape example and the dashboard in cross/install/, with a real Prometheus.
metrics-test:
	@CARGO="$(CARGO)" sh tests/metrics/prometheus.sh

# What the tests start and load.
fixtures:
	$(CARGO) build --locked --quiet --examples

clean:
	$(CARGO) clean

# A minimal toolchain comes without these two.
tools:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy

# One static binary for another machine, and what is to be known of it:
# make cross TARGET=aarch64. README.md ("Building for boards") has more.
TARGET ?=
.PHONY: cross cross-all cross-plain cross-test cross-bench cross-repro size limits
cross:
	@sh cross/build.sh "$(TARGET)"

cross-all:
	@for target in $$(ls cross/targets); do sh cross/build.sh $$target || exit 1; done

# Without TLS, for where every kilobyte counts: the places in panics take fifty, and
# what is inlined thirty.
cross-plain:
	@OUTPUT="target/cross/$(TARGET)/testflinger-agent-plain" \
		CROSS_RUSTFLAGS="-Zlocation-detail=none -Cllvm-args=--inline-threshold=10" sh cross/build.sh "$(TARGET)" --no-default-features

# The integration tests on the cross-built binary, in an emulator.
cross-test:
	@sh cross/test.sh "$(TARGET)"

# The figures of `make bench` for it; for x86_64 only.
cross-bench: cross
	@case "$(CURDIR)" in *' '*) echo "make cross-bench: $(CURDIR) has a blank in it" >&2; exit 1 ;; esac
	TESTFLINGER_TEST_PROGRAM="$(CURDIR)/target/cross/$(TARGET)/testflinger-agent" \
		$(CARGO) bench --locked --quiet --bench bench

# Two builds in two places, byte by byte.
cross-repro:
	@sh cross/repro.sh "$(TARGET)"

# What the binary is made of, by crate.
size:
	@sh cross/size.sh "$(or $(TARGET),aarch64)"

# Whether each binary that has been built is as small as it has to be.
limits:
	@sh cross/limits.sh

# Puts the agent where a board has it; cross/install/install.sh says what it takes:
# make install INIT=busybox DESTDIR=/mnt/card BINARY=target/cross/aarch64/testflinger-agent
.PHONY: install board-test powercut
PREFIX ?= /usr/local
BINARY ?= target/release/testflinger-agent
# By the environment, so that no shell reads them before the script does.
install: export DESTDIR := $(DESTDIR)
install: export PREFIX := $(PREFIX)
install: export INIT := $(INIT)
install: export BINARY := $(BINARY)
install:
	@sh cross/install/install.sh

# A real kernel in an emulator with nothing but busybox and the agent.
ARCH ?= arm64
board-test:
	@sh tests/board/board.sh "$(ARCH)"

# The same, whose power is cut so often in the middle of a job.
CUTS ?= 200
powercut:
	@sh tests/board/board.sh "$(ARCH)" "$(CUTS)"
