# Sourced by demo.sh, docs.sh and test.sh. make_environment EXTRA:
#   creates .venv-py3.X in the repository with the Python named by $PYTHON (python3),
#   installs the package with that extra and the versions of constraints.txt, and sets
#   $bin to the folder of its programs. If nothing has changed since the last call, it
#   returns at once.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Waiting threads sleep instead of spinning, which makes torch many times faster if other
# programs use the same processors.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

find_python() {
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null ||
        fail "Python 3.11 or later is needed, and '$python' is not there." \
            "Name one with PYTHON, for example: PYTHON=python3.12 $0"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, and '$python' is $("$python" -V 2>&1)." \
            "Name another with PYTHON, for example: PYTHON=python3.12 $0"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "'$python' lacks the venv module." \
            "On Debian or Ubuntu: sudo apt install python3-venv"
}

make_environment() {
    local extra=$1 venv mark sum quiet=--quiet
    find_python
    venv=$root/.venv-py$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    bin=$venv/bin
    mark=$venv/installed-$extra
    # The path is part of the checksum: an environment cannot be moved.
    sum=$(cat "$root"/{pyproject.toml,setup.py,dipy_dl_reg/__init__.py} \
        "$root"/dipy_dl_reg/geometry/kernels/csrc/* \
        "$root"/tools/constraints.txt - <<<"$root" | cksum)
    if [ -f "$mark" ] && [ "$(cat "$mark")" = "$sum" ]; then
        return
    fi
    echo "Preparing $venv (some minutes the first time: torch is large)"
    # If pip is missing, an earlier attempt was interrupted.
    "$bin/python" -m pip --version >/dev/null 2>&1 ||
        "$python" -m venv --clear "$venv"
    if [ -t 1 ]; then quiet=; fi
    # shellcheck disable=SC2086  # an empty $quiet must vanish
    "$bin/python" -m pip install $quiet --disable-pip-version-check \
        --constraint "$root/tools/constraints.txt" --editable "$root[$extra]"
    echo "$sum" >"$mark"
}
