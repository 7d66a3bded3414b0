"""The compiled loops, which an installation can do without; see pyproject.toml."""

import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "dipy_dl_reg/geometry/kernels/csrc"
#: Python 3.11, the oldest that pyproject.toml allows: one wheel serves all later ones.
#: Python without the global lock has no stable interface, and gets a wheel of its own.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildLoops(build_ext):
    """Refuse Microsoft's compiler, which lacks the vectors of GCC and Clang."""

    def build_extension(self, ext):
        """Compile the loops, or raise what setuptools reports as a warning."""
        if self.compiler.compiler_type == "msvc":
            raise CompileError("the loops need GCC or Clang; torch is used instead")
        super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildLoops},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
    ext_modules=[
        Extension(
            "dipy_dl_reg.geometry.kernels._kernels",
            [
                f"{FOLDER}/{name}.c"
                for name in ("module", "fields", "windows", "directions")
            ],
            depends=[f"{FOLDER}/kernels.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
            py_limited_api=LIMITED,
            extra_compile_args=[
                *("-std=gnu11", "-O3", "-g0", "-fvisibility=hidden"),
                # Never -ffast-math: kernels.h says why.
                *("-fno-math-errno", "-fno-trapping-math"),
            ],
            optional=True,
        )
    ],
)
