#!/bin/sh
# The original's traffic between the simulated clients, sent by our program; tmux and ping take no part.
# NETBPF_BIN_DIR names another place of the binaries.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
built="${NETBPF_BIN_DIR:-$here/../../target/release}/tunnel_monitor"
[ -x "$built" ] && exec "$built" traffic "$@"
command -v tunnel_monitor >/dev/null && exec tunnel_monitor traffic "$@"
echo "tunnel_monitor is not built: run 'make build' in $(dirname "$(dirname "$here")")" >&2
exit 1
