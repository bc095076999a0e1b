"""Objectives that hold what is learned near hand-written prompts."""

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView, class_prompts
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy


class Handwritten(CrossEntropy):
    """Cross entropy, and the frozen features of hand-written prompts to compare with.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names and templates.
        templates: sentences with `{}` in place of the task's; raw features of several are averaged.

    Attributes:
        handwritten: unit features of the classes' prompts, `[C, D]`.
        scale: the factor on cosine similarities.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, templates: list[str] | None = None) -> None:
        super().__init__(clip, task)
        prompts = class_prompts(templates or task.templates, task.class_names)
        self.handwritten = functional.normalize(clip.text_features(prompts).float().mean(dim=1), dim=-1)
        self.scale = clip.scale

    def zero_shot(self, image: Tensor) -> Tensor:
        """Logits `[B, C]` of frozen image features `[B, D]` and the hand-written prompts."""
        return self.scale * functional.normalize(image.float(), dim=-1) @ self.handwritten.T


class TextConsistency(Handwritten):
    """KgCoOp: cross entropy and the distance from hand-written text (Yao et al., CVPR 2023, arXiv:2303.13283).

    The distance is one minus the mean cosine, as in the authors' code; the paper's squared distance of unit features
    (equation 3) is exactly twice that.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names and templates.
        templates: sentences with `{}` in place of the task's.
        weight: of the distance.
        squared: whether the distance is the paper's.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: list[str] | None = None,
        weight: Annotated[float, Ge(0)] = 8.0,
        squared: bool = False,
    ) -> None:
        super().__init__(clip, task, templates)
        self.weight = weight
        self.squared = squared

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Two losses, `cross_entropy` and `text`."""
        return super().forward(output, labels) | {"text": self.weight * self.distance(output.text)}

    def distance(self, text: Tensor) -> Tensor:
        """Mean distance of class embeddings `[..., C, D]` from the hand-written ones."""
        cosine = functional.cosine_similarity(text.float(), self.handwritten, dim=-1, eps=1e-7).mean()
        return (1 - cosine) * (2 if self.squared else 1)


class ZeroShotDistillation(Handwritten):
    """Cross entropy, and that to zero-shot CLIP's probabilities (Zhu et al., ICCV 2023, arXiv:2205.14865, equation 4).

    The second leaves out the teacher's entropy, which has no gradient, and is multiplied by the squared temperature.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names and templates.
        templates: sentences with `{}` in place of the task's, for the teacher.
        temperature: that both logits are divided by.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: list[str] | None = None,
        temperature: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task, templates)
        self.temperature = temperature

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Two losses, `cross_entropy` and `distillation`."""
        teacher = (self.zero_shot(output.frozen()) / self.temperature).softmax(dim=-1)
        student = (output.logits.float() / self.temperature).log_softmax(dim=-1)
        general = -(teacher * student).sum(dim=-1).mean() * self.temperature**2
        return super().forward(output, labels) | {"distillation": general}


class SelfConsistency(Handwritten):
    """PromptSRC: cross entropy, three distances from frozen CLIP (Khattak et al., ICCV 2023, arXiv:2307.06948, 3.2).

    Mean absolute differences of unit text and image features, and the divergence of the logits' probabilities, taken
    over batch and classes alike. The backbone itself is the teacher, so what it sees in stored views is kept.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names and templates.
        templates: sentences with `{}` of the frozen text; the task's where None.
        text_weight: of the text features' difference.
        image_weight: of the image features' difference.
        logits_weight: of the divergence.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: list[str] | None = None,
        text_weight: Annotated[float, Ge(0)] = 25.0,
        image_weight: Annotated[float, Ge(0)] = 10.0,
        logits_weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task, templates)
        self.teachers = [clip]
        self.text_weight, self.image_weight, self.logits_weight = text_weight, image_weight, logits_weight

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Four losses: `cross_entropy`, `text`, `image` and `logits`."""
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
