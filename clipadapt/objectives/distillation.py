"""An objective without labels: what larger frozen backbones make of the same images."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, class_prompts
from clipadapt.objectives.base import BackboneSpec, Objective, Output


class Distillation(Objective):
    """PromptKD: a teacher's probabilities are learned, not labels (Li et al., CVPR 2024, arXiv:2403.02781, section 3).

    The divergence of the student's softened probabilities from the teachers' mean, times the squared temperature; taken
    over batch and classes alike, as in the authors' code, hence the large weight. Teachers see the student's crops at
    their own size and normalisation, and classify by hand-written prompts.

    The paper's teacher is first fitted to labelled images of some of the classes, and its student has no text of its
    own: a learned projection of its image features meets the teacher's text features. Here the student keeps its text
    tower, and what is learned is the adaptation's alone.

    Args:
        clip: the frozen backbone, which is its own teacher where one of them has its name and weights.
        task: class names and templates.
        teachers: `name` and `pretrained` of each; random weights are drawn from the run's `backbone.seed`. They are
            loaded before the run starts, and handed over through `use_teachers`.
        templates: sentences with `{}` for the teachers; the task's where None.
        temperature: that all logits are divided by.
        weight: of the divergence.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        teachers: list[BackboneSpec],
        templates: list[str] | None = None,
        temperature: Annotated[float, Gt(0)] = 1.0,
        weight: Annotated[float, Ge(0)] = 1000.0,
    ) -> None:
        super().__init__(clip, task)
        self.prompts = class_prompts(templates or task.templates, task.class_names)
        self.temperature = temperature
        self.weight = weight

    @classmethod
    def teachers_for(cls, settings: Mapping[str, Any]) -> Sequence[BackboneSpec]:
        """Return the specifications of the teachers; raises UserError where there is none."""
        teachers: Sequence[BackboneSpec] = settings["teachers"]
        if not teachers:
            raise UserError(
                "method.objective.teachers is empty: name a backbone, as in [{name: ViT-L-14, pretrained: openai}]"
            )
        return teachers

    def use_teachers(self, teachers: Sequence[DualEncoder]) -> None:
        """Take the teachers, and compute each one's class embeddings `[C, D]`."""
        super().use_teachers(teachers)
        units = [functional.normalize(one.text_features(self.prompts).float(), dim=-1) for one in teachers]
        self.classes = [functional.normalize(unit.mean(dim=1), dim=-1) for unit in units]

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """One loss, `distillation`; labels aren't looked at."""
        student = (output.logits.float() / self.temperature).log_softmax(dim=-1)
        divergence = functional.kl_div(student, self.probabilities(output), reduction="sum") / student.numel()
        return {"distillation": self.weight * self.temperature**2 * divergence}

    def probabilities(self, output: Output) -> Tensor:
        """Mean of the teachers' softened probabilities, `[B, C]`."""
        units = [functional.normalize(features.float(), dim=-1) for features in output.teacher_features]
        triples = zip(self.teachers, units, self.classes, strict=True)
        logits = [one.scale * unit @ classes.T for one, unit, classes in triples]
        return torch.stack([(each / self.temperature).softmax(dim=-1) for each in logits]).mean(dim=0)
