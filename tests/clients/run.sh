#!/usr/bin/env bash
# Drives the server with MCP clients that nobody here wrote: the official Python and TypeScript SDKs, each in both protocol
# eras (2026-07-28, and 2025-11-25 with its handshake). See story.py for what is told.
#
#   tests/clients/run.sh            after `cargo build`
#   BIN=/path/to/oumi-mcp-server tests/clients/run.sh
#
# The SDKs are installed once into ${XDG_CACHE_HOME:-~/.cache}/oumi-mcp-server-clients. What cannot be installed here, because
# Python or Node is missing or the registry cannot be reached, is skipped, and a line says so; a wrong answer is an error.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../target/debug/oumi-mcp-server}
[ -x "$bin" ] || { echo "error: $bin is not there; run cargo build first, or set BIN" >&2; exit 1; }
bin=$(cd "$(dirname "$bin")" && pwd)/$(basename "$bin")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oumi-mcp-server-clients
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
skip() { echo "skipped: $*"; }

# An installation that fails is skipped only when it is the network's fault.
unreachable='connection (broken|refused|reset|timed out)|NewConnectionError|ConnectTimeout|ReadTimeout|Max retries|Temporary failure'
unreachable+='|Network is unreachable|No route to host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH'
install() { # <what> <command…>
  local what=$1
  shift
  echo "installing $what into $cache"
  "$@" >"$scratch/install.log" 2>&1 && return 0
  if grep -Eiq "$unreachable" "$scratch/install.log"; then
    skip "$what cannot be installed: its registry cannot be reached"
    return 1
  fi
  echo "error: cannot install $what:" >&2
  tail -n 20 "$scratch/install.log" >&2
  exit 1
}

# A folder a set of versions, moved into place when it is whole.
ready() { # <name> <file that pins the versions>
  place=$cache/$1-$(cksum <"$2" | cut -d ' ' -f 1)
  mkdir -p "$cache"
}

python() {
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    skip "the Python SDK: there is no python3 of 3.10 or newer"
    return 0
  fi
  ready python "$here/requirements.txt"
  if [ ! -e "$place/whole" ]; then
    rm -rf "$place"
    if ! python3 -m venv "$place" >"$scratch/venv.log" 2>&1; then
      rm -rf "$place"
      skip "the Python SDK: python3 cannot make a virtual environment here"
      return 0
    fi
    install "the Python SDK" "$place/bin/pip" install --retries 1 -r "$here/requirements.txt" || return 0
    touch "$place/whole"
  fi
  local protocol
  for protocol in 2026-07-28 2025-11-25; do
    "$place/bin/python" "$here/story.py" "$bin" "$protocol"
  done
}

typescript() {
  if ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null || ! command -v npm >/dev/null; then
    skip "the TypeScript SDKs: there is no node of 20 or newer with npm"
    return 0
  fi
  ready node "$here/package.json"
  if [ ! -e "$place/whole" ]; then
    rm -rf "$place"
    mkdir "$place"
    cp "$here/package.json" "$place/"
    install "the TypeScript SDKs" npm install --prefix "$place" --fetch-retries 1 --no-audit --no-fund --no-package-lock --ignore-scripts ||
      return 0
    touch "$place/whole"
  fi
  # Node looks for packages beside the script.
  cp "$here/story.mjs" "$place/"
  local protocol
  for protocol in 2026-07-28 2025-11-25; do
    node "$place/story.mjs" "$bin" "$protocol"
  done
}

python
typescript
