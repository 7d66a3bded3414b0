"""Training on several processes, which ``torchrun`` starts.

In every step, each process computes the gradients for its own examples; the gradients
are averaged, so that W processes with batches of size b give the same result as one
process with batches of size W b.
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
        """Copy the tensors of the first process to all processes.

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
            Tensors of the same type, overwritten in place; they are sent together.
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
        """Sum an array over all processes; the result is identical in all of them.

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
    """Join the group of processes if ``torchrun`` started this process.

    Parameters
    ----------
    device : torch.device or str
        Device of a single process; on CUDA, each of several processes uses another
        device.

    Returns
    -------
    group : Group
        The group; it has one member if this process was not started by ``torchrun``.
    """
    device = torch.device(device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_available():
        return Group(0, 1, device)
    started = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
    if started and not distributed.is_initialized():
        # Torch imports this module at some time.  If it is imported after the group is
        # made, it has a reference to the group, whose threads then exist too long (see
        # `leave`).
        import_module("torch.distributed.nn.functional")
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend)
        atexit.register(leave)
    if not distributed.is_initialized():
        return Group(0, 1, device)
    return Group(distributed.get_rank(), distributed.get_world_size(), device)


def leave() -> None:
    """End the group, if there is one; this is done at exit for a group of `join`."""
    # This ends its threads.  A thread that frees a tensor while Python ends would abort
    # the process.
    if distributed.is_initialized():
        distributed.destroy_process_group()
