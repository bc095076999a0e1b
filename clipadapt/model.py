"""A CLIP through an adaptation: its two towers, with their cuts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.prompts import Prompts
from clipadapt.backbone.rows import Prompt

TextStart = Prompts | Tensor
"""The activation of prompts at the text cut."""


class AdaptedCLIP(nn.Module):
    """The two towers of a frozen CLIP through an adaptation.

    The cut of a tower is its earliest edited or replaced point. What lies before it can't change and runs without
    gradients; for texts once, in `prepare_text`.

    Args:
        clip: the frozen backbone, on its device.
        adaptation: where the network is touched, on the same device.
        max_rows: most rows of the text tower that are computed at once; more are computed in chunks, whose activations
            are computed again for their gradients. None: all at once.
        activation_checkpointing: whether the image tower's activations are computed again for their gradients.

    Attributes:
        image: the image tower that the adaptation reads.
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
        """Return the bias that makes log-odds of logits, for probabilities by a sigmoid; None where there is none.

        It isn't part of the logits: a softmax over classes doesn't see it.
        """
        return self.clip.logit_bias

    def prefix(self, pixels: Tensor) -> Tensor:
        """Encode images `[B, 3, height, width]` up to the image cut, without gradients."""
        with torch.no_grad():
            return self.image.run(pixels, stop=self.image_cut)

    def encode_image(self, x: Tensor, start: str = "pixels") -> Tensor:
        """Return image features `[B, D]`.

        Args:
            x: images `[B, 3, height, width]`, or their activation at the image cut.
            start: "pixels", or the name of the image cut.
        """
        x = x if start == self.image_cut else self.prefix(x)
        edits, stages = self.adaptation.edits("image"), self.adaptation.stages("image")
        again = self.activation_checkpointing and torch.is_grad_enabled()
        return self.image.run(x, edits, stages, start=self.image_cut, activation_checkpointing=again)

    def prepare_text(self, prompts: Sequence[Sequence[Prompt]]) -> TextStart:
        """Encode prompts, as many of each class, up to the text cut, without gradients.

        Raises:
            UserError: a prompt is longer than the text tower reads.
        """
        unshared = self.adaptation.capabilities.unshared_prefix
        tokenized = self.clip.tokenize_in_chunks(prompts, self.max_rows, unshared)
        with torch.no_grad():
            start: TextStart = tokenized.run(self.clip.text, stop=self.text_cut)
        return start

    def encode_text(self, prompts: TextStart, image: Tensor | None = None) -> Tensor:
        """Return text features `[..., C, templates, D]`; the leading dimensions are the adaptation's.

        Args:
            prompts: from `prepare_text`.
            image: image features `[B, D]`, where the text depends on them; B is then the first dimension.
        """
        edits, stages = self.adaptation.edits("text", image), self.adaptation.stages("text")
        if isinstance(prompts, Prompts):
            return prompts.run(self.clip.text, edits, stages, start=self.text_cut)
        return self.clip.text.run(prompts, edits, stages, start=self.text_cut)

    def frozen_features(self, at_cut: Tensor) -> Tensor:
        """Return the features `[B, D]` of the frozen tower from the activation at the image cut, without gradients."""
        with torch.no_grad():
            return self.image.run(at_cut, start=self.image_cut)

    def edited_features(self, features: Tensor) -> Tensor:
        """Apply the adaptation's edits of image features to features `[N, D]` of the frozen tower."""
        return self.image.run(features, self.adaptation.edits("image"), start="features")


def image_megabytes(model: AdaptedCLIP) -> float:
    """Return the megabytes that one image's activation at the image cut takes."""
    clip = model.clip
    blank = torch.zeros(1, 3, *clip.image_size, device=clip.device, dtype=clip.dtype)
    return model.prefix(blank).numel() * clip.dtype.itemsize / 1e6
