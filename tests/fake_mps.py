"""Imitation of Apple's MPS device: no float64, and separate memory.

Within `FakeMPS`, tensors on device "mps" are CPU tensors of a class of their own.  It
raises where torch would: where one is float64, or is computed with one of the CPU.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

MPS = torch.device("mps")


class OnMPS(torch.Tensor):
    """A tensor that behaves as if it were on the device."""


#: What may have tensors of both: copies, and indices on the CPU.
_BOTH = {"copy_", "to", "__getitem__", "__setitem__", "__get__", "__set__", "type_as"}
_BOTH |= {"_has_compatible_shallow_copy_type"}


class FakeMPS(TorchFunctionMode):
    """Provides a device "mps" while it is active."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        inputs = [x for x in tree_flatten((args, kwargs))[0] if _is_tensor(x)]
        ours = [x for x in inputs if isinstance(x, OnMPS)]
        if func == torch.Tensor.device.__get__:
            return MPS if ours else func(*args, **kwargs)
        if name == "numpy" and ours:
            raise TypeError("can't convert mps:0 device type tensor to numpy.")
        if name in ("cpu", "to"):
            return _copy(name, *args, **kwargs)
        there = "device" in kwargs and torch.device(kwargs["device"] or "cpu") == MPS
        if there:
            kwargs["device"] = "cpu"
        if ours and name not in _BOTH:
            strangers = [x for x in inputs if not isinstance(x, OnMPS) and x.ndim]
            if strangers:
                raise RuntimeError(f"{name}: tensors on mps:0 and on cpu")
        result = func(*args, **kwargs)
        if there or (ours and not ("device" in kwargs and not there)):
            result = tree_map(_mark, result)
        return result


def _is_tensor(x):
    return isinstance(x, torch.Tensor)


def _mark(x):
    if not _is_tensor(x):
        return x
    if x.dtype == torch.float64:
        raise TypeError("the MPS framework doesn't support float64.")
    return x if isinstance(x, OnMPS) else x.as_subclass(OnMPS)


def _where(x):
    return MPS if isinstance(x, OnMPS) else x.device


def _copy(name, x, *args, **kwargs):
    """Imitate `Tensor.to` and `Tensor.cpu`."""
    device, dtype = _where(x), x.dtype
    for value in (*args, *kwargs.values()):
        if _is_tensor(value):
            device, dtype = _where(value), value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, (str, torch.device)):
            device = torch.device(value)
    device = torch.device("cpu") if name == "cpu" else device
    if MPS in (device, _where(x)) and dtype == torch.float64 != x.dtype:
        raise TypeError("the MPS framework doesn't support float64.")
    copied = x.as_subclass(torch.Tensor).to(dtype)
    copied = copied.clone() if device != _where(x) else copied
    return _mark(copied) if device == MPS else copied
