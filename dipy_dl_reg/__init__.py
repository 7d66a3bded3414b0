"""Deformable registration for DIPY with SyN's interface, computed with PyTorch.

All public names are listed below and imported when they are first used: neither
``import dipy_dl_reg`` nor a command's ``--help`` imports torch or DIPY.

If torch is not loaded yet and ``OMP_WAIT_POLICY`` is not set, this module sets it to
``passive`` for this process and its child processes, because OpenMP reads the variable
only once, when torch is loaded.  With ``passive``, threads that wait for work sleep.
Otherwise they keep their processors busy, and a registration takes several times as
long if another program uses the same processors
(``tools/experiments/waiting_threads.py`` measures it).
"""

import os
import sys

import lazy_loader

if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_PUBLIC = {
    "clients.pyafq": ["DeepMap"],
    "registration.deformable": ["DeepRegistration"],
    "registration.pipeline": ["deep_registration"],
    "registration.affine.deep_affine": ["DeepAffineRegistration"],
    "registration.affine.call": ["deep_affine_registration"],
    "registration.assess": ["assess_mapping"],
    "registration.landmarks": ["ThinPlateSplineRegistration"],
    "registration.report_files": ["write_report"],
    "registration.structures": ["brain_mask", "segment_anatomy"],
    "registration.uncertainty": ["MappingUncertainty", "mapping_uncertainty"],
    "groupwise.all_pairs": ["register_all_pairs"],
    "groupwise.template": ["build_template"],
    "io.affine_files": ["read_affine", "write_affine"],
    "io.landmark_files": ["read_landmarks"],
    "metrics.channels": ["ChannelsMetric"],
    "metrics.local_correlation": ["CCMetric"],
    "metrics.correlation_ratio": ["CRMetric"],
    "metrics.mind": ["MINDMetric"],
    "metrics.mutual_information": ["MIMetric"],
    "metrics.ncc": ["NCCMetric"],
    "metrics.ssd": ["SSDMetric"],
    "maps.apply": ["apply_mapping"],
    "maps.composition": ["compose_mappings"],
    "maps.exchange": ["read_mapping", "write_mapping"],
    "maps.html.study_page": ["write_study_report"],
    "maps.record": ["RegistrationRecord"],
    "maps.report": ["plot_registration"],
    "maps.verdict": ["Verdict"],
    "maps.storage": [
        "load_mapping",
        "read_dipy_mapping",
        "save_mapping",
        "write_dipy_mapping",
    ],
    "diffusion.dwi": ["transform_dwi"],
    "diffusion.dwi_to_template": ["register_dwi_to_template"],
    "diffusion.fod_registration": ["register_fods"],
    "diffusion.fods": ["transform_fods"],
    "diffusion.gradients": [
        "local_rotations",
        "reorient_gradients",
        "save_local_rotations",
    ],
    "diffusion.harmonics": ["convert_harmonics"],
    "diffusion.orientation_registration": ["register_tensors"],
    "diffusion.peaks": ["transform_peaks", "transform_vectors"],
    "diffusion.epi": ["apply_epi_correction", "deep_epi_correction"],
    "diffusion.epi_to_t1": ["deep_epi_to_t1"],
    "diffusion.gradient_tables": ["rotate_gradients"],
    "diffusion.motion_plot": ["plot_motion"],
    "diffusion.motion_table": ["measure_motion", "write_motion_table"],
    "diffusion.series": [
        "deep_motion_correction",
        "deep_register_dwi_series",
        "deep_register_series",
    ],
    "diffusion.streamlines": ["transform_streamlines"],
    "diffusion.streamline_uncertainty": ["uncertainty_along_streamlines"],
    "diffusion.tractograms": ["transform_tractogram"],
    "diffusion.tensors": ["transform_tensor_fit", "transform_tensors"],
    "diffusion.tensor_components": ["tensor_components", "tensor_matrices"],
    "groupwise.cohort": ["register_cohort"],
    "training.fit": ["fit"],
    "networks": ["make_network"],
    "networks.checkpoint": ["load_network", "save_network"],
    "networks.pretrained": ["list_models", "load_model"],
}

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_PUBLIC)
