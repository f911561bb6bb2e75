set -e
export PATH="$HOME/.local/bin:$PATH"
command -v oumi >/dev/null || { echo 'oumi was not found on this cluster: its setup did not install it' >&2; exit 127; }
