#!/bin/sh
# Says of a binary how large it is, and that it is static: it names no
# interpreter and needs no library. Fails when it is not, or when that cannot be seen.
set -eu
binary=$1

fail() {
	echo "$binary $*" >&2
	exit 1
}

# readelf's own words are looked for below.
LC_ALL=C
export LC_ALL
size=$(wc -c <"$binary")
{ header=$(readelf -hW "$binary") && segments=$(readelf -lW "$binary") &&
	dynamic=$(readelf -dW "$binary"); } || fail 'is nothing that readelf can read'
case $(echo "$header" | sed -n 's/ *Type: *\([A-Z]*\).*/\1/p') in
DYN) kind=', position independent' ;;
EXEC) kind= ;;
*) fail 'is not a program' ;;
esac
case $segments in
*INTERP*) fail 'is not static: it names an interpreter' ;;
*LOAD*) ;;
*) fail 'has nothing that is loaded' ;;
esac
case $dynamic in
*'(NEEDED)'*) fail 'is not static: it needs libraries' ;;
esac
machine=$(echo "$header" | sed -n 's/ *Machine: *//p')
echo "${binary#"$PWD/"}: $size bytes, static$kind, $machine"
