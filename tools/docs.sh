#!/usr/bin/env bash
# tools/docs.sh [sphinx-build arguments]
# Builds doc/_build/html: runs the examples, treats warnings as errors, and checks
# links and spelling.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment doc
cd "$root/doc"
rm -rf _build/html # pages whose source is gone would be checked
# Pages of names and examples that were removed or moved since the last build would be
# warnings.
rm -f generated/dipy_dl_reg.*.rst
if [ -d auto_examples ]; then
    (cd auto_examples && find . -name 'plot_*.py' | while read -r example; do
        [ -e "../examples/$example" ] || rm -f "${example%.py}".*
    done)
fi
"$bin/python" -m sphinx -W --keep-going -b html "$@" . _build/html
"$bin/python" "$root/tools/check_site.py" _build/html
"$bin/python" "$root/tools/check_spelling.py" _build/html
echo "Open $root/doc/_build/html/index.html"
