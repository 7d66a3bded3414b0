"""Batches of examples, which do not depend on the process that draws them.

Example number n of a training depends only on the seed and on n.  Therefore the number
of processes that draw examples, or an interruption, does not change the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b

import torch
from torch.utils.data import DataLoader, Dataset

from dipy_dl_reg.training.training_set import Example, Pairs


def make_generator(seed: int, number: int) -> torch.Generator:
    """Make a random generator for an example.

    Parameters
    ----------
    seed : int
        Seed of the training.
    number : int
        Number of the example.

    Returns
    -------
    generator : torch.Generator
        A generator on the CPU.
    """
    digest = blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def collate(examples: Sequence[Example]) -> Example:
    """Join several examples to a batch.

    Parameters
    ----------
    examples : sequence of Example
        Examples of the same shape, all with labels or all without.

    Returns
    -------
    batch : Example
        Tensors with an additional first axis B.

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
                "the examples of a batch must have the same shape, and all or none "
                f"labels, got {sorted(map(str, shapes))}; or use a batch_size of 1."
            )
        parts.append(None if shapes == {None} else torch.stack(part))
    return Example._make(parts)


class Batches(Dataset):
    """Batches of a training by the number of the step.

    Parameters
    ----------
    pairs : pairs
        The training pairs.
    batch_size : int
        Examples per step and process.
    seed : int
        Determines all examples.
    augment : callable, optional
        ``augment(example, generator) -> example``.
    rank, size : int, optional
        Number of this process, and number of all processes.
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
            Steps from `first` up to `end`, which is excluded.
        workers : int, optional
            Number of processes that draw in advance; with 0, this process draws.
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
            # A separate generator, so that the global one is not changed.
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
