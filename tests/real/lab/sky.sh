#!/usr/bin/env bash
# SkyPilot's `slurm` cloud, which is oumi's `sky-slurm`, on the Slurm of setup.sh, with no internet but PyPI.
#
# FOR A THROWAWAY MACHINE ONLY, as root; see setup.sh. `python3` and `sky` on PATH must be those of the virtual environment with
# requirements.txt of the folder above.
#
#   tests/real/lab/sky.sh
#   sky check slurm
#   oumi launch up -c tests/real/lab/sky-slurm.yaml --cluster any-name --detach
#
# To set up a node SkyPilot downloads conda and uv from their makers' sites. Sessions of the lab's sshd get stand-ins instead:
# a `conda` that does nothing, and a `curl` that answers for uv's installer with the uv of PyPI.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lab=/opt/oumi-lab
run=/run/oumi-lab
path=$lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

"$here/setup.sh"
mkdir -p "$lab/bin" "$lab/sshd.d"
if [ ! -x "$lab/uv" ]; then
  python3 -m venv "$lab/uv-venv"
  "$lab/uv-venv/bin/pip" install --quiet uv
  cp "$lab/uv-venv/bin/uv" "$lab/uv"
fi

# SkyPilot asks uv for a Python 3.10, which uv would download; the system's own serves as well.
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cat >"$lab/uv-of-the-node" <<EOF
#!/bin/bash
for argument; do
  shift
  [ "\$argument" = 3.10 ] && argument=$python
  set -- "\$@" "\$argument"
done
exec $lab/uv "\$@"
EOF
cat >"$lab/bin/curl" <<EOF
#!/bin/bash
case "\$*" in
  *astral.sh/uv/install.sh*)
    echo 'mkdir -p "\$UV_INSTALL_DIR" && cp $lab/uv-of-the-node "\$UV_INSTALL_DIR/uv"' ;;
  *) exec /usr/bin/curl "\$@" ;;
esac
EOF
# It is taken for installed once it has marked the shell's start file.
cat >"$lab/bin/conda" <<'EOF'
#!/bin/bash
if [ "$1" = init ] && ! grep -qs 'conda initialize' ~/.bashrc; then
  echo '# >>> conda initialize >>>' >>~/.bashrc
fi
EOF
chmod 755 "$lab/uv-of-the-node" "$lab"/bin/*

# For the sessions of the lab's sshd only; a login shell sets its own PATH, and so gets it once more. The certificates are those
# of the system, which may know more makers than the ones that uv and pip bring.
certificates=/etc/ssl/certs/ca-certificates.crt
cat >"$lab/sshd.d/sky.conf" <<EOF
SetEnv OUMI_LAB=1 PATH=$path SSL_CERT_FILE=$certificates PIP_CERT=$certificates REQUESTS_CA_BUNDLE=$certificates UV_NATIVE_TLS=1 UV_CACHE_DIR=$lab/uv-cache
EOF
cat >/etc/profile.d/oumi-lab.sh <<EOF
[ -z "\${OUMI_LAB:-}" ] || export PATH=$path
EOF
kill -HUP "$(cat "$run/sshd.pid")"
for _ in $(seq 50); do
  [ "$(ssh -o BatchMode=yes -o ControlPath=none root@localhost 'echo $OUMI_LAB' 2>/dev/null)" = 1 ] && break
  sleep 0.2
done
# Connections kept open from before would keep the old environment.
for socket in /tmp/skypilot_ssh_*/*/* ~/.ssh/control-localhost-22-*; do
  if [ -S "$socket" ]; then ssh -S "$socket" -O exit localhost 2>/dev/null || true; fi
done

mkdir -p ~/.slurm
[ -s ~/.slurm/config ] || cat >~/.slurm/config <<'EOF'
Host lab
    HostName localhost
    User root
    IdentityFile ~/.ssh/id_ed25519
    IdentitiesOnly yes
EOF
# A server that a story before has left serves a home that is gone.
sky api stop >/dev/null 2>&1 || true
# The port of SkyPilot's server is one that the system may give to any connection, even to the one that looks for the server:
# the server then finds its own port taken and does not start.
sysctl -q -w net.ipv4.ip_local_reserved_ports=46580 || true
echo "sky: ready; sky check slurm"
