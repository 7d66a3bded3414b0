"""Training of the networks: pairs, loss, loop."""

import torch

#: What examples are made of, whatever torch's defaults are.
SINGLE = {"dtype": torch.float32, "device": "cpu"}
