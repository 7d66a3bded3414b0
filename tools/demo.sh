#!/usr/bin/env bash
# tools/demo.sh [output folder]
# Registers a real b0 to the MNI152 template, in an environment that is created on the
# first run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment demo
exec "$bin/python" "$root/tools/demo.py" "$@"
