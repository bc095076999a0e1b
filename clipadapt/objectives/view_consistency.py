"""Consistency with frozen CLIP of other views and of sentences that are drawn."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.class_tables import checked_table, look_up_sentences
from clipadapt.errors import UserError
from clipadapt.files import TablePath
from clipadapt.interfaces import SupportView, Templates, class_prompts, names_by_class
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy


class ViewConsistency(CrossEntropy):
    """CoPrompt: consistency with frozen CLIP of changed inputs (Roy & Etemad, ICLR 2024, arXiv:2306.01195).

    The distances of the text features from frozen CLIP's of one sentence about each class, and of the image features
    from frozen CLIP's of another random view, are added to the cross entropy. Every step draws one place in the lists
    of sentences for all classes; a batch that is split draws one for each part.

    Args:
        clip: the frozen backbone.
        task: class names and templates; of a class's names for CLIP the first counts.
        sentences: whole sentences of each class, by its name, as many for each; in settings also a YAML or JSON file of
            them. If None, the templates with the class name.
        templates: sentences with `{}` to use without `sentences`; the task's if None.
        weight: weight of both distances.
        distance: `cosine` is one minus the mean cosine; `mse` the mean squared difference of unit features.

    Attributes:
        sentence_features: frozen CLIP's unit features of T sentences of each class, `[T, C, D]`.

    Raises:
        UserError: a class isn't in `sentences`, or the classes have different numbers of them, or none.
    """

    teachers_see_others = True

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        sentences: dict[str, list[str]] | TablePath | None = None,
        templates: Templates | None = None,
        weight: Annotated[float, Ge(0)] = 8.0,
        distance: Literal["cosine", "mse"] = "cosine",
    ) -> None:
        super().__init__(clip, task)
        self.teachers = [clip]
        self.weight, self.distance = weight, distance
        first = [names[0] for names in names_by_class(task.class_names, task.words)]
        if sentences is None:
            texts = class_prompts(templates or task.templates, first)
        else:
            texts = _listed(checked_table(sentences, "sentences"), task.class_names, first)
        self.sentence_features = functional.normalize(clip.text_features(texts).float(), dim=-1).transpose(0, 1)

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute three losses, `cross_entropy`, `text` and `image`."""
        (frozen,) = output.teacher_features
        return super().forward(output, labels) | {
            "text": self.weight * self.apart(output.text, self.sentence_features[self.draw()]),
            "image": self.weight * self.apart(output.image, frozen),
        }

    def draw(self) -> int:
        """Draw the place of a sentence in the classes' lists."""
        return int(torch.randint(len(self.sentence_features), ()))

    def apart(self, features: Tensor, others: Tensor) -> Tensor:
        """Return the distance of features `[..., D]` from others, which are broadcast."""
        unit, other = (functional.normalize(x.float(), dim=-1) for x in (features, others))
        if self.distance == "mse":
            return (unit - other).square().mean()
        return 1 - (unit * other).sum(dim=-1).mean()


def _listed(table: dict[str, list[str]], classes: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Return the sentences of each class, given its label and its name for CLIP."""
    found = [[*look_up_sentences(table, label, [name])[name]] for label, name in zip(classes, names, strict=True)]
    wanted = len(found[0])
    for label, own in zip(classes, found, strict=True):
        if len(own) != wanted or not own:
            raise UserError(
                f"the class {label} has {len(own)} sentences, and {classes[0]} has {wanted}: give each class as "
                "many in `sentences`, at least one"
            )
    return found
