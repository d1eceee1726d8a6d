#!/bin/sh
# Puts the agent where a board has it; `make install` calls this.
#
#   DESTDIR  the board's root, as seen from here: a mounted card, a build's staging
#            directory (default: this machine's)
#   PREFIX   above bin/, where the program goes, as the board sees it (default:
#            /usr/local)
#   INIT     systemd, busybox, sysvinit or openrc
#   BINARY   the program (default: the one of `make build`)
#
# A configuration that is there stays as it is.
set -eu
# Whatever is made on the way can be read by everybody.
umask 022
here=$(dirname "$0")
destdir=${DESTDIR:-}
# Each path goes on with one. `/` is this machine.
destdir=${destdir%/}
prefix=${PREFIX-/usr/local}
binary=${BINARY:-$here/../../target/release/testflinger-agent}

fail() {
	echo "make install: $*" >&2
	exit 1
}

case "${INIT:-}" in
systemd | busybox | sysvinit | openrc) ;;
*) fail "INIT is ${INIT:-not given}; there are: systemd busybox sysvinit openrc" ;;
esac
# It becomes a part of an inittab, a unit and scripts, which all quote differently.
case "$prefix" in
'' | /*) ;;
*) fail "PREFIX is $prefix; it has to begin with /" ;;
esac
LC_ALL=C
export LC_ALL
case "$prefix" in
*[!A-Za-z0-9/._+-]*) fail "PREFIX is $prefix; letters, digits and /._+- can be in it" ;;
esac
case "$prefix/" in
*/../*) fail "PREFIX is $prefix; it has to do without .." ;;
esac
prefix=${prefix%/}
[ -f "$binary" ] || fail "there is no $binary; make build or make cross makes one"

# A file of this folder, with the right path of the program in it.
adapted() {
	sed "s#/usr/local/bin/testflinger-agent#$prefix/bin/testflinger-agent#" "$here/$1"
}

# Makes a directory of the board, which no link may lead out of it: into this machine.
directory() {
	place=$1
	until [ -e "$destdir$place" ] || [ -L "$destdir$place" ]; do
		place=$(dirname "$place")
	done
	if [ -n "$destdir" ]; then
		inside=$(readlink -f "$destdir")
		case "$(readlink -f "$destdir$place")/" in
		"${inside%/}"/*) ;;
		*) fail "$destdir$place leads out of $destdir" ;;
		esac
	fi
	mkdir -p "$destdir$1"
}

put() {
	directory "$(dirname "$3")"
	adapted "$2" >"$destdir$3.new"
	chmod "$1" "$destdir$3.new"
	mv "$destdir$3.new" "$destdir$3"
	echo "$destdir$3"
}

[ -z "$destdir" ] || mkdir -p "$destdir"
inittab=$destdir/etc/inittab
case "$INIT" in
busybox | sysvinit)
	[ ! -L "$inittab" ] ||
		fail "$inittab is a link; make a file of it, or add the lines of cross/install/inittab by hand"
	;;
esac
# In one step, also while the old one runs.
directory "$prefix/bin"
cp "$binary" "$destdir$prefix/bin/testflinger-agent.new"
chmod 755 "$destdir$prefix/bin/testflinger-agent.new"
mv "$destdir$prefix/bin/testflinger-agent.new" "$destdir$prefix/bin/testflinger-agent"
echo "$destdir$prefix/bin/testflinger-agent"
# The token lies here, and what is owed to the server.
directory /var/lib/testflinger-agent
# Only to be gone through: see run_as.
chmod 711 "$destdir/var/lib/testflinger-agent"
if [ -e "$destdir/etc/testflinger-agent.conf" ] || [ -L "$destdir/etc/testflinger-agent.conf" ]; then
	echo "$destdir/etc/testflinger-agent.conf stays as it is"
else
	put 644 testflinger-agent.conf /etc/testflinger-agent.conf
fi

case "$INIT" in
systemd)
	# It looks for units in some places only.
	case "$prefix" in
	'' | /usr | /usr/local) units=$prefix/lib/systemd/system ;;
	*) units=/etc/systemd/system ;;
	esac
	put 644 testflinger-agent.service "$units/testflinger-agent.service"
	put 644 testflinger-agent@.service "$units/testflinger-agent@.service"
	echo 'now edit the configuration, then: systemctl enable --now testflinger-agent'
	;;
openrc)
	put 755 testflinger-agent.openrc /etc/init.d/testflinger-agent
	echo 'now edit the configuration, then: rc-update add testflinger-agent; rc-service testflinger-agent start'
	;;
busybox | sysvinit)
	# Here init itself starts it, and starts it again.
	if [ -f "$inittab" ]; then
		if grep -q '^[^#]*:respawn:.*testflinger-agent' "$inittab"; then
			echo "$inittab starts the agent already; see that it is $prefix/bin/testflinger-agent"
		else
			# The file's owner and mode are those of the old one.
			cp -p "$inittab" "$inittab.new"
			case "$INIT" in
			busybox) { adapted inittab; cat "$inittab"; } ;;
			# These lines begin with an empty one: the last line may have no end.
			sysvinit) { cat "$inittab"; adapted inittab.sysvinit; } ;;
			esac >"$inittab.new"
			mv "$inittab.new" "$inittab"
			echo "$inittab has the agent"
		fi
		# To sysvinit it means the same.
		echo 'now edit the configuration, then: kill -HUP 1'
	else
		put 755 S90testflinger-agent /etc/init.d/S90testflinger-agent
		echo 'now edit the configuration, then: /etc/init.d/S90testflinger-agent start'
	fi
	;;
esac
