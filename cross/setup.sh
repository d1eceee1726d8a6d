# What the scripts of this folder share; each reads it with `.` and TARGET in
# $target. Afterwards `cross_cargo COMMAND …` is cargo for that target.
#
# The standard library is built with the program, for its size and for dates past
# 2038 on 32-bit machines: in the one that rustup has, a time has 32 bits there.
# Its sources must be of the compiler's own version. There are two ways to
# both: rustup's compiler with its component rust-src, and, where rustup is not
# or is too old or cannot reach its servers, Debian's rustc-web with rust-web-src.
# CROSS_RUST=debian takes the second at once.

fail() {
	echo "make cross: $*" >&2
	exit 1
}

if [ -z "$target" ] || [ ! -f "$root/cross/targets/$target" ]; then
	fail "TARGET is ${target:-not given}; there are: $(ls "$root/cross/targets" | tr '\n' ' ')"
fi
# Sets triple, zig, emulator and the limits.
# shellcheck source=/dev/null
. "$root/cross/targets/$target"

# Whoever may install, does; anybody else is told what to type.
install_packages() {
	command -v apt-get >/dev/null || fail "install $* (names as in Debian), then try again"
	[ "$(id -u)" = 0 ] || fail "type: sudo apt-get update && sudo apt-get install $*"
	echo "make cross: installing $*" >&2
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# Whether this compiler's standard library is there as source.
has_sources() {
	[ -f "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

# Whether a compiler is recent enough, for the target or else for the sources.
wanted=${rust-$(sed -n 's/^rust-version = "1\.\(.*\)"/\1/p' "$root/Cargo.toml")}
is_recent() {
	version=$("$1" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
	[ "${version:-0}" -ge "$wanted" ]
}

# Whether the person's own compiler can do it, perhaps with what rustup still
# has to fetch.
own_compiler() {
	[ "${CROSS_RUST-}" != debian ] && is_recent rustc || return 1
	has_sources rustc || { command -v rustup >/dev/null && rustup component add rust-src >&2; }
}

# Whether rustup's compiler is all that is too old.
is_rustup_s_to_do() {
	[ "${CROSS_RUST-}" != debian ] && command -v rustup >/dev/null && ! is_recent rustc
}

# Whether Debian's compiler can be installed, by this user.
debian_has_it() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
	# A machine that has just been made knows of no package yet.
	apt-cache show rustc-web >/dev/null 2>&1 ||
		{ apt-get update -q >&2 && apt-cache show rustc-web >/dev/null 2>&1; }
}

zig_version=0.15.2
tools=$root/target/cross/tools
# What has this name is whole. Until it had it, pip fetched right into
# ziglang-$zig_version, of which a part is left where that was broken off.
CROSS_ZIG=$tools/zig-$zig_version/ziglang/zig

# Beside its place, and there in one step. In a shell of its own: the traps are.
fetch_zig() (
	mkdir -p "$tools" && place=$(mktemp -d "$tools/fetching-XXXXXX") || exit 1
	trap 'rm -rf "$place"' EXIT
	trap 'exit 1' HUP INT TERM
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
		--target "$place/zig-$zig_version" "ziglang==$zig_version" ||
		fail "cannot get zig $zig_version from PyPI; pip says why"
	# Another make may have been first, and use it: a directory is not replaced by
	# another one while there is something in it.
	[ -x "$CROSS_ZIG" ] || mv "$place/zig-$zig_version" "$tools/" || [ -x "$CROSS_ZIG" ] || exit 1
	rm -rf "$tools/ziglang-$zig_version"
)

missing=
if own_compiler; then
	RUSTC=rustc
	cargo=cargo
	command -v cc >/dev/null || missing="$missing gcc libc6-dev"
else
	RUSTC=/usr/bin/rustc
	cargo=/usr/bin/cargo
	if ! is_recent $RUSTC || ! has_sources $RUSTC || [ ! -x $cargo ]; then
		! is_rustup_s_to_do || debian_has_it ||
			fail "$target needs Rust 1.$wanted; type: rustup update (or CROSS_RUST=debian on Debian 12)"
		missing="$missing rustc-web cargo-web rust-web-src"
	fi
fi
command -v readelf >/dev/null || missing="$missing binutils"
[ -x "$CROSS_ZIG" ] || python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
# A list of words.
# shellcheck disable=SC2086
[ -z "$missing" ] || install_packages $missing
{ is_recent $RUSTC && has_sources $RUSTC; } ||
	fail "Rust 1.$wanted or later is needed, with the sources of its library"

# zig holds a C compiler, a linker and musl for every target.
CROSS_ZIG_FLAGS=$zig
export CROSS_ZIG CROSS_ZIG_FLAGS
[ -x "$CROSS_ZIG" ] || fetch_zig || exit 1
sysroot=$("$RUSTC" --print sysroot)

under=$(echo "$triple" | tr - _)
upper=$(echo "$under" | tr '[:lower:]' '[:upper:]')
# What stands between two flags of CARGO_ENCODED_RUSTFLAGS.
separator=$(printf '\037')
cross_target_dir=${CROSS_TARGET_DIR-$root/target/cross/build}

# cargo COMMAND, for the target.
cross_cargo() {
	command=$1
	shift
	(
		cd "$root"
		# What follows is not stable yet: the standard library from its sources.
		export RUSTC RUSTC_BOOTSTRAP=1
		# In std and libc alike: dates past 2038 on 32-bit machines.
		export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1
		export "CC_$under=$root/cross/cc" "AR_$under=$root/cross/ar"
		export "CARGO_TARGET_${upper}_LINKER=$root/cross/cc"
		# zig has the C library and links it statically. The compiler is not told
		# (crt-static), because it then asks for no position independence on some
		# targets. Nobody unwinds: a panic says what it is and aborts. The
		# prefixes: the same bytes wherever the sources lie, which may have blanks in
		# its name.
		encoded=
		for flag in -Clink-self-contained=no -Ctarget-feature=-crt-static \
			-Cforce-unwind-tables=no -Csymbol-mangling-version=v0 ${rustflags-} ${CROSS_RUSTFLAGS-} \
			"--remap-path-prefix=$root=." \
			"--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo" \
			"--remap-path-prefix=$sysroot=rust"; do
			encoded=$encoded${encoded:+$separator}$flag
		done
		export CARGO_ENCODED_RUSTFLAGS="$encoded"
		"$cargo" "$command" -Zbuild-std=std,panic_abort \
			-Zbuild-std-features=optimize_for_size --release --locked \
			--target "$triple" --target-dir "$cross_target_dir" "$@"
	)
}
built=$cross_target_dir/$triple/release/testflinger-agent
