#!/bin/sh
# Tries what is in cross/install/ for Prometheus with a real one, from Debian's packages
# if there is none; `make metrics-test` calls this.
set -eu

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if ! command -v prometheus >/dev/null; then
	as_root apt-get update -q
	as_root apt-get install -q -y --no-install-recommends prometheus
	# The test starts one of its own; the package's is not wanted.
	as_root service prometheus stop || true
fi
exec "${CARGO:-cargo}" test --locked --quiet --test metrics -- --ignored --nocapture prometheus
