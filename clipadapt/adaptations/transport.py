"""Several prompts per class, matched to several features of an image by optimal transport."""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation, Capabilities, Edit
from clipadapt.adaptations.context import embed
from clipadapt.adaptations.tokens import append, image_points
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt, Slot
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, underscores_to_spaces

STARTS = ["a photo of a", "this is a photo", "this is picture of", "one picture of a"]
"""Words whose embeddings initialise four contexts."""


class Plan(NamedTuple):
    """A transport plan `[..., M, N]`, and the mean absolute change of its row scaling in each iteration."""

    plan: Tensor
    errors: list[float]


def sinkhorn(similarity: Tensor, epsilon: float, max_iterations: int, threshold: float) -> Plan:
    """Solve entropic optimal transport by Sinkhorn's algorithm (Cuturi, NeurIPS 2013, arXiv:1306.0895).

    All M and all N points have equal weight.

    Args:
        similarity: similarities `[..., M, N]`; the cost is one minus the similarity.
        epsilon: weight of the entropy.
        max_iterations: maximum number of iterations.
        threshold: iterations stop when the mean absolute change of the row scaling, over all problems, is below this.
    """
    rows, columns = similarity.shape[-2:]
    kernel = torch.exp((similarity - 1) / epsilon)
    row, column = torch.ones_like(kernel[..., :1]), torch.ones_like(kernel[..., :1, :])
    errors: list[float] = []
    while len(errors) < max_iterations and (not errors or errors[-1] >= threshold):
        before = row
        row = (1 / rows) / (kernel * column).sum(dim=-1, keepdim=True)
        column = (1 / columns) / (kernel * row).sum(dim=-2, keepdim=True)
        errors.append(float((row - before).abs().mean()))
    return Plan(row * kernel * column, errors)


class TransportContext(Adaptation):
    """PLOT: several contexts matched to image patches (Chen et al., ICLR 2023, arXiv:2210.01253, section 3.3).

    A class's logit is the mean similarity of its prompts and the image's patches under the optimal transport plan,
    through which no gradient flows. Sinkhorn's iterations stop by a threshold on a mean over the batch: so logits
    depend slightly on the other images of the batch, and each iteration synchronises with the device.

    Args:
        clip: the frozen backbone.
        task: class names.
        n_prompts: number of prompts per class, N.
        n_ctx: number of context vectors of each prompt.
        epsilon: weight of the entropic regularisation.
        max_iterations: maximum number of Sinkhorn iterations.
        threshold: iterations stop when the mean absolute change of the row scaling is below this.
        pooled: whether the logits of the pooled features are added.

    Attributes:
        context: the vectors, `[N, n_ctx, W]`; they start normally distributed with standard deviation 0.02.

    Raises:
        UserError: the word embeddings can't be edited, or the image tower has no patch features.
    """

    capabilities = Capabilities(all_tokens=True)
    required_points: tuple[str, ...] = ("text.words",)

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        n_prompts: Annotated[int, Ge(1)] = 4,
        n_ctx: Annotated[int, Ge(1)] = 16,
        epsilon: Annotated[float, Gt(0)] = 0.1,
        max_iterations: Annotated[int, Ge(1)] = 100,
        threshold: Annotated[float, Gt(0)] = 0.01,
        pooled: bool = False,
    ) -> None:
        super().__init__(clip, task)
        self.declare(one_name=True)
        clip.text.cut(["words"])
        self.epsilon, self.max_iterations, self.threshold, self.pooled = epsilon, max_iterations, threshold, pooled
        self.context = nn.Parameter(0.02 * torch.randn(n_prompts, n_ctx, clip.text_width or 0))

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return one prompt per class, with slots that every context fills in its own copy."""
        slots = [Slot(i) for i in range(self.context.shape[1])]
        return [[[*slots, underscores_to_spaces(name), "."]] for name in names]

    def context_vectors(self) -> Tensor:
        """Return the vectors of all prompts, `[n_prompts, n_ctx, W]`."""
        return self.context

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that writes each context into its own prompts; text features are `[N, C, 1, D]`."""
        return {"words": lambda rows: rows.place(self.context)} if tower == "text" else {}

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return raw features `[N, C, D]` of N prompts per class, given text features `[N, C, 1, D]`."""
        return text.squeeze(-2)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of features of all tokens `[B, 1 + P, D]` and prompts `[N, C, D]`."""
        logits = self.transported(image[:, 1:], text, scale)
        return logits + scale * pooled_cosine(image[:, 0], text) if self.pooled else logits

    def transported(self, features: Tensor, text: Tensor, scale: float) -> Tensor:
        """Compute logits `[B, C]`: mean similarities of features `[B, M, D]` and prompts `[N, C, D]` under the plan."""
        similarity = self.similarity(features, text)
        return scale * (self.plan(similarity).plan * similarity).sum(dim=(-2, -1))

    def similarity(self, features: Tensor, text: Tensor) -> Tensor:
        """Compute cosines `[B, C, M, N]` of features `[B, M, D]` and prompts `[N, C, D]`."""
        features, text = functional.normalize(features, dim=-1), functional.normalize(text, dim=-1)
        return torch.einsum("bmd,ncd->bcmn", features, text)

    def plan(self, similarity: Tensor) -> Plan:
        """Compute the transport plan for similarities `[B, C, M, N]`, without gradients."""
        with torch.no_grad():
            return sinkhorn(similarity, self.epsilon, self.max_iterations, self.threshold)


class VisualTransport(TransportContext):
    """PLOT++: several contexts matched to image features under several visual prompts.

    The method is part of the released code of PLOT (Chen et al., ICLR 2023, arXiv:2210.01253).

    Args:
        clip: the frozen backbone.
        task: class names.
        words: words whose embeddings initialise each of N contexts.
        n_visual: number of visual prompts, M.
        n_tokens: number of tokens of each visual prompt, appended to the patches.
        epsilon: weight of the entropic regularisation.
        max_iterations: maximum number of Sinkhorn iterations.
        threshold: iterations stop when the mean absolute change of the row scaling is below this.
        pooled: whether the logits of the mean features are added.

    Attributes:
        context: the contexts, `[N, n_ctx, text W]`, with as many vectors as each of `words` has tokens.
        visual: the visual prompts, `[M, n_tokens, image W]`; they start normal with standard deviation 0.02.

    Raises:
        UserError: the `words` differ in their number of tokens, or a tower lacks a point.
    """

    capabilities = Capabilities(several_features=True)
    required_points: tuple[str, ...] = ("text.words", "image.patches", "image.block.0")

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        words: list[str] = STARTS,
        n_visual: Annotated[int, Ge(1)] = 4,
        n_tokens: Annotated[int, Ge(1)] = 2,
        epsilon: Annotated[float, Gt(0)] = 0.1,
        max_iterations: Annotated[int, Ge(1)] = 100,
        threshold: Annotated[float, Gt(0)] = 0.01,
        pooled: bool = False,
    ) -> None:
        starts = [clip.tokenizer.encode(underscores_to_spaces(start)) for start in words]
        if len({len(start) for start in starts}) != 1:
            raise UserError(f"the starts of all contexts must have as many tokens, and these have not: {words}")
        super().__init__(clip, task, len(words), len(starts[0]), epsilon, max_iterations, threshold, pooled)
        image_points(clip, 1)
        with torch.no_grad():
            self.context.copy_(torch.stack([embed(clip, start) for start in starts]))
        self.visual = nn.Parameter(0.02 * torch.randn(n_visual, n_tokens, clip.image_width or 0))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits; each visual prompt is appended to its own patches, image features are `[B, M, D]`."""
        if tower != "image":
            return super().edits(tower, image)
        return {"patches": self._show, "features": lambda x: x.transpose(0, 1)}

    def _show(self, x: Tensor) -> Tensor:
        copies = x.expand(len(self.visual), *x.shape)
        return append(copies, self.visual[:, None])

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of features `[B, M, D]` under M visual prompts and of prompts `[N, C, D]`."""
        logits = self.transported(image, text, scale)
        return logits + scale * pooled_cosine(image.mean(dim=1), text) if self.pooled else logits


def pooled_cosine(image: Tensor, text: Tensor) -> Tensor:
    """Compute cosines `[B, C]` of image features `[B, D]` and the mean of raw prompt features `[N, C, D]` over N."""
    image, text = functional.normalize(image, dim=-1), functional.normalize(text.mean(dim=0), dim=-1)
    return image @ text.T
