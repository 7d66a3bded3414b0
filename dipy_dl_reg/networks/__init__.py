"""Networks that predict a displacement field from two images.

The class of each network in `NETWORKS` is imported when it is first used.
"""

import lazy_loader

from dipy_dl_reg.networks.registry import NETWORKS, make_network, network_class

_CLASSES = (name.rpartition(".") for name in NETWORKS.values() if isinstance(name, str))
__getattr__, __dir__, _class_names = lazy_loader.attach(
    __name__, submod_attrs={module: [name] for module, _, name in _CLASSES}
)
__all__ = ["NETWORKS", "make_network", "network_class", *_class_names]
