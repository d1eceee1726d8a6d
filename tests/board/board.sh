#!/bin/sh
# The board tests: tests/board/board.sh ARCH [CUTS]. A real Debian kernel boots in an
# emulator; busybox and the cross-built agent are all there is beside it. What that
# proves is in board.rs and, where its power is to be cut so often, in powercut.rs;
# this fetches what they need and lays it out.
#
# The machines are the files of tests/board/machines. Nothing is installed and no
# root is needed: packages are fetched under an apt state of their own and
# unpacked below target/board, where they stay.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
arch=${1-}
cuts=${2-}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

fail() {
	echo "make board-test: $*" >&2
	exit 1
}

case $root in
*[[:space:]]*) fail "cannot work in $root, which has a blank in its name" ;;
esac
if [ -z "$arch" ] || [ ! -f "$root/tests/board/machines/$arch" ]; then
	known=$(ls "$root/tests/board/machines" | tr '\n' ' ')
	fail "ARCH is ${arch:-not given}; there are: $known"
fi
# shellcheck source=/dev/null
. "$root/tests/board/machines/$arch"
cd "$root"
place=$root/target/board/$arch
mkdir -p "$place"

# An apt that knows one architecture of one suite, and thinks nothing installed.
board_apt() {
	command=$1
	shift
	"$command" -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
		-o Dir::Etc::SourceList="$place/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State="$place/apt" -o Dir::State::status="$place/apt/status" \
		-o Dir::Cache="$place/apt" -o APT::Sandbox::User= "$@"
}

# Unpacks the packages that lie in a directory into another one.
unpack() {
	for deb in "$1"/*.deb; do
		dpkg -x "$deb" "$2"
	done
}

if [ ! -e "$place/fetched" ]; then
	for tool in apt-get dpkg; do
		command -v "$tool" >/dev/null || fail "needs $tool to fetch a kernel from $mirror"
	done
	# Ubuntu and other relatives of Debian's come without.
	[ -r "$keyring" ] || fail "there is no $keyring, by which Debian's packages are known;" \
		'install the package debian-archive-keyring'
	rm -rf "$place"
	mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial" "$place/debs"
	: >"$place/apt/status"
	echo "deb [signed-by=$keyring] $mirror $suite main" \
		>"$place/apt/sources.list"
	board_apt apt-get update
	# The kernel's package of that name only names the newest one.
	newest=$(board_apt apt-cache depends "$kernel" | awk '/Depends: linux-image/ { print $2; exit }')
	(cd "$place/debs" && board_apt apt-get download busybox-static "$newest")
	unpack "$place/debs" "$place/debian"
	rm -rf "$place/apt" "$place/debs"
	touch "$place/fetched"
fi

# Installing an emulator may remove others that are in use; it runs from where it is
# unpacked as well.
if ! command -v "$emulator" >/dev/null; then
	qemu=$root/target/board/qemu-$arch
	if [ ! -e "$qemu/fetched" ]; then
		# This machine's packages, its lists left alone.
		host_apt() {
			command=$1
			shift
			"$command" -q -o Dir::State="$qemu/apt" -o Dir::State::status=/var/lib/dpkg/status \
				-o Dir::Cache="$qemu/apt" -o APT::Sandbox::User= "$@"
		}
		rm -rf "$qemu"
		mkdir -p "$qemu/apt/lists/partial" "$qemu/apt/archives/partial" "$qemu/debs"
		# A source that cannot be reached need not be the one.
		host_apt apt-get update || true
		# With the libraries that this machine lacks.
		# shellcheck disable=SC2086
		missing=$(host_apt apt-get -s install --no-install-recommends $packages | awk '/^Inst/ { print $2 }')
		[ -n "$missing" ] || fail "cannot find $packages"
		# shellcheck disable=SC2086
		(cd "$qemu/debs" && host_apt apt-get download $missing)
		unpack "$qemu/debs" "$qemu"
		rm -rf "$qemu/debs" "$qemu/apt"
		touch "$qemu/fetched"
	fi
	libraries=$(find "$qemu" -name '*.so*' -exec dirname {} \; | sort -u | tr '\n' ':')
	emulator="env LD_LIBRARY_PATH=$libraries $qemu/usr/bin/$emulator"
	for data in qemu seabios; do
		emulator="$emulator -L $qemu/usr/share/$data"
	done
fi

sh cross/build.sh "$target"
binary=$root/target/cross/$target/testflinger-agent

# The board's files: busybox, the kernel's modules, and what `make install` puts
# there.
board=$place/root
rm -rf "$board"
mkdir -p "$board/bin" "$board/sbin" "$board/dev" "$board/proc" "$board/lib/modules"
cp -R tests/board/root/. "$board/"
cp "$(find "$place/debian" -path '*/bin/busybox' -type f)" "$board/bin/busybox"
for name in bin/sh bin/mount bin/cat bin/date bin/uname bin/mkdir bin/kill bin/pidof \
	bin/sleep sbin/init sbin/insmod sbin/ifconfig sbin/poweroff; do
	ln -s /bin/busybox "$board/$name"
done
for module in virtio_ring virtio virtio_mmio virtio_pci_modern_dev virtio_pci_legacy_dev \
	virtio_pci failover net_failover virtio_net virtio_blk crc16 crc32c_generic libcrc32c \
	mbcache jbd2 ext4 watchdog softdog; do
	found=$(find "$place/debian" -name "$module.ko*" -type f)
	case "$found" in
	*.xz) xz -dc "$found" >"$board/lib/modules/$module.ko" ;;
	*.ko) cp "$found" "$board/lib/modules/" ;;
	esac
done
DESTDIR=$board PREFIX='' INIT=busybox BINARY=$binary sh cross/install/install.sh >/dev/null

# The disk is made while the board is packed.
[ -z "$cuts" ] || [ -x /sbin/mke2fs ] || fail 'needs /sbin/mke2fs (e2fsprogs)'
if [ -z "$cuts" ]; then
	set -- board "$board" "$place/initrd"
else
	mkdir "$board/disk"
	set -- powercut "$board" "$place/initrd" "$cuts"
	machine="$machine -drive if=none,id=disk,format=raw,file=$place/disk -device $disk,drive=disk"
fi
example=$1
shift
# shellcheck disable=SC2086
cargo run --quiet --locked --example "$example" -- "$@" \
	$emulator $machine -accel tcg -smp 1 -m 128 -nodefaults -display none -monitor none \
	-serial stdio -no-reboot -rtc base=1970-01-01 \
	-kernel "$(find "$place/debian/boot" -name 'vmlinu*')" -initrd "$place/initrd" \
	-append "console=$console panic=-1 rdinit=/sbin/init quiet" \
	-netdev user,id=net -device "$nic,netdev=net"
