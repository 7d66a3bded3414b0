"""`DeepMap` where pyAFQ is not installed: it is documented, but cannot be made."""

import subprocess
import sys

CODE = """
import sys

sys.modules["AFQ"] = None  # as if it were not installed
from dipy_dl_reg import DeepMap

assert "pyAFQ" in DeepMap.__doc__
try:
    DeepMap()
except ImportError as error:
    print(error)
"""


def test_error_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "DeepMap needs pyAFQ: pip install pyAFQ"
