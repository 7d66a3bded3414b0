"""Torch only: training pairs made from label maps, shapes and images."""

import torch

#: Type and device of the tensors of an example, whatever torch's defaults are.
SINGLE = {"dtype": torch.float32, "device": "cpu"}
