#!/bin/sh
# Fails when one of the binaries in target/cross is larger than its file in
# cross/targets allows, and says what each may be.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
failed=0

# hold BINARY LIMIT: of a binary that has been built.
hold() {
	[ -n "$2" ] && [ -f "$1" ] || return 0
	size=$(wc -c <"$1")
	echo "${1#"$root/"}: $size bytes of at most $2"
	[ "$size" -le "$2" ] || failed=1
}

for file in "$root"/cross/targets/*; do
	limit= limit_plain=
	# shellcheck source=/dev/null
	. "$file"
	built=$root/target/cross/${file##*/}/testflinger-agent
	hold "$built" "$limit"
	hold "$built-plain" "$limit_plain"
done
[ $failed -eq 0 ] || {
	echo "make limits: too large; \`make size TARGET=…\` shows what it is made of" >&2
	exit 1
}
