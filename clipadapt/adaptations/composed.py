"""Several adaptations as one."""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Capabilities, Edit, Head
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.errors import UserError
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView


class Composed(Adaptation):
    """A composition of several adaptations; edits at the same point run in the order of the parts.

    Args:
        clip: the frozen backbone.
        task: class names and templates, the same that the parts were built with.
        parts: adaptations by name; the names prefix the names of the learned tensors.

    Raises:
        UserError: two parts replace the same stage, or two parts override the same one of prompts, class embeddings
            and logits.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, parts: Mapping[str, Adaptation]) -> None:
        super().__init__(clip, task)
        self.parts = nn.ModuleDict(parts)
        self.capabilities = reduce(Capabilities.merge, (part.capabilities for part in parts.values()))
        overridden = "prompts", "class_embeddings", "known_embeddings", "logits"
        self.own = {method: self._only(method) for method in overridden}
        self.stages("text")
        if self.capabilities.all_tokens and "tokens" in self.stages("image"):
            raise UserError(
                "these adaptations can't be combined: one needs the features of all image tokens, and another replaces "
                "what reads them"
            )

    def list_parts(self) -> list[Adaptation]:
        """Return the adaptations that this one is composed of, those of composed parts among them."""
        return [one for part in self._parts() for one in part.list_parts()]

    def find_names(self, classes: Sequence[str], words: Mapping[str, Sequence[str]] | None = None) -> list[list[str]]:
        """Return the names that the part with the prompts has prompts for."""
        return self.own["prompts"].find_names(classes, words)

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the prompts of the part that overrides them."""
        return self.own["prompts"].prompts(names)

    def reference_features(self, clip: DualEncoder, names: Sequence[str]) -> Tensor | None:
        """Return the features that the edits of the part with the prompts read."""
        return self.own["prompts"].reference_features(clip, names)

    def merge_names(self, text: Tensor, counts: Sequence[int]) -> Tensor:
        """Return text features to give to the part that overrides the class embeddings, merged as it needs them."""
        return self.own["class_embeddings"].merge_names(text, counts)

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the class embeddings of the part that overrides them."""
        return self.own["class_embeddings"].class_embeddings(text)

    def known_embeddings(self, embeddings: Tensor, classes: Sequence[str]) -> Tensor:
        """Return the class embeddings, with the learned ones of the part that overrides them."""
        return self.own["known_embeddings"].known_embeddings(embeddings, classes)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return the logits of the part that overrides them."""
        return self.own["logits"].logits(image, text, scale)

    def heads(self, image: Tensor, text: Tensor, scale: float) -> list[Head]:
        """Return the heads of the part that overrides the logits."""
        return self.own["logits"].heads(image, text, scale)

    def text_logits(self, text: Tensor) -> Tensor | None:
        """Return the logits of class embeddings of the part that overrides the logits."""
        return self.own["logits"].text_logits(text)

    def logits_of_unseen(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return the logits of unseen classes of the part that overrides the logits."""
        return self.own["logits"].logits_of_unseen(image, text, scale)

    def begin_phase(self, phase: int, learned: AdaptedFeatures) -> None:
        """Set initial values of every part, in their order."""
        for part in self._parts():
            part.begin_phase(phase, learned)

    def trained_in(self, phase: int) -> list[nn.Parameter]:
        """Return the parameters of every part that are trained in a phase of the fit."""
        return [parameter for part in self._parts() for parameter in part.trained_in(phase)]

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Fit every part, in their order."""
        for part in self._parts():
            part.fit_closed_form(learned)

    def context_vectors(self) -> Tensor | None:
        """Return the vectors of the first part that has any."""
        return next((found for part in self._parts() if (found := part.context_vectors()) is not None), None)

    def support_features(self) -> LabelledFeatures | None:
        """Return the features of the first part that keeps any."""
        return next((found for part in self._parts() if (found := part.support_features()) is not None), None)

    def interpolate(self, ratio: float) -> None:
        """Interpolate the learned tensors of every part with their initial values."""
        for part in self._parts():
            if part.state_dict():
                part.interpolate(ratio)

    def squared_distance(self) -> Tensor:
        """Return the sum of the squared distances of the parts that have parameters."""
        return torch.stack([part.squared_distance() for part in self._parts() if part.has_parameters]).sum()

    def trainable_names(self) -> list[str]:
        """Return the trainable names of every part, with the part's name as prefix."""
        return [f"{name}.{tensor}" for name, part in self._items() for tensor in part.trainable_names()]

    def export(self) -> dict[str, bytes]:
        """Return the files of every part, in a folder with the part's name."""
        return {f"{name}/{path}": content for name, part in self._items() for path, content in part.export().items()}

    def _only(self, method: str) -> Adaptation:
        """Return the part that overrides a method; the first part if none does."""
        own = {
            name: part for name, part in self._items() if getattr(type(part), method) is not getattr(Adaptation, method)
        }
        if len(own) > 1:
            raise UserError(f"{' and '.join(own)} can't be combined: each has {method} of its own")
        return next(iter([*own.values(), *self._parts()]))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits of all parts, composed."""
        return chain([part.edits(tower, image) for part in self._parts()])

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return the stage replacements of all parts.

        Raises:
            UserError: two parts replace the same stage.
        """
        stages: dict[str, Edit] = {}
        for name, part in self._items():
            own = part.stages(tower)
            if taken := own.keys() & stages.keys():
                raise UserError(
                    f"'{name}' would replace stage '{min(taken)}', which another adaptation replaces already"
                )
            stages |= own
        return stages

    def _items(self) -> list[tuple[str, Adaptation]]:
        return list(self.parts.items())  # type: ignore[arg-type]

    def _parts(self) -> list[Adaptation]:
        return [part for _, part in self._items()]


def chain(edits: Sequence[Mapping[str, Edit]]) -> dict[str, Edit]:
    """Return the edits of several adaptations by point; edits at the same point run one after another."""
    chained: dict[str, Edit] = {}
    for own in edits:
        for point, edit in own.items():
            chained[point] = _then(chained[point], edit) if point in chained else edit
    return chained


def _then(first: Edit, second: Edit) -> Edit:
    return lambda x: second(first(x))
