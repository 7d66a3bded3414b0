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
# Types are checked beside the tests, because the check uses one processor only.
report=$(mktemp)
trap 'kill "$types" 2>/dev/null || true; rm -f "$report"' EXIT
"$bin/python" -m mypy >"$report" 2>&1 &
types=$!
# One process for each processor, each with one thread: small images gain little from two.
# A process that has finished takes tests from another, so that all end together.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
status=0
"$bin/python" -m pytest --numprocesses auto --dist worksteal "$@" || status=$?
wait "$types" || status=$?
cat "$report"
exit "$status"
