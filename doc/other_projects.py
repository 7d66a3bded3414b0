"""Pages of other projects that the documentation links to, for intersphinx.

The documentation is built without a network. Therefore `write_inventories` makes the
inventories from the table of this file when the documentation is built, instead of
downloading those of the projects, which are large and change. A name that is used in a
text or docstring and is missing here is a warning of the build (``nitpicky``).

With a network, this compares the table with the inventories that the projects publish:

    python doc/other_projects.py
    python doc/other_projects.py python objects.inv  # or with a file
"""

import argparse
import re
import sys
import urllib.request
import zlib

#: By project: its address; then by page the type and names of the objects. ``$`` stands
#: for the name of the object.
PROJECTS = {
    "python": (
        "https://docs.python.org/3/",
        {
            "library/functions.html#$": {"class": "bool float int object"},
            "library/stdtypes.html#$": {"class": "bytes dict list set str tuple"},
            "library/constants.html#$": {"data": "None True False"},
            "library/exceptions.html#$": {
                "exception": "FileExistsError FileNotFoundError ImportError KeyError "
                "MemoryError NotImplementedError OSError RuntimeError RuntimeWarning "
                "TypeError UserWarning ValueError"
            },
            "library/collections.abc.html#$": {
                "class": "collections.abc.Callable collections.abc.Iterable "
                "collections.abc.Mapping collections.abc.Sequence"
            },
            "library/logging.html#$": {"class": "logging.Logger"},
            "library/os.html#$": {"class": "os.PathLike"},
            "library/pathlib.html#$": {"class": "pathlib.Path"},
            "library/typing.html#$": {"class": "typing.NamedTuple"},
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "reference/generated/$.html#$": {
                "class": "numpy.ndarray numpy.dtype numpy.random.Generator"
            },
            "glossary.html#term-$": {"term": "array_like"},
        },
    ),
    "scipy": (
        "https://docs.scipy.org/doc/scipy/",
        {
            "reference/generated/$.html#$": {
                "function": "scipy.ndimage.affine_transform"
            }
        },
    ),
    "nibabel": (
        "https://nipy.org/nibabel/",
        {
            "reference/nibabel.nifti1.html#$": {"class": "nibabel.nifti1.Nifti1Image"},
            "reference/nibabel.streamlines.html#$": {
                "class": "nibabel.streamlines.ArraySequence"
            },
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "generated/$.html#$": {"class": "torch.nn.Module"},
            "tensors.html#$": {"class": "torch.Tensor"},
            "tensor_attributes.html#$": {"class": "torch.device torch.dtype"},
        },
    ),
    "dipy": (
        "https://docs.dipy.org/stable/",
        {
            "reference/dipy.align.html#$": {
                "class": "dipy.align.imaffine.AffineMap "
                "dipy.align.imaffine.AffineRegistration "
                "dipy.align.imaffine.MutualInformationMetric "
                "dipy.align.imwarp.DiffeomorphicMap "
                "dipy.align.imwarp.SymmetricDiffeomorphicRegistration "
                "dipy.align.metrics.CCMetric dipy.align.metrics.EMMetric "
                "dipy.align.metrics.SSDMetric",
                "function": "dipy.align.affine_registration "
                "dipy.align.motion_correction dipy.align.read_mapping "
                "dipy.align.register_dwi_to_template "
                "dipy.align.register_dwi_series dipy.align.register_series "
                "dipy.align.syn_registration dipy.align.write_mapping "
                "dipy.align.streamlinear.slr_with_qbx",
            },
            "reference/dipy.core.html#$": {
                "class": "dipy.core.gradients.GradientTable",
                "function": "dipy.core.gradients.gradient_table",
            },
            "reference/dipy.direction.html#$": {
                "function": "dipy.direction.peaks_from_model"
            },
            "reference/dipy.io.html#$": {
                "class": "dipy.io.stateful_tractogram.StatefulTractogram",
                "function": "dipy.io.peaks.save_pam",
            },
            "reference/dipy.reconst.html#$": {
                "function": "dipy.reconst.dti.decompose_tensor "
                "dipy.reconst.dti.vec_val_vect"
            },
        },
    ),
}


HEAD = """\
# Sphinx inventory version 2
# Project: {}
# Version:
# The remainder of this file is compressed using zlib.
"""
#: Name, which may have spaces; type; priority; page; what is shown.
ENTRY = re.compile(r"(.+?) (\w+:\S+) -?\d+ (\S*) ")


def entries(pages):
    """Type, name and page of all objects of a project."""
    for page, objects in pages.items():
        for kind, names in objects.items():
            kind = "std:term" if kind == "term" else f"py:{kind}"
            for name in names.split():
                yield kind, name, page.replace("$", name)


def write_inventories(folder):
    """Write an inventory of each project; return the value of intersphinx_mapping."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, pages) in PROJECTS.items():
        lines = [f"{name} {kind} 1 {page} -\n" for kind, name, page in entries(pages)]
        text = HEAD.format(project).encode() + zlib.compress("".join(lines).encode())
        path = folder / f"{project}.inv"
        path.write_bytes(text)
        mapping[project] = (address, str(path))
    return mapping


def read_inventory(text):
    """Pages by type and name, of an inventory as Sphinx writes it."""
    compressed = text.split(b"\n", maxsplit=4)[4]
    pages = {}
    for line in zlib.decompress(compressed).decode().splitlines():
        name, kind, page = ENTRY.match(line).groups()
        pages[kind, name] = page.replace("$", name)
    return pages


def differences(project, text):
    """Yield what the table states otherwise than the inventory of a project."""
    theirs = read_inventory(text)
    for kind, name, page in entries(PROJECTS[project][1]):
        if theirs.get((kind, name)) != page:
            yield f"{project}: {name} is at {theirs.get((kind, name))}, not at {page}"


def main(project, file):
    """Compare all projects with what they publish, or one of them with a file."""
    found = []
    for name in [project] if project else PROJECTS:
        address = file or PROJECTS[name][0] + "objects.inv"
        opened = open(file, "rb") if file else urllib.request.urlopen(address)
        with opened as stream:
            found += differences(name, stream.read())
    print("\n".join(found) or "no difference")
    return bool(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", nargs="?", choices=PROJECTS)
    parser.add_argument("file", nargs="?")
    sys.exit(main(**vars(parser.parse_args())))
