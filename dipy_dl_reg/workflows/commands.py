"""The table of the commands.

A new command is one module beside this one, with a workflow class and a function that
runs it, one line in `COMMANDS`, and the same line in pyproject.toml's
``[project.scripts]``.
"""

from __future__ import annotations

from pathlib import Path
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """A command.

    Attributes
    ----------
    module : str
        Name of its module in `dipy_dl_reg.workflows`.
    workflow : str
        Name of its workflow class.
    function : str
        Name of the function that runs it.
    """

    module: str
    workflow: str
    function: str

    @property
    def entry_point(self) -> str:
        """The function in the form ``module:function``, as in pyproject.toml."""
        return f"dipy_dl_reg.workflows.{self.module}:{self.function}"


#: The commands by name.
COMMANDS = {
    "dipy_align_deep": Command("align", "AlignDeepFlow", "align_deep"),
    "dipy_apply_deep": Command("apply", "ApplyDeepFlow", "apply_deep"),
    "dipy_cohort_deep": Command("cohort", "CohortDeepFlow", "cohort_deep"),
    "dipy_convert_deep": Command("convert", "ConvertDeepFlow", "convert_deep"),
    "dipy_epi_deep": Command("epi", "EpiDeepFlow", "epi_deep"),
    "dipy_motion_deep": Command("motion", "MotionDeepFlow", "motion_deep"),
    "dipy_segment_deep": Command("segment", "SegmentDeepFlow", "segment_deep"),
    "dipy_template_deep": Command("template", "TemplateDeepFlow", "template_deep"),
    "dipy_train_deep": Command("train", "TrainDeepFlow", "train_deep"),
}


def name_of_command() -> str:
    """Name of the command that runs now.

    Returns
    -------
    name : str
        Name of the program; that of the command, too, if its module was started by
        ``python -m dipy_dl_reg.workflows.align``.
    """
    program = Path(sys.argv[0])
    if program.parent.name != "workflows":
        return program.name
    names = (name for name, each in COMMANDS.items() if each.module == program.stem)
    return next(names, program.name)
