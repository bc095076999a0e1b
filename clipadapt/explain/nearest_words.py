"""Words whose embeddings are nearest to learned context vectors, as CoOp's authors print them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError


@dataclass(frozen=True)
class NearWord:
    """A word that is near a learned vector.

    Attributes:
        word: the text of its token.
        distance: Euclidean distance of the token's embedding from the vector.
    """

    word: str
    distance: float


@torch.no_grad()
def nearest_words(clip: DualEncoder, adaptation: Adaptation, count: int) -> list[list[list[NearWord]]]:
    """Return the `count` nearest words of each vector of each context (Zhou et al., IJCV 2022, section 4.4).

    Only tokens that the backbone has seen in its pretraining are words, if these are known.

    Raises:
        UserError: the method has no context vectors, or the backbone's word embeddings aren't known.
    """
    vectors = adaptation.context_vectors()
    if vectors is None:
        raise UserError("this method learns no vectors in place of words, so that no words are near them")
    contexts = vectors.detach().float().cpu().reshape(-1, *vectors.shape[-2:])
    ids, table = word_embeddings(clip)
    found = []
    for context in contexts:
        exact = torch.cdist(context, table, compute_mode="donot_use_mm_for_euclid_dist")
        distances, places = exact.topk(min(count, len(ids)), largest=False)
        rows = zip(distances.tolist(), ids[places].tolist(), strict=True)
        found.append([[NearWord(_decode(clip, k), one) for one, k in zip(*row, strict=True)] for row in rows])
    return found


def word_embeddings(clip: DualEncoder) -> tuple[Tensor, Tensor]:
    """Return the ids `[N]` of the tokens that are words to a backbone, and their embeddings `[N, W]` in float32.

    Raises:
        UserError: the text tower's word embeddings aren't known.
    """
    tower, name = clip.text, clip.source["name"]
    if "words" not in tower.points:
        raise UserError(f"the word embeddings of {name} aren't known: its text tower has {', '.join(tower.points)}")
    table = tower.parameters("ids")[0].detach().float().cpu()
    known = range(len(table)) if clip.known_tokens is None else sorted(clip.known_tokens)
    ids = torch.tensor([*known])
    return ids, table[ids]


def _decode(clip: DualEncoder, token: int) -> str:
    return clip.tokenizer.decode([token]).strip() or f"(token {token})"
