"""Networks that predict a displacement field from two images."""

from dipy_dl_reg.networks.registry import NETWORKS, make_network, network_class

__all__ = ["NETWORKS", "make_network", "network_class"]
