#!/bin/sh
# Says of a binary how large it is, and that it is static: it names no
# interpreter and needs no library.
set -eu
binary=$1
size=$(wc -c <"$binary")
if readelf -lW "$binary" | grep -q INTERP || readelf -dW "$binary" | grep -q NEEDED; then
	echo "$binary is not static" >&2
	exit 1
fi
machine=$(readelf -hW "$binary" | sed -n 's/ *Machine: *//p')
case $(readelf -hW "$binary" | sed -n 's/ *Type: *\([A-Z]*\).*/\1/p') in
DYN) kind=", position independent" ;;
*) kind= ;;
esac
echo "${binary#"$PWD/"}: $size bytes, static$kind, $machine"
