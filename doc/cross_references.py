"""Cross-references of the site: names in single backticks, and other projects' pages.

The role of single backticks is ``py:obj``. A name of this package, or one of the names
in `INVENTORIES`, becomes a link. The name of a parameter becomes code without a link. A
dotted name that leads nowhere is a warning, and so fails the build.

The build is offline, so that intersphinx reads inventories that are written from
`INVENTORIES`: add a name of another project there when a page links to it.
tests/test_docstrings.py checks that the names exist in the installed versions.
"""

import re
import zlib

from numpydoc.xref import DEFAULT_LINKS

#: Project: address of its documentation, and for each page the names on it by role.
INVENTORIES = {
    "dipy": (
        "https://docs.dipy.org/stable/",
        {
            "reference/dipy.align.html": {
                "function": (
                    "dipy.align.affine_registration",
                    "dipy.align.motion_correction",
                    "dipy.align.read_mapping",
                    "dipy.align.register_dwi_series",
                    "dipy.align.register_dwi_to_template",
                    "dipy.align.register_series",
                    "dipy.align.syn_registration",
                    "dipy.align.write_mapping",
                ),
                "class": (
                    "dipy.align.imaffine.AffineMap",
                    "dipy.align.imaffine.AffineRegistration",
                    "dipy.align.imaffine.MutualInformationMetric",
                    "dipy.align.imwarp.DiffeomorphicMap",
                    "dipy.align.imwarp.SymmetricDiffeomorphicRegistration",
                    "dipy.align.metrics.CCMetric",
                    "dipy.align.metrics.EMMetric",
                    "dipy.align.metrics.SSDMetric",
                ),
                "method": (
                    "dipy.align.imwarp.DiffeomorphicMap.transform",
                    "dipy.align.imwarp.DiffeomorphicMap.transform_inverse",
                    "dipy.align.imwarp.DiffeomorphicMap.transform_points",
                    "dipy.align.imwarp.DiffeomorphicMap.transform_points_inverse",
                ),
                "module": ("dipy.align.metrics",),
            },
            "reference/dipy.core.html": {
                "class": ("dipy.core.gradients.GradientTable",),
                "function": (
                    "dipy.core.gradients.gradient_table",
                    "dipy.core.gradients.reorient_bvecs",
                ),
            },
            "reference/dipy.direction.html": {
                "function": ("dipy.direction.peaks.peaks_from_model",),
                "class": ("dipy.direction.peaks.PeaksAndMetrics",),
            },
            "reference/dipy.io.html": {
                "class": ("dipy.io.stateful_tractogram.StatefulTractogram",),
                "function": ("dipy.io.peaks.load_pam", "dipy.io.peaks.save_pam"),
            },
            "reference/dipy.reconst.html": {
                "class": (
                    "dipy.reconst.dti.TensorFit",
                    "dipy.reconst.dti.TensorModel",
                ),
                "function": (
                    "dipy.reconst.dti.decompose_tensor",
                    "dipy.reconst.dti.vec_val_vect",
                    "dipy.reconst.shm.convert_sh_descoteaux_tournier",
                ),
            },
            "reference/dipy.tracking.html": {
                "function": ("dipy.tracking.streamline.transform_streamlines",),
            },
        },
    ),
    "nibabel": (
        "https://nipy.org/nibabel/",
        {
            "reference/nibabel.streamlines.html": {
                "class": ("nibabel.streamlines.array_sequence.ArraySequence",),
            },
            "reference/nibabel.nifti1.html": {
                "class": ("nibabel.nifti1.Nifti1Image",),
            },
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "reference/generated/numpy.memmap.html": {"class": ("numpy.memmap",)},
            "reference/maskedarray.baseclass.html": {
                "class": ("numpy.ma.MaskedArray",),
            },
        },
    ),
    "python": (
        "https://docs.python.org/3/",
        {
            "library/logging.html": {"class": ("logging.Logger",)},
            "library/concurrent.futures.html": {
                "class": ("concurrent.futures.Executor",),
            },
        },
    ),
    "scipy": (
        "https://docs.scipy.org/doc/scipy/",
        {
            "reference/generated/scipy.interpolate.RBFInterpolator.html": {
                "class": ("scipy.interpolate.RBFInterpolator",),
            },
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "generated/torch.nn.Module.html": {"class": ("torch.nn.Module",)},
            "tensor_attributes.html": {"class": ("torch.device",)},
            "tensors.html": {"class": ("torch.Tensor",)},
        },
    ),
}

#: Names that become links where they are the type of a parameter or of a result.
TYPES = (
    "dipy.align.imaffine.AffineMap",
    "dipy.align.imwarp.DiffeomorphicMap",
    "dipy.core.gradients.GradientTable",
    "dipy.direction.peaks.PeaksAndMetrics",
    "dipy.io.stateful_tractogram.StatefulTractogram",
    "dipy.reconst.dti.TensorFit",
    "nibabel.streamlines.array_sequence.ArraySequence",
)

#: A dotted name; other text in single backticks is code.
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def external_names():
    """Yield the names of `INVENTORIES`."""
    for _, pages in INVENTORIES.values():
        for roles in pages.values():
            for names in roles.values():
                yield from names


def type_links(api):
    """Full names of the types that become links, by their short names.

    Parameters
    ----------
    api : str
        Text of api.rst, which lists the classes of this package.

    Returns
    -------
    links : dict
        The value of ``numpydoc_xref_aliases``.  Plain types such as int, which numpydoc
        would link to Python's documentation, are not links.
    """
    classes = re.findall(r"^   (?:~([\w.]+)|([A-Z]\w+))$", api, flags=re.MULTILINE)
    names = [*TYPES, *(f"dipy_dl_reg.{path or name}" for path, name in classes)]
    plain = {name: name for name in DEFAULT_LINKS}
    return plain | {name.rpartition(".")[2]: name for name in names}


def write_inventories(folder):
    """Write an inventory of each project into a folder.

    Returns
    -------
    mapping : dict
        The value of ``intersphinx_mapping``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, pages) in INVENTORIES.items():
        entries = (
            f"{name} py:{role} 1 {page}#$ -\n"
            for page, roles in pages.items()
            for role, names in roles.items()
            for name in names
        )
        head = (
            "# Sphinx inventory version 2\n"
            f"# Project: {project}\n"
            "# Version: \n"
            "# The remainder of this file is compressed using zlib.\n"
        )
        file = folder / f"{project}.inv"
        file.write_bytes(head.encode() + zlib.compress("".join(entries).encode()))
        mapping[project] = (address, str(file))
    return mapping


def resolve_name(app, env, node, content):
    """Resolve text in single backticks that Sphinx does not find.

    Returns
    -------
    node : docutils node or None
        A link to a public name, or to the class whose attribute the name is; code, for
        text that is no dotted name; None, which Sphinx reports, otherwise.
    """
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target, domain = node["reftarget"], env.domains["py"]
    full = find_name(target, domain.objects)
    if full is not None:
        place = env, node["refdoc"], app.builder
        return domain.resolve_xref(*place, "obj", full, node, content)
    return None if DOTTED.fullmatch(target) else content


def find_name(target, objects):
    """Full name of a public name, of the class of an attribute, or of a result's class.

    Returns
    -------
    name : str or None
        Its key in `objects`, the objects of the site.
    """
    for name in filter(None, [target, target.rpartition(".")[0]]):
        full = f"dipy_dl_reg.{name.removeprefix('dipy_dl_reg.')}"
        if full in objects:
            return full
    return next(
        (
            full
            for full, entry in objects.items()
            if entry.objtype == "class" and full.endswith(f".{target}")
        ),
        None,
    )


def setup(app):
    """Resolve names before intersphinx reports them."""
    app.connect("missing-reference", resolve_name, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
