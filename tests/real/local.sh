#!/usr/bin/env bash
# Real training runs, by the real `oumi`, through this server: one to its end, one cancelled midway, two that see the server
# killed with SIGKILL, one with a bad config, and one by torchrun with two workers. Offline, on a CPU, in some three minutes.
#
#   cargo build && tests/real/local.sh
#
# BIN         the server to test; default target/debug/oumi-mcp-server
# OUMI_VENV   a virtual environment with requirements.txt installed; without it one is made (some GB, once) in
#             ${XDG_CACHE_HOME:-~/.cache}/oumi-mcp-server-real
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../target/debug/oumi-mcp-server}
[ -x "$bin" ] || { echo "error: $bin is not there; run cargo build first, or set BIN" >&2; exit 1; }
bin=$(cd "$(dirname "$bin")" && pwd)/$(basename "$bin")
venv=$("$here/venv.sh")
# Without compiled bytecode every start of oumi takes twice as long.
unset PYTHONDONTWRITEBYTECODE

exec "$venv/bin/python" "$here/local.py" "$bin" "$venv"
