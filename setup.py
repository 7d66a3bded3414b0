"""The compiled fast paths, which an installation can do without; see pyproject.toml."""

from setuptools import Extension, setup

FOLDER = "dipy_dl_reg/geometry/kernels/csrc"

setup(
    ext_modules=[
        Extension(
            "dipy_dl_reg.geometry.kernels._kernels",
            [
                f"{FOLDER}/{name}.c"
                for name in ("module", "fields", "windows", "directions")
            ],
            depends=[f"{FOLDER}/kernels.h"],
            extra_compile_args=[
                *("-std=gnu11", "-O3", "-g0", "-fvisibility=hidden"),
                # Never -ffast-math: kernels.h says why.
                *("-fno-math-errno", "-fno-trapping-math"),
            ],
            optional=True,
        )
    ]
)
