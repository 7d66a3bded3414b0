"""The commands, as DIPY workflows; each is imported when it is first used."""

import lazy_loader

from dipy_dl_reg.workflows.commands import COMMANDS

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={c.module: [c.workflow, c.function] for c in COMMANDS.values()},
)
