"""The plain side: the published procedures as their papers' code computes them, on open_clip's own towers.

Every prompt runs all tokens of the context length through the whole text tower, both towers run at every training step,
and nothing is cached from one step to the next.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from clipadapt.backbone.open_clip import CLIP


def padded(clip: CLIP, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return token ids `[N, length]` of token sequences, with zeros behind their end tokens."""
    length = clip.tokenizer.length
    return torch.tensor([[*tokens, *[0] * (length - len(tokens))] for tokens in sequences], device=clip.device)


def context_ids(clip: CLIP, names: Sequence[str], n_ctx: int) -> Tensor:
    """Return token ids `[C, length]` of the prompts "X X … X name.", with an X for each context vector."""
    tokenizer = clip.tokenizer
    before, full_stop = [*tokenizer.start, *[tokenizer.placeholder] * n_ctx], tokenizer.encode(".")
    return padded(clip, [[*before, *tokenizer.encode(name), *full_stop, *tokenizer.end] for name in names])


def encode(clip: CLIP, words: Tensor, ids: Tensor) -> Tensor:
    """Return features `[N, D]` of prompts, given their word embeddings `[N, length, W]` and token ids."""
    model = clip.model
    x = words + model.positional_embedding.to(words.dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    return x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)] @ model.text_projection


def class_embeddings(clip: CLIP, ids: Tensor, context: Tensor) -> Tensor:
    """Return class weights `[C, D]` of CoOp's prompts.

    Args:
        clip: the backbone.
        ids: token ids, as from `context_ids`.
        context: vectors `[n, W]`, or `[C, n, W]` where each class has its own.
    """
    words = clip.model.token_embedding(ids)
    own = context.to(words.dtype).expand(len(ids), -1, -1)
    words = torch.cat([words[:, :1], own, words[:, 1 + own.shape[1] :]], dim=1)
    return functional.normalize(encode(clip, words, ids), dim=-1)


def class_weights_per_image(clip: CLIP, ids: Tensor, contexts: Tensor) -> Tensor:
    """Return class weights `[B, C, D]` of contexts `[B, n, W]`, one image after the other, as CoCoOp does."""
    return torch.stack([class_embeddings(clip, ids, context) for context in contexts])


@torch.no_grad()
def ensemble(clip: CLIP, templates: Sequence[str], names: Sequence[str], classes_at_once: int = 10) -> Tensor:
    """Return class weights `[C, D]`: the normalised mean, for each class, of the normalised features of all templates.

    Args:
        clip: the backbone.
        templates: sentences with `{}` for the class name.
        names: the class names.
        classes_at_once: how many classes go through the tower together.
    """
    weights = []
    for first in range(0, len(names), classes_at_once):
        some = names[first : first + classes_at_once]
        prompts = [template.replace("{}", name) for name in some for template in templates]
        ids = padded(clip, [clip.tokenizer.sequence(prompt) for prompt in prompts])
        features = functional.normalize(encode(clip, clip.model.token_embedding(ids), ids), dim=-1)
        mean = features.unflatten(0, (len(some), len(templates))).mean(dim=1)
        weights.append(functional.normalize(mean, dim=-1))
    return torch.cat(weights)


def logits(clip: CLIP, image: Tensor, weights: Tensor) -> Tensor:
    """Return logits `[B, C]` of image features `[B, D]` and class weights `[C, D]` or `[B, C, D]`."""
    image = functional.normalize(image.float(), dim=-1)
    return clip.scale * (image.unsqueeze(-2) @ weights.float().mT).squeeze(-2)


class CoOp(nn.Module):
    """A shared context before the class name (Zhou et al., IJCV 2022, arXiv:2109.01134)."""

    def __init__(self, clip: CLIP, names: Sequence[str], n_ctx: int) -> None:
        super().__init__()
        self.clip = clip
        self.ids = context_ids(clip, names, n_ctx)
        self.context = nn.Parameter(0.02 * torch.randn(n_ctx, clip.text_width, device=clip.device))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits `[B, C]` of images `[B, 3, height, width]`."""
        with torch.no_grad():
            image = self.clip.model.encode_image(pixels)
        return logits(self.clip, image, class_embeddings(self.clip, self.ids, self.context))


class Adapter(nn.Module):
    """A bottleneck on the image features, mixed with the frozen ones (Gao et al., IJCV 2024, arXiv:2110.04544)."""

    def __init__(self, clip: CLIP, names: Sequence[str], template: str, ratio: float = 0.2, reduction: int = 4) -> None:
        super().__init__()
        self.clip, self.names, self.template, self.ratio = clip, names, template, ratio
        self.down = nn.Linear(clip.width, clip.width // reduction, bias=False, device=clip.device)
        self.up = nn.Linear(clip.width // reduction, clip.width, bias=False, device=clip.device)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits `[B, C]` of images `[B, 3, height, width]`."""
        with torch.no_grad():
            image = self.clip.model.encode_image(pixels).float()
        adapted = self.up(self.down(image).relu()).relu()
        weights = ensemble(self.clip, [self.template], self.names, classes_at_once=len(self.names))
        return logits(self.clip, self.ratio * adapted + (1 - self.ratio) * image, weights)


def training_step(model: nn.Module, optimizer: Optimizer, pixels: Tensor, labels: Tensor) -> Tensor:
    """Take one whole step on a batch of images, and return its loss."""
    loss = functional.cross_entropy(model(pixels), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
