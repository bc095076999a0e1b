"""Temporary copies of an adaptation's learned tensors, one for each of several images, and steps of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation


@contextmanager
def batched_parameters(adaptation: Adaptation, images: int) -> Iterator[dict[str, nn.Parameter]]:
    """Yield an adaptation's learned tensors, to be changed within the context, and restore them afterwards.

    Args:
        adaptation: the adaptation. If it supports batched parameters, its tensors are `[images, ...]` within the
            context.
        images: number of images.

    Yields:
        The parameters that the adaptation uses within the context, by name.
    """
    own = dict(adaptation.named_parameters())
    start = {name: value.detach().clone() for name, value in own.items()}
    try:
        if adaptation.capabilities.supports_batched_params:
            each = {name: value.expand(images, *value.shape).clone() for name, value in start.items()}
            put(adaptation, {name: nn.Parameter(value) for name, value in each.items()})
        yield dict(adaptation.named_parameters())
    finally:
        put(adaptation, own)
        restore(own, start)


def restore(own: Mapping[str, nn.Parameter], start: Mapping[str, Tensor]) -> None:
    """Reset parameters to their initial values, and discard their gradients."""
    for name, parameter in own.items():
        with torch.no_grad():
            parameter.copy_(start[name])
        parameter.grad = None


def put(adaptation: Adaptation, tensors: Mapping[str, nn.Parameter]) -> None:
    """Replace an adaptation's parameters, by name."""
    for name, tensor in tensors.items():
        module, _, last = name.rpartition(".")
        setattr(adaptation.get_submodule(module), last, tensor)


def images_first(adaptation: Adaptation, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies `[B, ...]` of learned tensors, or of their gradients, with the images as first dimension."""
    batched = adaptation.capabilities.supports_batched_params
    return {name: (x if batched else x[None]).detach().clone() for name, x in tensors.items()}


def rounding_anew(device: torch.device) -> torch.autocast:
    """Return autocast with its present state but without its cache, since parameters change within the context."""
    return torch.autocast(device.type, enabled=torch.is_autocast_enabled(device.type), cache_enabled=False)


def descend(
    objective: Tensor,
    tensors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    moved: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Take one optimiser step down the gradients of tensors, and return the gradients, by name.

    Args:
        objective: what is minimised.
        tensors: the tensors that it depends on.
        optimizer: the optimiser.
        moved: the optimiser's tensors, by the same names; `tensors` if None.
    """
    found = torch.autograd.grad(objective, [*tensors.values()], materialize_grads=True)
    gradients = dict(zip(tensors, found, strict=True))
    for name, tensor in (tensors if moved is None else moved).items():
        tensor.grad = gradients[name]
    optimizer.step()
    return gradients
