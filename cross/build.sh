#!/bin/sh
# Builds one static binary: cross/build.sh TARGET [CARGO ARGUMENTS]. The targets
# are the files of cross/targets; a new one is a new file there.
#
# There are two ways to a standard library for the target: rustup's, where
# rustup has it or can get it, and one that is built from Debian's sources.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1-}
[ $# -eq 0 ] || shift

fail() {
	echo "make cross: $*" >&2
	exit 1
}

if [ -z "$target" ] || [ ! -f "$root/cross/targets/$target" ]; then
	known=$(ls "$root/cross/targets" | tr '\n' ' ')
	fail "TARGET is ${target:-not given}; there are: $known"
fi
# shellcheck source=/dev/null
. "$root/cross/targets/$target"

# What may be installed is, by whoever may.
install_packages() {
	command -v apt-get >/dev/null || fail "install $*, then try again"
	[ "$(id -u)" = 0 ] || fail "type: sudo apt-get update && sudo apt-get install $*"
	apt-get update -q && apt-get install -q -y --no-install-recommends "$@"
}

# zig holds a C compiler, a linker and musl for every target.
tools=$root/target/cross/tools
if [ ! -x "$tools/ziglang/zig" ]; then
	python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
		--target "$tools" ziglang==0.15.2
fi
export CROSS_ZIG="$tools/ziglang/zig"
export CROSS_ZIG_FLAGS="$zig"
under=$(echo "$triple" | tr - _)
upper=$(echo "$under" | tr '[:lower:]' '[:upper:]')
export "CC_$under=$root/cross/cc" "AR_$under=$root/cross/ar"
# The same bytes wherever the sources lie.
flags="--remap-path-prefix=$root=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

has_std() {
	libdir=$(rustc --print target-libdir --target "$triple" 2>/dev/null) && [ -d "$libdir" ]
}

cd "$root"
if has_std || { command -v rustup >/dev/null && rustup target add "$triple" >/dev/null 2>&1; }; then
	export "CARGO_TARGET_${upper}_LINKER=rust-lld" "CARGO_TARGET_${upper}_RUSTFLAGS=$flags"
	cargo build --release --locked --target "$triple" "$@"
else
	[ -x /usr/bin/rustc ] && [ -d /usr/src/rustc-*/library ] 2>/dev/null ||
		install_packages rustc-web cargo-web rust-web-src
	export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
	# In std and libc alike: dates past 2038 on 32-bit machines.
	export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1
	export "CARGO_TARGET_${upper}_LINKER=$root/cross/cc"
	export "CARGO_TARGET_${upper}_RUSTFLAGS=-Clink-self-contained=no $flags"
	/usr/bin/cargo build -Zbuild-std=std,panic_abort --release --locked --target "$triple" \
		--target-dir "$root/target/cross/debian" "$@"
	built=$root/target/cross/debian/$triple/release
fi
mkdir -p "target/cross/$target"
cp "${built:-target/$triple/release}/testflinger-agent" "target/cross/$target/"
sh cross/describe.sh "target/cross/$target/testflinger-agent"
