"""The base class of tuning to a batch of test images together, and what such a batch is tuned to."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.interfaces import format_templates, mean_over_names, prompts_by_name
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.copies import batched_parameters, descend, rounding_anew
from clipadapt.test_time.episodic import Rate, Tensors
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import check_cosines

Similarities = Literal["both", "image", "text"]
TEMPERATURE = 0.01
"""The temperature of the targets, a constant of the released codes."""


@dataclass(frozen=True)
class TunedBatch:
    """The result of tuning to B images together.

    Attributes:
        logits: logits after tuning, `[B, C]`.
        tensors: the learned tensors as tuned, by name.
        gradients: gradients of the objective in the first step, by name.
        values: `objective [steps]` before each step, the `targets [steps, B, B]`, and the `classes [steps, B, K]` that
            each image's text names.
        averages: the learned tensors after each average of weights; empty without averages.
    """

    logits: Tensor
    tensors: Tensors
    gradients: Tensors
    values: Tensors
    averages: Sequence[Tensors]


@dataclass
class Tuning:
    """Tuning of learned tensors to B images, step by step.

    Attributes:
        classifier: the adapted CLIP.
        x: activations of the images at the image cut, `[B, ...]`.
        tensors: the learned tensors, which steps change.
        values: the values of the steps so far, by name.
        gradients: gradients of the first step.
        averages: the learned tensors after each average of weights so far.
    """

    classifier: Classifier
    x: Tensor
    tensors: Mapping[str, nn.Parameter]
    values: list[Tensors] = field(default_factory=list)
    gradients: Tensors = field(default_factory=dict)
    averages: list[Tensors] = field(default_factory=list)

    def features(self) -> Tensor:
        """Return unit features `[B, D]` of the images, in float32, by the tower as it is now."""
        return functional.normalize(self.classifier.encode_image(self.x, self.classifier.image_cut).float(), dim=-1)

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        choose: Callable[[Tensor], tuple[Tensor, Tensor]],
        similarities: Similarities = "both",
    ) -> None:
        """Take one optimiser step.

        Args:
            optimizer: that of the learned tensors.
            choose: returns, for unit features `[B, D]`, the classes `[B, K]` that each image's text names, and the unit
                features `[B, D]` of these texts.
            similarities: those that the targets are made of.
        """
        features = self.features()
        with torch.autocast(self.x.device.type, enabled=False):
            classes, texts = choose(features.detach())
            wanted = targets(features, texts, similarities)
            logits = self.classifier.clip.scale * features @ texts.T
            objective = -(wanted * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
        gradients = descend(objective, self.tensors, optimizer)
        self.gradients = self.gradients or gradients
        self.values.append({"objective": objective.detach(), "targets": wanted.detach(), "classes": classes})


class BatchTuning(TestTimeMethod):
    """Tuning of the image tower to a batch of test images together, with Adam, from the start for every batch.

    The text is the method's own, by the frozen text tower; class names keep their underscores, as in the released
    codes. A batch of one image has one text, whose loss and gradients are zero: the answer to it is zero-shot CLIP's.

    Args:
        batch_size: number of images of a batch; the last of a test set can be smaller. It changes the answers.
        lr: learning rate.
    """

    adapts_to = "batch"

    def __init__(self, batch_size: Count, lr: Rate) -> None:
        super().__init__(views=1, images=batch_size)
        self.lr = lr
        self.prompts: list[list[str]] = []
        self.texts, self.texts_backbone = torch.empty(0), ""
        self.note = (
            f"each batch of {batch_size} test images was adapted to together, without labels; zero-shot CLIP sees "
            "one by one"
        )

    @property
    def texts_at_once(self) -> int:
        """One: the text is not learned."""
        return 1

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation has weights of the image tower to tune, and leaves the text as it is.

        Raises:
            UserError: it doesn't.
        """
        check_cosines(adaptation)
        needs = adaptation.capabilities
        text = needs.supports_batched_params or adaptation.edits("text") or adaptation.stages("text")
        if text or needs.fixed_classes or not adaptation.has_parameters:
            raise UserError(
                "this method tunes weights of the image tower alone to a batch of test images: take an adaptation that "
                "has some, such as adaptation@method.adaptation=norm_finetuning with method.adaptation.towers=image"
            )

    @abstractmethod
    def run(self, tuning: Tuning) -> None:
        """Take all steps of a batch."""

    @abstractmethod
    def class_features(self, classifier: Classifier) -> Tensor:
        """Return the unit class embeddings `[C, D]` that images are compared with in the end."""

    @torch.no_grad()
    def template_features(self, classifier: Classifier, templates: Sequence[str]) -> Tensor:
        """Return unit class embeddings `[T, C, D]` of each of T templates, which are computed once for the same texts.

        A class with several names for CLIP has the mean of their unit features.
        """
        task = SimpleNamespace(class_names=classifier.class_names, words=classifier.words)
        prompts, counts = prompts_by_name(templates, task, format_templates)
        if (prompts, classifier.clip.fingerprint) != (self.prompts, self.texts_backbone):
            unit = functional.normalize(classifier.clip.text_features(prompts).float(), dim=-1)
            each = [mean_over_names(some.unsqueeze(1), counts).squeeze(1) for some in unit.unbind(dim=1)]
            self.texts = functional.normalize(torch.stack(each), dim=-1)
            self.prompts, self.texts_backbone = prompts, classifier.clip.fingerprint
        return self.texts

    def optimizer(self, tuning: Tuning) -> torch.optim.Optimizer:
        """Return a new optimiser of the learned tensors."""
        return torch.optim.Adam(tuning.tensors.values(), lr=self.lr)

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of activations `[B, 1, ...]`; `text` isn't used. Errors are those of `tune`."""
        return self.tune(classifier, x).logits

    def tune(self, classifier: Classifier, x: Tensor) -> TunedBatch:
        """Tune to B images together; afterwards, the adaptation's tensors are restored.

        Args:
            classifier: the adapted CLIP.
            x: activations `[B, 1, ...]` at the image cut.

        Raises:
            UserError: as of `check`.
        """
        adaptation = classifier.adaptation
        self.check(adaptation)
        with rounding_anew(x.device), batched_parameters(adaptation, 1) as tensors:
            tuning = Tuning(classifier, x.flatten(0, 1), tensors)
            with torch.enable_grad():
                self.run(tuning)
            logits = self.answers(tuning)
            tuned = copies(tensors)
        values = {name: torch.stack([step[name] for step in tuning.values]) for name in tuning.values[0]}
        return TunedBatch(logits, tuned, tuning.gradients, values, tuning.averages)

    @torch.no_grad()
    def answers(self, tuning: Tuning) -> Tensor:
        """Compute logits `[B, C]` by the tower as it is now."""
        classifier, features = tuning.classifier, tuning.features()
        with torch.autocast(features.device.type, enabled=False):
            return classifier.clip.scale * features @ self.class_features(classifier).T


def targets(features: Tensor, texts: Tensor, similarities: Similarities = "both") -> Tensor:
    """Compute the targets `[B, B]` of images and texts from unit features `[B, D]` of both, with gradients.

    Each text's targets sum to one over the images, as in the released code, not each image's over the texts.

    Args:
        features: those of the images.
        texts: those of each image's text.
        similarities: those between images, those between texts, or both; they are halved in all three cases.
    """
    parts = {"image": features @ features.T, "text": texts @ texts.T}
    chosen = torch.stack([part for name, part in parts.items() if similarities in ("both", name)])
    return (chosen.sum(dim=0) / 2 / TEMPERATURE).softmax(dim=0)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors without gradients, by name."""
    return {name: value.detach().clone() for name, value in tensors.items()}
