#!/bin/sh
# Fails when one of the binaries in target/cross is larger than its file in
# cross/targets allows, or when there is none, and says what each may be.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
failed=0
missing= count=0

# hold BINARY LIMIT WHAT-MAKES-IT
hold() {
	[ -n "$2" ] || return 0
	if [ ! -f "$1" ]; then
		missing="$missing, make $3"
		return
	fi
	count=$((count + 1))
	size=$(wc -c <"$1")
	echo "${1#"$root/"}: $size bytes of at most $2"
	[ "$size" -le "$2" ] || failed=1
}

for file in "$root"/cross/targets/*; do
	limit= limit_plain=
	# shellcheck source=/dev/null
	. "$file"
	target=${file##*/}
	built=$root/target/cross/$target/testflinger-agent
	hold "$built" "$limit" "cross TARGET=$target"
	hold "$built-plain" "$limit_plain" "cross-plain TARGET=$target"
done
[ -z "$missing" ] || echo "not built: ${missing#, }"
[ $count -gt 0 ] || {
	echo 'make limits: nothing has been built yet' >&2
	exit 1
}
[ $failed -eq 0 ] || {
	echo "make limits: too large; \`make size TARGET=…\` shows what it is made of" >&2
	exit 1
}
