"""Training pairs synthesised from label maps and shapes, and changes of images."""

from typing import Any

import torch

#: Type and device of the tensors of an example, whatever torch's defaults are.
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
