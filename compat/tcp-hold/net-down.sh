#!/bin/bash
# Removes the original's network.
# NETBPF_BIN_DIR names another place of the binaries.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
built="${NETBPF_BIN_DIR:-$here/../../target/release}/tcp_hold"
[ -x "$built" ] && exec -a "$0" "$built" net-down
command -v tcp_hold >/dev/null && exec -a "$0" "$(command -v tcp_hold)" net-down
echo "tcp_hold is not built: run 'make build' in $(dirname "$(dirname "$here")")" >&2
exit 1
