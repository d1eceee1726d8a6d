#!/bin/sh
# Fuzzes every target for so many seconds, two at a time: tests/fuzz/fuzz.sh SECONDS.
# `make fuzz` calls this.
#
# What is found on the way is kept in target/fuzz/corpus, what fails in
# target/fuzz/found; then this fails too. Without a sanitizer, so that stable Rust does.
set -eu
seconds=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
version=0.13.2
# Each build here has a place of its own; that of cargo-fuzz is removed again.
unset CARGO_TARGET_DIR

cargo fuzz --version 2>/dev/null | grep -q " $version\$" ||
	cargo install --quiet --locked cargo-fuzz --version "$version"
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir target/fuzz/build
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/fuzz/found
# Each input has files of its own: many times as fast in memory.
if [ -d /dev/shm ] && [ -w /dev/shm ]; then
	export TMPDIR=/dev/shm
fi

fuzz() {
	mkdir -p "target/fuzz/corpus/$1"
	# An input that takes ten seconds, or half a gigabyte, is a fault as well.
	"target/fuzz/build/$host/release/$1" "target/fuzz/corpus/$1" "tests/fuzz/corpus/$1" \
		-max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=16384 \
		-print_final_stats=1 -artifact_prefix="target/fuzz/found/$1-" \
		>"target/fuzz/$1.log" 2>&1
}

# Waits for one of them.
report() {
	if wait "$2"; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "target/fuzz/$1.log")
		echo "$1: $runs inputs in $seconds s, no fault"
	else
		tail -n 30 "target/fuzz/$1.log"
		echo "$1: failed; target/fuzz/$1.log names the input's file"
		failed=1
	fi
}

failed=0
set -- json config masker journal answers attachments
while [ $# -gt 1 ]; do
	fuzz "$1" &
	first=$!
	fuzz "$2" &
	second=$!
	report "$1" "$first"
	report "$2" "$second"
	shift 2
done
exit "$failed"
