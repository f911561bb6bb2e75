#!/usr/bin/env bash
# Builds every package as far as a machine without credentials can, checks it with the tools of those who take it, and runs the
# program out of it: the wheel (pip, uvx, pipx), the bundle for Claude Desktop, the entry of the MCP registry, the plugin of
# Claude Code.
#
#   packaging/check.sh              after `cargo build`
#
# The tools are installed once into ${XDG_CACHE_HOME:-~/.cache}/oumi-mcp-server-packaging. What cannot be installed here is
# skipped, and a line says so.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oumi-mcp-server-packaging
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
skip() { echo "skipped: $*"; }
fail() { echo "error: $*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
for file in mcpb/manifest.json server.json claude-code/.claude-plugin/plugin.json; do
  versions=$(sed -n 's/.*"version": "\([^"]*\)".*/\1/p' "$here/$file" | sort -u)
  [ "$versions" = "$version" ] || fail "packaging/$file says version $versions, Cargo.toml says $version"
done
reports_version() { # <command…>
  [ "$("$@" --version)" = "oumi-mcp-server $version" ] || fail "$* is not version $version"
  echo "ok: $*"
}

if ! command -v python3 >/dev/null; then
  skip "the wheel and the registry entry: there is no python3"
else
  tools=$cache/python-$(cksum <"$here/requirements.txt" | cut -d ' ' -f 1)
  if ! [ -e "$tools/whole" ]; then
    rm -rf "$tools"
    { python3 -m venv "$tools" && "$tools/bin/pip" install -q -r "$here/requirements.txt" && touch "$tools/whole"; } >"$scratch/log" 2>&1 || true
  fi
  if ! [ -e "$tools/whole" ]; then
    skip "the wheel and the registry entry: $(tail -n 1 "$scratch/log")"
  else
    "$tools/bin/skillsaw" lint "$here" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "server.json"; }
    "$tools/bin/skillsaw" lint "$here/claude-code" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "the plugin"; }
    echo "ok: server.json and the plugin, by skillsaw"
    (cd "$here/wheel" && "$tools/bin/maturin" build -q --profile dev --features tokio/test-util --target-dir "$root/target" --out "$scratch/wheels")
    wheel=$(echo "$scratch"/wheels/*.whl)
    # The MCP registry reads the name of the server in the text that PyPI shows.
    name=$(sed -n 's/^  "name": "\(.*\)",/\1/p' "$here/server.json")
    python3 -m zipfile -e "$wheel" "$scratch/wheel"
    grep -q "mcp-name: $name" "$scratch"/wheel/*.dist-info/METADATA || fail "the wheel's text lacks mcp-name: $name"
    echo "ok: the wheel's text has mcp-name: $name"
    python3 -m venv --without-pip "$scratch/fresh"
    "$tools/bin/pip" --python "$scratch/fresh" install -q --no-index "$wheel"
    reports_version "$scratch/fresh/bin/oumi-mcp-server"
    export UV_CACHE_DIR=$scratch/uv PIPX_HOME=$scratch/pipx PIPX_BIN_DIR=$scratch/bin
    reports_version "$tools/bin/uvx" --offline --quiet --from "$wheel" oumi-mcp-server
    reports_version "$tools/bin/pipx" run --quiet --spec "$wheel" oumi-mcp-server
  fi
fi

if ! command -v npm >/dev/null; then
  skip "the bundle for Claude Desktop: there is no npm"
else
  tools=$cache/node-$(cksum <"$here/package.json" | cut -d ' ' -f 1)
  if ! [ -e "$tools/whole" ]; then
    rm -rf "$tools" && mkdir -p "$tools" && cp "$here/package.json" "$tools"
    { npm install --prefix "$tools" --fetch-retries 1 --no-audit --no-fund --no-package-lock && touch "$tools/whole"; } >"$scratch/log" 2>&1 || true
  fi
  if ! [ -e "$tools/whole" ]; then
    skip "the bundle for Claude Desktop: $(tail -n 1 "$scratch/log")"
  else
    export MCPB=$tools/node_modules/.bin/mcpb
    "$here/build-mcpb.sh" "$root/target/debug/oumi-mcp-server" "$scratch/oumi.mcpb" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "the bundle"; }
    "$MCPB" unpack "$scratch/oumi.mcpb" "$scratch/unpacked" >"$scratch/log" 2>&1 || { cat "$scratch/log"; fail "the bundle"; }
    reports_version "$scratch/unpacked/server/oumi-mcp-server"
  fi
fi
