"""The commands, as DIPY's workflows; each is imported when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "align": ["AlignDeepFlow", "ApplyDeepFlow", "align_deep", "apply_deep"],
        "train": ["TrainDeepFlow", "train_deep"],
    },
)
