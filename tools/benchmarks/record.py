"""The file of results: rows, machine, versions, code and settings."""

import hashlib
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import subprocess

from tools.benchmarks.methods import METHODS
from tools.benchmarks.table import row_key

ROOT = Path(__file__).resolve().parents[2]


def write_json(path, results):
    """Write results, one line for each row; the file is replaced when complete."""
    if path is None:
        return
    lines = ",\n  ".join(json.dumps(row) for row in results["rows"])
    text = json.dumps(results | {"rows": []}, indent=1)
    text = text.replace('"rows": []', f'"rows": [\n  {lines}\n ]')
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text + "\n")
    os.replace(temporary, path)


def git_commit():
    """Name of the commit by ``git describe``, or None."""
    words = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def checksum(folder):
    """Checksum of the Python files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def processor():
    """Name of the processor."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known = (x.split(": ")[1] for x in lines if x.startswith("model name"))
        name = next(known, name)
    return name


def describe(threads, model=None, rivals=None):
    """Describe the machine, the versions, and the calls of the methods."""
    import torch

    names = ("dipy_dl_reg", "dipy", "torch", "numpy", "scipy")
    return {
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "cuda": torch.cuda.is_available() and torch.cuda.get_device_name(),
            "system": platform.system(),
        },
        "versions": {name: version(name) for name in names}
        | {"python": platform.python_version()},
        "rivals": rivals or {},
        "code": {"commit": git_commit(), "checksum": checksum(ROOT / "dipy_dl_reg")},
        "settings": {
            "methods": METHODS,
            "model": model and hashlib.sha256(model.read_bytes()).hexdigest()[:16],
            "OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"],
        },
    }


def read_earlier_rows(path, now):
    """Read the rows of an interrupted run; ValueError if its settings differ.

    Rows of methods that failed are left out, so that they are measured again.
    """
    try:
        then = json.loads(path.read_text())
        pairs = [(then[k], now[k]) for k in ("machine", "versions", "settings")]
        pairs.append((then["code"]["checksum"], now["code"]["checksum"]))
        rivals = then.get("rivals", {}), now.get("rivals", {})
        both = rivals[0].keys() & rivals[1].keys()
        pairs += [tuple(versions[name] for versions in rivals) for name in both]
        rows = {row_key(row): row for row in then["rows"] if "failed" not in row}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--resume: {path} is no result of this script.") from error
    for before, after in pairs:
        if before != after:
            raise ValueError(
                f"--resume: {path} was measured with {before}, and this is {after}."
            )
    now["rivals"] = rivals[0] | rivals[1]
    return list(rows.values())
