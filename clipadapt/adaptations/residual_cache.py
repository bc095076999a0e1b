"""A cache whose keys and class embeddings get a learned residual in chosen channels."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.cache import LEAST, FeatureCache
from clipadapt.adaptations.refined_cache import channel_scores, kept_channels, mean_products
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, SupportView


class ResidualCache(FeatureCache):
    """APE-T: Tip-Adapter with a residual of each class in chosen channels (Zhu et al., ICCV 2023, arXiv:2304.01195).

    The residual of a class is added to its class embedding and to all of its keys; neither is normalised again. The
    votes of a key are multiplied by a learned weight of its own. The channels are chosen by the class embeddings with
    which the fit begins.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        alpha: weight of the votes; the search replaces it.
        beta: sharpness of the votes; the search replaces it.
        search: whether alpha and beta are searched on the validation split, after the fit by gradient.
        channels: number of channels with a residual; None for 500 of 1024.
        similarity_weight: weight of the similarity of classes in the score of a channel.
        variance_weight: weight of the variance of the text in the score of a channel.
        most_alpha: upper end of the grid of alpha, excluded; the grid starts at 0.1.
        alphas: number of values in the grid of alpha.
        most_beta: upper end of the grid of beta, excluded; the grid starts at 0.1.
        betas: number of values in the grid of beta.
        scale: logit scale of the cosines with the class embeddings, used instead of the backbone's.

    Attributes:
        residual: the residuals in the chosen channels, `[C, channels]`; they start at zero.
        key_weights: the weights of the keys, `[K, 1]`; they start at one.
        chosen: indices of the channels, in descending order of their scores.

    Raises:
        UserError: the features have fewer channels than shall be chosen.
    """

    chosen: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = 3.0,
        beta: float = 1.0,
        search: bool = True,
        channels: Annotated[int, Ge(1)] | None = None,
        similarity_weight: float = 0.2,
        variance_weight: float = 0.8,
        most_alpha: Annotated[float, Gt(LEAST)] = 7.0,
        alphas: Annotated[int, Ge(1)] = 20,
        most_beta: Annotated[float, Gt(LEAST)] = 7.0,
        betas: Annotated[int, Ge(1)] = 200,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(clip, task, alpha, beta, search, most_alpha, alphas, most_beta, betas, scale=scale)
        self.weights = similarity_weight, variance_weight
        count = kept_channels(channels, self.keys.shape[-1])
        self.residual = nn.Parameter(torch.zeros(len(task.class_names), count))
        self.key_weights = nn.Parameter(torch.ones(len(self.keys), 1))
        self.register_buffer("chosen", torch.arange(count))

    def begin_phase(self, phase: int, learned: AdaptedFeatures) -> None:
        """Choose the channels with the best scores by the class embeddings."""
        text = functional.normalize(learned.text.float(), dim=-1)
        scores = channel_scores(text, mean_products(text), self.weights)
        self.chosen.copy_(scores.topk(len(self.chosen)).indices)

    def compare(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits `[B, C]` by the shifted text, and the products `[B, K]` with the shifted keys."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        shift = torch.zeros_like(text).index_copy(1, self.chosen, self.residual)
        return self.scale * image @ (text + shift).T, image @ (self.keys + shift[self.labels]).T

    def votes(self, cosines: Tensor, beta: Tensor | float, classes: int) -> Tensor:
        """Return the votes `[B, C]` of `FeatureCache`, each multiplied by its key's weight."""
        return self.class_sums((beta * (cosines - 1)).exp() * self.key_weights.T, classes)
