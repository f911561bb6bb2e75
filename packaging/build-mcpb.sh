#!/usr/bin/env bash
# Packs the bundle for Claude Desktop: packaging/build-mcpb.sh PROGRAM BUNDLE.mcpb    (needs npx)
set -euo pipefail
program=$1
bundle=$2
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/server"
cp "$here/mcpb/manifest.json" "$here/../src/server/icon.png" "$here/../LICENSE" "$folder"
install -m 755 "$program" "$folder/server/oumi-mcp-server"
${MCPB:-npx --yes @anthropic-ai/mcpb@2.1.2} validate "$folder/manifest.json"
${MCPB:-npx --yes @anthropic-ai/mcpb@2.1.2} pack "$folder" "$bundle"
