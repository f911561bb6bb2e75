set -e
python3 -m pip install 'oumi[gpu]'
export PATH="$HOME/.local/bin:$PATH"
command -v oumi >/dev/null || { echo 'oumi was installed and is not on PATH' >&2; exit 1; }
