"""Deformable registration for DIPY: SyN's call, SyN's map, better overlap, sooner.

Everything public is listed below and imported when it is first used: neither
``import dipy_dl_reg`` nor a command's ``--help`` waits for torch or DIPY.
"""

import lazy_loader

__version__ = "0.1.0"

_PUBLIC = {
    "registration": ["DeepRegistration"],
    "pipeline": ["deep_registration", "register_dwi_to_template"],
    "affine": ["DeepAffineRegistration", "deep_affine_registration"],
    "landmarks": ["ThinPlateSplineRegistration"],
    "points": ["read_landmarks"],
    "engine.metrics": [
        "CCMetric",
        "CRMetric",
        "MINDMetric",
        "MIMetric",
        "NCCMetric",
        "SSDMetric",
    ],
    "mapping": [
        "apply_mapping",
        "load_mapping",
        "read_dipy_mapping",
        "save_mapping",
        "write_dipy_mapping",
    ],
    "diffusion.streamlines": ["transform_streamlines"],
    "learning": ["fit"],
    "networks": ["make_network"],
    "networks.checkpoint": ["load_network", "save_network"],
    "networks.weights": ["list_models", "load_model"],
}

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_PUBLIC)
