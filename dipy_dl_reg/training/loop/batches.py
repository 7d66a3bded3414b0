"""Batches of examples, the same whichever process draws them.

Example number n of a training is a function of the seed and of n alone.  Neither the
number of processes that draw examples nor an interruption therefore changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b

import torch
from torch.utils.data import DataLoader, Dataset

from dipy_dl_reg.training.training_set import Example, Pairs


def make_generator(seed: int, number: int) -> torch.Generator:
    """Make a generator that two numbers determine.

    Parameters
    ----------
    seed : int
        Seed of the training.
    number : int
        Number of the example.

    Returns
    -------
    generator : torch.Generator
        On the CPU.
    """
    digest = blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def collate(examples: Sequence[Example]) -> Example:
    """Join several examples to a batch.

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
    return Example._make(parts)


class Batches(Dataset):
    """Batches of a training by the number of the step.

    Parameters
    ----------
    pairs : pairs
        What is trained on.
    batch_size : int
        Examples per step and process.
    seed : int
        Determines all examples.
    augment : callable, optional
        ``augment(example, generator) -> example``.
    rank, size : int, optional
        Number of this process, and of all.
    """

    def __init__(
        self,
        pairs: Pairs,
        batch_size: int,
        *,
        seed: int,
        augment: Callable[..., Example] | None = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.pairs, self.batch_size = pairs, batch_size
        self.seed, self.augment = seed, augment
        self.rank, self.size = rank, size

    def __getitem__(self, step: int) -> Example:
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
        return collate([self._draw(first + i) for i in range(self.batch_size)])

    def _draw(self, number: int) -> Example:
        """Draw one example, and augment it."""
        generator = make_generator(self.seed, number)
        example = self.pairs.draw(generator)
        return self.augment(example, generator) if self.augment else example

    def steps(
        self,
        first: int,
        end: int,
        *,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[Example]:
        """Batches of successive steps.

        Parameters
        ----------
        first, end : int
            Steps from `first` up to `end`, which is not among them.
        workers : int, optional
            Processes that draw in advance; 0 draws in this one.
        device : torch.device or str, optional
            Device of the batches.

        Yields
        ------
        batch : Example
            On the device.
        """
        order: Iterable = range(first, end)
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


def to_device(batch: Example, device: torch.device) -> Example:
    """Copy a batch to a device.

    Parameters
    ----------
    batch : Example
        On any device.
    device : torch.device
        The device.

    Returns
    -------
    batch : Example
        The same numbers.
    """
    parts = (x if x is None else x.to(device, non_blocking=True) for x in batch)
    return Example._make(parts)
