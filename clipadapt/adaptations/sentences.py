"""Sentences about each class as its prompts, and how their features become class embeddings."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.class_tables import checked_table, look_up_sentences, missing
from clipadapt.files import TablePath
from clipadapt.interfaces import SupportView, class_prompts, mean_over_names, names_by_class


class SentencePrompts(Adaptation):
    """A base class for prompts that a class has for itself, as many as there are: `texts` returns those of one class.

    The class embedding is the mean over the class's prompts of their unit features, normalised again.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        truncate: whether prompts that are too long for the text tower are cut, and end where they are cut.

    Raises:
        UserError: a class has no prompts.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, truncate: bool = True) -> None:
        super().__init__(clip, task)
        found = [text for own in self.find_names(task.class_names) for text in own]
        self.shortened = shortened(clip, found) if truncate else {}

    def texts(self, label: str, names: Sequence[str]) -> list[str]:
        """Return the prompts of one class, given its label and its names for CLIP."""
        raise NotImplementedError

    def find_names(self, classes: Sequence[str], words: Mapping[str, Sequence[str]] | None = None) -> list[list[str]]:
        """Return the prompts of each class; `prompts` has one for each of them.

        Raises:
            UserError: a class has none.
        """
        names = names_by_class(classes, self.class_words if words is None else words)
        return [self.texts(label, own) for label, own in zip(classes, names, strict=True)]

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return each text that `find_names` found as a prompt, cut if it is too long."""
        return [[self.shortened.get(text, text)] for text in names]

    def merge_names(self, text: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the mean of the unit features of each class's prompts, `[..., C, 1, D]`."""
        return mean_over_names(functional.normalize(text, dim=-1), counts)


class ClassSentences(SentencePrompts):
    """Zero-shot CLIP with sentences about each class, as in CuPL (Pratt et al., ICCV 2023, arXiv:2209.03320).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        sentences: whole sentences of each class, by its name, or by each of its names for CLIP; in settings also a YAML
            or JSON file of them.
        with_templates: whether a class's prompts in the task's templates come before its sentences, all of one weight.
        truncate: whether sentences that are too long for the text tower are cut, and end where they are cut.

    Raises:
        UserError: a class has no sentences.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        sentences: dict[str, list[str]] | TablePath,
        with_templates: bool = False,
        truncate: bool = True,
    ) -> None:
        self.sentences, self.with_templates = checked_table(sentences, "sentences"), with_templates
        super().__init__(clip, task, truncate)

    def texts(self, label: str, names: Sequence[str]) -> list[str]:
        """Return the sentences of one class, given its label and its names for CLIP."""
        own = [*chain.from_iterable(look_up_sentences(self.sentences, label, names).values())]
        if not own:
            raise missing(label, "sentences")
        return [*chain.from_iterable(class_prompts(self.templates, names))] * self.with_templates + own


class SentenceScores(SentencePrompts):
    """A base class for scores that compare an image with sentences: their mean is not normalised again, or the largest.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        aggregate: what a class's cosines with its prompts become: `mean` is the product with the mean of unit features
            as it is, so that a class of scattered sentences scores lower; `normalized` the cosine with that mean; `max`
            the largest.
        truncate: whether sentences that are too long for the text tower are cut, and end where they are cut.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        aggregate: Literal["mean", "normalized", "max"] = "mean",
        truncate: bool = True,
    ) -> None:
        super().__init__(clip, task, truncate)
        self.aggregate = aggregate

    def merge_names(self, text: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the mean `[..., C, 1, D]` of unit features; for `max` all of them, `[..., C, S, D]`.

        Of classes with fewer than S prompts, the first one's features are repeated, which changes no largest cosine.
        """
        if self.aggregate != "max":
            return super().merge_names(text, counts)
        each = functional.normalize(text, dim=-1).squeeze(-2).split([*counts], dim=-2)
        most = max(counts)
        return torch.stack([torch.cat([own, *[own[..., :1, :]] * (most - own.shape[-2])], -2) for own in each], -3)

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return what `merge_names` returned as class embeddings, `[..., C, D]`; for `max` `[C, S, D]`."""
        if self.aggregate == "max":
            return text
        merged = text.squeeze(-2)
        return functional.normalize(merged, dim=-1) if self.aggregate == "normalized" else merged

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`: scaled cosines with the prompts of each class, aggregated."""
        image = functional.normalize(image, dim=-1)
        if self.aggregate != "max":
            return scale * (image.unsqueeze(-2) @ text.mT).squeeze(-2)
        return scale * (image @ text.flatten(0, 1).T).unflatten(-1, text.shape[:2]).amax(dim=-1)


def shortened(clip: DualEncoder, texts: Sequence[str]) -> dict[str, Prompt]:
    """Return token ids in place of the texts that are too long for the text tower, as many as it reads."""
    tokenizer = clip.tokenizer
    room = tokenizer.length - len(tokenizer.start) - len(tokenizer.end)
    ids = {text: tokenizer.encode(text) for text in texts}
    return {text: own[:room] for text, own in ids.items() if len(own) > room}
