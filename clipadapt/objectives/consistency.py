"""Objectives that regularise towards hand-written prompts."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView, Templates, mean_over_names, prompts_by_name
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy, cross_entropy


class Handwritten(CrossEntropy):
    """Cross entropy, and the frozen text features of hand-written prompts as a reference for subclasses.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` to use instead of the task's; raw features of several templates are averaged.

    Attributes:
        handwritten: unit text features of the classes' prompts, `[C, D]`.
        scale: the backbone's logit scale.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, templates: Templates | None = None) -> None:
        super().__init__(clip, task)
        prompts, counts = prompts_by_name(templates or task.templates, task)
        text = mean_over_names(clip.text_features(prompts).float(), counts)
        self.handwritten = functional.normalize(text.mean(dim=1), dim=-1)
        self.scale = clip.scale

    def zero_shot(self, image: Tensor) -> Tensor:
        """Compute zero-shot logits `[B, C]` of frozen image features `[B, D]` and the hand-written prompts."""
        return self.scale * functional.normalize(image.float(), dim=-1) @ self.handwritten.T


class TextConsistency(Handwritten):
    """KgCoOp: cross entropy plus the distance from hand-written text (Yao et al., CVPR 2023, arXiv:2303.13283).

    The distance is one minus the mean cosine, as in the authors' code; the paper's squared distance of unit features
    (equation 3) is exactly twice that.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` to use instead of the task's.
        weight: weight of the distance.
        squared: whether to use the paper's squared distance.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        weight: Annotated[float, Ge(0)] = 8.0,
        squared: bool = False,
    ) -> None:
        super().__init__(clip, task, templates)
        self.weight = weight
        self.squared = squared

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute two losses, `cross_entropy` and `text`."""
        return super().forward(output, labels) | {"text": self.weight * self.distance(output.text)}

    def distance(self, text: Tensor) -> Tensor:
        """Compute the mean distance of class embeddings `[..., C, D]` from the hand-written prompts' features."""
        return cosine_distance(text, self.handwritten) * (2 if self.squared else 1)


class ZeroShotDistillation(Handwritten):
    """Cross entropy plus distillation of zero-shot CLIP (Zhu et al., ICCV 2023, arXiv:2205.14865, equation 4).

    The distillation loss is the cross entropy with zero-shot CLIP's probabilities, times the squared temperature. It
    differs from the divergence by the teacher's entropy, which has no gradient.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: the teacher's sentences with `{}`, to use instead of the task's.
        temperature: divisor of the logits of teacher and student.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        temperature: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task, templates)
        self.temperature = temperature

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute two losses, `cross_entropy` and `distillation`."""
        teacher = (self.zero_shot(output.frozen()) / self.temperature).softmax(dim=-1)
        student = (output.logits.float() / self.temperature).log_softmax(dim=-1)
        general = -(teacher * student).sum(dim=-1).mean() * self.temperature**2
        return super().forward(output, labels) | {"distillation": general}


class SelfConsistency(Handwritten):
    """PromptSRC: consistency with frozen CLIP (Khattak et al., ICCV 2023, arXiv:2307.06948, section 3.2).

    Three losses are added to the cross entropy: the mean absolute differences of unit text features and of unit image
    features, and the divergence of the predicted probabilities, averaged over both batch and classes. The backbone
    itself is the teacher, so that its features of stored views are cached.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` for the frozen text features; the task's if None.
        text_weight: weight of the text features' difference.
        image_weight: weight of the image features' difference.
        logits_weight: weight of the divergence.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        text_weight: Annotated[float, Ge(0)] = 25.0,
        image_weight: Annotated[float, Ge(0)] = 10.0,
        logits_weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task, templates)
        self.teachers = [clip]
        self.text_weight, self.image_weight, self.logits_weight = text_weight, image_weight, logits_weight

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute four losses, `cross_entropy`, `text`, `image` and `logits`."""
        (teacher_features,) = output.teacher_features
        frozen = functional.normalize(teacher_features.float(), dim=-1)
        text = functional.normalize(output.text.float(), dim=-1)
        image = functional.normalize(output.image.float(), dim=-1)
        student, teacher = (x.log_softmax(dim=-1) for x in (output.logits.float(), self.zero_shot(teacher_features)))
        divergence = functional.kl_div(student, teacher, reduction="sum", log_target=True) / student.numel()
        return super().forward(output, labels) | {
            "text": self.text_weight * functional.l1_loss(text, self.handwritten.expand_as(text)),
            "image": self.image_weight * functional.l1_loss(image, frozen),
            "logits": self.logits_weight * divergence,
        }


class HeadConsistency(Handwritten):
    """MMRL: cross entropies of each head, and consistency with frozen CLIP (Guo & Gu, CVPR 2025, arXiv:2503.08497).

    Each head's cross entropy counts by the head's weight in the logits. One minus the mean cosine with frozen CLIP's
    features is added, for text features and for image features; of several features of an image, the first counts.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` for the frozen text features; the task's if None.
        weight: weight of both distances.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task, templates)
        self.teachers = [clip]
        self.weight = weight

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute three losses, `cross_entropy`, `image` and `text`."""
        assert output.heads is not None
        each = [share * cross_entropy(logits, labels, output.class_weights) for share, logits in output.heads()]
        (frozen,) = output.teacher_features
        image = output.image if output.image.dim() == frozen.dim() else output.image[:, 0]
        return {
            "cross_entropy": torch.stack(each).sum(),
            "image": self.weight * cosine_distance(image, frozen),
            "text": self.weight * cosine_distance(output.text, self.handwritten),
        }


def cosine_distance(features: Tensor, others: Tensor) -> Tensor:
    """Return one minus the mean cosine of features `[..., D]` and others, which are broadcast."""
    return 1 - functional.cosine_similarity(features.float(), others.float(), dim=-1, eps=1e-7).mean()
