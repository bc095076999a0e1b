"""A second device that needs no GPU: tensors stay in the CPU's memory, and each storage has a tag saying where it is.

What a GPU would refuse is refused: an operation on tensors of both devices, and NumPy's view of a tensor that isn't on
the CPU. As there, CPU tensors without dimensions go with all, and CPU indices with `x[indices]`. Python's calls are
seen by `SecondDevice`, in backward passes too; the operations that they consist of by `Operations`.

A tensor is on the CPU where Python made it without a device, or moved it there. What C++ makes from nothing, as
`one_hot` and backward passes make zeros, would be on the device of what it is made for, and the CPU's memory doesn't
tell which that is. Such a tensor is unplaced, and goes to the second device with the first tensor of that which it
meets; what a call returns goes to the device of what the call was given.

What can't be seen:
    a tensor that C++, or torch's own Python (`functional.multi_head_attention_forward`), makes on the wrong device from
        nothing, in a call that was given tensors of the second device: it counts as unplaced
    a misplaced tensor without dimensions, where an operation of a GPU would refuse it
    copies between devices that wait, which are slow there but right
    other threads and processes: neither mode is active in them, and what they make is on the CPU
    sparse tensors
    what depends on a GPU's arithmetic: number formats, kernels that are missing or not deterministic
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.places import Places, storage_key, tensors

DEVICE = torch.device("hpu", 0)
"""A name that torch knows and has nothing behind, so that what isn't intercepted fails."""
CPU = torch.device("cpu")
COPIES = {"aten::copy_", "aten::_foreach_copy_"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
OWN_INDEX = 1
"""Place of the indices among the arguments of what is in `INDEXED`."""
ANSWERS: dict[Any, Callable[[bool], Any]] = {
    torch.Tensor.device.__get__: lambda there: DEVICE if there else CPU,
    torch.Tensor.is_cuda.__get__: lambda there: there,
    torch.Tensor.is_cpu.__get__: lambda there: not there,
}


class Misplaced(RuntimeError):
    """Tensors of two devices in one operation."""


class Operations(TorchDispatchMode):
    """Checks each operation, those of backward passes too, and says where its results are."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors((args, kwargs))
        there = any(self.places.there(x) for x in given)
        name = func._schema.name
        if there and name not in COPIES:
            self._check(name, args, kwargs)
        found = func(*args, **kwargs)
        old = {storage_key(x) for x in given}
        new = [x for x in tensors(found) if storage_key(x) not in old]
        if there:
            met = [x for x in given if self.places.unplaced(x)]
            for x in [*new, *met]:
                self.places.put(x, True)
        elif self.places.within and all(self.places.unplaced(x) or not x.ndim for x in given):
            for x in new:
                self.places.leave(x)
        return found

    def _check(self, name: str, args: Any, kwargs: Any) -> None:
        if name in INDEXED and self.places.there(args[0]):
            args = [*args[:OWN_INDEX], *args[OWN_INDEX + 1 :]]
        for x in tensors((args, kwargs)):
            if x.ndim and not self.places.there(x) and not self.places.unplaced(x):
                raise Misplaced(f"{name}: expected all tensors on {DEVICE}, found one of {tuple(x.shape)} on {CPU}")


class Moved(torch.autograd.Function):
    """A tensor brought to the other device; its gradient is brought back."""

    @staticmethod
    def forward(context: Any, x: Tensor, places: Places, there: bool) -> Tensor:
        context.places, context.back = places, places.there(x)
        found = x.clone()
        places.put(found, there)
        return found

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        found = gradient.clone()
        context.places.put(found, context.back)
        return found, None, None


class SecondDevice(TorchFunctionMode):
    """Answers where tensors are, moves them, and makes new ones on the second device."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS:
            return ANSWERS[func](self.places.there(args[0]))
        kwargs = dict(kwargs or {})
        with self.places.call(any(self.places.there(x) for x in tensors((args, kwargs)))):
            found = self._call(func, args, kwargs)
            for x in tensors(found):
                if self.places.unplaced(x):
                    self.places.put(x, self.places.within)
        return found

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func in (Tensor.numpy, Tensor.__array__) and self.places.there(args[0]):
            raise TypeError(f"can't convert a tensor on {DEVICE} to numpy: copy it to the CPU first")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._to(func, *args, **kwargs)
        if func is Tensor.__deepcopy__:
            found = func(*args, **kwargs)
            self.places.put(found, self.places.there(args[0]))
            return found
        if func is Tensor.new_tensor:
            kwargs.setdefault("device", DEVICE if self.places.there(args[0]) else CPU)
        if kwargs.get("device") is not None and func is not torch._C._nn._parse_to:
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    def _made(self, func: Any, args: Any, kwargs: Any) -> Any:
        device = torch.device(kwargs["device"])
        if device.type not in (DEVICE.type, "cpu"):
            return func(*args, **kwargs)
        found = func(*args, **{**kwargs, "device": CPU})
        there = device.type == DEVICE.type
        if isinstance(found, Tensor) and (self.places.unplaced(found) or self.places.there(found) != there):
            shared = {storage_key(x) for x in tensors(args)}
            found = found.clone() if storage_key(found) in shared else found
            self.places.put(found, there)
        return found

    def _to(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        here = self.places.there(x)
        if func is not Tensor.to:
            there, kwargs, dtype = func is Tensor.cuda, {}, None
        elif args and isinstance(args[0], Tensor):
            there, dtype, kwargs = self.places.there(args[0]), args[0].dtype, {}
        else:
            copy = {"copy": kwargs.pop("copy")} if "copy" in kwargs else {}
            device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
            if device is not None and device.type not in (DEVICE.type, "cpu"):
                return x.to(*args, **kwargs)
            there = here if device is None else device.type == DEVICE.type
            kwargs = copy | ({} if layout is None else {"memory_format": layout})
        found = x.to(dtype or x.dtype, **kwargs)
        return found if there == here else Moved.apply(found, self.places, there)


@contextmanager
def second_device() -> Iterator[Places]:
    """Pretend that there is a second device, and that runs choose it."""
    places, load, run_backward = Places(), torch.load, torch.autograd._engine_run_backward

    def loaded(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        found = load(*args, map_location="cpu", **kwargs)
        for x in tensors(found):
            places.put(x, torch.device(map_location or "cpu").type == DEVICE.type)
        return found

    def backward(*args: Any, **kwargs: Any) -> Any:
        with places.call(True), SecondDevice(places):  # torch has left that mode, and calls Python again
            return run_backward(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "_engine_run_backward", backward)
        patch.setattr(Accelerator, "device", property(lambda self: DEVICE))
        patch.setattr(torch, "load", loaded)
        with Operations(places), SecondDevice(places):
            yield places
