#!/bin/sh
# Builds one static binary: cross/build.sh TARGET [CARGO ARGUMENTS]. The targets
# are the files of cross/targets; a new one is a new file there. It ends up at
# target/cross/TARGET/testflinger-agent, or where OUTPUT says.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
[ $# -eq 0 ] || shift
# shellcheck source=/dev/null
. "$root/cross/setup.sh"

output=${OUTPUT-$root/target/cross/$target/testflinger-agent}
cross_cargo build "$@"
mkdir -p "$(dirname "$output")"
# In one step, also over a file that runs.
cp "$built" "$output.new"
mv "$output.new" "$output"
sh "$root/cross/describe.sh" "$output"
