#!/bin/sh
# Runs the integration tests on a cross-built binary: cross/test.sh TARGET [FILE…],
# FILEs being those of tests/ that are wanted. An emulator runs the binary; the
# tests, their server and the shell of the phases are this machine's own. What
# the emulator cannot do, the test says.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
[ $# -eq 0 ] || shift
# shellcheck source=/dev/null
. "$root/cross/setup.sh"

case $root in
*[[:space:]]*) fail "the tests know the program by words, and $root has a blank in it" ;;
esac
sh "$root/cross/build.sh" "$target"
[ -z "$emulator" ] || command -v "${emulator%% *}" >/dev/null || install_packages qemu-user
TESTFLINGER_TEST_PROGRAM="$emulator $root/target/cross/$target/testflinger-agent"
RUST_TEST_THREADS=${RUST_TEST_THREADS-8}
export TESTFLINGER_TEST_PROGRAM RUST_TEST_THREADS

# All that may run the program; not those of texts and of the server alone.
if [ $# -eq 0 ]; then
	for file in "$root"/tests/*.rs; do
		name=$(basename "$file" .rs)
		case $name in
		proxy | readme | rows | wire) ;;
		*) set -- "$@" "$name" ;;
		esac
	done
fi
cd "$root"
# The fixture as well: `cargo test --test` does not build it.
cargo test --locked --quiet --tests --no-run
cargo build --locked --quiet --examples

# Two files at a time, because they wait more than they compute.
said=$root/target/cross/$target/tests
mkdir -p "$said"
# shellcheck disable=SC2016
printf '%s\n' "$@" | xargs -P 2 -I NAME sh -c '
	status=0
	cargo test --locked --quiet --test NAME -- --show-output >"$1" 2>&1 || status=1
	echo "== tests/NAME.rs"
	cat "$1"
	exit $status
' sh "$said/NAME"
