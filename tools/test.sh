#!/usr/bin/env bash
# tools/test.sh [pytest arguments]
# Runs style, spelling and type checks, doctests and tests, in an environment that is created on
# the first run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment test
cd "$root"
"$bin/python" -m ruff check .
"$bin/python" -m ruff format --check .
"$bin/python" -m codespell_lib
"$bin/python" -m mypy
# One process for each processor, each with one thread: small images gain little from two.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$bin/python" -m pytest --numprocesses auto --dist loadfile "$@"
