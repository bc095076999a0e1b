"""A CLIP seen through an adaptation, for fixed class names: images to logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.open_clip import CLIP
from clipadapt.backbone.prompts import Prompts
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView
from clipadapt.objectives.base import Output


def check_classes(adaptation: Adaptation, class_names: Sequence[str]) -> None:
    """Refuse class names other than those that what is learned belongs to, or some of them.

    Raises:
        UserError: the adaptation learns for its classes one by one, and these are others.
    """
    fixed = adaptation.capabilities.fixed_classes
    if fixed is not None and not {*class_names} <= {*fixed}:
        raise UserError(
            "this method learns something for each of its classes, which can't serve others: for new classes take one "
            "that learns a shared context, prompt tokens, a residual on image features, or weights of the towers"
        )


class Classifier(nn.Module):
    """Images to logits over class names.

    The cut of either tower is its earliest edited or replaced point. What lies before can't change: it runs without
    gradients, and for the text once, here.

    Args:
        clip: the frozen backbone, on its device.
        adaptation: where the network is touched, on the same device.
        class_names: the C classes. Where what was learned belongs to its classes, C of those, in any order: logits are
            then read where they stand, as ImageNet's classifiers are tested on ImageNet-A and -R (Hendrycks et al.,
            CVPR 2021, arXiv:1907.07174, section 3); of namesakes, the first.
        max_rows: rows of the text tower that are computed at once, where there are more of them in chunks whose
            activations are computed again for their gradients; None for all at once.
        activation_checkpointing: whether the image tower's activations are computed again for their gradients.

    Attributes:
        image: the image tower that the adaptation reads.
        image_cut, text_cut: names of the cuts.

    Raises:
        UserError: a prompt is too long, a point is missing in a tower, or the adaptation was learned for other classes.
    """

    def __init__(
        self,
        clip: CLIP,
        adaptation: Adaptation,
        class_names: Sequence[str],
        max_rows: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_classes(adaptation, class_names)
        self.clip = clip
        self.adaptation = adaptation
        self.class_names = list(class_names)
        self.max_rows = max_rows
        self.activation_checkpointing = activation_checkpointing
        self.image = clip.image_of_all_tokens if adaptation.capabilities.all_tokens else clip.image
        self.image_cut = self.image.cut([*adaptation.edits("image"), *adaptation.stages("image")])
        self.text_cut = clip.text.cut([*adaptation.edits("text"), *adaptation.stages("text")])
        computed = list(adaptation.capabilities.fixed_classes or class_names)
        self.places = None if computed == self.class_names else [computed.index(name) for name in class_names]
        unshared = adaptation.capabilities.unshared_prefix
        prompts = clip.tokenize_in_chunks(adaptation.prompts(computed), max_rows, unshared)
        with torch.no_grad():
            self.text_start: Prompts | Tensor = prompts.run(clip.text, stop=self.text_cut)

    @property
    def text_chunks(self) -> int:
        """Number of chunks whose activations are computed again for their gradients; 1 where they are kept."""
        prompts = self.text_start
        return sum(map(len, prompts.chunks)) if isinstance(prompts, Prompts) and prompts.activation_checkpointing else 1

    def for_classes(self, class_names: Sequence[str]) -> "Classifier":
        """The same adaptation, the same tensors, for other class names."""
        return Classifier(self.clip, self.adaptation, class_names, self.max_rows, self.activation_checkpointing)

    def prefix(self, pixels: Tensor) -> Tensor:
        """Images `[B, 3, height, width]` to the activation at the image cut, without gradients."""
        with torch.no_grad():
            return self.image.run(pixels, stop=self.image_cut)

    def image_features(self, x: Tensor) -> Tensor:
        """From the activation at the image cut to features `[B, D]`."""
        edits, stages = self.adaptation.edits("image"), self.adaptation.stages("image")
        activation_checkpointing = self.activation_checkpointing and torch.is_grad_enabled()
        return self.image.run(x, edits, stages, start=self.image_cut, activation_checkpointing=activation_checkpointing)

    def text_features(self, image: Tensor | None = None) -> Tensor:
        """Text features `[..., C, templates, D]`; the leading dimensions are the adaptation's.

        Args:
            image: image features `[B, D]`, where the text depends on them; B is then the first dimension.
        """
        edits, stages = self.adaptation.edits("text", image), self.adaptation.stages("text")
        if isinstance(self.text_start, Prompts):
            return self.text_start.run(self.clip.text, edits, stages, start=self.text_cut)
        return self.clip.text.run(self.text_start, edits, stages, start=self.text_cut)

    def class_embeddings(self, image: Tensor | None = None) -> Tensor:
        """Class embeddings `[C, D]`; `[B, C, D]` given image features `[B, D]` that the text depends on."""
        return self.adaptation.class_embeddings(self.text_features(image))

    def output(self, x: Any, start: str = "pixels", text: Tensor | None = None) -> Output:
        """Features, class embeddings and logits.

        Args:
            x: images `[B, 3, height, width]`, or their activation at the image cut.
            start: "pixels", or the name of the image cut.
            text: class embeddings, where they are known already.
        """
        at_cut = self.prefix(x) if start != self.image_cut else x
        image = self.image_features(at_cut)
        if text is None:
            text = self.class_embeddings(image if self.adaptation.capabilities.conditional else None)
        weights = text
        return Output(
            self.logits(image, text),
            image,
            text,
            frozen=lambda: self.frozen_features(at_cut),
            classify=lambda features: self.logits(self._edited(features), weights),
        )

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Logits `[B, C]` of image features and class embeddings, in float32."""
        with torch.autocast(image.device.type, enabled=False):
            logits = self.adaptation.logits(image.float(), text.float(), self.clip.scale)
        return logits if self.places is None else logits[..., self.places]

    def frozen_features(self, at_cut: Tensor) -> Tensor:
        """From the activation at the image cut to the features of the tower as it is, without gradients."""
        with torch.no_grad():
            return self.image.run(at_cut, start=self.image_cut)

    def _edited(self, features: Tensor) -> Tensor:
        return self.image.run(features, self.adaptation.edits("image"), start="features")

    def forward(self, x: Any, start: str = "pixels") -> Tensor:
        """Logits `[B, C]` of images `[B, 3, height, width]`, or of their activation at the cut named by `start`."""
        return self.output(x, start).logits


def zero_shot_classifier(clip: CLIP, task: SupportView, class_names: Sequence[str] | None = None) -> Classifier:
    """Return the backbone as it is, with the task's templates.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        class_names: other class names than the task's.
    """
    return Classifier(clip, Adaptation(clip, task), task.class_names if class_names is None else class_names)
