"""Scripts beside the package: benchmarks, experiments and recipes for training.

Run them from the repository's root as modules, for example
``python -m tools.benchmarks.deformable --help``.
"""
