#!/bin/sh
# What a target's binary is made of: cross/size.sh TARGET. Bytes by crate, of our
# own by room, from a build that keeps its symbols. What a generic function
# of one crate does for another counts where it is written.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
# shellcheck source=/dev/null
. "$root/cross/setup.sh"

cross_cargo rustc --quiet --bin testflinger-agent -- -Cstrip=none
binary=$root/target/cross/$target/testflinger-agent-with-symbols
mkdir -p "${binary%/*}"
cp "$built" "$binary"

# Each section that is loaded, and each symbol once, however many names it has:
# size and name. readelf counts sections in hexadecimal.
sections() {
	readelf -SW "$binary" | sed 's/^ *\[ *[0-9]*\] *//' |
		awk '$2 ~ /^[A-Z]/ && $2 != "NOBITS" && $7 ~ /A/ { print "0x" $5, "section" }'
}
symbols() {
	readelf -sW "$binary" |
		awk '$4 == "FUNC" || $4 == "OBJECT" { print $2, $3, $8 }' |
		sort -u -k1,1 | cut -d' ' -f2- | c++filt
}

{ sections; symbols; } | awk '
	function number(text,   value, at) {
		if (text !~ /^0x/) return text + 0
		for (at = 3; at <= length(text); at++)
			value = value * 16 + index("0123456789abcdef", substr(text, at, 1)) - 1
		return value
	}
	# The crate of a demangled name: its first path, whatever stands before it.
	# Of our own, the room as well.
	function owner(name,   crate, path) {
		room = ""
		if (name ~ /^ring_core_/) return "ring"
		while (sub(/^([<&*(\[ ]|mut |dyn |const )/, "", name)) {}
		if (!match(name, /^[A-Za-z_0-9]+(\[[0-9a-f]+\])?::/)) return "C and assembly: musl, ring"
		crate = substr(name, 1, RLENGTH)
		path = substr(name, RLENGTH + 1)
		sub(/(\[.*)?::$/, "", crate)
		if (crate != "testflinger_agent") return crate
		room = match(path, /^[a-z_]+::/) ? "src/" substr(path, 1, RLENGTH - 2) "/" : "src/main.rs"
		return crate
	}
	{
		size = number($1)
		name = $0
		sub(/^[^ ]* /, "", name)
	}
	name == "section" { all += size; next }
	{
		crate = owner(name)
		bytes[crate] += size
		named += size
		if (room) rooms[room] += size
	}
	END {
		bytes["without a name: texts, tables, roots of the web"] = all - named
		sorted = "sort -rn"
		line = "%9d %5.1f %%  %s\n"
		for (crate in bytes) if (bytes[crate]) printf line, bytes[crate], 100 * bytes[crate] / all, crate | sorted
		close(sorted)
		printf line "\nOf testflinger_agent:\n", all, 100, "all that is loaded"
		for (room in rooms) printf line, rooms[room], 100 * rooms[room] / all, room | sorted
	}'
