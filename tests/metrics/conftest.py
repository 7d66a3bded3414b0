"""Every test of this folder runs with the compiled loops, and in torch alone."""

from compiled_or_torch import implementation  # noqa: F401
