"""The plain side of a stream: DPE's step as its paper's code computes it, on view features."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

Cached = dict[int, list[tuple[Tensor, float]]]


class Residue(nn.Module):
    """A residue on prototypes `[N, D]`, which starts at zero for every image."""

    def __init__(self, prototypes: Tensor) -> None:
        super().__init__()
        self.residue = nn.Parameter(torch.zeros_like(prototypes))

    def forward(self, prototypes: Tensor) -> Tensor:
        """Return the moved prototypes as unit vectors."""
        return functional.normalize(prototypes + self.residue, dim=-1)


class PrototypeStream:
    """DPE: prototypes of text and images along a stream (Zhang et al., NeurIPS 2024, arXiv:2410.12790).

    Args:
        text: unit class embeddings `[C, D]` that the stream starts from.
        scale: the logit scale.
        settings: the method's, by the names of `clipadapt.test_time.DualPrototypes`.
        cache: the cache's, by the names of `clipadapt.test_time.Cache`.
    """

    def __init__(self, text: Tensor, scale: float, settings: Mapping[str, float], cache: Mapping[str, float]) -> None:
        self.text, self.scale, self.settings, self.cache = text, scale, settings, cache
        self.cached: Cached = {}
        self.updates = 0

    def answer(self, views: Tensor) -> Tensor:
        """Adapt to an image with unit features `[V, D]` of its views, and return its logits `[C]`."""
        text_residue, chosen = Residue(self.text), self.settings
        logits = self.scale * views @ text_residue(self.text).T
        kept = entropies(logits).argsort()[: int(len(views) * chosen["selection"])]
        mean, feature = logits[kept].mean(dim=0, keepdim=True), views[kept].mean(dim=0, keepdim=True)
        self.update(feature, mean, mean_entropy(logits[kept]).item())
        classes, keys = self.keys()
        key_residue = Residue(keys)
        groups = [
            {"params": text_residue.parameters(), "lr": chosen["text_lr"]},
            {"params": key_residue.parameters(), "lr": chosen["image_lr"]},
        ]
        optimizer = torch.optim.AdamW(groups, eps=1e-3, weight_decay=0.1)
        moved, text = key_residue(keys), text_residue(self.text)
        loss = entropies(mean + self.affinities(feature, moved, classes)).mean()
        similarity, labels = moved @ text[classes].T, torch.arange(len(classes), device=text.device)
        align = functional.cross_entropy(similarity / chosen["align_temperature"], labels)
        loss = loss + chosen["align_weight"] * align
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            text = text_residue(self.text)
            found = self.scale * views[:1] @ text.T + self.affinities(views[:1], key_residue(keys), classes)
            self.evolve(text, entropies(found).item())
        return found[0]

    def update(self, feature: Tensor, logits: Tensor, entropy: float) -> None:
        """Put an image into the cache, under its predicted class."""
        own = self.cached.setdefault(int(logits.argmax()), [])
        if len(own) < self.cache["capacity"]:
            own.append((feature, entropy))
        elif entropy < own[-1][1]:
            own[-1] = (feature, entropy)
        own.sort(key=lambda one: one[1])

    def keys(self) -> tuple[list[int], Tensor]:
        """Return the classes in the cache, and the mean feature of each."""
        classes = sorted(self.cached)
        means = [torch.cat([feature for feature, _ in self.cached[label]]).mean(dim=0) for label in classes]
        return classes, torch.stack(means)

    def affinities(self, feature: Tensor, keys: Tensor, classes: list[int]) -> Tensor:
        """Return the cache's logits `[1, C]` of a feature `[1, D]`."""
        values = functional.one_hot(torch.tensor(classes, device=keys.device), len(self.text)).to(keys.dtype)
        return self.cache["alpha"] * torch.exp(-self.cache["beta"] * (1 - feature @ keys.T)) @ values

    def evolve(self, text: Tensor, entropy: float) -> None:
        """Move the class embeddings of later images, if this one is confident."""
        if entropy / torch.log2(torch.tensor(float(len(text)))).item() < self.settings["threshold"]:
            self.updates += 1
            self.text = self.text * (self.updates / (self.updates + 1)) + text / (self.updates + 1)


def entropies(logits: Tensor) -> Tensor:
    """Return the entropies `[N]` of logits `[N, C]`."""
    logs = logits.log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def mean_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the mean probability of logits `[N, C]`."""
    mean = logits.softmax(dim=-1).mean(dim=0)
    return -(mean * mean.log()).sum()
