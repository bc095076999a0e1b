"""Distillation without labels, from larger frozen backbones."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, Templates, mean_over_names, prompts_by_name
from clipadapt.objectives.base import BackboneSpec, Objective, Output


class Distillation(Objective):
    """PromptKD: distillation of teachers' probabilities (Li et al., CVPR 2024, arXiv:2403.02781, section 3).

    The loss is the divergence of the student's softened probabilities from the mean of the teachers', times the squared
    temperature. The divergence is averaged over both batch and classes, as in the authors' code, hence the large
    weight. Teachers encode the student's crops with their own image size and normalisation, and classify with
    hand-written prompts. Labels are not used.

    Two things differ from the paper. There, the teacher is first fitted to labelled images of some of the classes, and
    the student has no text tower: a learned projection of its image features is compared with the teacher's text
    features. Here, teachers are frozen, the student uses its own text tower, and only the adaptation is trained.

    Args:
        clip: the frozen backbone of the student; also the teacher, if a teacher has the same name and weights.
        task: class names and templates.
        teachers: `name` and `pretrained` of each teacher; random weights are drawn with the run's `backbone.seed`. The
            run loads the teachers before training starts, and passes them to `use_teachers`.
        templates: sentences with `{}` for the teachers; the task's if None.
        temperature: divisor of the logits of teachers and student.
        weight: weight of the divergence.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        teachers: list[BackboneSpec],
        templates: Templates | None = None,
        temperature: Annotated[float, Gt(0)] = 1.0,
        weight: Annotated[float, Ge(0)] = 1000.0,
    ) -> None:
        super().__init__(clip, task)
        self.prompts, self.name_counts = prompts_by_name(templates or task.templates, task)
        self.temperature = temperature
        self.weight = weight

    @classmethod
    def teachers_for(cls, settings: Mapping[str, Any]) -> Sequence[BackboneSpec]:
        """Return the specifications of the teachers.

        Raises:
            UserError: there is no teacher.
        """
        teachers: Sequence[BackboneSpec] = settings["teachers"]
        if not teachers:
            raise UserError(
                "method.objective.teachers is empty: name a backbone, as in [{name: ViT-L-14, pretrained: openai}]"
            )
        return teachers

    def use_teachers(self, teachers: Sequence[DualEncoder]) -> None:
        """Set the teachers, and compute the class embeddings `[C, D]` of each teacher."""
        super().use_teachers(teachers)
        units = [functional.normalize(one.text_features(self.prompts).float(), dim=-1) for one in teachers]
        units = [mean_over_names(unit, self.name_counts) for unit in units]
        self.classes = [functional.normalize(unit.mean(dim=1), dim=-1) for unit in units]

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute one loss, `distillation`; labels are ignored."""
        student = (output.logits.float() / self.temperature).log_softmax(dim=-1)
        divergence = functional.kl_div(student, self.probabilities(output), reduction="sum") / student.numel()
        return {"distillation": self.weight * self.temperature**2 * divergence}

    def probabilities(self, output: Output) -> Tensor:
        """Compute the mean of the teachers' softened probabilities, `[B, C]`."""
        units = [functional.normalize(features.float(), dim=-1) for features in output.teacher_features]
        triples = zip(self.teachers, units, self.classes, strict=True)
        logits = [one.scale * unit @ classes.T for one, unit, classes in triples]
        return torch.stack([(each / self.temperature).softmax(dim=-1) for each in logits]).mean(dim=0)
