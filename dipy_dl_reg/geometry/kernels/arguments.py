"""Arguments of the compiled loops: addresses and shapes of tensors."""

from __future__ import annotations

import ctypes
from ctypes import c_int64

import torch

#: Three sizes, as the C code takes them.
_Sizes = c_int64 * 3


def three_sizes(x: torch.Tensor) -> ctypes.Array:
    """Return the shape of an image as three numbers.

    Parameters
    ----------
    x : Tensor, shape (1, C, *shape)
        A 2D or 3D image.

    Returns
    -------
    sizes : ctypes array
        The shape; a 2D image has one voxel along the middle axis.
    """
    first, *middle, last = x.shape[2:]
    return _Sizes(first, *(middle or [1]), last)


def make_output(
    x: torch.Tensor, out: torch.Tensor | None, channels: int | None = None
) -> torch.Tensor:
    """Return `out`, or a new tensor.

    Parameters
    ----------
    x : Tensor, shape (1, C, *shape)
        The input of a loop.
    out : Tensor or None
        The tensor for the result, if there is one.
    channels : int, optional
        Number of channels of a new tensor; by default that of `x`.

    Returns
    -------
    out : Tensor, shape (1, channels, *shape)
        A contiguous tensor.

    Raises
    ------
    ValueError
        If `out` is not contiguous.
    """
    if out is None:
        return x.new_empty(1, channels or x.shape[1], *x.shape[2:])
    if not out.is_contiguous():
        raise ValueError("out must be contiguous.")
    return out


def address(x: torch.Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
    """Return the address of a tensor's data.

    Parameters
    ----------
    x : Tensor or None
        The tensor.
    dtype : torch.dtype, optional
        The type that the loop reads.

    Returns
    -------
    address : int or None
        None for None.

    Raises
    ------
    ValueError
        If the loop cannot read the type or the layout of the tensor.
    """
    if x is None:
        return None
    if x.dtype != dtype or x.device.type != "cpu" or not x.is_contiguous():
        raise ValueError(
            f"a compiled loop takes contiguous {dtype} on the CPU, got {x.dtype} on "
            f"{x.device} with strides {tuple(x.stride())}."
        )
    return x.data_ptr()
