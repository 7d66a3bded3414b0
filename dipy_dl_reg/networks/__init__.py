"""Networks that predict a displacement field from two images.

The class of each network in `NETWORKS` is imported when it is first used.
"""

from __future__ import annotations

from dipy_dl_reg.networks.registry import NETWORKS, make_network, network_class

__all__ = ["NETWORKS", "make_network", "network_class"]


def __getattr__(name: str) -> type:
    for network, path in NETWORKS.items():
        if isinstance(path, str) and path.rpartition(".")[2] == name:
            return network_class(network)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
