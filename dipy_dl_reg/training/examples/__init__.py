"""Synthesis of training pairs from label maps and shapes, and augmentation."""

from typing import Any

import torch

#: Type and device of the tensors of an example, independently of torch's defaults.
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
