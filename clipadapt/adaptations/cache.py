"""A cache of labelled features beside the class embeddings."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView

LEAST = 0.1
"""Where either search begins."""


class FeatureCache(Adaptation):
    """Tip-Adapter: support images vote for their classes (Zhang et al., ECCV 2022, arXiv:2207.09519).

    A key is the unit mean of the raw features of an image's views. To the scaled cosines of unit image features f and
    class embeddings come votes, `alpha exp(-beta (1 - f k'))` summed over the keys k of each class.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        alpha: weight of the votes, before any search.
        beta: their sharpness, before any search.
        search: whether both are searched on the validation split, once keys are learned.
        most_alpha: where the search of alpha ends, this end left out; it begins at 0.1.
        alphas: steps to there.
        most_beta: where the search of beta ends.
        betas: steps to there.
        learn_keys: whether the keys are learned (Tip-Adapter-F); they aren't normalised again.
        scale: factor on the cosines with the text, whatever the backbone's is.
    """

    keys: Tensor
    labels: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = 1.17,
        beta: float = 1.0,
        search: bool = True,
        most_alpha: Annotated[float, Gt(LEAST)] = 3.0,
        alphas: Annotated[int, Ge(1)] = 20,
        most_beta: Annotated[float, Gt(LEAST)] = 7.0,
        betas: Annotated[int, Ge(1)] = 200,
        learn_keys: bool = False,
        scale: float = 100.0,
    ) -> None:
        super().__init__(clip, task)
        self.search = search
        self.declare(fixed_classes=tuple(task.class_names), needs_validation=search)
        self.alphas, self.betas, self.scale = grid(most_alpha, alphas), grid(most_beta, betas), scale
        keys = functional.normalize(task.support.image.float().mean(dim=0), dim=-1)
        if learn_keys:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("labels", task.support.labels.clone())
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("beta", torch.tensor(float(beta)))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Those of zero-shot and the votes."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return self.scale * image @ text.T + self.alpha * self.votes(image @ self.keys.T, self.beta, len(text))

    def votes(self, cosines: Tensor, beta: Tensor | float, classes: int) -> Tensor:
        """Affinities of B features to K keys, given their products `[B, K]`, summed within each class: `[B, C]`."""
        affinity = (beta * (cosines - 1)).exp()
        return affinity.new_zeros(len(cosines), classes).index_add(1, self.labels, affinity)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Choose alpha and beta by validation accuracy; of equals the smallest beta, then the smallest alpha."""
        if not self.search:
            return
        found = self.accuracies(learned.validation, learned.text)
        best = int(found.argmax())
        right = bool(found.any())  # with nothing right the authors' search ends at zero for both
        self.beta.fill_(self.betas[best // len(self.alphas)] * right)
        self.alpha.fill_(self.alphas[best % len(self.alphas)] * right)

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Accuracy on labelled images of each beta (row) and alpha (column)."""
        image, labels = samples.flat()
        image, text = functional.normalize(image, dim=-1), functional.normalize(text.float(), dim=-1)
        zero_shot, cosines = self.scale * image @ text.T, image @ self.keys.T
        rows = []
        for beta in self.betas:
            votes = self.votes(cosines, beta, len(text))
            rows += [((zero_shot + alpha * votes).argmax(dim=-1) == labels).float().mean() for alpha in self.alphas]
        return torch.stack(rows).unflatten(0, (len(self.betas), -1))


def grid(most: float, count: int) -> list[float]:
    """So many equal steps from the least value towards the most, which isn't reached."""
    return [LEAST + step * (most - LEAST) / count for step in range(count)]
