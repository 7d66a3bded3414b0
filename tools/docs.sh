#!/usr/bin/env bash
# tools/docs.sh [sphinx-build arguments]
# Builds doc/_build/html: runs the examples, and treats warnings as errors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment doc
cd "$root/doc"
"$bin/python" -m sphinx -W --keep-going -b html "$@" . _build/html
echo "Open $root/doc/_build/html/index.html"
