"""CLIP with an adaptation applied to both towers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.prompts import Prompts
from clipadapt.backbone.rows import Prompt

TextStart = Prompts | Tensor
"""Activations of prompts at the text cut."""


class AdaptedCLIP(nn.Module):
    """The two towers of a frozen CLIP with an adaptation.

    The cut of a tower is its earliest edited or replaced point. The layers before the cut are frozen and run without
    gradients; for prompts they run only once, in `prepare_text`.

    Args:
        clip: the frozen backbone, on its device.
        adaptation: the adaptation to apply, on the same device.
        max_rows: maximum number of rows that the text tower processes at once. More rows are processed in chunks with
            activation checkpointing. None: all rows at once.
        activation_checkpointing: whether to recompute the image tower's activations in the backward pass.

    Attributes:
        image: the image tower; it returns the features of all tokens if the adaptation needs them.
        image_cut: name of the image tower's cut.
        text_cut: name of the text tower's cut.

    Raises:
        MissingPoint: a tower lacks a point that the adaptation edits or replaces.
    """

    def __init__(
        self,
        clip: DualEncoder,
        adaptation: Adaptation,
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.adaptation = adaptation
        self.max_rows = max_rows
        self.activation_checkpointing = activation_checkpointing
        self.image = clip.image_of_all_tokens if adaptation.capabilities.all_tokens else clip.image
        self.image_cut = adaptation.cut("image", self.image)
        self.text_cut = adaptation.cut("text", clip.text)

    @property
    def logit_bias(self) -> float | None:
        """The backbone's logit bias, None if it has none; logits plus bias are the log-odds for a sigmoid.

        The bias isn't part of the logits, since a softmax over classes doesn't depend on it.
        """
        return self.clip.logit_bias

    def prefix(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, height, width]` up to the image cut, without gradients."""
        with torch.no_grad():
            return self.image.run(pixels, stop=self.image_cut)

    def encode_image(self, x: Tensor, start: str = "pixels") -> Tensor:
        """Return image features `[B, D]`.

        Args:
            x: images `[B, 3, height, width]`, or their activations at the image cut.
            start: "pixels", or the name of the image cut.
        """
        x = x if start == self.image_cut else self.prefix(x)
        edits, stages = self.adaptation.edits("image"), self.adaptation.stages("image")
        again = self.activation_checkpointing and torch.is_grad_enabled()
        return self.image.run(x, edits, stages, start=self.image_cut, activation_checkpointing=again)

    def prepare_text(self, prompts: Sequence[Sequence[Prompt]], references: Tensor | None = None) -> TextStart:
        """Encode prompts up to the text cut, without gradients; every class has the same number of prompts.

        Args:
            prompts: prompts by class, of the adaptation.
            references: features `[C, D]` for the adaptation's edits, from its `reference_features`.

        Raises:
            UserError: a prompt is longer than the text tower's context length.
        """
        unshared = self.adaptation.capabilities.unshared_prefix
        tokenized = self.clip.tokenize_in_chunks(prompts, self.max_rows, unshared)
        if references is not None:  # other families' prompts may have no place for them
            tokenized = tokenized.with_references(references)
        with torch.no_grad():
            start: TextStart = tokenized.run(self.clip.text, stop=self.text_cut)
        return start

    def encode_text(self, prompts: TextStart, image: Tensor | None = None) -> Tensor:
        """Return text features `[..., C, templates, D]`; the adaptation's edits determine the leading dimensions.

        Args:
            prompts: activations from `prepare_text`.
            image: image features `[B, D]`, if the text features depend on them; B is then the first dimension.
        """
        edits, stages = self.adaptation.edits("text", image), self.adaptation.stages("text")
        if isinstance(prompts, Prompts):
            return prompts.run(self.clip.text, edits, stages, start=self.text_cut)
        return self.clip.text.run(prompts, edits, stages, start=self.text_cut)

    def frozen_features(self, at_cut: Tensor) -> Tensor:
        """Return the frozen tower's features `[B, D]` of activations at the image cut, without gradients."""
        with torch.no_grad():
            return self.image.run(at_cut, start=self.image_cut)

    def edited_features(self, features: Tensor) -> Tensor:
        """Apply the adaptation's edits of image features to features `[N, D]` of the frozen tower."""
        return self.image.run(features, self.adaptation.edits("image"), start="features")


def image_megabytes(model: AdaptedCLIP) -> float:
    """Return the size in megabytes of one image's activation at the image cut."""
    clip = model.clip
    blank = torch.zeros(1, 3, *clip.image_size, device=clip.device, dtype=clip.dtype)
    return model.prefix(blank).numel() * clip.dtype.itemsize / 1e6
