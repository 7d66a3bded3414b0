"""Batches of examples, the same whoever draws them.

Example number n of a training is a function of the seed and of n alone.  So it does
not matter how many processes draw the examples, nor whether the training was
interrupted before.
"""

from hashlib import blake2b

import torch
from torch.utils.data import DataLoader, Dataset

from dipy_dl_reg.training.training_set import Example


def seeded(seed, number):
    """Generator that two numbers determine.

    Parameters
    ----------
    seed : int
        The training's.
    number : int
        The example's.

    Returns
    -------
    generator : torch.Generator
        On the CPU.
    """
    digest = blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def collate(examples):
    """Several examples as one batch.

    Parameters
    ----------
    examples : sequence of Example
        Of one shape, all with labels or all without.

    Returns
    -------
    batch : Example
        Tensors with a first axis B more.

    Raises
    ------
    ValueError
        If their shapes differ, or some have labels and others not.
    """
    parts = []
    for part in zip(*examples):
        shapes = {None if x is None else tuple(x.shape) for x in part}
        if len(shapes) > 1:
            raise ValueError(
                "the examples of a batch must be of one shape, and all with labels or "
                f"all without, got {sorted(map(str, shapes))}; a batch_size of 1 takes "
                "any."
            )
        parts.append(None if shapes == {None} else torch.stack(part))
    return Example(*parts)


class Batches(Dataset):
    """The batches of a training by the number of the step.

    Parameters
    ----------
    pairs : object
        With ``draw``.
    batch_size : int
        Examples per step and process.
    seed : int
        With it all examples are determined.
    augment : callable, optional
        ``augment(example, generator) -> example``.
    rank, size : int, optional
        Number of this process, and of all.
    """

    def __init__(self, pairs, batch_size, *, seed, augment=None, rank=0, size=1):
        self.pairs, self.batch_size = pairs, batch_size
        self.seed, self.augment = seed, augment
        self.rank, self.size = rank, size

    def __getitem__(self, step):
        """Batch of one step.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        batch : Example
            On the CPU.
        """
        first = (step * self.size + self.rank) * self.batch_size
        return collate([self._drawn(first + i) for i in range(self.batch_size)])

    def _drawn(self, number):
        generator = seeded(self.seed, number)
        example = self.pairs.draw(generator)
        return self.augment(example, generator) if self.augment else example

    def steps(self, first, end, *, workers=0, device="cpu"):
        """Batches of successive steps.

        Parameters
        ----------
        first, end : int
            Steps from `first` up to `end`, which is not among them.
        workers : int, optional
            Processes that draw ahead; 0 draws in this one.
        device : torch.device, optional
            Where the batches go.

        Yields
        ------
        batch : Example
            On the device.
        """
        order = range(first, end)
        device = torch.device(device)
        if workers:
            pin = device.type == "cuda"
            # A generator of its own: the global one is left as it was.
            order = DataLoader(
                self, batch_size=None, sampler=order, num_workers=workers,
                pin_memory=pin, generator=torch.Generator(),
            )  # fmt: skip
        for item in order:
            yield to_device(item if workers else self[item], device)


def to_device(batch, device):
    """A batch on a device.

    Parameters
    ----------
    batch : Example
        Anywhere.
    device : torch.device
        Where to.

    Returns
    -------
    batch : Example
        There.
    """
    parts = (x if x is None else x.to(device, non_blocking=True) for x in batch)
    return Example(*parts)
