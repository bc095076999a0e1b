"""Where the network is touched: what every adaptation may say, and zero-shot, which touches nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError
from clipadapt.interfaces import AdaptedFeatures, SupportView, class_prompts

Edit = Callable[[Any], Any]


@dataclass(frozen=True)
class Capabilities:
    """The properties of an adaptation that other parts of the library ask about.

    Attributes:
        conditional: the text features depend on the image.
        all_tokens: it reads image features of all tokens, `[B, 1 + P, D]`: the pooled one, then those of P patches.
        needs_validation: `fit_closed_form` uses the validation split.
        unshared_prefix: no prompt shares the rows of a common start with another, as dropout in text blocks needs it.
        supports_batched_params: learned tensors may have one more leading dimension, an entry for each of several
            images, which class embeddings then have, too; only the text side may read them.
        num_fitted_values: how many numbers `fit_closed_form` finds that are no parameters.
        fixed_classes: the class names that the learned tensors belong to; None where they don't belong to classes.
    """

    conditional: bool = False
    all_tokens: bool = False
    needs_validation: bool = False
    unshared_prefix: bool = False
    supports_batched_params: bool = False
    num_fitted_values: int = 0
    fixed_classes: tuple[str, ...] | None = None

    def merge(self, other: "Capabilities") -> "Capabilities":
        """Return the capabilities of two adaptations composed."""
        return Capabilities(
            conditional=self.conditional or other.conditional,
            all_tokens=self.all_tokens or other.all_tokens,
            needs_validation=self.needs_validation or other.needs_validation,
            unshared_prefix=self.unshared_prefix or other.unshared_prefix,
            supports_batched_params=self.supports_batched_params and other.supports_batched_params,
            num_fitted_values=self.num_fitted_values + other.num_fitted_values,
            fixed_classes=self.fixed_classes or other.fixed_classes,
        )


class Adaptation(nn.Module):
    """Edits at named points of a frozen CLIP, its prompts, and how features become logits.

    The backbone is no submodule of it: `parameters()` is what trains, `state_dict()` is what was learned.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names, templates, and features of the support set for what starts from them.
    """

    capabilities: Capabilities = Capabilities()
    required_points: tuple[str, ...] = ()
    """Points that a backbone's towers must have, such as "text.words"; every backbone has "image.pixels"."""

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__()
        self.templates = task.templates

    @property
    def has_parameters(self) -> bool:
        """Whether anything is learned by gradient."""
        return any(True for _ in self.parameters())

    @classmethod
    def points_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the points that a backbone's towers must have, given the other arguments of the constructor."""
        return cls.required_points

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Prompts of each class, as many for all: the task's templates with the name, underscores as spaces."""
        return [[*prompts] for prompts in class_prompts(self.templates, names)]

    def declare(self, **changes: Any) -> None:
        """Change some of this adaptation's capabilities, by name."""
        self.capabilities = replace(self.capabilities, **changes)

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return functions of the activation at points of a tower; none unless overridden.

        Args:
            tower: name of the tower, such as "image" or "text".
            image: image features `[B, D]`, given to the text tower of a conditional adaptation.
        """
        return {}

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return modules that replace frozen stages of a tower, by point; none unless overridden.

        A transformer block runs as the frozen one does.
        """
        return {}

    def cut(self, name: str, tower: Tower) -> str:
        """Return the earliest point of a tower that is edited or replaced, `features` where none is.

        Raises:
            MissingPoint: a point that the tower lacks.
        """
        return tower.cut([*self.edits(name), *self.stages(name)])

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Text features `[..., C, templates, D]` to class embeddings `[..., C, D]`: the unit mean of unit features."""
        return functional.normalize(functional.normalize(text, dim=-1).mean(dim=-2), dim=-1)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Find what is found without gradients, once gradients have been followed; nothing unless overridden."""

    def trainable_names(self) -> list[str]:
        """Names of the tensors that only a fit by gradient finds."""
        return (
            []
            if type(self).fit_closed_form is not Adaptation.fit_closed_form
            else [name for name, _ in self.named_parameters()]
        )

    def export(self) -> dict[str, bytes]:
        """What was learned as other tools read it: files of a run's directory; none unless overridden."""
        return {}

    def interpolate(self, ratio: float) -> None:
        """Move what was learned towards its start, as WiSE-FT does: ratio 1 keeps it, 0 undoes it.

        Raises:
            UserError: there is no start to go back to.
        """
        if self.state_dict():
            raise UserError(f"{type(self).__name__} has no start to go back to: leave out method.interpolation")

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Image features `[B, D]` and class embeddings `[C, D]` or `[B, C, D]` to logits `[B, C]`: scaled cosines."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return scale * (image.unsqueeze(-2) @ text.mT).squeeze(-2)


class ZeroShot(Adaptation):
    """CLIP as it is, with hand-written prompts (Radford et al., ICML 2021, arXiv:2103.00020, section 3.1.4).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        templates: sentences with `{}` in place of the task's; more than one make an ensemble.
        keep_hyphens: whether hyphens in class names stay; spaces if not.
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
        """The templates with each class name."""
        return super().prompts(list(names) if self.keep_hyphens else [name.replace("-", " ") for name in names])


class Composed(Adaptation):
    """Several adaptations as one: edits at the same point compose in the order given.

    Args:
        clip: the frozen backbone.
        task: class names and templates, as the parts have them.
        parts: adaptations by name; learned tensors are named after them.

    Raises:
        UserError: two of them want to replace the same stage, or to write the prompts, the class
            embeddings or the logits.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, parts: Mapping[str, Adaptation]) -> None:
        super().__init__(clip, task)
        self.parts = nn.ModuleDict(parts)
        self.capabilities = reduce(Capabilities.merge, (part.capabilities for part in parts.values()))
        self.own = {method: self._only(method) for method in ("prompts", "class_embeddings", "logits")}
        self.stages("text")
        if self.capabilities.all_tokens and "tokens" in self.stages("image"):
            raise UserError(
                "these adaptations can't be combined: one needs the features of all image tokens, and another replaces "
                "what reads them"
            )

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """The prompts of the one part that writes them."""
        return self.own["prompts"].prompts(names)

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Class embeddings as the one part with a way of its own makes them."""
        return self.own["class_embeddings"].class_embeddings(text)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Logits as the one part with a way of its own makes them."""
        return self.own["logits"].logits(image, text, scale)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Have every part solve its own, in their order."""
        for part in self._parts():
            part.fit_closed_form(learned)

    def interpolate(self, ratio: float) -> None:
        """Move what every part learned towards its start."""
        for part in self._parts():
            if part.state_dict():
                part.interpolate(ratio)

    def trainable_names(self) -> list[str]:
        """Those of every part, after its name."""
        return [f"{name}.{tensor}" for name, part in self._items() for tensor in part.trainable_names()]

    def export(self) -> dict[str, bytes]:
        """The parts' files, each in a folder of its part's name."""
        return {f"{name}/{path}": content for name, part in self._items() for path, content in part.export().items()}

    def _only(self, method: str) -> Adaptation:
        """The one part that has its own way of doing this; the first part if none has."""
        own = {
            name: part for name, part in self._items() if getattr(type(part), method) is not getattr(Adaptation, method)
        }
        if len(own) > 1:
            raise UserError(f"{' and '.join(own)} can't be combined: each has {method} of its own")
        return next(iter([*own.values(), *self._parts()]))

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the parts' edits, composed."""
        return chain([part.edits(tower, image) for part in self._parts()])

    def stages(self, tower: str) -> Mapping[str, Edit]:
        """Return the parts' stage replacements.

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
    """Edits of several adaptations as one set; those at the same point run one after another."""
    chained: dict[str, Edit] = {}
    for own in edits:
        for point, edit in own.items():
            chained[point] = _then(chained[point], edit) if point in chained else edit
    return chained


def _then(first: Edit, second: Edit) -> Edit:
    return lambda x: second(first(x))
