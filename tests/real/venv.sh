#!/usr/bin/env bash
# Prints the folder of a virtual environment with requirements.txt installed: OUMI_VENV, or one that is made once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=${OUMI_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/oumi-mcp-server-real}
if [ -z "${OUMI_VENV:-}" ] && [ ! -e "$venv/whole" ]; then
  echo "installing oumi into $venv" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
  touch "$venv/whole"
fi
[ -x "$venv/bin/oumi" ] || { echo "error: $venv/bin/oumi is not there" >&2; exit 1; }
echo "$venv"
