#!/usr/bin/env bash
# Real cloud jobs, by the real `oumi` and `sky`, through this server: submitted, the server killed in the middle of the launch and
# the job found again, its log read, another job on the same cluster, one cancelled, the cluster taken down. On a real Slurm of one
# node (cloud `slurm`), and on SkyPilot on top of it (cloud `sky-slurm`), which lab/ sets up. Some ten minutes each.
#
# FOR A THROWAWAY MACHINE ONLY, Debian 12 or alike, as root: see lab/setup.sh.
#
#   cargo build && tests/real/cloud.sh [slurm] [sky-slurm]
#
# BIN, OUMI_VENV   as for local.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../target/debug/oumi-mcp-server}
[ -x "$bin" ] || { echo "error: $bin is not there; run cargo build first, or set BIN" >&2; exit 1; }
bin=$(cd "$(dirname "$bin")" && pwd)/$(basename "$bin")
venv=$("$here/venv.sh")
unset PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK=1 SKYPILOT_DISABLE_USAGE_COLLECTION=1

"$here/lab/setup.sh"
[ $# -gt 0 ] || set -- slurm sky-slurm
for cloud; do
  echo "== $cloud"
  case $cloud in
    slurm) cluster=root@localhost ;;
    *)
      PATH=$venv/bin:$PATH "$here/lab/sky.sh"
      cluster=mcp-story-$$
      ;;
  esac
  "$venv/bin/python" "$here/cloud.py" "$bin" "$venv" "$cloud" "$cluster"
done
