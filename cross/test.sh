#!/bin/sh
# Runs the integration tests on a cross-built binary: cross/test.sh TARGET. An
# emulator runs the binary; the tests, their server and the shell of the phases
# are this machine's own. What the emulator cannot do, the test says.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
# shellcheck source=/dev/null
. "$root/cross/setup.sh"

sh "$root/cross/build.sh" "$target"
[ -z "$emulator" ] || command -v "${emulator%% *}" >/dev/null || install_packages qemu-user
TESTFLINGER_TEST_PROGRAM="$emulator $root/target/cross/$target/testflinger-agent"
export TESTFLINGER_TEST_PROGRAM
# An emulated agent is slower, and waits as much.
RUST_TEST_THREADS=${RUST_TEST_THREADS-8}
export RUST_TEST_THREADS

# All that may run the program; not those of texts and of the server alone.
set --
for file in "$root"/tests/*.rs; do
	name=$(basename "$file" .rs)
	case $name in
	proxy | readme | rows | wire) ;;
	*) set -- "$@" --test "$name" ;;
	esac
done
cd "$root"
# The fixture first: `cargo test --test` does not build it.
cargo build --locked --quiet --example fixture
cargo test --locked --no-fail-fast "$@" -- --show-output
