"""The base class of adaptations, and zero-shot classification, which changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError
from clipadapt.interfaces import (
    AdaptedFeatures,
    LabelledFeatures,
    SupportView,
    class_prompts,
    mean_over_names,
    names_by_class,
)

Edit = Callable[[Any], Any]
Head = tuple[float, Tensor]
"""Weight of a head and its logits `[B, C]`."""


@dataclass(frozen=True)
class Capabilities:
    """The properties of an adaptation that other parts of the library depend on.

    Attributes:
        conditional: the text features depend on the image.
        all_tokens: the logits need the image features of all tokens, `[B, 1 + P, D]`: the pooled feature, then the
            features of P patches.
        needs_validation: `fit_closed_form` uses the validation split.
        validation_switch: the argument of the constructor that is false for a fit without the validation split; None
            if there is none.
        unshared_prefix: the prompts may not share the rows of a common prefix; dropout in text blocks needs this.
        supports_batched_params: learned tensors may have one more leading dimension, with an entry for each of several
            images; class embeddings then have that dimension, too. Only the text tower may use these tensors.
        num_fitted_values: the number of values that `fit_closed_form` computes and that are not parameters.
        fixed_classes: the class names that the learned tensors belong to; None if the tensors are not class-specific.
        serves_unseen: other classes than the fixed ones can be named, too; `logits_of_unseen` answers for them.
        weighs_images: `fit_closed_form` counts each image by its weight, and nothing else is learned from images.
        one_name: what is learned stands before one name for CLIP of each class, the first of several.
        several_features: the image features are `[B, M, D]`, M of each image.
        phases: the number of phases of the fit by gradient, which train different parameters one after another.
    """

    conditional: bool = False
    all_tokens: bool = False
    needs_validation: bool = False
    validation_switch: str | None = None
    unshared_prefix: bool = False
    supports_batched_params: bool = False
    num_fitted_values: int = 0
    fixed_classes: tuple[str, ...] | None = None
    serves_unseen: bool = False
    weighs_images: bool = False
    one_name: bool = False
    several_features: bool = False
    phases: int = 1

    @property
    def serves_others(self) -> bool:
        """Return whether other classes than those that were learned can be named."""
        return self.fixed_classes is None or self.serves_unseen

    def merge(self, other: "Capabilities") -> "Capabilities":
        """Return the capabilities of two adaptations composed."""
        fixed = [one for one in (self, other) if one.fixed_classes is not None]
        return Capabilities(
            conditional=self.conditional or other.conditional,
            all_tokens=self.all_tokens or other.all_tokens,
            needs_validation=self.needs_validation or other.needs_validation,
            validation_switch=self.validation_switch or other.validation_switch,
            unshared_prefix=self.unshared_prefix or other.unshared_prefix,
            supports_batched_params=self.supports_batched_params and other.supports_batched_params,
            num_fitted_values=self.num_fitted_values + other.num_fitted_values,
            fixed_classes=self.fixed_classes or other.fixed_classes,
            serves_unseen=bool(fixed) and all(one.serves_unseen for one in fixed),
            weighs_images=self.weighs_images and other.weighs_images,
            one_name=self.one_name or other.one_name,
            several_features=self.several_features or other.several_features,
            phases=max(self.phases, other.phases),
        )


class Adaptation(nn.Module):
    """A learned change to a frozen CLIP: edits at named points, prompts, class embeddings and logits.

    The backbone is not a submodule of the adaptation, so `parameters()` returns only trainable tensors and
    `state_dict()` only learned ones.

    Args:
        clip: the frozen backbone; the constructor reads from the backbone but stores no reference.
        task: class names, templates, and features of the support set, for tensors that are initialised from them.
    """

    capabilities: Capabilities = Capabilities()
    required_points: tuple[str, ...] = ()
    """Points that a backbone's towers must have, such as "text.words"; every backbone has "image.pixels"."""
    averages_raw_text: bool = False
    """Whether `class_embeddings` averages raw text features over prompts, not unit ones."""
    rate_factor: float = 1.0
    """Factor on the learning rate of the adaptation's own tensors."""

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__()
        self.templates = task.templates
        self.class_words = task.words
        self.task_classes = frozenset(task.class_names)

    def list_parts(self) -> list["Adaptation"]:
        """Return the adaptations that this one is composed of; itself alone if it isn't composed."""
        return [self]

    @property
    def has_parameters(self) -> bool:
        """Return whether the adaptation has parameters, which gradient descent trains."""
        return any(True for _ in self.parameters())

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the points that a backbone's towers must have, given the other arguments of the constructor."""
        return cls.required_points

    def find_names(self, classes: Sequence[str], words: Mapping[str, Sequence[str]] | None = None) -> list[list[str]]:
        """Return the names for CLIP that each class has prompts for.

        Args:
            classes: labels of the classes.
            words: names for CLIP of classes that have others than their labels; None for the task's.
        """
        names = names_by_class(classes, self.class_words if words is None else words)
        return [some[:1] for some in names] if self.capabilities.one_name else names

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the prompts of each name for CLIP: the task's templates with the name, underscores as spaces.

        Every name has the same number of prompts.
        """
        return [[*prompts] for prompts in class_prompts(self.templates, names)]

    def frozen_text(self, clip: DualEncoder, classes: Sequence[str]) -> Tensor:
        """Return text features `[C, templates, D]` of the frozen text tower, with `merge_names` applied."""
        names = self.find_names(classes)
        return self.merge_names(clip.text_features(self.prompts([*chain.from_iterable(names)])), [*map(len, names)])

    def reference_features(self, clip: DualEncoder, names: Sequence[str]) -> Tensor | None:
        """Return features `[N, D]` of the frozen text tower that text edits read, one of each name for CLIP.

        The edits find them in `Layout.references`. None unless overridden: the edits read none.
        """
        return None

    def merge_names(self, text: Tensor, counts: Sequence[int]) -> Tensor:
        """Return text features to give to `class_embeddings`, where classes have several names for CLIP.

        A class then has one feature, the mean over the prompts of all its names. Where each class has one name, `text`
        is returned as it is.

        Args:
            text: text features `[..., N, templates, D]` of N names, class by class.
            counts: how many names each of the C classes has.
        """
        if max(counts) == 1:
            return text
        return mean_over_names(text.float() if self.averages_raw_text else functional.normalize(text, dim=-1), counts)

    def declare(self, **changes: Any) -> None:
        """Set some of this adaptation's capabilities, by name."""
        self.capabilities = replace(self.capabilities, **changes)

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the functions to apply to activations at points of a tower, by point; none unless overridden.

        Args:
            tower: name of the tower, such as "image" or "text".
            image: image features `[B, D]`; passed for the text tower of a conditional adaptation only.
        """
        return {}

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return modules that replace frozen stages of a tower, by point; none unless overridden.

        A replaced transformer block is run in the same way as the frozen block.
        """
        return {}

    def cut(self, name: str, tower: Tower) -> str:
        """Return the earliest point of a tower that is edited or replaced; `features` if there is none.

        Raises:
            MissingPoint: the tower lacks a point that the adaptation edits or replaces.
        """
        return tower.cut([*self.edits(name), *self.stages(name)])

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return class embeddings `[..., C, D]` of text features `[..., C, templates, D]`.

        The features are normalised, averaged over the templates, and normalised again; those of several names of a
        class are averaged together with them before, in `merge_names`.
        """
        return functional.normalize(functional.normalize(text, dim=-1).mean(dim=-2), dim=-1)

    def known_embeddings(self, embeddings: Tensor, classes: Sequence[str]) -> Tensor:
        """Return class embeddings `[..., C, D]`, with learned ones in the place of those of classes that have them.

        Args:
            embeddings: the class embeddings from the text, as of `class_embeddings`.
            classes: the C classes; unlike those of `fixed_classes`, not all of them need to be known.
        """
        return embeddings

    def context_vectors(self) -> Tensor | None:
        """Return learned vectors `[..., n, W]` in the place of words of the prompts; None if there are none."""
        return None

    def support_features(self) -> LabelledFeatures | None:
        """Return unit features of support images that test-time methods may use; None if none are kept."""
        return None

    def begin_phase(self, phase: int, learned: AdaptedFeatures) -> None:
        """Set initial values that are computed from adapted features; nothing unless overridden.

        It is called before the epochs of each phase of a fit by gradient, also of a fit with a single one.

        Args:
            phase: the phase that begins, counted from 0.
            learned: features of what is learned so far.
        """

    def trained_in(self, phase: int) -> list[nn.Parameter]:
        """Return the parameters that are trained in a phase of the fit; all in the first one unless overridden."""
        return [] if phase else list(self.parameters())

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Fit values without gradients, after any training by gradient descent; nothing unless overridden."""

    def trainable_names(self) -> list[str]:
        """Return the names of the tensors that only gradient descent fits."""
        return (
            []
            if type(self).fit_closed_form is not Adaptation.fit_closed_form
            else [name for name, _ in self.named_parameters()]
        )

    def export(self) -> dict[str, bytes]:
        """Return the learned tensors in other tools' file formats, by path in the run's directory.

        There are none unless overridden.
        """
        return {}

    def interpolate(self, ratio: float) -> None:
        """Interpolate the learned tensors with their initial values, as WiSE-FT does.

        Args:
            ratio: weight of the learned tensors: 1 leaves them as they are, 0 restores the initial values.

        Raises:
            UserError: the adaptation has learned tensors without initial values to interpolate with.
        """
        if self.state_dict():
            raise UserError(f"{type(self).__name__} has no start to go back to: leave out method.interpolation")

    def squared_distance(self) -> Tensor:
        """Return the squared distance of the learned tensors from their initial values, summed over all elements.

        Raises:
            UserError: the adaptation has no initial values to compare with.
        """
        raise UserError(
            f"{type(self).__name__} has no start whose distance could be measured: take another objective, or an "
            "adaptation that trains weights of the towers, such as projection_finetuning"
        )

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`, scaled cosine similarities.

        Args:
            image: image features `[B, D]`.
            text: class embeddings `[C, D]` or `[B, C, D]`.
            scale: the backbone's logit scale.
        """
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return scale * (image.unsqueeze(-2) @ text.mT).squeeze(-2)

    def heads(self, image: Tensor, text: Tensor, scale: float) -> list[Head]:
        """Return the heads whose logits `logits` adds up; one unless overridden. Arguments as of `logits`."""
        return [(1.0, self.logits(image, text, scale))]

    def text_logits(self, text: Tensor) -> Tensor | None:
        """Return logits `[..., C, C]` of class embeddings `[..., C, D]` as samples; None unless overridden."""
        return None

    def logits_of_unseen(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` where not all classes are the task's; those of `logits` unless overridden."""
        return self.logits(image, text, scale)


class ZeroShot(Adaptation):
    """Zero-shot CLIP with hand-written prompts (Radford et al., ICML 2021, arXiv:2103.00020, section 3.1.4).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` to use instead of the task's; several templates form an ensemble.
        keep_hyphens: whether to keep hyphens in class names; if not, spaces replace them.

    Raises:
        UserError: a template has no `{}`.
    """

    capabilities = Capabilities(supports_batched_params=True)

    def __init__(
        self, clip: DualEncoder, task: SupportView, templates: list[str] | None = None, keep_hyphens: bool = True
    ) -> None:
        super().__init__(clip, task)
        self.templates = templates or task.templates
        self.keep_hyphens = keep_hyphens
        if any("{}" not in template for template in self.templates):
            raise UserError(f"every template needs a {{}} for the class name: {self.templates}")

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the prompts of each class: the templates with the class name."""
        return super().prompts(list(names) if self.keep_hyphens else [name.replace("-", " ") for name in names])


class FirstTemplate(ZeroShot):
    """Zero-shot CLIP with the first of its templates alone, as in TransCLIP (Zanella et al., NeurIPS 2024).

    Of several templates the authors' code takes the first (arXiv:2406.01837).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` to use instead of the task's.
        keep_hyphens: whether to keep hyphens in class names; if not, spaces replace them.
    """

    def __init__(
        self, clip: DualEncoder, task: SupportView, templates: list[str] | None = None, keep_hyphens: bool = True
    ) -> None:
        super().__init__(clip, task, templates, keep_hyphens)
        self.templates = self.templates[:1]
