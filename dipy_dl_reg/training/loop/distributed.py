"""Training on several processes, as ``torchrun`` starts them.

Each process takes its own examples of every step; gradients are averaged, so that W
processes with batches of b do what one does with batches of W b.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from importlib import import_module
import os
from typing import NamedTuple

import numpy as np
import torch
from torch import distributed


class Group(NamedTuple):
    """The processes that train together.

    Attributes
    ----------
    rank : int
        Number of this process; process 0 writes files and shows progress.
    size : int
        Number of all processes.
    device : torch.device
        Device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress.

        Returns
        -------
        leads : bool
            True in one of the processes.
        """
        return self.rank == 0

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give all processes the tensors of the first.

        Parameters
        ----------
        tensors : iterable of Tensor
            Overwritten in place.
        """
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over all processes.

        Parameters
        ----------
        tensors : sequence of Tensor
            Of one type, overwritten in place; they are sent together.
        """
        if self.size == 1:
            return
        together = torch.cat([x.reshape(-1) for x in tensors])
        distributed.all_reduce(together)
        together /= self.size
        parts = together.split([x.numel() for x in tensors])
        for tensor, part in zip(tensors, parts):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Wait for all processes, such as after one has written a file."""
        if self.size > 1:
            distributed.barrier()

    def total(self, array: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes, the same in each to the last bit.

        Parameters
        ----------
        array : ndarray of float64
            Of the same shape in all processes.

        Returns
        -------
        total : ndarray of float64
            A new object.
        """
        tensor = torch.tensor(array, dtype=torch.float64, device="cpu")
        if self.size > 1:
            tensor = tensor.to(self.device)
            distributed.all_reduce(tensor)
        return tensor.cpu().numpy()


def join(device: torch.device | str) -> Group:
    """The group of this process, joined if ``torchrun`` started it.

    Parameters
    ----------
    device : torch.device or str
        Device of a single process; of several on CUDA each takes its own.

    Returns
    -------
    group : Group
        Of one process, if this one is alone.
    """
    device = torch.device(device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_available():
        return Group(0, 1, device)
    started = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
    if started and not distributed.is_initialized():
        # Torch imports this module sooner or later.  Imported after the group begins,
        # it keeps a reference to the group, whose threads then outlive it (see leave).
        import_module("torch.distributed.nn.functional")
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend)
        atexit.register(leave)
    if not distributed.is_initialized():
        return Group(0, 1, device)
    return Group(distributed.get_rank(), distributed.get_world_size(), device)


def leave() -> None:
    """End the group, if there is one; done at exit for one that `join` began."""
    # Its threads end with it: one that frees a tensor while Python ends would abort the
    # process.
    if distributed.is_initialized():
        distributed.destroy_process_group()
