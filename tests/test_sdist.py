"""A source distribution has the files of the repository, and no others."""

import subprocess

import pytest

from tools.sdist_files import ROOT, find_differences, list_manifest, list_repository


def test_differences_are_found():
    assert find_differences(["a", "PKG-INFO", "b/c"], ["a", "b/c"]) == []
    assert find_differences(["a", "lab/x"], ["a", "doc/y"]) == [
        "missing in the distribution: doc/y",
        "not in the repository: lab/x",
    ]


def test_distribution_is_complete():
    """Of a clone; a distribution itself has no list to compare with."""
    inside = subprocess.run(
        ["git", "ls-files", "setup.py"], cwd=ROOT, text=True, capture_output=True
    )
    if not inside.stdout:
        pytest.skip("not a clone of the repository")
    assert find_differences(list_manifest(), list_repository(new=True)) == []
