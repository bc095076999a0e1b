"""A predictor as one torch module, from pixels to answers, and its graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from clipadapt.adaptations.transport import Plan, TransportContext
from clipadapt.errors import UserError
from clipadapt.tasks import Head, TaskKind

TRACED = 2
"""Images of the batch that a graph is traced with; the size of a batch stays free."""


class Answers(nn.Module):
    """The answers of a predictor, `[B, ...]`, to pixels `[B, 3, height, width]`.

    Class embeddings that don't depend on the image are a constant. No weight is registered, so that a graph has those
    alone that it uses.

    Args:
        head: the adapted CLIP with its head.
        kind: the kind of task.
    """

    text: Tensor | None

    def __init__(self, head: Head, kind: TaskKind) -> None:
        super().__init__()
        self.held = head, kind
        self.register_buffer("text", head.precompute())

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the answers; probabilities `[B, C]` if the task has classes."""
        head, kind = self.held
        return kind.answers(head.output(pixels, text=self.text).logits)


def trace(answers: Answers, pixels: Tensor) -> Any:
    """Return the program of torch.export, with a free number of images.

    Args:
        answers: the module.
        pixels: some images `[B, 3, height, width]`.

    Raises:
        UserError: the answers are drawn at random, or depend on values in a way that a graph can't.
    """
    some = pixels[:1].expand(TRACED, -1, -1, -1).contiguous()
    if not torch.equal(answers(some), answers(some)):
        raise UserError("this method draws at random for every image, so that it has no fixed answers to export")
    free = {"pixels": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad(), loops_in_graphs(answers.held[0]):
        program = torch.export.export(answers, (some,), dynamic_shapes=free, strict=False)
    remove_autocast(program.graph_module)
    return program


def remove_autocast(module: Any) -> None:
    """Remove from a graph the nodes that end and begin the number format of autocast, of which there was none."""
    for node in reversed(module.graph.nodes):
        if node.target in (torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast):
            module.graph.erase_node(node)
    module.recompile()


@contextmanager
def loops_in_graphs(head: Head) -> Iterator[None]:
    """Let iterations that end where the data say be a loop of the graph, with the same steps."""
    found = [part for part in head.adaptation.modules() if isinstance(part, TransportContext)]
    for part in found:
        part.plan = partial(looped_sinkhorn, settings=part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in found:
            del part.plan


def looped_sinkhorn(similarity: Tensor, settings: TransportContext) -> Plan:
    """Return what `sinkhorn` does for similarities `[..., M, N]`, without the errors of its steps."""
    rows, columns = similarity.shape[-2:]
    kernel = torch.exp((similarity.contiguous() - 1) / settings.epsilon)  # a loop keeps its values' strides

    def goes_on(step: Tensor, error: Tensor, *scalings: Tensor) -> Tensor:
        return (step < settings.max_iterations) & ((step == 0) | (error >= settings.threshold))

    def iterate(step: Tensor, error: Tensor, before: Tensor, column: Tensor, kernel: Tensor) -> tuple[Tensor, ...]:
        row = (1 / rows) / (kernel * column).sum(dim=-1, keepdim=True)
        column = (1 / columns) / (kernel * row).sum(dim=-2, keepdim=True)
        return step + 1, (row - before).abs().mean(), row, column, kernel.clone()

    ones = torch.ones_like(kernel[..., :1]), torch.ones_like(kernel[..., :1, :])
    start = torch.zeros((), dtype=torch.long), torch.zeros(()), *ones, kernel
    _, _, row, column, _ = while_loop(goes_on, iterate, start)
    return Plan(row * kernel * column, [])
