#!/usr/bin/env bash
# tools/test_clients.sh [pytest arguments]
# Runs the tests that need pyAFQ or nipype, which tools/test.sh skips: in an environment of
# their own, .venv-clients, because pyAFQ restricts the version of DIPY and installs many
# packages (about 3 GB).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

find_python
bin=$root/.venv-clients/bin
if [ ! -e "$bin/pytest" ]; then
    echo "Preparing $root/.venv-clients (some minutes)"
    "$python" -m venv --clear "$root/.venv-clients"
    "$bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/tools/constraints.txt" \
        --editable "$root" pyAFQ==3.4 nipype==1.11.0 pytest h5py
fi
cd "$root"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$bin/python" -m pytest tests/clients tests/conformance "$@"
