#!/bin/sh
# Make a virtual environment in .venv and install minibutter into it, with the extras named:
#     sh bootstrap.sh mpi test
# Debian splits venv off from python3; where it is missing, it is installed first.
set -eu
cd "$(dirname "$0")"

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then as_root="sudo"; fi
    $as_root apt-get update -q
    $as_root apt-get install -y -q python3-venv
fi

[ -x .venv/bin/pip ] || python3 -m venv .venv
extras=$(echo "$*" | tr ' ' ',')
.venv/bin/pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"

# An editable install leaves no bytecode. Where Python may not write any either
# (PYTHONDONTWRITEBYTECODE, in many containers), every process would compile all modules again.
.venv/bin/python -m compileall -q minibutter
