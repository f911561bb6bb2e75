#!/usr/bin/env bash
# Drives the server with MCP clients that nobody here wrote, each in both protocol eras (2026-07-28, and 2025-11-25 with its
# handshake): the official Python and TypeScript SDKs, fastmcp, the Inspector's command line. story.py says what is told. And
# the official conformance suite, in every version it knows: conformance.mjs. And coding agents whose model is a script:
# agents.py.
#
#   tests/clients/run.sh            after `cargo build`
#   BIN=/path/to/oumi-mcp-server tests/clients/run.sh
#
# The clients are installed once into ${XDG_CACHE_HOME:-~/.cache}/oumi-mcp-server-clients. What cannot be installed here, because
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
  local what=$1 log
  shift
  log=$(mktemp "$scratch/install.XXXXXX")
  echo "installing $what into $cache"
  "$@" >"$log" 2>&1 && return 0
  if grep -Eiq "$unreachable" "$log"; then
    skip "$what cannot be installed: its registry cannot be reached"
    return 1
  fi
  echo "error: cannot install $what:" >&2
  tail -n 20 "$log" >&2
  exit 1
}

# A folder a set of versions, usable when it is marked as whole.
ready() { # <name> <file that pins the versions>
  place=$cache/$1-$(cksum <"$2" | cut -d ' ' -f 1)
  mkdir -p "$cache"
  [ -e "$place/whole" ] || rm -rf "$place"
}

npm_install() { # <folder> <more…>
  npm install --prefix "$@" --fetch-retries 1 --no-audit --no-fund --no-package-lock --ignore-scripts
}

# Runs several at once, and fails when one does.
together() { # <command with its arguments, as one text>…
  local each pids=() failed=0
  for each in "$@"; do
    $each &
    pids+=($!)
  done
  for each in "${pids[@]}"; do
    wait "$each" || failed=1
  done
  return $failed
}

python_clients() {
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    skip "the Python SDK and fastmcp: there is no python3 of 3.10 or newer"
    return 0
  fi
  ready python "$here/requirements.txt"
  if [ ! -e "$place/whole" ]; then
    if ! python3 -m venv "$place" >/dev/null 2>&1; then
      rm -rf "$place"
      skip "the Python SDK and fastmcp: python3 cannot make a virtual environment here"
      return 0
    fi
    install "the Python SDK and fastmcp" "$place/bin/pip" install --retries 1 --no-compile -r "$here/requirements.txt" || return 0
    touch "$place/whole"
  fi
  # Compiled, since to compile the SDKs at each start takes longer than the stories.
  env -u PYTHONDONTWRITEBYTECODE "$place/bin/python" "$here/story.py" "$bin"
}

is_newer_node() { # <node>
  "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a == 22 && b >= 19) ? 0 : 1)'
}

# The node that the Inspector and the conformance suite need: the one that is there, else one from the registry.
newer_node() {
  newer=$(command -v node)
  is_newer_node "$newer" && return 0
  local name place=$cache/node-22.23.3
  name=node-$(node -p 'process.platform + "-" + process.arch')
  newer=$place/node_modules/$name/bin/node
  if [ ! -e "$place/whole" ]; then
    echo "installing a newer node into $cache"
    rm -rf "$place"
    mkdir -p "$place"
    npm_install "$place" "$name@22.23.3" >/dev/null 2>&1 && is_newer_node "$newer" 2>/dev/null && touch "$place/whole"
  fi
  [ -e "$place/whole" ]
}

told_in_typescript() {
  local protocol
  for protocol in 2026-07-28 2025-11-25; do
    node "$place/story.mjs" "$bin" "$protocol"
  done
}

node_clients() {
  if ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null || ! command -v npm >/dev/null; then
    skip "the TypeScript SDKs, the Inspector and the conformance suite: there is no node of 20 or newer with npm"
    return 0
  fi
  ready node "$here/package.json"
  if [ ! -e "$place/whole" ]; then
    mkdir "$place"
    cp "$here/package.json" "$place/"
    install "the TypeScript SDKs, the Inspector and the conformance suite" npm_install "$place" || return 0
    touch "$place/whole"
  fi
  # Node looks for packages beside the script.
  cp -R "$here/." "$place/"
  local newer
  if newer_node; then
    together told_in_typescript "$newer $place/inspector.mjs $bin legacy" "$newer $place/inspector.mjs $bin modern" \
      "$newer $place/conformance.mjs $bin"
  else
    skip "the Inspector and the conformance suite: there is no node of 22.19 or newer, and none could be installed"
    told_in_typescript
  fi
}

# Without a network of its own, where that can be had: an agent reaches nothing but the script that is its model.
offline() {
  if unshare -rn sh -c 'ip link set lo up' 2>/dev/null; then
    unshare -rn sh -c 'ip link set lo up; exec "$@"' sh "$@"
  else
    "$@"
  fi
}

agents() {
  local agent program
  if ! command -v python3 >/dev/null || ! command -v npm >/dev/null; then
    skip "Claude Code, Codex and Gemini CLI: there is no python3, or no npm"
    return 0
  fi
  ready agents "$here/agents.json"
  if [ ! -e "$place/whole" ]; then
    mkdir "$place"
    cp "$here/agents.json" "$place/package.json"
    echo "installing Claude Code, Codex and Gemini CLI into $cache"
    if ! npm_install "$place" >"$scratch/agents" 2>&1; then
      skip "Claude Code, Codex and Gemini CLI cannot be installed: $(tail -n 1 "$scratch/agents")"
      return 0
    fi
    # Puts the program of this platform in its place; nothing is fetched.
    (cd "$place/node_modules/@anthropic-ai/claude-code" && node install.cjs) >/dev/null 2>&1 || true
    touch "$place/whole"
  fi
  for agent in claude codex gemini; do
    program=$place/node_modules/.bin/$agent
    if HOME=$scratch "$program" --version >/dev/null 2>&1; then
      offline python3 "$here/agents.py" "$bin" "$agent" "$program"
    else
      skip "$agent does not run on this machine"
    fi
  done
}

together python_clients node_clients agents
