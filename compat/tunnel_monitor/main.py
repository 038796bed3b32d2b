#!/bin/sh
''':'
# The original's command line, on our program. Runs with python and without: a shell stops reading at
# the exec, python takes these lines for a string. NETBPF_BIN_DIR names another place of the binaries.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
built="${NETBPF_BIN_DIR:-$here/../../target/release}/tunnel_monitor"
[ -x "$built" ] && exec "$built" "$@"
command -v tunnel_monitor >/dev/null && exec tunnel_monitor "$@"
echo "tunnel_monitor is not built: run 'make build' in $(dirname "$(dirname "$here")")" >&2
exit 1
'''
import os
import sys

os.execv("/bin/sh", ["sh", os.path.abspath(__file__)] + sys.argv[1:])
