#!/bin/sh
# Builds twice, in two folders and with two cargo homes, and compares the bytes:
# cross/repro.sh TARGET. What is built is the last commit.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
# shellcheck source=/dev/null
. "$root/cross/setup.sh"

place=$(mktemp -d "${TMPDIR:-/tmp}/testflinger-repro-XXXXXX")
trap 'rm -rf "$place"' EXIT
# rustup's own commands lie in the cargo home that is replaced.
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
for name in one a-second-one; do
	git clone -q "$root" "$place/$name"
	# zig is the same: it is pinned, and is not what is tried here.
	mkdir -p "$place/$name/target/cross" "$place/$name-home"
	ln -s "$tools" "$place/$name/target/cross/tools"
	CARGO_HOME="$place/$name-home" RUSTUP_HOME="$rustup_home" \
		sh "$place/$name/cross/build.sh" "$target"
done
first=$place/one/target/cross/$target/testflinger-agent
second=$place/a-second-one/target/cross/$target/testflinger-agent
if ! cmp "$first" "$second"; then
	echo "make cross-repro: the two builds differ" >&2
	exit 1
fi
sum=$(sha256sum <"$first")
echo "the same bytes twice: sha256 ${sum%% *}"
